//! Where the service is and how a caller shows who it is: what the `--os-*` options and `OS_*` variables mean.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use clap::Args;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::error::{CliError, Result};
use crate::model::ProjectId;

/// The options that every command has, named as those of the `openstack` command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// How to authenticate. Only `none` is supported so far: a service with auth_strategy = noauth.
    #[arg(long, env = "OS_AUTH_TYPE", global = true, hide_env_values = true, value_name = "TYPE")]
    os_auth_type: Option<String>,
    /// Address of the service, such as http://127.0.0.1:9070.
    #[arg(long, env = "OS_ENDPOINT", global = true, hide_env_values = true, value_name = "URL")]
    os_endpoint: Option<String>,
    /// The project to work in; the service's default project when absent.
    #[arg(long, env = "OS_PROJECT_ID", global = true, hide_env_values = true, value_name = "ID")]
    os_project_id: Option<String>,
    /// File of certificates (PEM) to trust instead of the built-in ones.
    #[arg(long, env = "OS_CACERT", global = true, hide_env_values = true, value_name = "FILE")]
    os_cacert: Option<PathBuf>,
    /// Only to notice that a cloud with Keystone is meant.
    #[arg(long, env = "OS_AUTH_URL", global = true, hide = true)]
    os_auth_url: Option<String>,
    /// Only to notice that a cloud with Keystone is meant.
    #[arg(long, env = "OS_CLOUD", global = true, hide = true)]
    os_cloud: Option<String>,
    /// Show each request on standard error: method, path, status, time and request id.
    #[arg(long, global = true)]
    pub debug: bool,
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
    /// Certificates to trust instead of the built-in ones, as PEM.
    pub trusted: Option<Vec<u8>>,
}

impl ConnectionArgs {
    /// Checks the options and makes a connection of them; nothing is sent.
    ///
    /// # Errors
    /// When something is missing or malformed; the text says what to set.
    pub fn connection(&self) -> Result<Connection> {
        let given = |option: &Option<String>| option.clone().filter(|text| !text.is_empty());
        match given(&self.os_auth_type).as_deref() {
            Some("none") => {}
            Some(other) => {
                return Err(CliError::Usage(format!(
                    "OS_AUTH_TYPE is '{}': only 'none' is supported in this release, Keystone comes with the next one",
                    other.escape_debug()
                )));
            }
            None if given(&self.os_cloud).or(given(&self.os_auth_url)).is_some() => {
                return Err(CliError::Usage(
                    "a cloud with Keystone is configured (OS_CLOUD or OS_AUTH_URL): Keystone comes with the next \
                     release; for a service with noauth set OS_AUTH_TYPE=none and OS_ENDPOINT"
                        .to_owned(),
                ));
            }
            None => {}
        }
        let Some(endpoint) = given(&self.os_endpoint) else {
            return Err(CliError::Usage(
                "the service's address is not known: set OS_AUTH_TYPE=none and OS_ENDPOINT=http://HOST:9070".to_owned(),
            ));
        };
        let project = given(&self.os_project_id)
            .map(|id| {
                let id =
                    ProjectId::parse(&id).map_err(|invalid| CliError::Usage(format!("OS_PROJECT_ID: {invalid}")))?;
                HeaderValue::from_str(id.as_str()).map_err(|error| CliError::Usage(format!("OS_PROJECT_ID: {error}")))
            })
            .transpose()?;
        let trusted = self
            .os_cacert
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| {
                std::fs::read(path)
                    .map_err(|error| CliError::Usage(format!("OS_CACERT: {} cannot be read: {error}", path.display())))
            })
            .transpose()?;
        Ok(Connection { endpoint: endpoint_of(&endpoint)?, credentials: Arc::new(NoCredentials { project }), trusted })
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

    fn options(auth_type: &str, endpoint: &str, project: &str) -> ConnectionArgs {
        let some = |text: &str| Some(text.to_owned());
        ConnectionArgs {
            os_auth_type: some(auth_type),
            os_endpoint: some(endpoint),
            os_project_id: some(project),
            ..ConnectionArgs::default()
        }
    }

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

    #[test]
    fn what_is_missing_is_named() {
        for (options, part) in [
            (options("none", "", ""), "set OS_AUTH_TYPE=none and OS_ENDPOINT=http://HOST:9070"),
            (options("", "", ""), "set OS_AUTH_TYPE=none and OS_ENDPOINT=http://HOST:9070"),
            (options("v3password", "http://h", ""), "Keystone comes with the next one"),
            (options("none", "http://h", "a/b"), "OS_PROJECT_ID"),
            (ConnectionArgs { os_cloud: Some("prod".to_owned()), ..options("", "", "") }, "OS_CLOUD"),
        ] {
            let error = options.connection().err().unwrap();
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[tokio::test]
    async fn the_project_is_told_in_a_header_when_there_is_one() {
        let headers = options("none", "http://h", "p1").connection().unwrap().credentials.headers().await.unwrap();
        assert_eq!(headers["x-project-id"], "p1");
        let headers = options("none", "http://h", "").connection().unwrap().credentials.headers().await.unwrap();
        assert!(headers.is_empty());
    }
}
