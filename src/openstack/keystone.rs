//! Keystone: our own token for every session, and what we ask of Keystone itself.
//!
//! osauth's own Keystone authentication cannot renew a token before its time, knows no trusts and only exact service
//! types; [`KeystoneAuth`] does, under osauth's `AuthType`, so that the `openstack` crate works on it too. Neither
//! secrets nor tokens are ever in an error, a log line or a `Debug`.

mod catalog;
mod client;
mod credentials;
mod token;
mod user;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use osauth::{AuthType, EndpointFilters, Error, ErrorKind, InterfaceType};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client as HttpClient, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

pub use catalog::Catalog;
pub use client::{
    AccessRule, ApplicationCredential, Client, Domain as DomainRef, NewTrust, Owned, Role, TokenTrust, Trust,
    TrustLabels, Validated,
};
pub use credentials::{Credentials, Domain, Named, Scope};
pub use user::UserAuth;

use self::token::{Asking, Cache, NoToken, Token};
use super::auth::Auth;
use super::error::explanation;
use super::http::Http;
use super::{CallObservation, Interface, Observer, OpenStackError, Service, TlsOptions};
use crate::model::{RequestId, Timestamp};

/// Keystone's own entry of the catalog.
pub const SERVICE: Service = Service(&["identity"]);

/// Largest answer to a request for a token, in bytes: a catalog of thousands of endpoints.
const TOKEN_ANSWER_MAX: usize = 8 * 1024 * 1024;

/// How Keystone is reached and who we are to it.
#[derive(Clone)]
pub struct KeystoneOptions {
    /// Keystone's address, with or without `/v3`.
    pub auth_url: String,
    /// Who we are.
    pub credentials: Credentials,
    /// What for.
    pub scope: Scope,
    /// Longest time of one request.
    pub timeout: Duration,
    /// Longest time to a connection.
    pub connect_timeout: Duration,
    /// Whom to trust where the connection is encrypted.
    pub tls: TlsOptions,
    /// Told of every request for a token.
    pub observer: Option<Observer>,
}

/// Shows services a token of Keystone's. Clones share it.
#[derive(Clone)]
pub struct KeystoneAuth {
    asker: Arc<Asker>,
    cache: Arc<Cache>,
}

/// Gets tokens.
struct Asker {
    /// Keystone's address without `/v3`.
    base: Url,
    credentials: Credentials,
    scope: Scope,
    http: Http,
    observer: Option<Observer>,
}

impl fmt::Debug for KeystoneAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeystoneAuth")
            .field("credentials", &self.asker.credentials)
            .field("scope", &self.asker.scope)
            .finish_non_exhaustive()
    }
}

impl KeystoneAuth {
    /// Nothing is sent yet: the first request that needs a token gets it.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when the address is none or a file of the TLS options does not do.
    pub fn new(options: KeystoneOptions) -> Result<Self, OpenStackError> {
        let KeystoneOptions { auth_url, credentials, scope, timeout, connect_timeout, tls, observer } = options;
        let http = Http::new(timeout, connect_timeout, &tls)?;
        let asker = Asker { base: base(&auth_url)?, credentials, scope, http, observer };
        Ok(Self { asker: Arc::new(asker), cache: Arc::default() })
    }

    /// The same user, acting for whoever made this trust. The token is its own; connections are shared.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when we have an application credential, which Keystone lets act for nobody else.
    pub fn with_trust(&self, trust_id: &str) -> Result<Self, OpenStackError> {
        if self.asker.credentials.is_scoped() {
            let why = "an application credential cannot act on a trust: let the service authenticate with a password";
            return Err(OpenStackError::Invalid(why.to_owned()));
        }
        Ok(self.with_scope(Scope::Trust(trust_id.to_owned())))
    }

    /// The same user with another scope. The token is its own; connections are shared.
    #[must_use]
    pub fn with_scope(&self, scope: Scope) -> Self {
        let Asker { base, credentials, http, observer, .. } = self.asker.as_ref();
        let asker = Asker {
            base: base.clone(),
            credentials: credentials.clone(),
            scope,
            http: http.clone(),
            observer: observer.clone(),
        };
        Self { asker: Arc::new(asker), cache: Arc::default() }
    }

