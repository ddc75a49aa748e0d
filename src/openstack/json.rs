//! Requests and answers of the services that speak plain JSON over REST: Nova, Neutron and Glance do.

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, OpenStackError, Request, Service, Session};

/// One operation of a service.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    /// Whose.
    pub(super) service: Service,
    /// What `OpenStack-API-Version` says, where the service has microversions.
    pub(super) microversion: Option<&'static str>,
    /// What it is called in logs and metrics.
    pub(super) name: &'static str,
}

impl Operation {
    /// A request without a body, for paths whose segments are not yet encoded. Everything but `POST` is idempotent.
    pub(super) fn request(self, method: Method, path: &[&str]) -> Request {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(version) = self.microversion {
            headers.insert(HeaderName::from_static("openstack-api-version"), HeaderValue::from_static(version));
        }
        Request {
            service: self.service,
            operation: self.name,
            is_idempotent: method != Method::POST,
            method,
            path: path.iter().map(|segment| (*segment).to_owned()).collect(),
            query: Vec::new(),
            headers,
            body: None,
        }
    }

    /// `GET`, with these parameters.
    pub(super) async fn get<T: DeserializeOwned>(
        self,
        session: &Session,
        path: &[&str],
        query: &[(&'static str, &str)],
    ) -> Result<T, OpenStackError> {
        let mut request = self.request(Method::GET, path);
        request.query = query.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.read(&session.send(&request).await?)
    }

    /// `POST` with a JSON body. It is not repeated once it may have been looked at.
    pub(super) async fn post(
        self,
        session: &Session,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Answer, OpenStackError> {
        let mut request = self.request(Method::POST, path);
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = serde_json::to_vec(body)
            .map_err(|error| OpenStackError::Invalid(format!("the request cannot be written: {error}")))?;
        request.body = Some(body.into());
        session.send(&request).await
    }

    /// `DELETE`. Succeeds when it is not there any more.
    pub(super) async fn delete(self, session: &Session, path: &[&str]) -> Result<(), OpenStackError> {
        match session.send(&self.request(Method::DELETE, path)).await {
            Ok(_) | Err(OpenStackError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads an answer. What is wrong with it is told by place, not by its words: bodies are not logged.
    pub(super) fn read<T: DeserializeOwned>(self, answer: &Answer) -> Result<T, OpenStackError> {
        serde_json::from_slice(&answer.body).map_err(|error| {
            let detail = format!(
                "to {}: {:?} error at line {} column {}",
                self.name,
                error.classify(),
                error.line(),
                error.column()
            );
            OpenStackError::protocol(self.service.name(), detail)
        })
    }
}

/// What is there, or none where the service says that it is not.
pub(super) fn found<T>(result: Result<T, OpenStackError>) -> Result<Option<T>, OpenStackError> {
    match result {
        Ok(it) => Ok(Some(it)),
        Err(OpenStackError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
