//! A user's own token on our sessions, with ours beside it.

use std::fmt;

use async_trait::async_trait;
use osauth::{AuthType, EndpointFilters, Error, ErrorKind};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Url};

use super::KeystoneAuth;
use crate::openstack::OpenStackError;
use crate::openstack::auth::Auth;

/// Shows services the token of a user, and ours as `X-Service-Token`, so that the user's may run out while a long
/// request is worked on. Endpoints are those of our catalog.
#[derive(Clone)]
pub struct UserAuth {
    token: HeaderValue,
    service: KeystoneAuth,
}

impl fmt::Debug for UserAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserAuth").field("service", &self.service).finish_non_exhaustive()
    }
}

impl UserAuth {
    /// For one user's token.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when the token cannot be sent in a header.
    pub fn new(token: &str, service: KeystoneAuth) -> Result<Self, OpenStackError> {
        let mut token = HeaderValue::from_str(token)
            .map_err(|_| OpenStackError::Invalid("the token cannot be sent in a header".to_owned()))?;
        token.set_sensitive(true);
        Ok(Self { token, service })
    }
}

#[async_trait]
impl AuthType for UserAuth {
    async fn authenticate(&self, _: &Client, request: RequestBuilder) -> Result<RequestBuilder, Error> {
        let ours = self.service.current().await.map_err(super::foreign)?;
        Ok(request.header("X-Auth-Token", self.token.clone()).header("X-Service-Token", ours.header.clone()))
    }

    async fn get_endpoint(&self, client: &Client, service_type: &str, filters: &EndpointFilters) -> Result<Url, Error> {
        self.service.get_endpoint(client, service_type, filters).await
    }

    async fn refresh(&self, client: &Client) -> Result<(), Error> {
        self.service.refresh(client).await
    }
}

#[async_trait]
impl Auth for UserAuth {
    /// The user's token cannot be renewed, ours can: it may have been the one that was refused.
    async fn replace(&self, sent: &HeaderMap) -> Result<(), Error> {
        let mut ours = HeaderMap::new();
        match sent.get("X-Service-Token") {
            Some(token) => ours.insert("X-Service-Token", token.clone()),
            None => return Err(Error::new(ErrorKind::AuthenticationFailed, "the user's token is not accepted")),
        };
        self.service.replace(&ours).await
    }
}
