//! A function as answers show it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::links::Link;
use crate::model::package::PackageRef;
use crate::model::{Function, Trigger};

/// A function.
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct FunctionView {
    /// Its id.
    id: String,
    /// Its name, unique in the project.
    name: String,
    /// The project that owns it.
    project_id: String,
    /// Free text.
    description: String,
    /// What runs the code.
    runtime: String,
    /// What is called for an event.
    handler: String,
    /// Memory of a sandbox, in MiB.
    memory: u32,
    /// Time for one event, in seconds.
    timeout: u32,
    /// Variables of the process.
    environment: BTreeMap<String, String>,
    /// Most events handled at the same time; null: as the service allows.
    max_concurrency: Option<u32>,
    /// Sandboxes that are kept started, also when no event comes.
    provisioned_concurrency: u32,
    /// How strongly it must be separated from others, at least; null: as the service does by itself.
    isolation: Option<&'static str>,
    /// When an event is given up.
    retry: RetryView,
    /// Where events go that were given up; null: the service's own queue.
    dead_letter_queue: Option<String>,
    /// What it is bound to.
    triggers: Vec<TriggerOfFunction>,
    /// Its code; null until the first upload.
    code: Option<CodeView>,
    /// Counts the changes, from 1.
    revision: u64,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
    /// `self`, `code`, `invocations`, `executions`.
    links: Vec<Link>,
}

/// When an event is given up.
#[derive(Serialize, ToSchema)]
struct RetryView {
    /// Attempts, the first included.
    max_attempts: u32,
    /// Age of the event, in seconds.
    max_event_age: u32,
}

/// A trigger within its function.
#[derive(Serialize, ToSchema)]
struct TriggerOfFunction {
    /// Its id.
    id: String,
    /// Which `source` matches.
    source: String,
    /// Which `type` matches.
    #[serde(rename = "type")]
    event_type: String,
    /// What else has to hold.
    #[schema(value_type = crate::api::triggers::FilterSchema)]
    filter: crate::model::trigger::Filter,
}

/// A package.
#[derive(Serialize, ToSchema)]
struct CodeView {
    /// SHA-256 of the zip archive.
    sha256: String,
    /// Its size in bytes.
    size: u64,
}

impl From<PackageRef> for CodeView {
    fn from(package: PackageRef) -> Self {
        Self { sha256: package.sha256.to_string(), size: package.size }
    }
}

impl FunctionView {
    /// Shows a function with its triggers.
    pub fn new<'a>(function: &Function, triggers: impl IntoIterator<Item = &'a Trigger>, base: &str) -> Self {
        let path = format!("/v1/functions/{}", function.id);
        Self {
            id: function.id.to_string(),
            name: function.name.to_string(),
            project_id: function.project_id.to_string(),
            description: function.description.clone(),
            runtime: function.runtime.to_string(),
            handler: function.handler.to_string(),
            memory: function.memory.get(),
            timeout: function.timeout.get(),
            environment: function.environment.variables().clone(),
            max_concurrency: function.max_concurrency.map(std::num::NonZeroU32::get),
            provisioned_concurrency: function.provisioned_concurrency.map_or(0, std::num::NonZeroU32::get),
            isolation: function.isolation.map(crate::model::instance::Isolation::as_str),
            retry: RetryView {
                max_attempts: function.retry.max_attempts.get(),
                max_event_age: function.retry.max_event_age.get(),
            },
            dead_letter_queue: function.dead_letter_queue.as_ref().map(ToString::to_string),
            triggers: triggers
                .into_iter()
                .map(|trigger| TriggerOfFunction {
                    id: trigger.id.to_string(),
                    source: trigger.source.as_str().to_owned(),
                    event_type: trigger.event_type.as_str().to_owned(),
                    filter: trigger.filter.clone(),
                })
                .collect(),
            code: function.package.map(CodeView::from),
            revision: function.revision,
            created_at: function.created_at.to_string(),
            updated_at: function.updated_at.to_string(),
            links: vec![
                Link::new("self", base, &path),
                Link::new("code", base, &format!("{path}/code")),
                Link::new("invocations", base, &format!("{path}/invocations")),
                Link::new("executions", base, &format!("/v1/executions?function={}", function.id)),
            ],
        }
    }
}
