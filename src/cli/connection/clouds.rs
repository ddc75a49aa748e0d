//! `clouds.yaml` and `secure.yaml`: where they are looked for, and what is read of them. The rules are openstacksdk's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::cli::error::{CliError, Result};

/// The variables of the environment by their names.
pub type Environment = BTreeMap<String, String>;

/// What is said of one cloud. Keys have underscores, whatever the file has.
pub type Cloud = Map<String, Value>;

/// All clouds by their names.
pub type Clouds = BTreeMap<String, Cloud>;

/// Reads `clouds.yaml`, with what `secure.yaml` has beside it. None is none.
///
/// # Errors
/// When a file is there and cannot be understood, or the variable that names one names nothing.
pub fn read(environment: &Environment, here: &Path) -> Result<Clouds> {
    let open = file(environment, here, "OS_CLIENT_CONFIG_FILE", "clouds")?;
    let secure = file(environment, here, "OS_CLIENT_SECURE_FILE", "secure")?;
    let mut clouds = open.map(|path| clouds_of(&path)).transpose()?.unwrap_or_default();
    for (name, secrets) in secure.map(|path| clouds_of(&path)).transpose()?.unwrap_or_default() {
        merge(clouds.entry(name).or_default(), secrets);
    }
    Ok(clouds)
}

/// The first file of this kind that is there.
fn file(environment: &Environment, here: &Path, variable: &str, stem: &str) -> Result<Option<PathBuf>> {
    if let Some(named) = environment.get(variable).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(named);
        if !path.exists() {
            return Err(CliError::Usage(format!(
                "{variable} is '{}', and there is no such file",
                named.escape_debug()
            )));
        }
        return Ok(Some(path));
    }
    let mut places = vec![here.to_owned()];
    if let Some(config) = environment.get("XDG_CONFIG_HOME").filter(|path| !path.is_empty()) {
        places.push(Path::new(config).join("openstack"));
    }
    if let Some(home) = environment.get("HOME").filter(|path| !path.is_empty()) {
        places.push(Path::new(home).join(".config/openstack"));
    }
    places.push(PathBuf::from("/etc/openstack"));
    let names = ["yaml", "yml", "json"].map(|ending| format!("{stem}.{ending}"));
    let candidates = places.iter().flat_map(|place| names.iter().map(move |name| place.join(name)));
    // One that we may not read counts as not there, as it does for openstacksdk: an operator's in /etc.
    Ok(candidates.into_iter().find(|path| std::fs::File::open(path).is_ok()))
}

fn clouds_of(path: &Path) -> Result<Clouds> {
    let wrong = |why: String| CliError::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    // Its place, but not its words: a secret may be among them.
    let misread = |error: serde_yaml_ng::Error| match error.location() {
        Some(place) => wrong(format!("is not YAML at line {}, column {}", place.line(), place.column())),
        None => wrong("is not YAML with names and values".to_owned()),
    };
    let mut yaml: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).map_err(misread)?;
    yaml.apply_merge().map_err(misread)?;
    let value = serde_json::to_value(yaml).map_err(|_| wrong("has a name that is no text".to_owned()))?;
    let Value::Object(mut whole) = value else { return Err(wrong("is empty or holds no names and values".to_owned())) };
    match whole.remove("clouds") {
        Some(Value::Object(clouds)) => clouds
            .into_iter()
            .map(|(name, cloud)| {
                let Value::Object(cloud) = cloud else {
                    return Err(wrong(format!("the cloud '{}' is no set of names and values", name.escape_debug())));
                };
                Ok((name, normalized(cloud)))
            })
            .collect(),
        Some(Value::Null) | None => Ok(Clouds::new()),
        Some(_) => Err(wrong("'clouds' is no set of names and values".to_owned())),
    }
}

/// The same with underscores in all its keys.
pub fn normalized(cloud: Cloud) -> Cloud {
    cloud
        .into_iter()
        .map(|(key, value)| {
            let value = if let Value::Object(inner) = value { Value::Object(normalized(inner)) } else { value };
            (key.replace('-', "_"), value)
        })
        .collect()
}

/// Lays `over` on a cloud: sets of names and values are merged, all else is replaced.
pub fn merge(cloud: &mut Cloud, over: Cloud) {
    for (key, value) in over {
        match (cloud.get_mut(&key), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => merge(inner, value),
            (_, value) => {
                cloud.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn environment(pairs: &[(&str, &Path)]) -> Environment {
        pairs.iter().map(|(name, path)| ((*name).to_owned(), path.display().to_string())).collect()
    }

    fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
        std::fs::create_dir_all(directory).unwrap();
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_nearest_file_is_read_and_secrets_come_from_beside() {
        let (here, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = home.path().join(".config/openstack");
        write(&config, "clouds.yaml", "clouds: {far: {auth: {auth-url: http://far, username: me}}}");
        write(&config, "secure.yaml", "clouds: {far: {auth: {password: s}}, other: {verify: false}}");
        let variables = environment(&[("HOME", home.path())]);
        let clouds = read(&variables, here.path()).unwrap();
        assert_eq!(
            Value::Object(clouds["far"].clone()),
            json!({"auth": {"auth_url": "http://far", "username": "me", "password": "s"}})
        );
        assert_eq!(clouds["other"]["verify"], false);

        write(here.path(), "clouds.yml", "x: &base {region_name: r}\nclouds: {near: {<<: *base, interface: admin}}");
        let clouds = read(&variables, here.path()).unwrap();
        assert!(!clouds["far"].contains_key("auth") || clouds["far"]["auth"].get("username").is_none());
        assert_eq!(Value::Object(clouds["near"].clone()), json!({"region_name": "r", "interface": "admin"}));

        let named = write(home.path(), "mine.json", r#"{"clouds": {"named": {}}}"#);
        let variables = environment(&[("HOME", here.path()), ("OS_CLIENT_CONFIG_FILE", &named)]);
        assert!(read(&variables, here.path()).unwrap().contains_key("named"));
        assert!(read(&environment(&[]), &config.join("nothing")).is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_its_words() {
        let here = tempfile::tempdir().unwrap();
        for (text, part) in [
            ("clouds: {a: {auth: {password: hunter2", "is not YAML at line"),
            ("", "is empty"),
            ("- a", "holds no names"),
            ("clouds: [hunter2]", "'clouds' is no set"),
            ("clouds: {a: hunter2}", "the cloud 'a' is no set"),
        ] {
            let path = write(here.path(), "clouds.yaml", text);
            let error = read(&environment(&[]), here.path()).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let said = error.to_string();
            assert!(said.contains(part) && said.contains(&path.display().to_string()), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let missing = environment(&[("OS_CLIENT_CONFIG_FILE", Path::new("/nowhere"))]);
        assert!(read(&missing, here.path()).unwrap_err().to_string().contains("no such file"));
    }
}
