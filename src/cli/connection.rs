//! Where the service is and how a caller shows who it is: what the `--os-*` options, the `OS_*` variables and
//! `clouds.yaml` mean.

mod clouds;
mod keystone;
pub mod settings;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use clap::Args;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

pub use self::clouds::Environment;
pub use self::settings::Settings;

use self::keystone::Caller;
use self::settings::Identity;
use super::error::{CliError, Result};
use crate::model::ProjectId;
use crate::openstack::TlsOptions;

/// The options that every command has, named as those of the `openstack` command. Each wins over the variable of its
/// name and over `clouds.yaml`.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Cloud of clouds.yaml [env: OS_CLOUD].
    #[arg(long, global = true, value_name = "NAME")]
    os_cloud: Option<String>,
    /// How to authenticate: password, token, v3applicationcredential, or none for a service without Keystone
    /// [env: OS_AUTH_TYPE].
    #[arg(long, global = true, value_name = "TYPE")]
    os_auth_type: Option<String>,
    /// Address of Keystone [env: OS_AUTH_URL].
    #[arg(long, global = true, value_name = "URL")]
    os_auth_url: Option<String>,
    /// Name of the user [env: OS_USERNAME].
    #[arg(long, global = true, value_name = "NAME")]
    os_username: Option<String>,
    /// Id of the user [env: OS_USER_ID].
    #[arg(long, global = true, value_name = "ID")]
    os_user_id: Option<String>,
    /// Password; everybody on this machine can read it while the command runs, unlike the variable's
    /// [env: OS_PASSWORD].
    #[arg(long, global = true, value_name = "PASSWORD")]
    os_password: Option<String>,
    /// Name of the user's domain [env: OS_USER_DOMAIN_NAME].
    #[arg(long, global = true, value_name = "NAME")]
    os_user_domain_name: Option<String>,
    /// Id of the user's domain [env: OS_USER_DOMAIN_ID].
    #[arg(long, global = true, value_name = "ID")]
    os_user_domain_id: Option<String>,
    /// Name of the project to work in [env: OS_PROJECT_NAME].
    #[arg(long, global = true, value_name = "NAME")]
    os_project_name: Option<String>,
    /// Id of the project to work in; of a service without Keystone its default project when absent
    /// [env: OS_PROJECT_ID].
    #[arg(long, global = true, value_name = "ID")]
    os_project_id: Option<String>,
    /// Name of the project's domain [env: OS_PROJECT_DOMAIN_NAME].
    #[arg(long, global = true, value_name = "NAME")]
    os_project_domain_name: Option<String>,
    /// Id of the project's domain [env: OS_PROJECT_DOMAIN_ID].
    #[arg(long, global = true, value_name = "ID")]
    os_project_domain_id: Option<String>,
    /// Token to get another with [env: OS_TOKEN].
    #[arg(long, global = true, value_name = "TOKEN")]
    os_token: Option<String>,
    /// Trust to act on [env: OS_TRUST_ID].
    #[arg(long, global = true, value_name = "ID")]
    os_trust_id: Option<String>,
    /// Id of an application credential [env: OS_APPLICATION_CREDENTIAL_ID].
    #[arg(long, global = true, value_name = "ID")]
    os_application_credential_id: Option<String>,
    /// Name of an application credential of the user [env: OS_APPLICATION_CREDENTIAL_NAME].
    #[arg(long, global = true, value_name = "NAME")]
    os_application_credential_name: Option<String>,
    /// Secret of the application credential [env: OS_APPLICATION_CREDENTIAL_SECRET].
    #[arg(long, global = true, value_name = "SECRET")]
    os_application_credential_secret: Option<String>,
    /// Region of the service [env: OS_REGION_NAME].
    #[arg(long, global = true, value_name = "NAME")]
    os_region_name: Option<String>,
    /// Which of the service's addresses: public, internal or admin [env: OS_INTERFACE].
    #[arg(long, global = true, value_name = "INTERFACE")]
    os_interface: Option<String>,
    /// Address of the service, such as http://127.0.0.1:9070, whatever the catalog says [env: OS_ENDPOINT].
    #[arg(long, global = true, value_name = "URL")]
    os_endpoint: Option<String>,
    /// File of certificates (PEM) to trust instead of the built-in ones [env: OS_CACERT].
    #[arg(long, global = true, value_name = "FILE")]
    os_cacert: Option<PathBuf>,
    /// File of our own certificate (PEM), for a service that asks for one [env: OS_CERT].
    #[arg(long, global = true, value_name = "FILE")]
    os_cert: Option<PathBuf>,
    /// File of its private key (PEM) [env: OS_KEY].
    #[arg(long, global = true, value_name = "FILE")]
    os_key: Option<PathBuf>,
    /// Believe any certificate: whoever is in between sees tokens and passwords [env: OS_INSECURE].
    #[arg(long, global = true)]
    insecure: bool,
    /// Show each request on standard error: method, path, status, time and request id.
    #[arg(long, global = true)]
    pub debug: bool,
}

