//! An instance as the record shows it.

use serde::{Deserialize, Serialize};

use super::{InstanceId, ProjectId, Timestamp, WorkerId};

/// What a driver booted for a project. Written down before the boot is asked for, so that a crash leaves a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id, chosen by us; the driver tags what it boots with it.
    pub id: InstanceId,
    /// The project it belongs to for life.
    pub project_id: ProjectId,
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
