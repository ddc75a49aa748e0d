//! Instances as Nova servers. A server is found again by its tags alone: one for the deployment, one for the instance; so
//! nothing is lost when a worker forgets, and a creation whose answer was lost is looked for before it is repeated.
//!
//! What the agent must know is in the server's user data, on a config drive: gateway, instance, memory and a token that
//! works once. No credential of the service is among it.

mod choose;
mod classify;
mod order;
mod resolve;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use self::resolve::Resolver;
use super::{Driver, DriverError, InstanceSpec, Observed, Refusal};
use crate::model::InstanceId;
use crate::openstack::nova::{Client, Hints, Server, ServerStatus};
use crate::openstack::{OpenStackError, Session};
use crate::task::chain;

/// How often a server is looked for whose creation was not answered.
const LOOKS: u32 = 4;
/// The pause between two such looks.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// How long a deletion is waited for.
const GONE_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks at a server that is going, at first and at most.
const GONE_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// After this time a server that is not being deleted any more, but is there, is deleted again.
const DELETE_AGAIN: Duration = Duration::from_secs(10);
/// Lines of a console that are read.
const CONSOLE_LINES: u32 = 40;
/// Characters of a console that are kept.
const CONSOLE_MAX: usize = 4000;

/// How the Nova driver works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The deployment's name: at most 42 characters, without comma and slash. Servers of other deployments in the same
    /// project are not seen.
    pub deployment: String,
    /// The image: an id, a name or a tag.
    pub image: String,
    /// The project that the image must belong to, where it is given by name or tag; none: any that we may use.
    pub image_owner: Option<String>,
    /// The flavor, by id or name; empty: the smallest that has the memory.
    pub flavor: String,
    /// Memory of a server beside that for sandboxes, in MiB: its kernel, its agent.
    pub overhead_mib: u32,
    /// The network, by id or name.
    pub network: String,
    /// Security groups, by id or name; empty: one of our own that lets nothing in.
    pub security_groups: Vec<String>,
    /// Where servers are built; none: wherever Nova likes.
    pub availability_zone: Option<String>,
    /// Servers are placed together or apart in one server group with this policy; none: there is no group.
    pub server_group_policy: Option<String>,
    /// Further metadata of each server.
    pub metadata: BTreeMap<String, String>,
    /// Whether the console of a guest that does not call may be logged.
    pub console_log: bool,
}

impl Options {
    /// What belongs to the deployment and to no instance is called this.
    fn own_name(&self) -> String {
        format!("lambda-{}", self.deployment)
    }
}

/// The driver.
#[derive(Debug)]
pub struct NovaDriver {
    options: Options,
    nova: Client,
    resolver: Resolver,
    /// Servers that were seen. Only a help: a server whose cell cannot be reached is missing in lists, but not gone.
    seen: Mutex<BTreeMap<InstanceId, String>>,
    look_pause: Duration,
    gone_pause: (Duration, Duration),
}

impl NovaDriver {
    /// A driver on sessions with Nova, Neutron and Glance. Nothing is sent yet.
    ///
    /// # Errors
    /// When an option does not do.
    pub fn new(options: Options, nova: Session, neutron: Session, glance: Session) -> Result<Self, DriverError> {
        for (name, value) in [("image", &options.image), ("network", &options.network)] {
            if value.is_empty() {
                return Err(DriverError::misconfigured(format!("[nova] {name} is not set")));
            }
        }
        let deployment = &options.deployment;
        if deployment.is_empty() || deployment.len() > 42 || deployment.contains([',', '/']) {
            return Err(DriverError::misconfigured("a deployment's name is 1 to 42 characters, without ',' and '/'"));
        }
        let nova = Client::new(nova);
        let resolver = Resolver::new(nova.clone(), neutron, glance);
        let (look_pause, gone_pause) = (LOOK_PAUSE, GONE_PAUSE);
        Ok(Self { options, nova, resolver, seen: Mutex::default(), look_pause, gone_pause })
    }

