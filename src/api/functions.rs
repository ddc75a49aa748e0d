//! `/v1/functions`: what a function looks like on the wire, and its making, changing and removal.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::delegation::{give_back, trusts_of};
use super::error::{ApiError, Code, Result, or_missing, shown};
use super::identity::Caller;
use super::input::{
    Named, NoParameters, Precondition, Query, QueryParameters, etag, has_already, header_value, if_match,
};
use super::links::Link;
use super::paging::{SortKey, next_link, page};
use crate::clock;
use crate::model::function::FunctionName;
use crate::model::runtime::RuntimeName;
use crate::model::{Function, FunctionId, Trigger};
use crate::store::{Direction, FunctionFilter, FunctionRef, FunctionSort, Store, StoreError, TriggerFilter};

mod body;
mod provisioned;
mod recent;
mod view;

pub(super) use body::{Changes, FunctionCreate, FunctionUpdate};
pub(super) use recent::{Recent, find_again, find_to_call};
pub(super) use view::FunctionView;

/// How often a change is tried again when others change the same function at the same moment.
const ATTEMPTS: usize = 8;

/// A page of functions.
#[derive(Serialize, ToSchema)]
pub(super) struct FunctionList {
    /// The functions.
    functions: Vec<FunctionView>,
    /// `next`: the page after this one, if there is one.
    functions_links: Vec<Link>,
}

/// Which functions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct FunctionQuery {
    /// Only the one with this name.
    name: Option<String>,
    /// Only those with this runtime.
    runtime: Option<String>,
    /// Of all projects; policy allows it to admins.
    all_projects: Option<bool>,
    /// Most elements on the page.
    limit: Option<usize>,
    /// Where the page begins: behind this element.
    marker: Option<String>,
    /// `created_at`, `updated_at` or `name`, with `:asc` or `:desc`.
    sort: Option<String>,
}

impl QueryParameters for FunctionQuery {}

impl SortKey for FunctionSort {
    const KEYS: &'static [(&'static str, Self)] =
        &[("created_at", Self::CreatedAt), ("updated_at", Self::UpdatedAt), ("name", Self::Name)];
    const DEFAULT_DIRECTION: Direction = Direction::Ascending;
}

/// List functions.
#[utoipa::path(get, path = "/v1/functions", tag = "functions", operation_id = "list_functions", params(FunctionQuery),
    responses((status = 200, description = "A page of functions, oldest first unless sorted.", body = FunctionList)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<FunctionQuery>,
) -> Result<Json<FunctionList>> {
    let scope = caller.list_scope(query.all_projects)?;
    let wrong = |invalid| ApiError::invalid(Code::InvalidQuery, &invalid);
    let filter = FunctionFilter {
        name: query.name.as_deref().map(FunctionName::parse).transpose().map_err(wrong)?,
        runtime: query.runtime.as_deref().map(RuntimeName::parse).transpose().map_err(wrong)?.map(String::from),
    };
    let request = page(&api.options, query.limit, query.marker, query.sort.as_deref())?;
    let found = api.store.functions(&scope, &filter, &request).await?;
    let triggers = triggers_of(api.store.as_ref(), &found.items).await?;
    let functions = found
        .items
        .iter()
        .map(|function| {
            let own = triggers.iter().filter(|trigger| trigger.function_id == function.id);
            FunctionView::new(function, own, &caller.base)
        })
        .collect();
    Ok(Json(FunctionList { functions, functions_links: next_link(&caller.base, &uri, found.next.as_deref()) }))
}

/// The triggers of the functions: one query for all of them.
async fn triggers_of(store: &dyn Store, functions: &[Function]) -> Result<Vec<Trigger>> {
    let ids: Vec<_> = functions.iter().map(|function| function.id).collect();
    Ok(store.function_triggers(&ids).await?)
}

