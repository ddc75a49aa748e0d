//! `/v1/executions`: the record of every event, and what its owner may do about it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::{ApiError, Code, Result, or_missing, shown};
use super::functions;
use super::gateway_client::CallError;
use super::identity::Caller;
use super::input::{Named, NoParameters, Query, QueryParameters};
use super::links::Link;
use super::paging::{SortKey, next_link, page};
use crate::clock;
use crate::model::execution::{Change, Component, ErrorDetail, Failure, Origin, Phase, Reason};
use crate::model::worker::WorkerState;
use crate::model::{Execution, ExecutionId, ExecutionState, Timestamp, WorkerId};
use crate::store::{Direction, ExecutionFilter, ExecutionSort, ExecutionWrite, FunctionRef, PageRequest, StoreError};

/// How often a change is tried again while the execution changes under it.
const ATTEMPTS: usize = 5;

/// Rows that are read from the store at a time, and bytes after which a page is closed early: a row may carry megabytes.
const ROWS_AT_A_TIME: usize = 50;
const PAGE_BYTES: usize = 16 << 20;

/// How often a record that is not there is looked for again, and after which pause: for longer than a worker keeps one
/// before it writes it (`worker::record`).
const LOOKS: u32 = 15;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Only records whose ids are not older than this, in milliseconds, are looked for again.
const NEW_MILLIS: i64 = 2000;

/// An execution: the whole record but for the log.
#[derive(Serialize, ToSchema)]
pub(super) struct ExecutionView {
    /// Its id; also the request id that the code sees.
    id: String,
    /// The project that owns it.
    project_id: String,
    /// The function.
    function_id: String,
    /// The function's name when the event was received.
    function_name: String,
    /// The function's revision that the last attempt ran.
    revision: u64,
    /// How it came to be.
    origin: OriginView,
    /// The event, in short.
    event: EventView,
    /// What the handler gets.
    #[schema(value_type = Object)]
    payload: Box<RawValue>,
    /// `queued`, `running`, `succeeded`, `failed`, `timed_out`, `expired` or `cancelled`.
    state: &'static str,
    /// How often the code was given the event.
    attempts: u32,
    /// What it waits for: `worker`, `retry`, `function_limit`, `sandbox`, `capacity`.
    #[schema(value_type = Option<String>)]
    waiting_for: Option<crate::model::execution::WaitingFor>,
    /// When it may be tried next.
    #[schema(format = DateTime)]
    not_before: Option<String>,
    /// When the service took the event.
    #[schema(format = DateTime)]
    received_at: String,
    /// When the last attempt began.
    #[schema(format = DateTime)]
    started_at: Option<String>,
    /// When it reached its last state.
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    /// Milliseconds that start and import took; only of a cold start.
    init_ms: Option<f64>,
    /// Milliseconds from handing the event to the code to its answer.
    duration_ms: Option<f64>,
    /// `cold`: a sandbox was made for it; `warm`: one was there.
    #[schema(value_type = Option<String>)]
    start: Option<crate::model::execution::Start>,
    /// Highest memory of the sandbox so far.
    peak_memory_bytes: Option<u64>,
    /// The size of its log.
    log: LogSize,
    /// What the handler returned.
    #[schema(value_type = Option<Object>)]
    result: Option<Box<RawValue>>,
    /// Why the last attempt failed.
    #[schema(value_type = Option<FailureView>)]
    failure: Option<Failure>,
    /// Where the event went when it was given up.
    dead_letter: Option<DeadLetterView>,
    /// How often it was re-driven.
    redrives: u32,
    /// The worker that has it, or had it last.
    worker_id: Option<String>,
    /// Where the last attempt ran.
    instance_id: Option<String>,
    /// `self`, `log`, `function`.
    links: Vec<Link>,
}

/// How an execution came to be.
#[derive(Serialize, ToSchema)]
struct OriginView {
    /// `queue`, `invocation` or `async_invocation`.
    kind: &'static str,
    /// The queue.
    queue: Option<String>,
    /// The message.
    message_id: Option<String>,
}

/// An event, in short.
#[derive(Serialize, ToSchema)]
struct EventView {
    /// CloudEvents `id`.
    id: String,
    /// CloudEvents `source`.
    source: String,
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    event_type: String,
    /// CloudEvents `subject`.
    subject: Option<String>,
}

/// The size of a log.
#[derive(Serialize, ToSchema)]
struct LogSize {
    /// Bytes kept of the last attempt.
    bytes: u64,
    /// Whether it was cut at its limit.
    truncated: bool,
}

