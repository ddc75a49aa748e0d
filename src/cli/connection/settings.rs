//! Options, environment and files made into one answer: where the service is and who calls it. The order is
//! openstacksdk's: an option wins; then what `clouds.yaml` says of the cloud that was chosen; where none was, the `OS_*`
//! variables stand for a cloud of their own. Only `OS_REGION_NAME` and `OS_ENDPOINT` are looked at beside a chosen cloud.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::clouds::{Cloud, Clouds, Environment};
use crate::cli::error::{CliError, Result};
use crate::openstack::TlsOptions;
use crate::openstack::keystone::{Credentials, Domain, Named, Scope};

/// Variables that choose or change a cloud and are none themselves.
const SELECTORS: [&str; 6] =
    ["OS_CLOUD", "OS_REGION_NAME", "OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE", "OS_CLOUD_NAME", "OS_ENDPOINT"];

/// Beginnings of variables that belong to test programs.
const OTHERS: [&str; 3] = ["OS_TEST", "OS_STD", "OS_LOG"];

/// Names that mean the same, the last that is set wins; and unlike all others they win outside of `auth` over inside.
const MAPPED: [(&str, &[&str]); 8] = [
    ("domain_id", &["domain_id"]),
    ("domain_name", &["domain_name"]),
    ("user_domain_id", &["user_domain_id"]),
    ("user_domain_name", &["user_domain_name"]),
    ("project_domain_id", &["project_domain_id"]),
    ("project_domain_name", &["project_domain_name"]),
    ("project_id", &["tenant_id", "project_id"]),
    ("project_name", &["tenant_name", "project_name"]),
];

/// What was said of a connection, put together.
#[derive(Clone)]
pub struct Settings {
    options: BTreeMap<&'static str, String>,
    cloud: Cloud,
    /// The cloud's name in messages.
    name: String,
    region: Option<String>,
    endpoint: Option<String>,
}

/// How the caller shows who it is.
#[derive(Debug)]
pub enum Identity {
    /// Not at all: the service believes the project that it is told.
    None {
        /// The project's id.
        project: Option<String>,
    },
    /// By Keystone.
    Keystone {
        /// Its address.
        auth_url: String,
        /// Who calls.
        credentials: Credentials,
        /// What for.
        scope: Scope,
    },
}

