//! How instances are made. A driver knows how to ask one kind of cloud for an instance and how to find again what was
//! asked for; it knows nothing of pools, executions or the store.

pub mod local;
pub mod nova;
pub mod zun;

use async_trait::async_trait;
use lambda_agent::address::GatewayAddress;
use lambda_agent::args;

use crate::model::runtime::RuntimeName;
use crate::model::{FunctionId, InstanceId, ProjectId};

/// What an instance must be able to do, and whom its agent calls.
#[derive(Clone)]
pub struct InstanceSpec {
    /// Chosen by the caller; asking twice with the same id makes one instance.
    pub id: InstanceId,
    /// The project it is for; none: the first that needs it.
    pub project_id: Option<ProjectId>,
    /// The one function that it is for; none: any of the project's.
    pub function_id: Option<FunctionId>,
    /// The runtime that asked for it, where images differ by runtime.
    pub runtime: RuntimeName,
    /// Memory for sandboxes, in MiB.
    pub memory_mib: u32,
    /// Where the agent dials.
    pub gateway: GatewayAccess,
    /// What the agent shows there, once.
    pub token: String,
}

impl InstanceSpec {
    /// What the agent of an instance finds in its environment, for drivers that cannot give it arguments.
    #[must_use]
    pub fn agent_environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            (args::GATEWAY, self.gateway.address.to_string()),
            (args::INSTANCE, self.id.to_string()),
            (args::MEMORY, self.memory_mib.to_string()),
            (args::TOKEN, self.token.clone()),
        ];
        environment.extend(self.gateway.fingerprint.clone().map(|fingerprint| (args::FINGERPRINT, fingerprint)));
        environment
    }
}

/// Where an agent dials, and by what it knows that it is right there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAccess {
    /// Its address.
    pub address: GatewayAddress,
    /// SHA-256 of the certificate that it must show, in hexadecimal digits; none: they talk without TLS, on one host.
    pub fingerprint: Option<String>,
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
    /// It will never run: the cloud took the order and could not carry it out.
    Refused(Refusal, String),
}

/// Why a cloud does not give an instance, for who decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No host has room: later, or elsewhere.
    Capacity,
    /// The project of the service has used up its quota: later, or when the operator raises it.
    Quota,
    /// What was asked for cannot be had as it is configured: an image, a flavor or a network is missing. It stays so
    /// until the operator acts.
    Misconfigured,
}

impl Refusal {
    /// As a word in records, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Quota => "quota",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// Why a driver could not do what it was asked. A failure of the user's code is never one.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The cloud does not give what was asked for.
    #[error("{}: {text}", .refusal.as_str())]
    Refused {
        /// Why, for programs.
        refusal: Refusal,
        /// Why, for people.
        text: String,
    },
    /// The cloud could not be reached or answered with a passing fault.
    #[error("the cloud did not answer as it should")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl DriverError {
    /// What was asked cannot be done as it is configured.
    #[must_use]
    pub fn misconfigured(text: impl Into<String>) -> Self {
        Self::Refused { refusal: Refusal::Misconfigured, text: text.into() }
    }
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

    /// Looks at many instances, each answered or left out when nothing was found out about it. A driver whose cloud can
    /// tell of all in one call does that.
    async fn observe_all(&self, ids: &[InstanceId]) -> Result<Vec<(InstanceId, Observed)>, DriverError> {
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            all.push((*id, self.observe(*id).await?));
        }
        Ok(all)
    }

    /// Finds every instance that this deployment owns, without asking the store.
    async fn list(&self) -> Result<Vec<InstanceId>, DriverError>;

    /// Removes an instance. Succeeds when it is absent already; returns when it is gone or sure to go.
    async fn delete(&self, id: InstanceId) -> Result<(), DriverError>;

    /// What can be told of an instance that runs but whose agent does not call, such as the end of its console; none:
    /// nothing. For the operator's log, never for users.
    async fn explain(&self, _id: InstanceId) -> Option<String> {
        None
    }
}
