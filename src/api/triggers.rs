//! `/v1/triggers`: which events go to which function.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::delegation::{self, give_back, trust_of};
use super::error::{ApiError, Code, Result, or_missing, shown};
use super::functions;
use super::identity::Caller;
use super::input::{JsonBody, Named, NoParameters, Query, QueryParameters, header_value};
use super::links::Link;
use super::paging::{SortKey, next_link, page};
use crate::clock;
use crate::model::trigger::queue::{BatchSize, QueueBinding, QueueStatus, SourceQueue};
use crate::model::trigger::{Filter, Pattern};
use crate::model::{FunctionId, Invalid, ProjectId, Timestamp, Trigger, TriggerId};
use crate::store::{Direction, TriggerFilter, TriggerSort};

/// A binding, as it stands in the body that makes a function.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TriggerBody {
    /// Which CloudEvents `source` matches: exactly this, or up to a closing `*`. Default: any.
    #[schema(example = "swift://photos")]
    source: Option<String>,
    /// Which CloudEvents `type` matches: exactly this, or up to a closing `*`. Default: any.
    #[serde(rename = "type")]
    #[schema(example = "object.created")]
    event_type: Option<String>,
    /// What else has to hold.
    #[serde(default)]
    #[schema(value_type = Option<FilterSchema>)]
    filter: Option<Filter>,
}

impl TriggerBody {
    /// The trigger that binds events to a function.
    pub fn bind(
        &self,
        project: &ProjectId,
        function: FunctionId,
        now: Timestamp,
    ) -> std::result::Result<Trigger, Invalid> {
        if self.source.is_none() && self.event_type.is_none() {
            return Err(Invalid::new("source", "give 'source' or 'type'; '*' matches any"));
        }
        let filter = self.filter.clone().unwrap_or_default();
        filter.check()?;
        Ok(Trigger {
            id: TriggerId::generate(),
            project_id: project.clone(),
            function_id: function,
            source: Pattern::parse("source", self.source.as_deref().unwrap_or("*"))?,
            event_type: Pattern::parse("type", self.event_type.as_deref().unwrap_or("*"))?,
            filter,
            queue: None,
            created_at: now,
        })
    }
}

/// A trigger to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TriggerCreate {
    /// The function's id or name.
    #[schema(example = "word-count")]
    function: String,
    /// Which CloudEvents `source` matches: exactly this, or up to a closing `*`. Default: any.
    source: Option<String>,
    /// Which CloudEvents `type` matches: exactly this, or up to a closing `*`. Default: any.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// What else has to hold.
    #[serde(default)]
    #[schema(value_type = Option<FilterSchema>)]
    filter: Option<Filter>,
    /// A queue of the project's own whose messages are the events. Then `source` and `type` may both be left out.
    queue: Option<QueueBody>,
}

/// A queue of the project's own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueBody {
    /// Its name in Zaqar. It need not be there yet.
    #[schema(example = "orders")]
    name: String,
    /// Most messages taken at once, 1 to 20; each is an execution of its own. Default: 20.
    #[schema(minimum = 1, maximum = 20)]
    batch_size: Option<u32>,
}

impl QueueBody {
    /// What is bound, before there is a trust.
    fn bind(&self) -> std::result::Result<QueueBinding, Invalid> {
        Ok(QueueBinding {
            name: SourceQueue::parse(&self.name)?,
            batch_size: self.batch_size.map(BatchSize::new).transpose()?.unwrap_or_default(),
            trust_id: None,
            status: QueueStatus::Pending,
        })
    }
}

/// Conditions on an event, in the dialects of the CloudEvents Subscriptions specification. All that are given must hold.
#[derive(ToSchema)]
#[schema(as = Filter)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct FilterSchema {
    /// The value at a dotted path, such as `subject` or `data.name`, is equal to this text.
    #[schema(required = false)]
    exact: BTreeMap<String, String>,
    /// It begins with this text.
    #[schema(required = false)]
    prefix: BTreeMap<String, String>,
    /// It ends with this text.
    #[schema(required = false)]
    suffix: BTreeMap<String, String>,
    /// Each of these holds.
    #[schema(required = false, no_recursion)]
    all: Vec<FilterSchema>,
    /// At least one of these holds.
    #[schema(required = false, no_recursion)]
    any: Vec<FilterSchema>,
    /// This does not hold.
    #[schema(required = false, no_recursion)]
    not: Option<Box<FilterSchema>>,
}