    /// Keystone's address, without `/v3`.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.asker.base
    }

    /// The token, for whoever sends requests by other means than a session. Marked sensitive.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn token(&self) -> Result<HeaderValue, OpenStackError> {
        self.current().await.map(|token| token.header.clone()).map_err(failed)
    }

    /// The id of the user that we are.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn user_id(&self) -> Result<String, OpenStackError> {
        self.current().await.map(|token| token.user_id.clone()).map_err(failed)
    }

    /// The id of the project that the token is for, if it is for one.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn project_id(&self) -> Result<Option<String>, OpenStackError> {
        self.current().await.map(|token| token.project_id.clone()).map_err(failed)
    }

    /// The address of a service in the catalog, for whoever sends requests by other means than a session.
    ///
    /// # Errors
    /// See [`OpenStackError`]; [`OpenStackError::NotFound`] says what the catalog has instead.
    pub async fn endpoint(
        &self,
        service_type: &str,
        region: Option<&str>,
        interfaces: &[Interface],
    ) -> Result<Url, OpenStackError> {
        let token = self.current().await.map_err(failed)?;
        let mut filters = EndpointFilters::default();
        filters.region = region.map(str::to_owned);
        filters.interfaces = interfaces.iter().copied().map(InterfaceType::from).collect();
        token.catalog.endpoint(service_type, &filters).map_err(|why| OpenStackError::NotFound(why.0))
    }

    async fn current(&self) -> Result<Arc<Token>, NoToken> {
        self.cache.get(|| self.asker.clone().ask()).await
    }
}

#[async_trait]
impl AuthType for KeystoneAuth {
    /// The client is the caller's; Keystone is always asked by our own, which has its certificates and time-outs.
    async fn authenticate(&self, _: &HttpClient, request: RequestBuilder) -> Result<RequestBuilder, Error> {
        let token = self.current().await.map_err(foreign)?;
        Ok(request.header("X-Auth-Token", token.header.clone()))
    }

    async fn get_endpoint(&self, _: &HttpClient, service_type: &str, filters: &EndpointFilters) -> Result<Url, Error> {
        let token = self.current().await.map_err(foreign)?;
        token.catalog.endpoint(service_type, filters).map_err(|why| Error::new(ErrorKind::EndpointNotFound, why.0))
    }

    /// Gets a new token whatever the old one is good for.
    async fn refresh(&self, _: &HttpClient) -> Result<(), Error> {
        self.cache.forget();
        self.current().await.map(|_| ()).map_err(foreign)
    }
}

#[async_trait]
impl Auth for KeystoneAuth {
    async fn replace(&self, sent: &HeaderMap) -> Result<(), Error> {
        match sent.get("X-Auth-Token").or_else(|| sent.get("X-Service-Token")) {
            Some(refused) => {
                self.cache.replace(refused, || self.asker.clone().ask()).await.map(|_| ()).map_err(foreign)
            }
            None => Ok(()),
        }
    }
}

/// The same for osauth.
fn foreign(error: NoToken) -> Error {
    Error::new(error.kind, error.text)
}

fn failed(error: NoToken) -> OpenStackError {
    OpenStackError::from_auth(SERVICE.name(), foreign(error))
}

