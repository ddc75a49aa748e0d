//! Services without Keystone: the project is a header, the endpoints are configured.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use osauth::{AuthType, EndpointFilters, Error, ErrorKind};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Url};

use super::OpenStackError;
use super::auth::Auth;

/// Says `X-Project-Id` to services at fixed addresses.
#[derive(Clone)]
pub struct NoAuth {
    project: HeaderValue,
    endpoints: HashMap<String, Url>,
}

impl fmt::Debug for NoAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoAuth").field("project", &self.project).finish_non_exhaustive()
    }
}

impl NoAuth {
    /// Acts in `project`; `endpoints` are pairs of a service type (`message`) and a base address without version.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when the project is no header value or an address is no URL.
    pub fn new<'a>(
        project: &str,
        endpoints: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, OpenStackError> {
        let project = HeaderValue::from_str(project)
            .map_err(|_| OpenStackError::Invalid("the project id cannot be sent in a header".to_owned()))?;
        let endpoints = endpoints
            .into_iter()
            .map(|(service, address)| match Url::parse(address) {
                Ok(url) if !url.cannot_be_a_base() => Ok((service.to_owned(), url)),
                Ok(_) | Err(_) => Err(OpenStackError::Invalid(format!("'{address}' is not the address of {service}"))),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { project, endpoints })
    }
}

#[async_trait]
impl AuthType for NoAuth {
    async fn authenticate(&self, _: &Client, request: RequestBuilder) -> Result<RequestBuilder, Error> {
        Ok(request.header("X-Project-Id", self.project.clone()))
    }

    async fn get_endpoint(&self, _: &Client, service_type: &str, _: &EndpointFilters) -> Result<Url, Error> {
        self.endpoints.get(service_type).cloned().ok_or_else(|| {
            Error::new(ErrorKind::EndpointNotFound, format!("no address of {service_type} is configured"))
        })
    }

    async fn refresh(&self, _: &Client) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl Auth for NoAuth {
    /// There is no token to replace.
    async fn replace(&self, _: &HeaderMap) -> Result<(), Error> {
        Err(Error::new(
            ErrorKind::AuthenticationFailed,
            "the service wants a token, and there is no Keystone to give one",
        ))
    }
}
