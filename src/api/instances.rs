//! `/v1/instances`: what was booted for a project.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::Result;
use super::identity::Caller;
use super::input::{Query, QueryParameters};
use super::links::Link;
use crate::model::instance::{Instance, InstanceState};

/// An instance.
#[derive(Serialize, ToSchema)]
struct InstanceView {
    /// Its id; what the driver booted is tagged with it.
    id: String,
    /// The project it belongs to; null: it is in the pool, ready for the first that needs it.
    project_id: Option<String>,
    /// The worker that it works for.
    worker_id: String,
    /// The driver that made it.
    driver: String,
    /// `booting`, `active`, `draining` or `deleting`.
    state: &'static str,
    /// Memory for its sandboxes, in MiB.
    memory: u32,
    /// Sandboxes in it when its record was last written.
    sandboxes: u32,
    /// When its boot was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// When its agent first called; null: not yet.
    #[schema(format = DateTime)]
    ready_at: Option<String>,
    /// Why it failed, if it did.
    error: Option<String>,
}

/// The instances.
#[derive(Serialize, ToSchema)]
pub(super) struct InstanceList {
    /// All of them; there are no pages.
    instances: Vec<InstanceView>,
    /// Always empty.
    instances_links: Vec<Link>,
}

/// Which instances.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct InstanceQuery {
    /// Of all projects; policy allows it to admins.
    all_projects: Option<bool>,
}

impl QueryParameters for InstanceQuery {}

fn view(instance: Instance) -> InstanceView {
    InstanceView {
        id: instance.id.to_string(),
        project_id: instance.project_id.map(String::from),
        worker_id: instance.worker.to_string(),
        driver: instance.driver,
        state: match instance.state {
            InstanceState::Booting => "booting",
            InstanceState::Active => "active",
            InstanceState::Draining => "draining",
            InstanceState::Deleting => "deleting",
        },
        memory: instance.memory_mib,
        sandboxes: instance.sandboxes,
        created_at: instance.created_at.to_string(),
        ready_at: instance.ready_at.map(|at| at.to_string()),
        error: instance.error,
    }
}

/// List instances.
#[utoipa::path(get, path = "/v1/instances", tag = "operation", operation_id = "list_instances", params(InstanceQuery),
    responses((status = 200, description = "The project's instances, the oldest first.", body = InstanceList)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<InstanceQuery>,
) -> Result<Json<InstanceList>> {
    let mut instances = api.store.instances(&caller.list_scope(query.all_projects)?).await?;
    instances.sort_by_key(|instance| (instance.created_at, instance.id));
    let instances = instances.into_iter().map(view).collect();
    Ok(Json(InstanceList { instances, instances_links: Vec::new() }))
}