/// Create a function. Its code may come with it or later.
#[utoipa::path(post, path = "/v1/functions", tag = "functions", operation_id = "create_function",
    request_body = FunctionCreate,
    responses((status = 201, description = "The function.", body = FunctionView,
        headers(("Location" = String, description = "Where it is."), ("ETag" = String, description = "Its revision.")))))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    _query: Query<NoParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let (wanted, _room): (FunctionCreate, _) = api.packages.read_with_code(&headers, body).await?;
    let now = clock::now();
    let prepared = wanted.prepare(caller.project(), now)?;
    let mut function = prepared.function;
    body::check_isolation(&function, &api.isolations)?;
    provisioned::check(&api, &function, None).await?;
    if let Some(code) = prepared.code {
        function.package = Some(api.packages.keep(api.store.as_ref(), code).await?);
    }
    api.store.create_function(&function, &prepared.triggers).await.map_err(|error| taken(error, &function.name))?;
    if function.provisioned_concurrency.is_some() {
        // The workers can begin to start them.
        api.gateways.function_changed(function.id).await;
    }
    tracing::info!(function.id = %function.id, "function {} is created in project {}", function.name, function.project_id);
    let location = header_value(&format!("{}/v1/functions/{}", caller.base, function.id));
    let view = FunctionView::new(&function, &prepared.triggers, &caller.base);
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location), (header::ETAG, header_value(&etag(function.revision)))],
        Json(view),
    )
        .into_response())
}

/// Show a function, by its id or its name.
#[utoipa::path(get, path = "/v1/functions/{function}", tag = "functions", operation_id = "show_function",
    params(("function" = String, Path, description = "Its id or its name.")),
    responses((status = 200, description = "The function.", body = FunctionView,
        headers(("ETag" = String, description = "Its revision."))),
        (status = 304, description = "The function still has the revision of If-None-Match.")))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
    headers: HeaderMap,
) -> Result<Response> {
    let function = find(&api, &caller, &name).await?;
    let tag = etag(function.revision);
    if has_already(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, header_value(&tag))]).into_response());
    }
    answer(&api, &caller, &function).await
}

/// Change a function: attributes that are given are replaced, `null` sets the default, the others stay.
#[utoipa::path(patch, path = "/v1/functions/{function}", tag = "functions", operation_id = "update_function",
    params(("function" = String, Path, description = "Its id or its name."),
           ("If-Match" = Option<String>, Header, description = "ETags of which the function must have one.")),
    request_body = FunctionUpdate,
    responses((status = 200, description = "The function as it is now.", body = FunctionView,
        headers(("ETag" = String, description = "Its revision.")))))]
pub(super) async fn update(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let precondition = if_match(&headers)?;
    let (wanted, _room): (FunctionUpdate, _) = api.packages.read_with_code(&headers, body).await?;
    let changes = Changes::try_from(wanted)?;
    let function = change(&api, &caller, &name, &precondition, Edit::Attributes(&changes)).await?;
    answer(&api, &caller, &function).await
}

/// Remove a function with its triggers. Events that wait for it are given up with the reason `function_deleted`.
#[utoipa::path(delete, path = "/v1/functions/{function}", tag = "functions", operation_id = "delete_function",
    params(("function" = String, Path, description = "Its id or its name."),
           ("If-Match" = Option<String>, Header, description = "ETags of which the function must have one.")),
    responses((status = 204, description = "It is gone.")))]
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
    headers: HeaderMap,
) -> Result<StatusCode> {
    let precondition = if_match(&headers)?;
    let function = find(&api, &caller, &name).await?;
    check(&precondition, &function)?;
    let expected = precondition.is_strict().then_some(function.revision);
    let filter = TriggerFilter { function_id: Some(function.id) };
    let trusts = trusts_of(api.store.as_ref(), &caller.scope(), &filter).await?;
    match api.store.delete_function(&caller.scope(), function.id, expected).await {
        Ok(()) => {
            api.recent.forget();
            api.gateways.function_changed(function.id).await;
            give_back(api.delegation.as_ref(), &trusts).await;
            tracing::info!(function.id = %function.id, "function {} is deleted", function.name);
            Ok(StatusCode::NO_CONTENT)
        }
        Err(StoreError::Stale) => Err(stale()),
        Err(error) => or_missing(Err(error), || missing(&name)),
    }
}

/// What is changed of a function.
pub(super) enum Edit<'a> {
    /// Attributes, and the code if the body has some.
    Attributes(&'a Changes),
    /// The code only.
    Code(super::packages::NewCode),
}