/// A trigger.
#[derive(Serialize, ToSchema)]
pub(super) struct TriggerView {
    /// Its id.
    id: String,
    /// The project that owns it; only its events match.
    project_id: String,
    /// The function that gets the events.
    function_id: String,
    /// Which `source` matches.
    source: String,
    /// Which `type` matches.
    #[serde(rename = "type")]
    event_type: String,
    /// What else has to hold.
    #[schema(value_type = FilterSchema)]
    filter: Filter,
    /// The project's own queue that the events come from; null: the platform's.
    queue: Option<QueueView>,
    /// How it goes: `active`; `pending` before a queue was looked at for the first time; `error` while its queue cannot
    /// be looked at.
    status: &'static str,
    /// Why it is in `error`; each reason is explained in the list of errors.
    status_reason: Option<&'static str>,
    /// Why it is in `error`, in words.
    status_message: Option<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// `self`, `function`.
    links: Vec<Link>,
}

/// A queue of the project's own.
#[derive(Serialize, ToSchema)]
struct QueueView {
    /// Its name.
    name: String,
    /// Most messages taken at once.
    batch_size: u32,
}

impl TriggerView {
    fn new(trigger: &Trigger, base: &str) -> Self {
        let (status, status_reason, status_message) = match trigger.queue.as_ref().map(|queue| &queue.status) {
            None | Some(QueueStatus::Active { .. }) => ("active", None, None),
            Some(QueueStatus::Pending) => ("pending", None, None),
            Some(QueueStatus::Error { reason, message, .. }) => ("error", Some(reason.as_str()), Some(message.clone())),
        };
        Self {
            id: trigger.id.to_string(),
            project_id: trigger.project_id.to_string(),
            function_id: trigger.function_id.to_string(),
            source: trigger.source.as_str().to_owned(),
            event_type: trigger.event_type.as_str().to_owned(),
            filter: trigger.filter.clone(),
            queue: trigger
                .queue
                .as_ref()
                .map(|queue| QueueView { name: queue.name.to_string(), batch_size: queue.batch_size.get() }),
            status,
            status_reason,
            status_message,
            created_at: trigger.created_at.to_string(),
            links: vec![
                Link::new("self", base, &format!("/v1/triggers/{}", trigger.id)),
                Link::new("function", base, &format!("/v1/functions/{}", trigger.function_id)),
            ],
        }
    }
}

/// A page of triggers.
#[derive(Serialize, ToSchema)]
pub(super) struct TriggerList {
    /// The triggers.
    triggers: Vec<TriggerView>,
    /// `next`: the page after this one, if there is one.
    triggers_links: Vec<Link>,
}

/// Which triggers.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct TriggerQuery {
    /// Only those of this function, by its id or name.
    function: Option<String>,
    /// Of all projects; policy allows it to admins.
    all_projects: Option<bool>,
    /// Most elements on the page.
    limit: Option<usize>,
    /// Where the page begins: behind this element.
    marker: Option<String>,
    /// `created_at`, with `:asc` or `:desc`.
    sort: Option<String>,
}

impl QueryParameters for TriggerQuery {}

impl SortKey for TriggerSort {
    const KEYS: &'static [(&'static str, Self)] = &[("created_at", Self::CreatedAt)];
    const DEFAULT_DIRECTION: Direction = Direction::Ascending;
}