/// Why an execution failed.
#[derive(ToSchema)]
#[schema(as = Failure)]
#[expect(dead_code, reason = "only its schema is used; the model's own type is written")]
pub(super) struct FailureView {
    /// What to search for in every log.
    request_id: String,
    /// Who failed: `function`, `sandbox`, `instance` or `worker`.
    component: String,
    /// When: `queue`, `boot`, `package`, `init` or `invoke`.
    phase: String,
    /// Why, as a word; `/v1/errors` explains each.
    #[schema(example = "handler_error")]
    reason: String,
    /// The details.
    error: ErrorView,
}

/// What the runtime said about a failure.
#[derive(ToSchema)]
#[schema(as = FailureError)]
#[expect(dead_code, reason = "only its schema is used; the model's own type is written")]
struct ErrorView {
    /// The exception's class, or the platform's error type.
    r#type: String,
    /// Its message.
    message: String,
    /// The stack, outermost call first.
    #[schema(required = false)]
    trace: Vec<String>,
}

/// Where an event went that was given up.
#[derive(Serialize, ToSchema)]
struct DeadLetterView {
    /// The queue.
    queue: String,
    /// When it was posted there; null: not yet.
    #[schema(format = DateTime)]
    posted_at: Option<String>,
}

impl ExecutionView {
    /// Shows a record.
    pub fn new(execution: &Execution, base: &str) -> Self {
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let path = format!("/v1/executions/{}", execution.id);
        let measures = &execution.measures;
        let (kind, queue, message_id) = match &execution.origin {
            Origin::Queue { queue, message_id, .. } => ("queue", Some(queue.clone()), Some(message_id.clone())),
            Origin::Invocation => ("invocation", None, None),
            Origin::AsyncInvocation => ("async_invocation", None, None),
        };
        Self {
            id: execution.id.to_string(),
            project_id: execution.project_id.to_string(),
            function_id: execution.function_id.to_string(),
            function_name: execution.function_name.to_string(),
            revision: execution.revision,
            origin: OriginView { kind, queue, message_id },
            event: EventView {
                id: execution.event.id.clone(),
                source: execution.event.source.clone(),
                event_type: execution.event.event_type.clone(),
                subject: execution.event.subject.clone(),
            },
            payload: execution.payload.to_raw(),
            state: execution.state.as_str(),
            attempts: execution.attempt,
            waiting_for: execution.waiting_for,
            not_before: text(execution.not_before),
            received_at: execution.received_at.to_string(),
            started_at: text(execution.started_at),
            finished_at: text(execution.finished_at),
            init_ms: measures.init_ms.map(f64::from),
            duration_ms: measures.duration_ms.map(f64::from),
            start: execution.start,
            peak_memory_bytes: measures.peak_memory_bytes,
            log: LogSize { bytes: measures.log_bytes, truncated: measures.log_truncated },
            result: execution.result.as_ref().map(crate::model::Payload::to_raw),
            failure: execution.failure.clone(),
            dead_letter: execution
                .dead_letter
                .as_ref()
                .map(|letter| DeadLetterView { queue: letter.queue.to_string(), posted_at: text(letter.posted_at) }),
            redrives: execution.redrives,
            worker_id: execution.worker.map(|id| id.to_string()),
            instance_id: execution.instance.map(|id| id.to_string()),
            links: vec![
                Link::new("self", base, &path),
                Link::new("log", base, &format!("{path}/log")),
                Link::new("function", base, &format!("/v1/functions/{}", execution.function_id)),
            ],
        }
    }
}

/// A page of executions.
#[derive(Serialize, ToSchema)]
pub(super) struct ExecutionList {
    /// The executions.
    executions: Vec<ExecutionView>,
    /// `next`: the page after this one, if there is one.
    executions_links: Vec<Link>,
}

/// Which executions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ExecutionQuery {
    /// Of this function, by its id or name.
    function: Option<String>,
    /// In one of these states; repeated, or with commas between them.
    state: Option<String>,
    /// Received at this time (RFC 3339) or later.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Received before this time (RFC 3339).
    #[param(format = DateTime)]
    until: Option<String>,
    /// Of the event with this CloudEvents id.
    event_id: Option<String>,
    /// Of all projects; policy allows it to admins.
    all_projects: Option<bool>,
    /// Most elements on the page; it may have fewer where records are large.
    limit: Option<usize>,
    /// Where the page begins: behind this element.
    marker: Option<String>,
    /// `received_at`, with `:asc` or `:desc`.
    sort: Option<String>,
}

