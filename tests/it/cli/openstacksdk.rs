//! What `clouds.yaml`, the environment and options mean, compared with openstacksdk as it is published.

use std::path::Path;
use std::process::Stdio;

use lambda_openstack::cli::connection::Settings;
use lambda_openstack::cli::connection::settings::Identity;
use lambda_openstack::openstack::keystone::{Credentials, Domain, Named, Scope};
use serde_json::{Value, json};
use tokio::process::Command;

/// Files, environment and options; the last by the names that openstacksdk has for them.
struct Case {
    clouds: &'static str,
    secure: &'static str,
    environment: &'static [(&'static str, &'static str)],
    options: &'static [(&'static str, &'static str)],
}

const CLOUDS: &str = "
clouds:
  a:
    auth: {auth_url: http://a/v3, username: ua, password: 12345, project_name: pa, user_domain_name: D, project_domain_name: E}
    region_name: one
    interface: internal
  b:
    auth: {auth_url: http://b, user-id: ub, project_id: pb}
    regions: [one, {name: two, values: {interface: admin, auth: {project_id: p2}}}]
    verify: false
  c:
    auth_type: v3applicationcredential
    auth: {auth_url: http://c, application_credential_id: i, application_credential_secret: s}
    cacert: /etc/ca.pem
  d:
    auth: {auth_url: http://d, username: ud, password: p, tenant_name: t, domain_id: dd}
    endpoint_type: internal
  e:
    auth_type: v3token
    project_id: top
    auth: {auth_url: http://e, token: tok, project_id: inner}
";
const SECURE: &str = "clouds: {b: {auth: {password: sb}}, a: {auth: {password: sa}}}";
const ONE: &str =
    "clouds: {only: {auth: {auth_url: http://o, username: u, user_domain_id: x, password: p, project_id: p}}}";
const OPENRC: &[(&str, &str)] = &[
    ("OS_AUTH_URL", "http://env/v3"),
    ("OS_USERNAME", "ue"),
    ("OS_PASSWORD", "pe"),
    ("OS_PROJECT_NAME", "pe"),
    ("OS_USER_DOMAIN_ID", "de"),
    ("OS_PROJECT_DOMAIN_ID", "de"),
    ("OS_REGION_NAME", "re"),
    ("OS_INTERFACE", "internal"),
    ("OS_CACERT", "/ca"),
];

const CASES: &[Case] = &[
    Case { clouds: CLOUDS, secure: "", environment: &[("OS_CLOUD", "a")], options: &[] },
    Case { clouds: CLOUDS, secure: SECURE, environment: &[("OS_CLOUD", "a")], options: &[] },
    Case { clouds: CLOUDS, secure: SECURE, environment: &[("OS_CLOUD", "b")], options: &[] },
    Case { clouds: CLOUDS, secure: SECURE, environment: &[], options: &[("cloud", "b"), ("region_name", "two")] },
    Case { clouds: CLOUDS, secure: "", environment: &[("OS_CLOUD", "c")], options: &[] },
    Case { clouds: CLOUDS, secure: "", environment: &[("OS_CLOUD", "d")], options: &[] },
    Case { clouds: CLOUDS, secure: "", environment: &[("OS_CLOUD", "e")], options: &[] },
    Case { clouds: CLOUDS, secure: "", environment: &[("OS_CLOUD", "a"), ("OS_PASSWORD", "x")], options: &[] },
    Case { clouds: CLOUDS, secure: "", environment: OPENRC, options: &[] },
    Case { clouds: CLOUDS, secure: "", environment: OPENRC, options: &[("cloud", "d")] },
    Case { clouds: "", secure: "", environment: OPENRC, options: &[] },
    Case { clouds: "", secure: "", environment: OPENRC, options: &[("interface", "admin"), ("project_id", "given")] },
    Case { clouds: ONE, secure: "", environment: &[], options: &[] },
    Case {
        clouds: ONE,
        secure: "",
        environment: &[("OS_TEST_PATH", "x"), ("OS_CLIENT_SECURE_FILE", "")],
        options: &[],
    },
];

const SCRIPT: &str = r#"
import json, os, sys
from openstack.config import loader
case = json.loads(sys.argv[1])
os.environ.update(case["environment"])
files = [case["directory"] + "/clouds.yaml"], [case["directory"] + "/secure.yaml"]
config = loader.OpenStackConfig(config_files=files[0], secure_files=files[1], vendor_files=[])
one = config.get_one(**case["options"])
verify, cert = one.get_requests_verify_args()
auth = {key: str(value) for key, value in one.config["auth"].items() if value}
print(json.dumps({"auth_type": one.config["auth_type"], "auth": auth, "region": one.config["region_name"] or None,
                  "interface": one.config["interface"], "verify": verify}))
"#;

async fn theirs(python: &str, directory: &Path, case: &Case) -> Value {
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), json!(b))).collect::<serde_json::Map<_, _>>()
    };
    let mut options = pairs(case.options);
    // The default that keystoneauth gives the option, in all commands that are built on it.
    if let Some((_, region)) = case.environment.iter().find(|(name, _)| *name == "OS_REGION_NAME") {
        options.entry("region_name").or_insert_with(|| json!(region));
    }
    let told = json!({"environment": pairs(case.environment), "options": options, "directory": directory});
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, &told.to_string()]).env_clear().env("HOME", directory).current_dir(directory);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{told}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same of ours, in openstacksdk's words.
fn ours(directory: &Path, case: &Case) -> Value {
    let environment = case.environment.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let settings = Settings::read(case.options.iter().map(|(a, b)| (*a, (*b).to_owned())), &environment, directory);
    let settings = settings.unwrap();
    let mut auth = serde_json::Map::new();
    let mut put = |key: &str, value: &str| auth.insert(key.to_owned(), json!(value));
    let Identity::Keystone { auth_url, credentials, scope } = settings.identity().unwrap() else { panic!() };
    put("auth_url", &auth_url);
    let kind = match &credentials {
        Credentials::Password { user, password } => {
            name(user, ["user_id", "username", "user_domain_id", "user_domain_name"], &mut put);
            put("password", password);
            "password"
        }
        Credentials::ApplicationCredential { id, secret } => {
            put("application_credential_id", id);
            put("application_credential_secret", secret);
            "v3applicationcredential"
        }
        Credentials::Token(token) => {
            put("token", token);
            "v3token"
        }
        Credentials::NamedApplicationCredential { .. } => panic!(),
    };
    if let Scope::Project(project) = &scope {
        name(project, ["project_id", "project_name", "project_domain_id", "project_domain_name"], &mut put);
    }
    let tls = settings.tls();
    let verify = tls.cafile.map_or_else(|| json!(!tls.insecure), |path| json!(path));
    json!({"auth_type": kind, "auth": auth, "region": settings.region(), "interface": settings.interfaces()[0], "verify": verify})
}