/// List triggers.
#[utoipa::path(get, path = "/v1/triggers", tag = "triggers", operation_id = "list_triggers", params(TriggerQuery),
    responses((status = 200, description = "A page of triggers, oldest first unless sorted.", body = TriggerList)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<TriggerQuery>,
) -> Result<Json<TriggerList>> {
    let scope = caller.list_scope(query.all_projects)?;
    let function_id = functions::filter_id(&api, &caller, query.function.as_deref()).await?;
    let request = page(&api.options, query.limit, query.marker, query.sort.as_deref())?;
    let found = api.store.triggers(&scope, &TriggerFilter { function_id }, &request).await?;
    let triggers = found.items.iter().map(|trigger| TriggerView::new(trigger, &caller.base)).collect();
    Ok(Json(TriggerList { triggers, triggers_links: next_link(&caller.base, &uri, found.next.as_deref()) }))
}

/// Bind events to a function.
#[utoipa::path(post, path = "/v1/triggers", tag = "triggers", operation_id = "create_trigger",
    request_body = TriggerCreate,
    responses((status = 201, description = "The trigger.", body = TriggerView,
        headers(("Location" = String, description = "Where it is.")))))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    _query: Query<NoParameters>,
    JsonBody(wanted): JsonBody<TriggerCreate>,
) -> Result<Response> {
    let name = wanted.function;
    // The path is right, what the body refers to is not there: 400, as api-sig has it.
    let missing = || ApiError::new(Code::TriggerInvalid, format!("function: there is no function '{}'", shown(&name)));
    let reference = functions::reference(&name).ok_or_else(missing)?;
    let function = or_missing(api.store.function(&caller.scope_for(&reference), &reference).await, missing)?;
    let invalid = |invalid| ApiError::invalid(Code::TriggerInvalid, &invalid);
    let queue = wanted.queue.as_ref().map(QueueBody::bind).transpose().map_err(invalid)?;
    let anything = || queue.is_some().then(|| "*".to_owned());
    let body = TriggerBody {
        source: wanted.source.or_else(anything),
        event_type: wanted.event_type.or_else(anything),
        filter: wanted.filter,
    };
    let mut trigger = body.bind(&function.project_id, function.id, clock::now()).map_err(invalid)?;
    if let Some(mut queue) = queue {
        queue.trust_id = api.delegation.create(delegation::delegator(&caller), trigger.id).await?;
        trigger.queue = Some(queue);
    }
    let created = api.store.create_trigger(&trigger).await;
    if created.is_err() {
        // Whether the trigger is there is not known for sure after every error: what names a trust that is gone says so.
        give_back(api.delegation.as_ref(), &trust_of(&trigger).map(str::to_owned).into_iter().collect::<Vec<_>>())
            .await;
    }
    or_missing(created, missing)?;
    let view = TriggerView::new(&trigger, &caller.base);
    let location = header_value(&format!("{}/v1/triggers/{}", caller.base, trigger.id));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Show a trigger.
#[utoipa::path(get, path = "/v1/triggers/{trigger}", tag = "triggers", operation_id = "show_trigger",
    params(("trigger" = String, Path, description = "Its id.")),
    responses((status = 200, description = "The trigger.", body = TriggerView)))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
) -> Result<Json<TriggerView>> {
    let id = id(&name)?;
    let trigger = or_missing(api.store.trigger(&caller.scope(), id).await, || missing(&name))?;
    Ok(Json(TriggerView::new(&trigger, &caller.base)))
}

/// Remove a trigger. Events that were taken before stay with the function.
#[utoipa::path(delete, path = "/v1/triggers/{trigger}", tag = "triggers", operation_id = "delete_trigger",
    params(("trigger" = String, Path, description = "Its id.")),
    responses((status = 204, description = "It is gone.")))]
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
) -> Result<StatusCode> {
    let id = id(&name)?;
    let trigger = or_missing(api.store.trigger(&caller.scope(), id).await, || missing(&name))?;
    or_missing(api.store.delete_trigger(&caller.scope(), id).await, || missing(&name))?;
    give_back(api.delegation.as_ref(), &trust_of(&trigger).map(str::to_owned).into_iter().collect::<Vec<_>>()).await;
    Ok(StatusCode::NO_CONTENT)
}

fn id(text: &str) -> Result<TriggerId> {
    text.parse().map_err(|_| missing(text))
}

fn missing(name: &str) -> ApiError {
    ApiError::new(Code::TriggerNotFound, format!("there is no trigger '{}' in this project", shown(name)))
}