/// Secrets may be among them.
impl std::fmt::Debug for ConnectionArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionArgs").field("debug", &self.debug).finish_non_exhaustive()
    }
}

/// Makes the headers by which the service knows the caller.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The headers for one request. May ask an identity service.
    async fn headers(&self) -> Result<HeaderMap>;
}

/// `none`: the service believes the project that it is told.
struct NoCredentials {
    project: Option<HeaderValue>,
}

#[async_trait]
impl Credentials for NoCredentials {
    async fn headers(&self) -> Result<HeaderMap> {
        let project = self.project.clone().map(|value| (HeaderName::from_static("x-project-id"), value));
        Ok(project.into_iter().collect())
    }
}

/// Where the service is and who calls it.
#[derive(Clone)]
pub struct Connection {
    /// Base address, without `/v1`.
    pub endpoint: Url,
    /// Who calls.
    pub credentials: Arc<dyn Credentials>,
    /// Whom to trust.
    pub tls: TlsOptions,
}

impl ConnectionArgs {
    /// Makes a connection of the options, the environment and the files. With Keystone, a token is got and the service
    /// is looked for in the catalog.
    ///
    /// # Errors
    /// When something is missing or malformed, the text says what to set; or when Keystone refuses.
    pub async fn connection(&self) -> Result<Connection> {
        // The one place where the command looks at its environment.
        let environment: Environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        connect(&self.settings(&environment, Path::new("."))?, self.debug).await
    }

    /// Puts together what was said of a connection. `here` is where `clouds.yaml` is looked for first.
    ///
    /// # Errors
    /// When a file is wrong, or names no such cloud or region.
    pub fn settings(&self, environment: &Environment, here: &Path) -> Result<Settings> {
        let path = |option: &Option<PathBuf>| option.as_ref().map(|path| path.display().to_string());
        let given = [
            ("cloud", self.os_cloud.clone()),
            ("auth_type", self.os_auth_type.clone()),
            ("auth_url", self.os_auth_url.clone()),
            ("username", self.os_username.clone()),
            ("user_id", self.os_user_id.clone()),
            ("password", self.os_password.clone()),
            ("user_domain_name", self.os_user_domain_name.clone()),
            ("user_domain_id", self.os_user_domain_id.clone()),
            ("project_name", self.os_project_name.clone()),
            ("project_id", self.os_project_id.clone()),
            ("project_domain_name", self.os_project_domain_name.clone()),
            ("project_domain_id", self.os_project_domain_id.clone()),
            ("token", self.os_token.clone()),
            ("trust_id", self.os_trust_id.clone()),
            ("application_credential_id", self.os_application_credential_id.clone()),
            ("application_credential_name", self.os_application_credential_name.clone()),
            ("application_credential_secret", self.os_application_credential_secret.clone()),
            ("region_name", self.os_region_name.clone()),
            ("interface", self.os_interface.clone()),
            ("endpoint", self.os_endpoint.clone()),
            ("cacert", path(&self.os_cacert)),
            ("cert", path(&self.os_cert)),
            ("key", path(&self.os_key)),
            ("insecure", self.insecure.then(|| "true".to_owned())),
        ];
        let options =
            given.into_iter().filter_map(|(name, value)| Some((name, value.filter(|text| !text.is_empty())?)));
        Settings::read(options, environment, here)
    }
}