    /// What the end of a guest's console says, for whoever wants to know why its agent does not call; none: nothing, or
    /// it may not be told.
    async fn console(&self, server: &str) -> Option<String> {
        if !self.options.console_log {
            return None;
        }
        let text = match self.nova.console_output(server, CONSOLE_LINES).await {
            Ok(text) => text,
            Err(error) => {
                tracing::debug!(server.id = server, "the console of server {server} cannot be read: {}", chain(&error));
                return None;
            }
        };
        tail(&text)
    }

    /// The servers of one instance, oldest first. More than one only after an answer was lost.
    async fn find(&self, id: InstanceId) -> Result<Vec<Server>, DriverError> {
        let tags = [order::deployment_tag(&self.options.deployment), order::instance_tag(id)];
        let mut servers = self.nova.servers(&[&tags[0], &tags[1]]).await.map_err(unavailable)?;
        servers.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        if let Some(server) = servers.first() {
            self.saw(id, &server.id);
        }
        Ok(servers)
    }

    async fn all(&self) -> Result<BTreeMap<InstanceId, Server>, DriverError> {
        let tag = order::deployment_tag(&self.options.deployment);
        let mut found: BTreeMap<InstanceId, Server> = BTreeMap::new();
        for server in self.nova.servers(&[&tag]).await.map_err(unavailable)? {
            let Some(id) = order::instance_of(&server.tags) else {
                tracing::warn!(server.id = server.id, "server {} is ours, but its tags name no instance", server.id);
                continue;
            };
            self.saw(id, &server.id);
            match found.get(&id) {
                Some(other) if (&other.created, &other.id) < (&server.created, &server.id) => {}
                Some(_) | None => {
                    found.insert(id, server);
                }
            }
        }
        Ok(found)
    }

    /// What a server that no list shows is: gone, or out of reach.
    async fn unlisted(&self, id: InstanceId) -> Result<Option<Observed>, DriverError> {
        let Some(server) = self.seen_as(id) else { return Ok(Some(Observed::Absent)) };
        match self.nova.server(&server).await.map_err(unavailable)? {
            Some(server) => Ok(classify::observed(&server)),
            None => Ok(Some(Observed::Absent)),
        }
    }

    fn saw(&self, id: InstanceId, server: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id, server.to_owned());
    }

    fn seen_as(&self, id: InstanceId) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Orders the server; without its server group when that has as many members as Nova allows and is only a wish.
    async fn order(&self, spec: &InstanceSpec) -> Result<String, OrderError> {
        let memory_mib = spec.memory_mib.saturating_add(self.options.overhead_mib);
        let resolved = self.resolver.resolve(&self.options, memory_mib).await.map_err(OrderError::Before)?;
        let zone = self.options.availability_zone.as_deref();
        let server = order::server(spec, &self.options.deployment, zone, &self.options.metadata, &resolved)
            .map_err(OrderError::Before)?;
        let hints = Hints { group: resolved.server_group };
        let is_wish = self.options.server_group_policy.as_deref().is_some_and(|policy| policy.starts_with("soft-"));
        match self.nova.create_server(&server, &hints).await {
            Err(error) if is_wish && classify::group_is_full(&error) => {
                tracing::debug!(instance.id = %spec.id, "the server group is full: instance {} is placed freely", spec.id);
                self.nova.create_server(&server, &Hints::default()).await.map_err(OrderError::Nova)
            }
            other => other.map_err(OrderError::Nova),
        }
    }

    /// Looks for a server whose order was not answered: it may come to be after all.
    async fn look_for(&self, id: InstanceId) -> bool {
        for _ in 0..LOOKS {
            tokio::time::sleep(self.look_pause).await;
            if self.find(id).await.is_ok_and(|servers| !servers.is_empty()) {
                return true;
            }
        }
        false
    }

    /// Has a server deleted and waits until it is gone.
    async fn remove(&self, server: &str) -> Result<(), DriverError> {
        let begun = Instant::now();
        self.nova.delete_server(server).await.map_err(unavailable)?;
        let (mut pause, longest) = self.gone_pause;
        let mut asked = begun;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
            let Some(now) = self.nova.server(server).await.map_err(unavailable)? else { return Ok(()) };
            match now.status {
                ServerStatus::Deleted => return Ok(()),
                // Nova keeps deleted servers for a while: theirs would be the quota.
                ServerStatus::SoftDeleted => self.nova.force_delete_server(server).await.map_err(unavailable)?,
                ServerStatus::Active
                | ServerStatus::Build
                | ServerStatus::Busy(_)
                | ServerStatus::Halted(_)
                | ServerStatus::Error
                | ServerStatus::Unknown(_) => {
                    let is_going = now.task_state.as_deref() == Some(classify::DELETING);
                    if !is_going && asked.elapsed() >= DELETE_AGAIN {
                        asked = Instant::now();
                        self.nova.delete_server(server).await.map_err(unavailable)?;
                    }
                }
            }
            if begun.elapsed() >= GONE_WITHIN {
                return Err(DriverError::Unavailable(format!("server {server} is still being deleted").into()));
            }
        }
    }
}

