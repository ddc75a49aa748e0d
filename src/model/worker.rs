//! A worker as the others see it.

use serde::{Deserialize, Serialize};

use super::{Timestamp, WorkerId};

/// What a worker says of itself with each heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// This run of the process.
    pub id: WorkerId,
    /// The machine it runs on.
    pub host: String,
    /// `address:port` of its gateway, where agents and the API dial.
    pub gateway: String,
    /// SHA-256 of the certificate that its gateway shows, in hexadecimal digits; a worker of an older version has none.
    #[serde(default)]
    pub gateway_fingerprint: Option<String>,
    /// What a caller of its gateway must show. Never leaves the store and the services.
    pub caller_secret: String,
    /// Whether it takes work.
    pub state: WorkerState,
    /// Most executions that it runs at the same time.
    pub capacity: u32,
    /// Executions running or waiting in it.
    pub executions: u32,
    /// Sandboxes it keeps.
    pub sandboxes: u32,
    /// Version of the program.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Its last sign of life, by the store's clock.
    pub heartbeat_at: Timestamp,
}

/// Whether a worker takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It takes work.
    Active,
    /// It finishes what it has and takes no more.
    Draining,
    /// It was found silent; its executions belong to the others. Never left again.
    Dead,
}
