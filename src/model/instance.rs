//! An instance as the record shows it.

use serde::{Deserialize, Serialize};

use super::{FunctionId, InstanceId, Invalid, ProjectId, Timestamp, WorkerId};

/// What separates an instance from the others, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A user of its own on the worker's machine: no boundary between projects.
    Process,
    /// A container: the kernel is shared.
    Container,
    /// A virtual machine.
    Vm,
}

impl Isolation {
    /// As a word in records, requests and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }

    /// What a function, a project or a runtime may ask for. A process is what one gets, not what one asks for.
    ///
    /// # Errors
    /// When the text is neither `container` nor `vm`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "container" => Ok(Self::Container),
            "vm" => Ok(Self::Vm),
            _ => Err(Invalid::new("isolation", "must be 'container' or 'vm'")),
        }
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a driver booted. Written down before the boot is asked for, so that a crash leaves a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id, chosen by us; the driver tags what it boots with it.
    pub id: InstanceId,
    /// The project it belongs to for life; none: it is in the pool, ready for the first that needs it.
    #[serde(default)]
    pub project_id: Option<ProjectId>,
    /// The one function that it serves; none: any of the project's.
    #[serde(default)]
    pub function_id: Option<FunctionId>,
    /// The worker whose gateway it dials.
    pub worker: WorkerId,
    /// The driver that made it: `local`, `zun`, `nova`.
    pub driver: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Memory for its sandboxes, in MiB.
    pub memory_mib: u32,
    /// Sandboxes in it when the record was written.
    pub sandboxes: u32,
    /// When its boot was asked for.
    pub created_at: Timestamp,
    /// When its agent first called.
    pub ready_at: Option<Timestamp>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Asked for; its agent has not called yet.
    Booting,
    /// Its agent is connected, or is expected back.
    Active,
    /// It takes no new sandboxes and goes when the last one has.
    Draining,
    /// Its deletion is asked for.
    Deleting,
}
