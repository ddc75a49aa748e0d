//! `/v1/functions/{function}/invocations`: a function called over REST, with or without waiting for its answer.
//!
//! What the function did is told apart from what the service did: an error of the user's code is 502
//! `function.invocation.failed` (or 504 `function.invocation.timed_out`) and carries the failure of the record; 503 means
//! that the code was not run, and 502 `function.invocation.interrupted` that nobody knows how far it came.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use utoipa::ToSchema;

use super::error::{ApiError, Code, Result, failure_value};
use super::executions::ExecutionView;
use super::gateway_client::{CallError, Called};
use super::identity::Caller;
use super::input::{Named, NoParameters, Query, header_value, read_body};
use super::{Api, EXECUTION_ID, functions};
use crate::clock;
use crate::model::execution::{EventSummary, Failure, Origin, Phase, Reason};
use crate::model::{Execution, ExecutionId, Function, Payload};

/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(120);

/// What `Prefer: respond-async` was honoured with.
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Any JSON value.
#[derive(ToSchema)]
#[schema(value_type = Value)]
struct AnyJson(#[expect(dead_code, reason = "only its schema is used")] serde_json::Value);

/// Call a function; the body is the event, any JSON. The answer is what the handler returned. With
/// `Prefer: respond-async` the event is kept and run later, with the function's retries.
#[utoipa::path(post, path = "/v1/functions/{function}/invocations", tag = "functions", operation_id = "invoke_function",
    params(("function" = String, Path, description = "Its id or its name."),
           ("Prefer" = Option<String>, Header, description = "`respond-async`: do not wait for the answer.")),
    request_body(content = AnyJson, description = "The event; nothing at all is null.", content_type = "application/json"),
    responses((status = 200, description = "What the handler returned.", body = AnyJson,
            headers(("X-Execution-Id" = String, description = "The execution."))),
        (status = 202, description = "The event is kept; the execution.", body = ExecutionView,
            headers(("Location" = String, description = "Where the execution is."),
                    ("X-Execution-Id" = String, description = "The execution."))),
        (status = 502, description = "The function failed (`function.invocation.failed`), or was interrupted.",
            body = super::error::ErrorBody),
        (status = 503, description = "The function was not run.", body = super::error::ErrorBody),
        (status = 504, description = "The function ran into its timeout.", body = super::error::ErrorBody)))]
pub(super) async fn invoke(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    _query: Query<NoParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let is_async = prefers_async(&headers);
    let (function, is_fresh) = if is_async {
        (Arc::new(functions::find(&api, &caller, &name).await?), true)
    } else {
        functions::find_to_call(&api, &caller, &name).await?
    };
    if function.package.is_none() {
        return Err(ApiError::new(Code::InvocationWithoutCode, format!("upload code for '{}' first", function.name)));
    }
    let limit = usize::try_from(api.options.max_invocation_kib << 10).unwrap_or(usize::MAX);
    let bytes = tokio::time::timeout(BODY_PATIENCE, read_body(&headers, body, limit))
        .await
        .map_err(|_| ApiError::new(Code::RequestTimedOut, "send the body faster"))??;
    let payload = if bytes.iter().all(u8::is_ascii_whitespace) { Bytes::from_static(b"null") } else { bytes };
    let payload = Payload::parse(payload).map_err(|invalid| ApiError::invalid(Code::MalformedJson, &invalid))?;
    if is_async {
        return later(&api, &caller, &function, payload).await;
    }
    match now(&api, &function, payload.clone()).await {
        // It was deleted through another node a moment ago; by now another one may have its name.
        Err(error) if !is_fresh && error.code() == Code::FunctionNotFound => {
            let successor = functions::find_again(&api, &caller, &name).await?;
            if successor.id == function.id { Err(error) } else { now(&api, &successor, payload).await }
        }
        answer => answer,
    }
}

/// RFC 7240: preferences are listed with commas, their names are case-insensitive, unknown ones are ignored.
fn prefers_async(headers: &HeaderMap) -> bool {
    headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|preference| {
            preference.split([';', '=']).next().is_some_and(|name| name.trim().eq_ignore_ascii_case("respond-async"))
        })
    })
}

/// Keeps the event and answers at once.
async fn later(api: &Api, caller: &Caller, function: &Function, payload: Payload) -> Result<Response> {
    let id = ExecutionId::generate();
    let event = EventSummary::of_payload(&payload);
    let execution = Execution::receive(id, function, Origin::AsyncInvocation, event, payload, clock::now());
    api.store.insert_executions(std::slice::from_ref(&execution)).await?;
    api.gateways.nudge();
    let view = ExecutionView::new(&execution, &caller.base);
    Ok((
        StatusCode::ACCEPTED,
        [
            (header::LOCATION, header_value(&format!("{}/v1/executions/{id}", caller.base))),
            (EXECUTION_ID, header_value(&id.to_string())),
            (PREFERENCE_APPLIED, header_value("respond-async")),
        ],
        Json(view),
    )
        .into_response())
}

