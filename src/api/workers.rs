//! `/v1/workers`: what operators see of the workers.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::error::Result;
use super::input::{NoParameters, Query};
use super::links::Link;
use crate::model::worker::{Worker, WorkerState};

/// A worker.
#[derive(Serialize, ToSchema)]
struct WorkerView {
    /// This run of the process.
    id: String,
    /// The machine it runs on.
    host: String,
    /// `address:port` of its gateway.
    gateway: String,
    /// `active`, `draining` or `dead`.
    state: &'static str,
    /// Most executions that it runs at the same time.
    capacity: u32,
    /// Executions running or waiting in it.
    executions: u32,
    /// Sandboxes it keeps.
    sandboxes: u32,
    /// Version of the program.
    version: String,
    /// When it started.
    #[schema(format = DateTime)]
    started_at: String,
    /// Its last sign of life.
    #[schema(format = DateTime)]
    heartbeat_at: String,
    /// Seconds since then.
    silent_seconds: f64,
}

/// The workers.
#[derive(Serialize, ToSchema)]
pub(super) struct WorkerList {
    /// All of them; there are no pages.
    workers: Vec<WorkerView>,
    /// Always empty.
    workers_links: Vec<Link>,
}

fn view(worker: Worker, silent_for: std::time::Duration) -> WorkerView {
    WorkerView {
        id: worker.id.to_string(),
        host: worker.host,
        gateway: worker.gateway,
        state: match worker.state {
            WorkerState::Active => "active",
            WorkerState::Draining => "draining",
            WorkerState::Dead => "dead",
        },
        capacity: worker.capacity,
        executions: worker.executions,
        sandboxes: worker.sandboxes,
        version: worker.version,
        started_at: worker.started_at.to_string(),
        heartbeat_at: worker.heartbeat_at.to_string(),
        silent_seconds: silent_for.as_secs_f64(),
    }
}

/// List workers; for operators.
#[utoipa::path(get, path = "/v1/workers", tag = "operation", operation_id = "list_workers",
    responses((status = 200, description = "All workers, the oldest first.", body = WorkerList)))]
pub(super) async fn list(State(api): State<Api>, _query: Query<NoParameters>) -> Result<Json<WorkerList>> {
    let mut workers = api.store.workers().await?;
    workers.sort_by_key(|(worker, _)| (worker.started_at, worker.id));
    let workers = workers.into_iter().map(|(worker, silent_for)| view(worker, silent_for)).collect();
    Ok(Json(WorkerList { workers, workers_links: Vec::new() }))
}