impl Settings {
    /// Reads the files and puts everything together. `options` have the names of keys of `clouds.yaml`; `here` is where
    /// that is looked for first.
    ///
    /// # Errors
    /// When a file is wrong, or names no such cloud or region.
    pub fn read(
        options: impl IntoIterator<Item = (&'static str, String)>,
        environment: &Environment,
        here: &Path,
    ) -> Result<Self> {
        let options: BTreeMap<_, _> = options.into_iter().collect();
        // Who needs no file is not stopped by one that is broken.
        let clouds = match options.get("auth_type").map(String::as_str) {
            Some("none") if !options.contains_key("cloud") => Clouds::new(),
            _ => super::clouds::read(environment, here)?,
        };
        Self::new(options, environment, clouds)
    }

    /// Chooses the cloud and lays the options over it. `options` have the names of keys of `clouds.yaml`.
    ///
    /// # Errors
    /// When there is no such cloud or region.
    pub fn new(options: BTreeMap<&'static str, String>, environment: &Environment, mut clouds: Clouds) -> Result<Self> {
        let variable = |name: &str| environment.get(name).filter(|text| !text.is_empty()).cloned();
        let from_environment = environment_cloud(environment);
        let wanted = options.get("cloud").cloned().or_else(|| variable("OS_CLOUD"));
        let (name, cloud) = match (wanted, from_environment) {
            (Some(wanted), _) => match clouds.remove(&wanted) {
                Some(cloud) => (format!("cloud '{wanted}'"), cloud),
                None => return Err(no_such_cloud(&wanted, &clouds)),
            },
            (None, Some(cloud)) => ("environment".to_owned(), cloud),
            // Where there is but one, it is meant.
            (None, None) if clouds.len() == 1 => match clouds.pop_first() {
                Some((name, cloud)) => (format!("cloud '{name}'"), cloud),
                None => (String::new(), Cloud::new()),
            },
            (None, None) => ("options".to_owned(), Cloud::new()),
        };
        let wanted = options.get("region_name").cloned().or_else(|| variable("OS_REGION_NAME"));
        let (region, cloud) = region(&name, cloud, wanted)?;
        let endpoint = options.get("endpoint").cloned().or_else(|| variable("OS_ENDPOINT"));
        let mut settings = Self { options, cloud, name, region, endpoint };
        settings.endpoint = settings.endpoint.clone().or_else(|| settings.top("function_endpoint_override"));
        Ok(settings)
    }

    /// The address of the service, where it was given: not to be looked for in the catalog.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The region of the endpoint.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Which of the service's endpoints, best first.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        let words = |value: &Value| match value.as_array() {
            Some(words) => words.iter().filter_map(text).collect(),
            None => text(value).map(|text| vec![text]).unwrap_or_default(),
        };
        let option = self.options.get("interface").cloned().map(Value::String);
        let found = option.as_ref().or_else(|| self.cloud.get("interface")).or_else(|| self.cloud.get("endpoint_type"));
        found.map(words).filter(|words: &Vec<_>| !words.is_empty()).unwrap_or_else(|| vec!["public".to_owned()])
    }

    /// Whom to trust.
    #[must_use]
    pub fn tls(&self) -> TlsOptions {
        let path = |key: &str| self.options.get(key).cloned().or_else(|| self.top(key)).map(PathBuf::from);
        let flag = |key: &str| self.options.get(key).cloned().or_else(|| self.top(key)).map(|text| truth(&text));
        let verifies = flag("verify").unwrap_or(true) || self.options.contains_key("cacert");
        let insecure = flag("insecure").unwrap_or(false) || !verifies;
        TlsOptions {
            cafile: path("cacert").filter(|_| !insecure),
            certfile: path("cert"),
            keyfile: path("key"),
            insecure,
        }
    }

    /// The word for the way to authenticate, where one was given.
    fn auth_type(&self) -> Option<String> {
        let option = self.options.get("auth_type").cloned();
        option.or_else(|| self.top("auth_type")).or_else(|| self.top("auth_plugin"))
    }

    /// Who calls.
    ///
    /// # Errors
    /// When something is missing; the text says what to set.
    pub fn identity(&self) -> Result<Identity> {
        let has = |key: &str| self.get(key).is_some();
        let kind = match self.auth_type() {
            Some(kind) => kind,
            None if !has("auth_url") && self.endpoint.is_some() => "none".to_owned(),
            None if has("application_credential_secret") => "v3applicationcredential".to_owned(),
            None if has("token") && !has("password") => "v3token".to_owned(),
            None => "password".to_owned(),
        };
        if kind == "none" {
            return Ok(Identity::None { project: self.get("project_id") });
        }
        if !matches!(kind.as_str(), "password" | "v3password" | "token" | "v3token" | "v3applicationcredential") {
            return Err(CliError::Usage(format!(
                "OS_AUTH_TYPE is '{}': it can be password, token, v3applicationcredential or none",
                kind.escape_debug()
            )));
        }
        if self.cloud.keys().any(|key| key == "profile" || key == "cloud") && !has("auth_url") {
            return Err(CliError::Usage(format!(
                "the {} names a profile, which this program does not know: set auth_url and region_name themselves",
                self.name
            )));
        }
        let Some(auth_url) = self.get("auth_url") else { return Err(self.nothing_said(&kind)) };
        if has("system_scope") {
            let why = "a system scope has no project, and functions are in one: set OS_PROJECT_NAME or OS_PROJECT_ID";
            return Err(CliError::Usage(why.to_owned()));
        }
        let is_credential = kind == "v3applicationcredential";
        let credentials = match kind.as_str() {
            "v3applicationcredential" => {
                let secret = self.need("application_credential_secret", &kind)?;
                match self.get("application_credential_id") {
                    Some(id) => Credentials::ApplicationCredential { id, secret },
                    None => {
                        let name = self.need("application_credential_name", &kind)?;
                        Credentials::NamedApplicationCredential { name, user: self.user(&kind)?, secret }
                    }
                }
            }
            "token" | "v3token" => Credentials::Token(self.need("token", &kind)?),
            _ => Credentials::Password { user: self.user(&kind)?, password: self.need("password", &kind)? },
        };
        let scope = match (self.get("trust_id"), is_credential) {
            (Some(_), true) => {
                return Err(CliError::Usage("an application credential cannot act on a trust".to_owned()));
            }
            (Some(trust), false) => Scope::Trust(trust),
            (None, true) => Scope::Unscoped,
            (None, false) => Scope::Project(self.project(&kind)?),
        };
        Ok(Identity::Keystone { auth_url, credentials, scope })
    }

    fn user(&self, kind: &str) -> Result<Named> {
        match self.by_id_or_name("user_id", "username") {
            Some((id, true)) => Ok(Named::Id(id)),
            Some((name, false)) => Ok(Named::Name(name, self.domain("user_domain_id", "user_domain_name"))),
            None => Err(self.missing(&["username", "user_id"], kind)),
        }
    }

    fn project(&self, kind: &str) -> Result<Named> {
        match self.by_id_or_name("project_id", "project_name") {
            Some((id, true)) => Ok(Named::Id(id)),
            Some((name, false)) => Ok(Named::Name(name, self.domain("project_domain_id", "project_domain_name"))),
            None => Err(self.missing(&["project_name", "project_id"], kind)),
        }
    }

    fn domain(&self, id: &str, name: &str) -> Domain {
        for (id, name) in [(id, name), ("domain_id", "domain_name"), ("default_domain_id", "default_domain_name")] {
            match self.by_id_or_name(id, name) {
                Some((id, true)) => return Domain::Id(id),
                Some((name, false)) => return Domain::Name(name),
                None => {}
            }
        }
        Domain::Id("default".to_owned())
    }

    /// The id, or else the name, and which of them it is; a name that was given as an option wins over an id of the
    /// cloud.
    fn by_id_or_name(&self, id: &str, name: &str) -> Option<(String, bool)> {
        let option = |key: &str| self.options.get(key).cloned();
        let option = option(id).map(|id| (id, true)).or_else(|| option(name).map(|name| (name, false)));
        option.or_else(|| self.get(id).map(|id| (id, true))).or_else(|| self.get(name).map(|name| (name, false)))
    }

    /// What was said of a key of `auth`.
    pub fn get(&self, key: &str) -> Option<String> {
        if let Some(option) = self.options.get(key) {
            return Some(option.clone());
        }
        let inner = |key: &str| self.cloud.get("auth").and_then(|auth| auth.get(key)).and_then(text);
        match (MAPPED.iter().find(|(name, _)| *name == key), key) {
            (Some((_, names)), _) => names.iter().rev().find_map(|key| self.top(key).or_else(|| inner(key))),
            (None, "token") => {
                let names = ["token", "auth_token"];
                names.iter().find_map(|key| self.top(key).or_else(|| inner(key)))
            }
            (None, key) => inner(key).or_else(|| self.top(key)),
        }
    }

    fn top(&self, key: &str) -> Option<String> {
        self.cloud.get(key).and_then(text)
    }

    fn need(&self, key: &str, kind: &str) -> Result<String> {
        self.get(key).ok_or_else(|| self.missing(&[key], kind))
    }

    fn missing(&self, keys: &[&str], kind: &str) -> CliError {
        let variables: Vec<_> = keys.iter().map(|key| format!("OS_{}", key.to_ascii_uppercase())).collect();
        let said = match self.name.strip_prefix("cloud ") {
            Some(cloud) => format!("{} is not in the cloud {cloud}", keys.join(" or ")),
            None => format!("{} is not set", variables.join(" or ")),
        };
        CliError::Usage(format!("{said}: it is needed to authenticate by {kind}"))
    }

    /// Without Keystone and its catalog, the address has to be given.
    #[must_use]
    pub fn without_endpoint(&self) -> CliError {
        CliError::Usage(
            "the service's address is not known: OS_AUTH_TYPE=none needs OS_ENDPOINT, such as http://HOST:9070"
                .to_owned(),
        )
    }

    /// For who has set nothing, or not enough to see what is meant.
    fn nothing_said(&self, kind: &str) -> CliError {
        if self.name == "options" {
            return CliError::Usage(
                "the service's address is not known: name a cloud of clouds.yaml by OS_CLOUD, or set OS_AUTH_URL and \
                 what else is in an openrc; for a service without Keystone set OS_AUTH_TYPE=none and \
                 OS_ENDPOINT=http://HOST:9070"
                    .to_owned(),
            );
        }
        self.missing(&["auth_url"], kind)
    }
}