async fn connect(settings: &Settings, debug: bool) -> Result<Connection> {
    let given = settings.endpoint().map(endpoint_of).transpose()?;
    let tls = settings.tls();
    match settings.identity()? {
        Identity::None { project } => {
            let endpoint = given.ok_or_else(|| settings.without_endpoint())?;
            let project = project
                .map(|id| {
                    let wrong = |why: &dyn std::fmt::Display| CliError::Usage(format!("OS_PROJECT_ID: {why}"));
                    let id = ProjectId::parse(&id).map_err(|invalid| wrong(&invalid))?;
                    HeaderValue::from_str(id.as_str()).map_err(|error| wrong(&error))
                })
                .transpose()?;
            Ok(Connection { endpoint, credentials: Arc::new(NoCredentials { project }), tls })
        }
        Identity::Keystone { auth_url, credentials, scope } => {
            let caller = Caller::new(auth_url, credentials, scope, settings, debug)?;
            let endpoint = match given {
                Some(endpoint) => endpoint,
                None => endpoint_of(caller.endpoint(settings).await?.as_str())?,
            };
            Ok(Connection { endpoint, credentials: Arc::new(caller), tls })
        }
    }
}

/// Takes an address with or without `/v1` and slashes at its end.
fn endpoint_of(text: &str) -> Result<Url> {
    let wrong = |why: &str| CliError::Usage(format!("OS_ENDPOINT is '{}': {why}", text.escape_debug()));
    let mut url = Url::parse(text).map_err(|_| wrong("it must be an address such as http://127.0.0.1:9070"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it must be an address such as http://127.0.0.1:9070"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CliError::Usage("OS_ENDPOINT must not hold a user's name or password".to_owned()));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_taken_with_and_without_version_and_slash() {
        for (text, expected) in [
            ("http://127.0.0.1:9070", "http://127.0.0.1:9070/"),
            ("http://127.0.0.1:9070/v1/", "http://127.0.0.1:9070/"),
            ("https://cloud/function/v1", "https://cloud/function"),
            ("https://cloud/function/?x#y", "https://cloud/function"),
        ] {
            assert_eq!(endpoint_of(text).unwrap().as_str(), expected, "{text}");
        }
        for bad in ["127.0.0.1:9070", "ftp://host", "http://", "", "http://me:secret@host"] {
            let error = endpoint_of(bad).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    fn settings(project: &str) -> Settings {
        let arguments = ConnectionArgs {
            os_auth_type: Some("none".to_owned()),
            os_endpoint: Some("http://h".to_owned()),
            os_project_id: Some(project.to_owned()),
            ..ConnectionArgs::default()
        };
        arguments.settings(&Environment::new(), Path::new("/nowhere")).unwrap()
    }

    #[tokio::test]
    async fn the_project_is_told_in_a_header_when_there_is_one() {
        let headers = connect(&settings("p1"), false).await.unwrap().credentials.headers().await.unwrap();
        assert_eq!(headers["x-project-id"], "p1");
        let headers = connect(&settings(""), false).await.unwrap().credentials.headers().await.unwrap();
        assert!(headers.is_empty());
        let error = connect(&settings("a/b"), false).await.err().unwrap();
        assert!(error.to_string().contains("OS_PROJECT_ID") && error.exit_code() == 2, "{error}");
    }

    #[test]
    fn no_secret_is_shown() {
        let secret = Some("hunter2".to_owned());
        let arguments = ConnectionArgs {
            os_password: secret.clone(),
            os_token: secret.clone(),
            os_application_credential_secret: secret,
            ..ConnectionArgs::default()
        };
        assert!(!format!("{arguments:?}").contains("hunter2"));
    }
}