impl QueryParameters for ExecutionQuery {
    const REPEATABLE: &'static [&'static str] = &["state"];
}

impl SortKey for ExecutionSort {
    const KEYS: &'static [(&'static str, Self)] = &[("received_at", Self::ReceivedAt)];
    const DEFAULT_DIRECTION: Direction = Direction::Descending;
}

/// List executions, the latest first.
#[utoipa::path(get, path = "/v1/executions", tag = "executions", operation_id = "list_executions",
    params(ExecutionQuery),
    responses((status = 200, description = "A page of executions.", body = ExecutionList)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<ExecutionQuery>,
) -> Result<Json<ExecutionList>> {
    let scope = caller.list_scope(query.all_projects)?;
    let wrong = |detail: String| ApiError::new(Code::InvalidQuery, detail);
    let time = |name: &str, text: Option<&str>| -> Result<Option<Timestamp>> {
        text.map(|text| {
            text.parse().map_err(|invalid: crate::model::Invalid| wrong(format!("{name}: {}", invalid.reason)))
        })
        .transpose()
    };
    let filter = ExecutionFilter {
        function_id: functions::filter_id(&api, &caller, query.function.as_deref()).await?,
        states: states(query.state.as_deref())?,
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
        event_id: query.event_id,
    };
    let wanted: PageRequest<ExecutionSort> = page(&api.options, query.limit, query.marker, query.sort.as_deref())?;
    let (mut executions, mut bytes, mut next) = (Vec::new(), 0, wanted.marker.clone());
    loop {
        let limit = (wanted.limit - executions.len()).min(ROWS_AT_A_TIME);
        let part = api.store.executions(&scope, &filter, &PageRequest { limit, marker: next, ..wanted }).await?;
        for execution in &part.items {
            bytes +=
                execution.payload.bytes().len() + execution.result.as_ref().map_or(0, |result| result.bytes().len());
            executions.push(ExecutionView::new(execution, &caller.base));
        }
        next = part.next;
        if next.is_none() || part.items.is_empty() || executions.len() >= wanted.limit || bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(Json(ExecutionList { executions, executions_links: next_link(&caller.base, &uri, next.as_deref()) }))
}

fn states(text: Option<&str>) -> Result<Vec<ExecutionState>> {
    let known = || ExecutionState::ALL.map(ExecutionState::as_str).join(", ");
    let Some(text) = text else { return Ok(Vec::new()) };
    text.split(',')
        .map(|word| {
            ExecutionState::parse(word.trim()).ok_or_else(|| {
                ApiError::new(Code::InvalidQuery, format!("state: '{}' is none of {}", shown(word), known()))
            })
        })
        .collect()
}

/// Show an execution.
#[utoipa::path(get, path = "/v1/executions/{execution}", tag = "executions", operation_id = "show_execution",
    params(("execution" = String, Path, description = "Its id.")),
    responses((status = 200, description = "The execution.", body = ExecutionView)))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
) -> Result<Json<ExecutionView>> {
    let execution = find(&api, &caller, &name).await?;
    Ok(Json(ExecutionView::new(&execution, &caller.base)))
}

/// Finds an execution by what a path names it with.
pub(super) async fn find(api: &Api, caller: &Caller, name: &str) -> Result<Execution> {
    let missing =
        || ApiError::new(Code::ExecutionNotFound, format!("there is no execution '{}' in this project", shown(name)));
    let id: ExecutionId = name.parse().map_err(|_| missing())?;
    let scope = caller.scope();
    let mut looks = LOOKS;
    loop {
        match api.store.execution(&scope, id).await {
            // Of a call that was just answered the record may be on its way to the store.
            Err(StoreError::NotFound(_)) if looks > 0 && is_new(id) => {
                looks -= 1;
                tokio::time::sleep(LOOK_EVERY).await;
            }
            found => return or_missing(found, missing),
        }
    }
}

/// Whether an execution has just been given its id, as far as clocks agree.
fn is_new(id: ExecutionId) -> bool {
    id.made_at().is_some_and(|made| (clock::now().as_millis() - made.as_millis()).abs() < NEW_MILLIS)
}