fn name<R>(named: &Named, keys: [&str; 4], put: &mut impl FnMut(&str, &str) -> R) {
    match named {
        Named::Id(id) => {
            put(keys[0], id);
        }
        Named::Name(name, domain) => {
            put(keys[1], name);
            match domain {
                Domain::Id(id) => put(keys[2], id),
                Domain::Name(name) => put(keys[3], name),
            };
        }
    }
}

#[tokio::test]
async fn clouds_and_variables_mean_what_openstacksdk_takes_them_for() {
    let python = crate::queue::clients::python().await;
    for (number, case) in CASES.iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in [("clouds.yaml", case.clouds), ("secure.yaml", case.secure)] {
            if !text.is_empty() {
                std::fs::write(directory.path().join(file), text).unwrap();
            }
        }
        let mut theirs = theirs(&python, directory.path(), case).await;
        let ours = ours(directory.path(), case);
        // Of what names the same twice we take one: an id before a name, whose domain is then nothing to Keystone.
        let theirs_auth = theirs["auth"].as_object_mut().unwrap();
        for [id, name, domain_id, domain_name] in [
            ["user_id", "username", "user_domain_id", "user_domain_name"],
            ["project_id", "project_name", "project_domain_id", "project_domain_name"],
        ] {
            if theirs_auth.contains_key(id) {
                for other in [name, domain_id, domain_name] {
                    theirs_auth.remove(other);
                }
            }
        }
        assert_eq!(ours, theirs, "case {number}");
    }
}