/// Changes a function by compare-and-set. Without a strict precondition a lost race is run again: the caller said what
/// the attributes shall be, not what they were. A change that changes nothing makes no revision.
pub(super) async fn change(
    api: &Api,
    caller: &Caller,
    name: &str,
    precondition: &Precondition,
    edit: Edit<'_>,
) -> Result<Function> {
    for _ in 0..ATTEMPTS {
        let found = find(api, caller, name).await?;
        check(precondition, &found)?;
        let mut next = found.clone();
        let code = match &edit {
            Edit::Attributes(changes) => {
                let code = changes.apply(&mut next)?;
                body::check_isolation(&next, &api.isolations)?;
                provisioned::check(api, &next, Some(&found)).await?;
                code
            }
            Edit::Code(code) => Some(code.for_function(&next)?),
        };
        if let Some(code) = code {
            next.package = Some(api.packages.keep(api.store.as_ref(), code).await?);
        }
        if next == found {
            return Ok(found);
        }
        next.revision += 1;
        next.updated_at = clock::now();
        match api.store.replace_function(&caller.scope(), &next, found.revision).await {
            Ok(()) => {
                api.recent.forget();
                api.gateways.function_changed(next.id).await;
                return Ok(next);
            }
            Err(StoreError::Stale) if precondition.is_strict() => return Err(stale()),
            Err(StoreError::Stale) => {}
            Err(StoreError::NotFound(_)) => return Err(missing(name)),
            Err(error @ StoreError::Taken(_)) => return Err(taken(error, &next.name)),
            Err(error @ (StoreError::BadMarker | StoreError::Unavailable(_) | StoreError::Unexpected(_))) => {
                return Err(error.into());
            }
        }
    }
    Err(ApiError::new(Code::FunctionContended, "try again, or say with If-Match which revision you mean"))
}

/// The answer that shows a function as it is.
pub(super) async fn answer(api: &Api, caller: &Caller, function: &Function) -> Result<Response> {
    let triggers = api.store.function_triggers(&[function.id]).await?;
    let view = FunctionView::new(function, triggers.iter(), &caller.base);
    Ok(([(header::ETAG, header_value(&etag(function.revision)))], Json(view)).into_response())
}

/// Finds a function by what a path or a body names it with.
pub(super) async fn find(api: &Api, caller: &Caller, name: &str) -> Result<Function> {
    let reference = reference(name).ok_or_else(|| missing(name))?;
    or_missing(api.store.function(&caller.scope_for(&reference), &reference).await, || missing(name))
}

/// A function's id or name; none when the text can be neither.
pub(super) fn reference(text: &str) -> Option<FunctionRef> {
    if let Ok(id) = text.parse::<FunctionId>() {
        return Some(FunctionRef::Id(id));
    }
    FunctionName::parse(text).ok().map(FunctionRef::Name)
}

/// There is no such function.
pub(super) fn missing(name: &str) -> ApiError {
    ApiError::new(Code::FunctionNotFound, format!("there is no function '{}' in this project", shown(name)))
}

fn check(precondition: &Precondition, function: &Function) -> Result<()> {
    if precondition.holds(function.revision) { Ok(()) } else { Err(stale()) }
}

fn stale() -> ApiError {
    ApiError::new(Code::FunctionStale, "read the function again and repeat the change with its new ETag")
}

fn taken(error: StoreError, name: &FunctionName) -> ApiError {
    match error {
        StoreError::Taken(_) => {
            ApiError::new(Code::FunctionNameTaken, format!("name: this project has a function '{name}' already"))
        }
        StoreError::NotFound(_)
        | StoreError::Stale
        | StoreError::BadMarker
        | StoreError::Unavailable(_)
        | StoreError::Unexpected(_) => error.into(),
    }
}

/// The function that a list is filtered by. A name that names nothing is told, rather than an empty list: it is a typing
/// error, or a function that was deleted and whose executions are found by its id only.
pub(super) async fn filter_id(api: &Api, caller: &Caller, name: Option<&str>) -> Result<Option<FunctionId>> {
    let Some(name) = name else { return Ok(None) };
    let missing = || {
        ApiError::new(
            Code::InvalidQuery,
            format!("function: there is no function '{}'; one that was deleted is named by its id", shown(name)),
        )
    };
    match reference(name).ok_or_else(missing)? {
        FunctionRef::Id(id) => Ok(Some(id)),
        by_name @ FunctionRef::Name(_) => {
            or_missing(api.store.function(&caller.scope_for(&by_name), &by_name).await, missing)
                .map(|function| Some(function.id))
        }
    }
}
