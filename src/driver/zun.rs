//! Instances as containers of Zun. The image brings the agent; what the agent is told stands in the container's
//! environment.
//!
//! Invariants: an instance's containers have the name that follows from its id and the labels of this deployment, so that
//! they are found without our store; nothing is asked for again before it was looked whether it is there; a deletion has
//! succeeded when nothing of that name is left, because Zun takes orders that it does not carry out.

mod reason;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Driver, DriverError, InstanceSpec, Observed};
use crate::model::InstanceId;
use crate::model::runtime::RuntimeName;
use crate::openstack::OpenStackError;
use crate::openstack::zun::{Client, Container, ImageDriver, NewContainer, Ordered, PullPolicy, Status};

/// Label that says whose a container is.
pub const DEPLOYMENT_LABEL: &str = "lambda-deployment";
/// Label with the instance's id.
pub const INSTANCE_LABEL: &str = "lambda-instance";
/// Label with the id of the project that it serves.
pub const PROJECT_LABEL: &str = "lambda-project";
/// Label with the id of the one function that it serves, if it is one.
pub const FUNCTION_LABEL: &str = "lambda-function";

/// Time for Zun to ask a container's host, which hangs for a minute if that is dead.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Time for a container to be gone.
const DELETE_WITHIN: Duration = Duration::from_secs(60);
/// When a deletion that was ordered shows no effect, it is ordered again.
const ORDER_AGAIN: Duration = Duration::from_secs(3);
/// Pauses between two looks at a container that is to go.
const LOOK_MIN: Duration = Duration::from_millis(150);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long after it was asked for a container that should run is looked at closely, to see whether it has ended by itself
/// before its agent could call. Later, the end of an agent's connection tells.
const CLOSE_LOOKS: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(30), Duration::from_secs(60)];
/// Least and most of a processor that Zun gives to a container.
const CPU: (f64, f64) = (0.1, 16.0);

/// How containers are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The deployment's id, which stands on every container.
    pub deployment: String,
    /// Image of runtimes that have none of their own.
    pub image: String,
    /// Images by runtime.
    pub images: BTreeMap<RuntimeName, String>,
    /// Where images are; none: Zun's default.
    pub image_driver: Option<ImageDriver>,
    /// When images are pulled; none: Zun's default.
    pub image_pull_policy: Option<PullPolicy>,
    /// What is run instead of the image's command; empty: that.
    pub command: Vec<String>,
    /// The network, by id or name; none: Zun's choice.
    pub network: Option<String>,
    /// Security groups, by id or name.
    pub security_groups: Vec<String>,
    /// The availability zone; none: any.
    pub availability_zone: Option<String>,
    /// Processors for each GiB of memory; none: Zun's default.
    pub cpu_per_gib: Option<f64>,
    /// Memory for what is in a container beside sandboxes, in MiB.
    pub overhead_mib: u32,
    /// Labels beside ours.
    pub labels: BTreeMap<String, String>,
    /// Time for Zun to have a container running.
    pub boot_timeout: Duration,
    /// Time for an agent to end by itself before it is killed.
    pub stop_grace: Duration,
}

/// The driver.
#[derive(Debug)]
pub struct ZunDriver {
    client: Client,
    options: Options,
    asked: Mutex<HashMap<InstanceId, Asked>>,
}

/// What this process knows of an instance that it asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    /// Of [`CLOSE_LOOKS`], how many are done.
    looks: usize,
}

impl ZunDriver {
    /// A driver on this client. Nothing is asked of the cloud yet: it may come up after us.
    #[must_use]
    pub fn new(client: Client, options: Options) -> Self {
        Self { client, options, asked: Mutex::default() }
    }

    /// What Zun is asked for.
    fn container(&self, spec: &InstanceSpec) -> NewContainer {
        let o = &self.options;
        let memory = spec.memory_mib.saturating_add(o.overhead_mib);
        let mut labels = o.labels.clone();
        labels.extend([
            (DEPLOYMENT_LABEL.to_owned(), o.deployment.clone()),
            (INSTANCE_LABEL.to_owned(), spec.id.to_string()),
        ]);
        labels.extend(spec.project_id.as_ref().map(|project| (PROJECT_LABEL.to_owned(), project.to_string())));
        labels.extend(spec.function_id.map(|function| (FUNCTION_LABEL.to_owned(), function.to_string())));
        NewContainer {
            name: name(spec.id),
            image: o.images.get(&spec.runtime).unwrap_or(&o.image).clone(),
            image_driver: o.image_driver,
            image_pull_policy: o.image_pull_policy,
            command: o.command.clone(),
            memory,
            cpu: o.cpu_per_gib.map(|per_gib| cpu(memory, per_gib)),
            environment: spec.agent_environment().into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            labels,
            hostname: name(spec.id),
            network: o.network.clone(),
            security_groups: o.security_groups.clone(),
            availability_zone: o.availability_zone.clone(),
            interactive: false,
            // Docker would forget why it ended, and Zun its name.
            auto_remove: false,
        }
    }

    async fn named(&self, id: InstanceId) -> Result<Vec<Container>, DriverError> {
        self.client.list(Some(&name(id))).await.map_err(reason::failed)
    }

    /// What a container of ours is, as Zun has it written down.
    fn judge(&self, id: InstanceId, containers: &[&Container]) -> Observed {
        let Some(best) = containers.iter().min_by_key(|container| rank(&container.status)) else {
            return Observed::Absent;
        };
        let observed = reason::observed(best);
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        match (observed, asked) {
            (Observed::Building, Some(asked)) if asked.at.elapsed() >= self.options.boot_timeout => {
                Observed::Stopped(reason::never_ran(best, self.options.boot_timeout))
            }
            (observed, _) => observed,
        }
    }

