//! What every request goes through, from the outside in: it gets its request id and its place in the log, panics and
//! errors become bodies, too many at once are turned away, each has its time.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, Carried, Code};
use super::identity::LoggedIdentity;
use super::policy::TimeLimit;
use super::{Api, links};
use crate::model::RequestId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// What handlers know of the request beyond its content.
#[derive(Clone, Debug)]
pub(super) struct RequestContext {
    /// What it is found by in logs and answers; always made here.
    pub request_id: RequestId,
    /// What links in the answer begin with.
    pub base: String,
}

/// The outermost layer: names the request, logs it, and writes the body of whatever is no success.
pub(super) async fn context(State(api): State<Api>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (mut parts, body) = request.into_parts();
    let request_id = RequestId::generate();
    // What a calling service gave its own request; kept for the log only, an answer always has an id of its own.
    let global = parts.headers.get(REQUEST_ID).and_then(|value| RequestId::parse(value.to_str().ok()?));
    let base = links::base(&api.options, &parts);
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    parts.extensions.insert(RequestContext { request_id: request_id.clone(), base: base.clone() });

    let mut response = next.run(Request::from_parts(parts, body)).await;

    let caller = response.extensions_mut().remove::<LoggedIdentity>();
    if let Some(error) = failure(&mut response) {
        log(&error, &request_id, &format!("{method} {path}"));
        let allow = response.headers_mut().remove(header::ALLOW);
        let vary = response.headers_mut().remove(header::VARY);
        let version = response.headers_mut().remove("openstack-api-version");
        response = error.render(&request_id, &base);
        for (name, value) in
            [(header::ALLOW, allow), (header::VARY, vary), (HeaderName::from_static("openstack-api-version"), version)]
        {
            if let Some(value) = value {
                response.headers_mut().insert(name, value);
            }
        }
    }
    if let Ok(value) = HeaderValue::try_from(request_id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let user_id = caller.as_ref().and_then(|caller| caller.user_id.as_deref());
    let project_id = caller.as_ref().map(|caller| caller.project_id.as_str());
    let global_request_id = global.as_ref().map_or("-", RequestId::as_str);
    // To the microsecond, which is what the clock is good for.
    let duration_ms = (begun.elapsed().as_secs_f64() * 1_000_000.0).round() / 1000.0;
    tracing::info!(%request_id, global_request_id, user_id, project_id, status, duration_ms, "{method} {path} {status} {duration_ms:.1} ms");
    response
}

/// Writes down what the caller is not told. What passes by itself is a warning; the user's own failures are in the record.
fn log(error: &ApiError, request_id: &RequestId, operation: &str) {
    let code = error.code();
    if !code.status().is_server_error() || matches!(code, Code::InvocationFailed | Code::InvocationTimedOut) {
        return;
    }
    let chain = error.chain();
    if code == Code::Internal {
        tracing::error!(%request_id, error = chain, "{operation} failed: {chain}");
    } else {
        tracing::warn!(%request_id, error = chain, "{operation} was turned away: {chain}");
    }
}

/// The error that a response stands for: the handler's own, or what the router and the libraries answer in their words.
fn failure(response: &mut Response) -> Option<Arc<ApiError>> {
    if let Some(Carried(error)) = response.extensions_mut().remove::<Carried>() {
        return Some(error);
    }
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() || response.extensions().get::<Intended>().is_some() {
        return None;
    }
    Some(Arc::new(match status {
        StatusCode::NOT_FOUND => {
            ApiError::new(Code::RouteNotFound, "see /v1/openapi.json for the routes that there are")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            ApiError::new(Code::MethodNotAllowed, "use one of the methods that the header Allow names")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Code::TooLarge, "send less"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ApiError::new(Code::UnsupportedMediaType, "send another media type"),
        status if status.is_client_error() => {
            ApiError::new(Code::Malformed, "see /v1/openapi.json for what the route takes")
        }
        status => ApiError::internal(format!("a library answered {status}")),
    }))
}

/// Marks an answer with an error status that is complete as it is, such as a health check's.
#[derive(Clone, Copy)]
pub(super) struct Intended;

/// What becomes of a panic.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    ApiError::internal(format!("a handler panicked: {said}")).into_response()
}

/// Turns away what is over the number of requests that may be under way.
pub(super) async fn admit(State(api): State<Api>, request: Request, next: Next) -> Response {
    // A node that is busy is healthy, and shall be seen to be busy.
    if matches!(request.uri().path(), "/healthcheck" | "/metrics") {
        return next.run(request).await;
    }
    let Ok(_permit) = api.admission.try_acquire() else {
        return ApiError::new(Code::ServiceBusy, "try again in a moment").retry_after(1).into_response();
    };
    next.run(request).await
}

/// Ends what takes too long.
pub(super) async fn deadline(State(api): State<Api>, request: Request, next: Next) -> Response {
    let limit = request
        .extensions()
        .get::<MatchedPath>()
        .and_then(|path| super::policy::rule(request.method(), path.as_str()))
        .map_or(TimeLimit::Ordinary, |(_, operation)| operation.time);
    let ordinary = Duration::from_secs(api.options.request_timeout);
    let limit = match limit {
        TimeLimit::Ordinary => ordinary,
        TimeLimit::Upload => ordinary * 5,
        TimeLimit::Own => return next.run(request).await,
    };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(Code::ServiceTimedOut, "try again; if it stays, tell the operator the request id")
            .into_response(),
    }
}
