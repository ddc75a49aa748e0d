//! Nova, the compute API at microversion 2.90: servers, flavors and server groups.
//!
//! Nova does not know a request again that it has seen: a server that was asked for twice is two servers. This client
//! repeats no creation; its users put a tag on each server by which they find it again.

mod wire;

use reqwest::Method;
use serde_json::json;

use super::json::{Operation, found};
use super::{OpenStackError, Service, Session};

pub use wire::{Fault, Flavor, Hints, NewServer, SecurityGroupName, Server, ServerGroup, ServerNetwork, ServerStatus};

/// In catalogs.
pub const SERVICE: Service = Service(&["compute"]);

/// Yoga's; later ones change nothing that is used here. From 2.47 a server's flavor, from 2.52 tags at creation, from 2.61
/// a flavor's extra specs, from 2.64 a server group's one policy, from 2.90 a server's host name.
const MICROVERSION: &str = "compute 2.90";

/// Largest user data, in base64.
pub const USER_DATA_MAX: usize = 65_535;

/// Servers or flavors of one answer; Nova's own default is its most.
const PAGE: &str = "1000";

/// How often a list is begun again whose last element went away between two pages.
const LIST_TRIES: u32 = 3;

/// Talks to Nova.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
}

impl Client {
    /// On this session.
    #[must_use]
    pub const fn new(session: Session) -> Self {
        Self { session }
    }

    /// Asks for a server; its id. Nova builds it afterwards. The call is not repeated: after
    /// [`OpenStackError::Unavailable`] there may be a server all the same.
    ///
    /// # Errors
    /// See [`OpenStackError`]. What is missing by name (image, flavor, network) is [`OpenStackError::Invalid`], a used up
    /// quota [`OpenStackError::Forbidden`].
    pub async fn create_server(&self, server: &NewServer, hints: &Hints) -> Result<String, OpenStackError> {
        let operation = operation("create_server");
        let body = order_body(server, hints);
        let answer = operation.post(&self.session, &["v2.1", "servers"], &body).await?;
        let created: wire::Created = operation.read(&answer)?;
        Ok(created.server.id)
    }

    /// Looks at one server, also at one of a cell that cannot be reached; none: there is no such server.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn server(&self, id: &str) -> Result<Option<Server>, OpenStackError> {
        let answer = operation("server").get(&self.session, &["v2.1", "servers", id], &[]).await;
        Ok(found(answer)?.map(|shown: wire::Shown| shown.server))
    }

    /// Finds the servers that have all of these tags, in any state. A server whose cell cannot be reached is left out, so
    /// that it is missing here does not mean that it is gone.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn servers(&self, tags: &[&str]) -> Result<Vec<Server>, OpenStackError> {
        let tags = tags.join(",");
        let mut tries = 0;
        loop {
            match self.try_servers(&tags).await {
                // The last server of a page was deleted before the next was asked for.
                Err(OpenStackError::Invalid(_)) if tries < LIST_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    async fn try_servers(&self, tags: &str) -> Result<Vec<Server>, OpenStackError> {
        let mut servers: Vec<Server> = Vec::new();
        loop {
            let marker = servers.last().map(|server| server.id.clone());
            let mut query = vec![("tags", tags), ("limit", PAGE)];
            query.extend(marker.as_deref().map(|marker| ("marker", marker)));
            let page: wire::Servers =
                operation("servers").get(&self.session, &["v2.1", "servers", "detail"], &query).await?;
            let is_last = page.servers.is_empty() || !wire::has_next(&page.links);
            servers.extend(page.servers);
            if is_last {
                return Ok(servers);
            }
        }
    }

    /// Has a server deleted. Succeeds when it is not there any more; Nova deletes it afterwards.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn delete_server(&self, id: &str) -> Result<(), OpenStackError> {
        operation("delete_server").delete(&self.session, &["v2.1", "servers", id]).await
    }

    /// Has a server deleted at once that is only marked as deleted, as clouds do that keep deleted servers for a while.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn force_delete_server(&self, id: &str) -> Result<(), OpenStackError> {
        let body = json!({"forceDelete": null});
        let path = ["v2.1", "servers", id, "action"];
        found(operation("force_delete_server").post(&self.session, &path, &body).await).map(|_| ())
    }

    /// The last lines that a server wrote to its console.
    ///
    /// # Errors
    /// See [`OpenStackError`]; [`OpenStackError::Conflict`] when it has no console yet.
    pub async fn console_output(&self, id: &str, lines: u32) -> Result<String, OpenStackError> {
        let operation = operation("console_output");
        let body = json!({"os-getConsoleOutput": {"length": lines}});
        let answer = operation.post(&self.session, &["v2.1", "servers", id, "action"], &body).await?;
        let console: wire::Console = operation.read(&answer)?;
        Ok(console.output.unwrap_or_default())
    }

    /// All flavors that may be used.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn flavors(&self) -> Result<Vec<Flavor>, OpenStackError> {
        let mut flavors: Vec<Flavor> = Vec::new();
        loop {
            let marker = flavors.last().map(|flavor| flavor.id.clone());
            let mut query = vec![("limit", PAGE)];
            query.extend(marker.as_deref().map(|marker| ("marker", marker)));
            let page: wire::Flavors =
                operation("flavors").get(&self.session, &["v2.1", "flavors", "detail"], &query).await?;
            let is_last = page.flavors.is_empty() || !wire::has_next(&page.links);
            flavors.extend(page.flavors);
            if is_last {
                return Ok(flavors);
            }
        }
    }

    /// All server groups of the project.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn server_groups(&self) -> Result<Vec<ServerGroup>, OpenStackError> {
        let operation = operation("server_groups");
        let groups: wire::ServerGroups = operation.get(&self.session, &["v2.1", "os-server-groups"], &[]).await?;
        Ok(groups.server_groups)
    }

    /// Makes a server group. Names are not unique.
    ///
    /// # Errors
    /// See [`OpenStackError`]; [`OpenStackError::Forbidden`] when the quota is used up.
    pub async fn create_server_group(&self, name: &str, policy: &str) -> Result<ServerGroup, OpenStackError> {
        let operation = operation("create_server_group");
        let body = json!({"server_group": {"name": name, "policy": policy}});
        let answer = operation.post(&self.session, &["v2.1", "os-server-groups"], &body).await?;
        let made: wire::MadeGroup = operation.read(&answer)?;
        Ok(made.server_group)
    }

    /// Removes a server group; its servers stay. Succeeds when it is not there.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn delete_server_group(&self, id: &str) -> Result<(), OpenStackError> {
        operation("delete_server_group").delete(&self.session, &["v2.1", "os-server-groups", id]).await
    }

    /// Whether Nova is up, knows us and speaks the microversion that is used here.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn ping(&self) -> Result<(), OpenStackError> {
        let mut request = operation("ping").request(Method::GET, &["v2.1", "flavors"]);
        request.query.push(("limit", "1".to_owned()));
        self.session.send(&request).await.map(|_| ())
    }
}

/// The body that asks for a server.
#[must_use]
pub fn order_body(server: &NewServer, hints: &Hints) -> serde_json::Value {
    let mut body = json!({"server": server});
    if hints.group.is_some() {
        body["os:scheduler_hints"] = json!(hints);
    }
    body
}

const fn operation(name: &'static str) -> Operation {
    Operation { service: SERVICE, microversion: Some(MICROVERSION), name }
}
