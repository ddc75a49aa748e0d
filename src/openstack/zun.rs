//! Zun v1: containers.
//!
//! Zun answers orders before it carries them out, so success here means that an order was taken. Three habits of it shape
//! this client: names are not unique (a lost answer must not be asked for again blindly), a microversion that is too high
//! can cost the connection instead of an answer (so the cloud's highest is read first, from the open version document),
//! and looking at one container asks its host, which hangs when the host is dead, while the list only reads the database.

mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::OnceCell;

use super::{OpenStackError, Request, Service, Session};
pub use wire::{Container, ImageDriver, NewContainer, PullPolicy, Status};

/// Officially `application-container`; DevStack registers `container`.
pub const SERVICE: Service = Service(&["application-container", "container"]);

/// The microversion that this client is written for.
pub const VERSION: Microversion = Microversion(40);
/// The lowest that it can do with: commands are lists since then.
pub const VERSION_MIN: Microversion = Microversion(20);

/// Largest memory of a container, in MiB: a bound in Zun's own schema.
pub const MEMORY_MAX_MIB: u32 = 8192;

/// Containers in one answer at most. A cloud can have a lower limit; then there are more pages.
const PAGE: usize = 1000;
/// How often a listing begins anew because the container at which it went on is gone.
const LISTINGS: u32 = 3;

const VERSION_HEADER: HeaderName = HeaderName::from_static("openstack-api-version");
const VERSION_MAX_HEADER: &str = "openstack-api-maximum-version";

/// The minor number of an API version 1.x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microversion(pub u16);

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// What came of an order about a container that may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ordered {
    /// Zun has taken the order.
    Taken,
    /// There is no such container.
    Absent,
    /// Not in the state in which it is.
    NotNow,
}

/// Talks to Zun. Clones share what was agreed with the cloud.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
    version: Arc<OnceCell<Microversion>>,
}