    /// What a container that stands as running is in truth: what ended by itself stands so until Zun looks at it, which
    /// this makes it do. None: nobody can tell in time.
    async fn look_closely(&self, id: InstanceId, container: &Container) -> Option<Observed> {
        match tokio::time::timeout(LOOK_WITHIN, self.client.show(&container.uuid)).await {
            Ok(Ok(Some(seen))) => Some(self.judge(id, &[&seen])),
            Ok(Ok(None)) => Some(Observed::Absent),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Whether it is time for a close look at an instance that this process asked for; counts it as done.
    fn is_due(&self, id: InstanceId) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(asked) = asked.get_mut(&id) else { return false };
        let is_due = CLOSE_LOOKS.get(asked.looks).is_some_and(|after| asked.at.elapsed() >= *after);
        asked.looks += usize::from(is_due);
        is_due
    }

    fn is_ours(&self, container: &Container) -> bool {
        container.labels.get(DEPLOYMENT_LABEL) == Some(&self.options.deployment)
    }

    /// Orders the removal of one container, if it is in a state in which that has an effect.
    async fn order_removal(&self, container: &Container) -> Result<Ordered, OpenStackError> {
        if container.status == Status::Running {
            // Otherwise Zun waits ten seconds for an agent that does not hear.
            let _ = self.client.stop(&container.uuid, self.options.stop_grace).await?;
        }
        self.client.delete(&container.uuid).await
    }
}

/// The name of an instance's container.
fn name(id: InstanceId) -> String {
    format!("lambda-{id}")
}

fn instance(container: &Container) -> Option<InstanceId> {
    container.labels.get(INSTANCE_LABEL)?.parse().ok()
}

/// Which of several containers of one instance speaks for it: the one that is furthest.
fn rank(status: &Status) -> u8 {
    match status {
        Status::Running | Status::Paused | Status::Restarting => 0,
        Status::Created | Status::Creating | Status::Rebuilding | Status::Unknown(_) => 1,
        Status::Stopped | Status::Error | Status::Deleting | Status::Deleted | Status::Dead => 2,
    }
}

/// Processors for this much memory, to a hundredth.
fn cpu(memory_mib: u32, per_gib: f64) -> f64 {
    let exact = f64::from(memory_mib) / 1024.0 * per_gib;
    (exact.clamp(CPU.0, CPU.1) * 100.0).round() / 100.0
}

#[async_trait]
impl Driver for ZunDriver {
    fn name(&self) -> &'static str {
        "zun"
    }

    async fn create(&self, spec: &InstanceSpec) -> Result<(), DriverError> {
        if !self.named(spec.id).await?.is_empty() {
            return Ok(());
        }
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(spec.id, Asked { at: Instant::now(), looks: 0 });
        let error = match self.client.create(&self.container(spec)).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // Zun may have taken the order and lost the answer; and where names are unique, another may have been faster.
        if matches!(
            error,
            OpenStackError::Unavailable { .. } | OpenStackError::Protocol { .. } | OpenStackError::Conflict(_)
        ) && self.named(spec.id).await.is_ok_and(|containers| !containers.is_empty())
        {
            return Ok(());
        }
        Err(reason::refused(error))
    }

    async fn observe(&self, id: InstanceId) -> Result<Observed, DriverError> {
        let containers = self.named(id).await?;
        let observed = self.judge(id, &containers.iter().collect::<Vec<_>>());
        if let (Observed::Active, [container]) = (&observed, containers.as_slice()) {
            return Ok(self.look_closely(id, container).await.unwrap_or(observed));
        }
        Ok(observed)
    }

    async fn observe_all(&self, ids: &[InstanceId]) -> Result<Vec<(InstanceId, Observed)>, DriverError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let containers = self.client.list(None).await.map_err(reason::failed)?;
        let mut found: HashMap<InstanceId, Vec<&Container>> = HashMap::new();
        for container in containers.iter().filter(|container| self.is_ours(container)) {
            if let Some(id) = instance(container) {
                found.entry(id).or_default().push(container);
            }
        }
        let one = async |id: InstanceId| {
            let containers = found.get(&id).map_or(&[][..], Vec::as_slice);
            let observed = self.judge(id, containers);
            match containers {
                [container] if observed == Observed::Active && self.is_due(id) => {
                    (id, self.look_closely(id, container).await.unwrap_or(observed))
                }
                _ => (id, observed),
            }
        };
        Ok(futures::future::join_all(ids.iter().map(|id| one(*id))).await)
    }

    async fn list(&self) -> Result<Vec<InstanceId>, DriverError> {
        let containers = self.client.list(None).await.map_err(reason::failed)?;
        let mut ids: Vec<_> =
            containers.iter().filter(|container| self.is_ours(container)).filter_map(instance).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    async fn delete(&self, id: InstanceId) -> Result<(), DriverError> {
        let until = Instant::now() + DELETE_WITHIN;
        let mut ordered: HashMap<String, Instant> = HashMap::new();
        let mut pause = LOOK_MIN;
        loop {
            let containers = self.named(id).await?;
            let Some(first) = containers.first() else {
                self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                return Ok(());
            };
            if Instant::now() >= until {
                return Err(DriverError::Unavailable(reason::never_left(first).into()));
            }
            for container in containers.iter().filter(|container| reason::can_be_removed(container)) {
                let is_due = ordered.get(&container.uuid).is_none_or(|last| last.elapsed() >= ORDER_AGAIN);
                if is_due && self.order_removal(container).await.map_err(reason::failed)? == Ordered::Taken {
                    ordered.insert(container.uuid.clone(), Instant::now());
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LOOK_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