/// Keystone's address without version and slash.
fn base(auth_url: &str) -> Result<Url, OpenStackError> {
    // Not in the text: a password might be in it.
    let wrong = |why: &str| OpenStackError::Invalid(format!("auth_url {why}"));
    let mut url = Url::parse(auth_url).map_err(|_| wrong("is no address such as https://cloud.example/identity"))?;
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        return Err(wrong("is no address such as https://cloud.example/identity"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not hold a user's name or password"));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    if path.ends_with("/v2.0") {
        return Err(wrong("is that of the Identity API v2.0, which is gone: it has to be that of v3"));
    }
    let path = path.strip_suffix("/v3").unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok(url)
}

/// What Keystone answers.
#[derive(Deserialize)]
struct Answered {
    token: Body,
}

#[derive(Deserialize)]
struct Body {
    expires_at: Timestamp,
    issued_at: Timestamp,
    user: User,
    project: Option<User>,
    #[serde(default)]
    catalog: Catalog,
}

#[derive(Deserialize)]
struct User {
    id: String,
}

impl Asker {
    fn ask(self: Arc<Self>) -> Asking {
        async move { self.get().await.map(Arc::new) }.boxed()
    }

    async fn get(&self) -> Result<Token, NoToken> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v3", "auth", "tokens"]);
        }
        let begun = Instant::now();
        let id = RequestId::generate();
        let sent = self
            .http
            .of(&url)
            .post(url)
            .header("X-OpenStack-Request-ID", id.as_str())
            .json(&self.credentials.request(&self.scope))
            .send()
            .await;
        if let Some(observer) = &self.observer {
            observer(&CallObservation {
                service: SERVICE.name(),
                operation: "authenticate",
                status: sent.as_ref().ok().map(|response| response.status().as_u16()),
                duration: begun.elapsed(),
            });
        }
        let mut response = sent.map_err(|error| self.unreachable(error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + chunk.len() > TOKEN_ANSWER_MAX {
                return Err(self.odd("a token of more than 8 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        if status != StatusCode::CREATED {
            return Err(self.refused(status, &body));
        }
        let mut header =
            headers.get("X-Subject-Token").cloned().ok_or_else(|| self.odd("an answer without X-Subject-Token"))?;
        header.set_sensitive(true);
        let Answered { token } =
            serde_json::from_slice(&body).map_err(|_| self.odd("a token whose description cannot be read"))?;
        // By Keystone's own clock from beginning to end: ours may go differently.
        let (renew_at, ends_at) = Token::times(begun, token.expires_at.since(token.issued_at));
        tracing::debug!(request_id = id.as_str(), expires_at = %token.expires_at, "Keystone gave a new token");
        Ok(Token {
            header,
            catalog: token.catalog,
            user_id: token.user.id,
            project_id: token.project.map(|project| project.id),
            renew_at,
            ends_at,
        })
    }

    fn unreachable(&self, error: reqwest::Error) -> NoToken {
        let mut text = format!("Keystone at {} does not answer", self.base);
        let error = error.without_url();
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        NoToken::new(ErrorKind::OperationFailed, text)
    }

    fn odd(&self, what: &str) -> NoToken {
        NoToken::new(ErrorKind::InvalidResponse, format!("Keystone at {} sent {what}", self.base))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> NoToken {
        let said = explanation(body).unwrap_or_else(|| format!("status {}", status.as_u16()));
        let whom = match (&self.credentials, &self.scope) {
            (_, Scope::Trust(id)) => format!("the trust {id}"),
            (Credentials::Password { .. }, _) => "the user, its password or its project".to_owned(),
            (Credentials::ApplicationCredential { .. } | Credentials::NamedApplicationCredential { .. }, _) => {
                "the application credential".to_owned()
            }
            (Credentials::Token(_), _) => "the token".to_owned(),
        };
        match status.as_u16() {
            401 => NoToken::new(
                ErrorKind::AuthenticationFailed,
                format!("Keystone does not accept {whom} (it says: {said})"),
            ),
            403 => {
                NoToken::new(ErrorKind::AccessDenied, format!("Keystone gives no token for {whom} (it says: {said})"))
            }
            // Of a trust or project it says so; anything else at this path is not Keystone.
            404 if explanation(body).is_some() => NoToken::new(
                ErrorKind::AuthenticationFailed,
                format!("Keystone does not find {whom} (it says: {said})"),
            ),
            400 => NoToken::new(ErrorKind::InvalidInput, format!("Keystone does not understand us (it says: {said})")),
            status @ (429 | 500..) => {
                NoToken::new(ErrorKind::OperationFailed, format!("Keystone at {} answers {status}: {said}", self.base))
            }
            status => NoToken::new(
                ErrorKind::OperationFailed,
                format!("{} answers {status} to a request for a token: is it Keystone? ({said})", self.base),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_with_and_without_version_and_slash() {
        for (text, expected) in [
            ("http://127.0.0.1:5000/v3", "http://127.0.0.1:5000/"),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/"),
            ("https://cloud/identity/v3/", "https://cloud/identity"),
            ("https://cloud/identity/?x#y", "https://cloud/identity"),
        ] {
            assert_eq!(base(text).unwrap().as_str(), expected, "{text}");
        }
        for bad in ["", "cloud", "ftp://cloud", "mailto:x", "http://me:secret@cloud/v3", "http://cloud/v2.0"] {
            let error = base(bad).unwrap_err().to_string();
            assert!(error.contains("auth_url") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_application_credential_takes_no_trust_and_says_why() {
        let options = KeystoneOptions {
            auth_url: "http://127.0.0.1:9/v3".to_owned(),
            credentials: Credentials::ApplicationCredential { id: "i".to_owned(), secret: "hunter2".to_owned() },
            scope: Scope::Unscoped,
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            tls: TlsOptions::default(),
            observer: None,
        };
        let auth = KeystoneAuth::new(options).unwrap();
        assert!(auth.with_trust("t").unwrap_err().to_string().contains("password"));
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}