/// The variables as a cloud of their own; none: they say nothing of one.
fn environment_cloud(environment: &Environment) -> Option<Cloud> {
    let ours: Vec<_> = environment
        .iter()
        .filter(|(name, _)| name.starts_with("OS_") && !OTHERS.iter().any(|other| name.starts_with(other)))
        // The services' own form of options in variables.
        .filter(|(name, value)| !name.contains("__") && !value.is_empty())
        .collect();
    if ours.iter().all(|(name, _)| SELECTORS.contains(&name.as_str())) {
        return None;
    }
    Some(ours.into_iter().map(|(name, value)| (name[3..].to_ascii_lowercase(), Value::from(value.as_str()))).collect())
}

/// Chooses the region, and lays what the cloud says of it over the rest.
fn region(name: &str, mut cloud: Cloud, wanted: Option<String>) -> Result<(Option<String>, Cloud)> {
    let mut known: Vec<(String, Cloud)> = match (cloud.remove("regions"), cloud.get("region_name")) {
        (Some(Value::Array(regions)), _) => regions
            .into_iter()
            .filter_map(|region| {
                let Value::Object(mut region) = region else { return Some((text(&region)?, Cloud::new())) };
                let name = region.get("name").and_then(text)?;
                let values = match region.remove("values") {
                    Some(Value::Object(values)) => super::clouds::normalized(values),
                    _ => Cloud::new(),
                };
                Some((name, values))
            })
            .collect(),
        (_, Some(Value::Array(names))) => names.iter().filter_map(text).map(|name| (name, Cloud::new())).collect(),
        (_, Some(one)) => {
            let names = text(one).unwrap_or_default();
            names.split(',').filter(|name| !name.is_empty()).map(|name| (name.to_owned(), Cloud::new())).collect()
        }
        (_, None) => Vec::new(),
    };
    let place = match &wanted {
        None => 0,
        // A single name is a default, not a choice.
        Some(wanted) if known.len() <= 1 && known.iter().all(|(name, _)| name != wanted) => {
            return Ok((Some(wanted.clone()), cloud));
        }
        Some(wanted) => known.iter().position(|(name, _)| name == wanted).ok_or_else(|| {
            let all: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
            let wanted = wanted.escape_debug();
            CliError::Usage(format!("the {name} has no region '{wanted}', only: {}", all.join(", ")))
        })?,
    };
    if place >= known.len() {
        return Ok((None, cloud));
    }
    let (region, values) = known.swap_remove(place);
    super::clouds::merge(&mut cloud, values);
    Ok((Some(region), cloud))
}

fn no_such_cloud(wanted: &str, clouds: &Clouds) -> CliError {
    let wanted = wanted.escape_debug();
    if clouds.is_empty() {
        return CliError::Usage(format!(
            "there is no cloud '{wanted}': no clouds.yaml was found, or it names no cloud"
        ));
    }
    let all: Vec<_> = clouds.keys().map(String::as_str).collect();
    CliError::Usage(format!("there is no cloud '{wanted}' in clouds.yaml, only: {}", all.join(", ")))
}

/// A value as text; none: it is empty, or no single value.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// YAML's words for yes, of before and after its version 1.2.
fn truth(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1")
}

#[cfg(test)]
mod tests;