/// Runs the function and answers what came of it.
async fn now(api: &Api, function: &Function, payload: Payload) -> Result<Response> {
    let patience = function.timeout.as_duration() + Duration::from_secs(api.options.invocation_patience_seconds);
    let Called { execution, result } = api
        .gateways
        .call(&function.project_id, function.id, payload.bytes().clone(), patience)
        .await
        .map_err(not_called)?;
    match result {
        Ok(body) => {
            let body = if body.is_empty() { Bytes::from_static(b"null") } else { body };
            let mut response = ([(header::CONTENT_TYPE, header_value("application/json"))], body).into_response();
            response.headers_mut().extend(execution.map(|id| (EXECUTION_ID, header_value(&id.to_string()))));
            Ok(response)
        }
        Err(failure) => Err(failed(execution, &failure)),
    }
}

/// What the caller is told when no answer came from a worker.
fn not_called(error: CallError) -> ApiError {
    match error {
        CallError::Store(error) => error.into(),
        CallError::NoWorker => ApiError::new(Code::InvocationUnavailable, "no worker is running; try again")
            .caused_by(error)
            .retry_after(5),
        CallError::NotSent(_) => ApiError::new(Code::InvocationUnavailable, "no worker could be reached; try again")
            .caused_by(error)
            .retry_after(2),
        CallError::Full => ApiError::new(Code::InvocationOverloaded, "too many calls are under way; try again")
            .caused_by(error)
            .retry_after(1),
        CallError::Lost(_) => ApiError::new(
            Code::InvocationInterrupted,
            "the worker was lost while it had the call; the function may have run",
        )
        .caused_by(error),
        CallError::Late => {
            ApiError::new(Code::InvocationInterrupted, "no answer came in time; the function may have run")
                .caused_by(error)
        }
    }
}

/// What the caller is told when the execution failed.
fn failed(execution: Option<ExecutionId>, failure: &Failure) -> ApiError {
    let said = format!("{}: {}", failure.error.error_type, failure.error.message);
    let code = match failure.reason {
        Reason::HandlerError
        | Reason::ImportError
        | Reason::SyntaxError
        | Reason::HandlerNotFound
        | Reason::ResultNotJson
        | Reason::ResultTooLarge
        | Reason::ProcessExited
        | Reason::OutOfMemory
        | Reason::PackageInvalid
        | Reason::RuntimeUnknown
        | Reason::InstanceImpossible => Code::InvocationFailed,
        Reason::TimedOut | Reason::InitTimedOut => Code::InvocationTimedOut,
        Reason::Overloaded => Code::InvocationOverloaded,
        // The code had the event: how far it came, nobody knows.
        Reason::SandboxFailed if failure.phase == Phase::Invoke => Code::InvocationInterrupted,
        Reason::PackageUnavailable | Reason::SandboxFailed | Reason::InstanceUnavailable | Reason::EventExpired => {
            Code::InvocationUnavailable
        }
        Reason::InstanceLost | Reason::WorkerLost | Reason::ShuttingDown => Code::InvocationInterrupted,
        Reason::FunctionDeleted => Code::FunctionNotFound,
        Reason::FunctionWithoutCode => Code::InvocationWithoutCode,
        Reason::Cancelled => Code::InvocationCancelled,
    };
    let error = ApiError::new(code, said).execution(execution, failure_value(failure));
    if code.status() == StatusCode::SERVICE_UNAVAILABLE { error.retry_after(2) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RequestId;
    use crate::model::execution::{Component, ErrorDetail};

    #[test]
    fn preferences_are_read_as_rfc_7240_says() {
        for (value, wanted) in [
            ("respond-async", true),
            ("return=minimal, Respond-Async; foo=1", true),
            ("respond-asynchronously", false),
            ("wait=10", false),
        ] {
            let headers = [("prefer".parse().unwrap(), value.parse().unwrap())].into_iter().collect();
            assert_eq!(prefers_async(&headers), wanted, "{value}");
        }
        assert!(!prefers_async(&HeaderMap::new()));
    }

    #[test]
    fn every_reason_becomes_an_answer_that_names_the_execution() {
        let execution = ExecutionId::generate();
        for reason in Reason::ALL {
            let failure = Failure {
                request_id: RequestId::of_execution(execution),
                component: Component::Function,
                phase: Phase::Invoke,
                reason,
                error: ErrorDetail::default(),
            };
            let answer = failed(Some(execution), &failure).render(&RequestId::generate(), "http://h");
            assert_eq!(answer.headers()[EXECUTION_ID], execution.to_string().as_str(), "{reason}");
            assert!(!answer.status().is_success(), "{reason}");
        }
    }
}