/// Stop an execution: it is not tried again, and if its code runs it is killed.
#[utoipa::path(post, path = "/v1/executions/{execution}/cancel", tag = "executions", operation_id = "cancel_execution",
    params(("execution" = String, Path, description = "Its id.")),
    responses((status = 200, description = "It is cancelled.", body = ExecutionView),
        (status = 202, description = "Its worker stops it; the record follows.", body = ExecutionView)))]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
) -> Result<Response> {
    for _ in 0..ATTEMPTS {
        let execution = find(&api, &caller, &name).await?;
        if execution.state == ExecutionState::Cancelled {
            return Ok(Json(ExecutionView::new(&execution, &caller.base)).into_response());
        }
        if execution.state.is_terminal() {
            return Err(ApiError::new(
                Code::ExecutionFinished,
                format!("it is {}; only what is queued or running can be cancelled", execution.state.as_str()),
            ));
        }
        match living_owner(&api, &execution).await? {
            Some(worker) => {
                let found = api.gateways.cancel(worker, execution.id).await.map_err(unreachable)?;
                if found {
                    let view = Json(ExecutionView::new(&execution, &caller.base));
                    return Ok((StatusCode::ACCEPTED, view).into_response());
                }
                // It finished, or changed hands, while it was asked for: look again.
            }
            None => {
                let mut next = execution.clone();
                next.apply(Change::Cancel { at: clock::now(), failure: cancelled(&execution) })
                    .map_err(ApiError::internal)?;
                if write(&api, &execution, next.clone()).await? {
                    return Ok(Json(ExecutionView::new(&next, &caller.base)).into_response());
                }
            }
        }
    }
    Err(ApiError::new(Code::ExecutionContended, "look at it and try again"))
}

/// The worker that has it and is alive. What a dead one had is nobody's: whoever writes first has it.
async fn living_owner(api: &Api, execution: &Execution) -> Result<Option<WorkerId>> {
    let Some(owner) = execution.worker else { return Ok(None) };
    let workers = api.store.workers().await?;
    Ok(workers.iter().any(|(worker, _)| worker.id == owner && worker.state != WorkerState::Dead).then_some(owner))
}

fn unreachable(error: CallError) -> ApiError {
    ApiError::new(
        Code::ExecutionOwnerUnreachable,
        "try again: when its worker is gone for good, another one takes the execution over",
    )
    .retry_after(5)
    .caused_by(error)
}

fn cancelled(execution: &Execution) -> Failure {
    Failure {
        request_id: execution.request_id(),
        component: Component::Worker,
        phase: if execution.state == ExecutionState::Running { Phase::Invoke } else { Phase::Queue },
        reason: Reason::Cancelled,
        error: ErrorDetail {
            error_type: "Execution.Cancelled".to_owned(),
            message: "cancelled by its owner".to_owned(),
            trace: Vec::new(),
        },
    }
}

/// Writes a change of a record that was just read; whether it was still the same.
async fn write(api: &Api, read: &Execution, next: Execution) -> Result<bool> {
    let applied = api.store.write_executions(&[ExecutionWrite { expected: read.fence(), next }]).await?;
    Ok(applied.first().copied().unwrap_or(false))
}

/// Try an execution again that was given up: its attempts and its time begin anew.
#[utoipa::path(post, path = "/v1/executions/{execution}/redrive", tag = "executions", operation_id = "redrive_execution",
    params(("execution" = String, Path, description = "Its id.")),
    responses((status = 202, description = "It is queued again.", body = ExecutionView)))]
pub(super) async fn redrive(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
) -> Result<Response> {
    for _ in 0..ATTEMPTS {
        let execution = find(&api, &caller, &name).await?;
        if !execution.state.is_terminal() || execution.state == ExecutionState::Succeeded {
            return Err(ApiError::new(
                Code::ExecutionNotDead,
                format!(
                    "it is {}; only what failed, timed out, expired or was cancelled can be re-driven",
                    execution.state.as_str()
                ),
            ));
        }
        let gone = || {
            ApiError::new(Code::ExecutionFunctionGone, "its function was deleted; post the event anew for another one")
        };
        let function = FunctionRef::Id(execution.function_id);
        let function = or_missing(api.store.function(&caller.scope(), &function).await, gone)?;
        let now = clock::now();
        let mut next = execution.clone();
        next.apply(Change::Redrive { at: now, deadline: now + function.retry.max_age() })
            .map_err(ApiError::internal)?;
        if write(&api, &execution, next.clone()).await? {
            api.gateways.nudge();
            return Ok((StatusCode::ACCEPTED, Json(ExecutionView::new(&next, &caller.base))).into_response());
        }
    }
    Err(ApiError::new(Code::ExecutionContended, "look at it and try again"))
}