impl Client {
    /// On this session.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self { session, version: Arc::new(OnceCell::new()) }
    }

    /// The microversion that is spoken: ours, or the cloud's highest if that is lower. Asked for once.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when the cloud's highest is too low for us.
    pub async fn version(&self) -> Result<Microversion, OpenStackError> {
        self.version
            .get_or_try_init(|| async {
                let answer = self.session.send(&request("version", Method::GET, &[])).await?;
                let header = answer.headers.get(VERSION_MAX_HEADER).and_then(|value| value.to_str().ok());
                negotiate(header)
            })
            .await
            .copied()
    }

    /// Orders a container that is started as soon as it is made; what Zun wrote down. The call is not repeated once it may
    /// have been looked at: what is asked for twice is two containers of one name.
    ///
    /// # Errors
    /// See [`OpenStackError`]. A quota that is used up is [`OpenStackError::Forbidden`], and so is a policy.
    pub async fn create(&self, container: &NewContainer) -> Result<Container, OpenStackError> {
        let mut request = self.versioned("create", Method::POST, &[]).await?;
        request.is_idempotent = false;
        request.query.push(("run", "true".to_owned()));
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.body = Some(Bytes::from(wire::encode(container)?));
        wire::container(&self.session.send(&request).await?.body)
    }

    /// Looks at one container, by its UUID or name; none: it is not there. Zun asks the container's host, which takes a
    /// minute when the host is dead: bound the call.
    ///
    /// # Errors
    /// See [`OpenStackError`]. [`OpenStackError::Conflict`] when several have that name.
    pub async fn show(&self, ident: &str) -> Result<Option<Container>, OpenStackError> {
        match self.session.send(&self.versioned("show", Method::GET, &[ident]).await?).await {
            Ok(answer) => wire::container(&answer.body).map(Some),
            Err(OpenStackError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The project's containers, all of them or those of one name, as they stand in Zun's database: a container that ended
    /// by itself stands there as running until Zun looks (`sync_container_state_interval`). Zun has no filter by label.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn list(&self, name: Option<&str>) -> Result<Vec<Container>, OpenStackError> {
        let mut listings = 1;
        loop {
            match self.list_once(name).await {
                // The container at which the next page began was deleted in between.
                Err(OpenStackError::NotFound(_)) if listings < LISTINGS => listings += 1,
                result => return result,
            }
        }
    }

    async fn list_once(&self, name: Option<&str>) -> Result<Vec<Container>, OpenStackError> {
        let mut all: Vec<Container> = Vec::new();
        let mut request = self.versioned("list", Method::GET, &[]).await?;
        request.query.push(("limit", PAGE.to_string()));
        request.query.extend(name.map(|name| ("name", name.to_owned())));
        let first = request.query.len();
        loop {
            let page = wire::page(&self.session.send(&request).await?.body)?;
            let last = page.containers.last().map(|container| container.uuid.clone());
            all.extend(page.containers);
            match last {
                Some(last) if page.next.is_some() => {
                    request.query.truncate(first);
                    request.query.push(("marker", last));
                }
                Some(_) | None => return Ok(all),
            }
        }
    }

    /// Has a container's first process told to end, and killed after `grace` (whole seconds, at least one).
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn stop(&self, ident: &str, grace: Duration) -> Result<Ordered, OpenStackError> {
        let mut request = self.versioned("stop", Method::POST, &[ident, "stop"]).await?;
        // Zun takes a zero for its own default.
        request.query.push(("timeout", grace.as_secs().max(1).to_string()));
        ordered(self.session.send(&request).await)
    }

    /// Has a container removed, stopped before if it runs. That an order was taken does not mean that it is carried out:
    /// when it comes between "created" and "started", the container stays. One that is being made cannot be removed without
    /// an administrator's rights.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn delete(&self, ident: &str) -> Result<Ordered, OpenStackError> {
        let mut request = self.versioned("delete", Method::DELETE, &[ident]).await?;
        request.query.push(("stop", "true".to_owned()));
        ordered(self.session.send(&request).await)
    }

    async fn versioned(
        &self,
        operation: &'static str,
        method: Method,
        rest: &[&str],
    ) -> Result<Request, OpenStackError> {
        let version = self.version().await?;
        let mut request = request(operation, method, &[&["containers"], rest].concat());
        let value = HeaderValue::from_str(&format!("container {version}"))
            .map_err(|_| OpenStackError::Invalid("the microversion cannot be sent".to_owned()))?;
        request.headers.insert(VERSION_HEADER, value);
        Ok(request)
    }
}

fn request(operation: &'static str, method: Method, rest: &[&str]) -> Request {
    let path = ["v1"].iter().chain(rest).map(|segment| (*segment).to_owned()).collect();
    let mut headers = HeaderMap::new();
    headers.insert(reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
    Request { service: SERVICE, operation, method, path, query: Vec::new(), headers, body: None, is_idempotent: true }
}

fn ordered(result: Result<super::Answer, OpenStackError>) -> Result<Ordered, OpenStackError> {
    match result {
        Ok(_) => Ok(Ordered::Taken),
        Err(OpenStackError::NotFound(_)) => Ok(Ordered::Absent),
        Err(OpenStackError::Conflict(_)) => Ok(Ordered::NotNow),
        Err(error) => Err(error),
    }
}

/// The version to be spoken with a cloud that names its highest like this: `container 1.40`.
fn negotiate(highest: Option<&str>) -> Result<Microversion, OpenStackError> {
    let Some(highest) = highest else {
        let text = "the service at Zun's address does not say which versions of the container API it has; \
                    is it Zun, and does its address end in /v1 or before it?";
        return Err(OpenStackError::Invalid(text.to_owned()));
    };
    let number = highest.rsplit(' ').next().unwrap_or_default();
    let version = match number.split_once('.').map(|(major, minor)| (major, minor.parse())) {
        Some(("1", Ok(minor))) => Microversion(minor),
        Some(_) | None => {
            return Err(OpenStackError::protocol(SERVICE.name(), format!("its highest version is '{highest}'")));
        }
    };
    if version < VERSION_MIN {
        return Err(OpenStackError::Invalid(format!(
            "this Zun speaks the container API up to {version}, and {VERSION_MIN} is needed"
        )));
    }
    Ok(version.min(VERSION))
}

#[cfg(test)]
mod tests;
