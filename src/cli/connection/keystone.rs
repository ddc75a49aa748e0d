//! Callers whom Keystone knows: a token for each request, and the service's address from the catalog.

use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName};

use super::{Credentials, Settings};
use crate::cli::error::{CliError, Result};
use crate::cli::output::note;
use crate::model::SERVICE_TYPE;
use crate::openstack::keystone::{self, KeystoneAuth, KeystoneOptions, Scope};
use crate::openstack::{CallObservation, Interface, OpenStackError};

const TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A token of Keystone's; it is renewed when a command goes on for longer than it lives.
pub struct Caller {
    auth: KeystoneAuth,
}

impl Caller {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When an option does not do.
    pub fn new(
        auth_url: String,
        credentials: keystone::Credentials,
        scope: Scope,
        settings: &Settings,
        debug: bool,
    ) -> Result<Self> {
        let observe = |call: &CallObservation| {
            let status = call.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            note(&format!("lambda: {} at Keystone: {status} in {} ms", call.operation, call.duration.as_millis()));
        };
        let options = KeystoneOptions {
            auth_url,
            credentials,
            scope,
            timeout: TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            tls: settings.tls(),
            observer: if debug { Some(std::sync::Arc::new(observe)) } else { None },
        };
        Ok(Self { auth: KeystoneAuth::new(options).map_err(|error| CliError::Usage(error.to_string()))? })
    }

    /// The address of our service in the catalog.
    ///
    /// # Errors
    /// When Keystone does not know the caller, or its catalog not the service.
    pub async fn endpoint(&self, settings: &Settings) -> Result<Url> {
        let words = settings.interfaces();
        let interfaces = words.iter().map(|word| {
            Interface::from_word(word).ok_or_else(|| {
                CliError::Usage(format!(
                    "OS_INTERFACE is '{}': it can be public, internal or admin",
                    word.escape_debug()
                ))
            })
        });
        let interfaces = interfaces.collect::<Result<Vec<_>>>()?;
        self.auth.endpoint(SERVICE_TYPE, settings.region(), &interfaces).await.map_err(|error| {
            if let OpenStackError::NotFound(why) = error {
                return CliError::Usage(format!("{why}: the address of the service can be given by OS_ENDPOINT"));
            }
            refused(error)
        })
    }
}

#[async_trait]
impl Credentials for Caller {
    async fn headers(&self) -> Result<HeaderMap> {
        let token = self.auth.token().await.map_err(refused)?;
        Ok([(HeaderName::from_static("x-auth-token"), token)].into_iter().collect())
    }
}

/// What Keystone said, or why it said nothing.
fn refused(error: OpenStackError) -> CliError {
    let reason = if error.retryable() { error.source() } else { None };
    CliError::Failed(reason.map_or_else(|| error.to_string(), ToString::to_string))
}
