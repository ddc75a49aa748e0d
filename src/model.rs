//! The words of the service as types: what a function, a trigger, an event and an execution are, how text becomes
//! one of them, and which changes of state are legal. No I/O, no async, no clock: time comes in as an argument.

pub mod event;
pub mod execution;
pub mod function;
pub mod ids;
pub mod instance;
pub mod package;
pub mod payload;
pub mod posting;
pub mod runtime;
pub mod time;
pub mod trigger;
pub mod worker;

pub use event::Event;
pub use execution::{Execution, ExecutionState};
pub use function::Function;
pub use ids::{DeploymentId, ExecutionId, FunctionId, InstanceId, ProjectId, RequestId, TriggerId, WorkerId};
pub use payload::Payload;
pub use time::Timestamp;
pub use trigger::Trigger;

/// The service's type: in Keystone's catalog, in `OpenStack-API-Version`, and before every error code. Programs, clients and
/// the DevStack plugin know it by this name only.
pub const SERVICE_TYPE: &str = "function";

/// A value from outside that is not what it has to be. The API answers it with 400, the worker with a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The attribute that is wrong, as a dotted path, for example `retry.max_attempts`.
    pub field: String,
    /// What is wrong with it and what would be right, as a lower-case fragment.
    pub reason: String,
}

impl Invalid {
    /// Names the attribute and says what is wrong with it.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}
