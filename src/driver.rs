//! How instances are made. A driver knows how to ask one kind of cloud for an instance and how to find again what was
//! asked for; it knows nothing of pools, executions or the store.

pub mod local;

use std::net::SocketAddr;

use async_trait::async_trait;

use crate::model::{InstanceId, ProjectId};

/// What an instance must be able to do, and whom its agent calls.
#[derive(Clone)]
pub struct InstanceSpec {
    /// Chosen by the caller; asking twice with the same id makes one instance.
    pub id: InstanceId,
    /// The project it is for.
    pub project_id: ProjectId,
    /// Memory for sandboxes, in MiB.
    pub memory_mib: u32,
    /// Where the agent dials.
    pub gateway: SocketAddr,
    /// What the agent shows there, once.
    pub token: String,
}

/// What a driver sees of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// There is no such instance.
    Absent,
    /// It is on its way.
    Building,
    /// It runs; whether its agent works is the gateway's knowledge.
    Active,
    /// It has ended and will not come back; the text says why.
    Stopped(String),
}

/// Why a driver could not do what it was asked. A failure of the user's code is never one.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The cloud has no room or no quota now: try again later, or elsewhere.
    #[error("no capacity: {0}")]
    Capacity(String),
    /// The cloud could not be reached or answered with a passing fault.
    #[error("the cloud did not answer as it should")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was asked cannot be done as it is configured: an image is missing, a program is not there.
    #[error("misconfigured: {0}")]
    Misconfigured(String),
}

/// Makes, watches and removes instances.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// The driver's name in records and configuration.
    fn name(&self) -> &'static str;

    /// Asks for an instance. Idempotent on the spec's id.
    async fn create(&self, spec: &InstanceSpec) -> Result<(), DriverError>;

    /// Looks at one instance.
    async fn observe(&self, id: InstanceId) -> Result<Observed, DriverError>;

    /// Finds every instance that this deployment owns, without asking the store.
    async fn list(&self) -> Result<Vec<InstanceId>, DriverError>;

    /// Removes an instance. Succeeds when it is absent already; returns when it is gone or sure to go.
    async fn delete(&self, id: InstanceId) -> Result<(), DriverError>;
}