/// Why there is no server, and whether Nova was asked for one.
enum OrderError {
    Before(DriverError),
    Nova(OpenStackError),
}

#[async_trait]
impl Driver for NovaDriver {
    fn name(&self) -> &'static str {
        "nova"
    }

    async fn create(&self, spec: &InstanceSpec) -> Result<(), DriverError> {
        if !self.find(spec.id).await?.is_empty() {
            return Ok(());
        }
        let error = match self.order(spec).await {
            Ok(server) => {
                tracing::debug!(
                    instance.id = %spec.id,
                    server.id = server,
                    "instance {} is server {server}",
                    spec.id
                );
                self.saw(spec.id, &server);
                return Ok(());
            }
            Err(OrderError::Before(error)) => return Err(error),
            Err(OrderError::Nova(error)) => error,
        };
        let refused = classify::refused(error);
        match &refused {
            DriverError::Unavailable(_) => {
                if self.look_for(spec.id).await {
                    return Ok(());
                }
            }
            // It may be there under the same name, but anew.
            DriverError::Refused { refusal: Refusal::Misconfigured, .. } => self.resolver.forget(),
            DriverError::Refused { .. } => {}
        }
        Err(refused)
    }

    async fn observe(&self, id: InstanceId) -> Result<Observed, DriverError> {
        let listed = self.find(id).await?.first().map(classify::observed);
        let observed = match listed {
            Some(observed) => observed,
            None => self.unlisted(id).await?,
        };
        observed.ok_or_else(|| DriverError::Unavailable("Nova does not know how the server is".into()))
    }

    async fn observe_all(&self, ids: &[InstanceId]) -> Result<Vec<(InstanceId, Observed)>, DriverError> {
        let all = self.all().await?;
        let mut observed = Vec::with_capacity(ids.len());
        for id in ids {
            let one = match all.get(id) {
                Some(server) => classify::observed(server),
                None => self.unlisted(*id).await?,
            };
            observed.extend(one.map(|one| (*id, one)));
        }
        Ok(observed)
    }

    async fn list(&self) -> Result<Vec<InstanceId>, DriverError> {
        Ok(self.all().await?.into_keys().collect())
    }

    async fn delete(&self, id: InstanceId) -> Result<(), DriverError> {
        let mut servers: Vec<String> = self.find(id).await?.into_iter().map(|server| server.id).collect();
        if let Some(seen) = self.seen_as(id)
            && !servers.contains(&seen)
        {
            servers.push(seen);
        }
        futures::future::try_join_all(servers.iter().map(|server| self.remove(server))).await?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(())
    }

    async fn explain(&self, id: InstanceId) -> Option<String> {
        let server = self.find(id).await.ok()?.into_iter().next()?;
        self.console(&server.id).await
    }
}

fn unavailable(error: OpenStackError) -> DriverError {
    DriverError::Unavailable(error.into())
}

/// The end of a console, fit for a log; none: there is nothing in it.
fn tail(text: &str) -> Option<String> {
    let clean: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let lines: Vec<&str> = clean.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let whole = lines.join("\n");
    let skip = whole.chars().count().saturating_sub(CONSOLE_MAX);
    let end: String = whole.chars().skip(skip).collect();
    (!end.is_empty()).then_some(end)
}

#[cfg(test)]
mod tests;
