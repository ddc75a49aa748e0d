//! What the service answers when it does not do what it was asked: one word per error that never changes its meaning,
//! its status, and the body. Each word has its entry in docs/errors.md; a test holds the two lists together.
//!
//! A 4xx says what to change. A 5xx says the request id and nothing of the inside; its chain is logged once, where the
//! body is written (`layers`).

use std::fmt::Write as _;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::SERVICE_TYPE;
use crate::model::execution::Failure;
use crate::model::{ExecutionId, Invalid, RequestId};
use crate::store::StoreError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident, $title:literal;)*) => {
        /// Every error of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All of them; the documentation and its test go through this list.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word without the service type.
            const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The status it is answered with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What kind of error it is, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    MalformedJson = "request.malformed_json", BAD_REQUEST, "The body is not JSON";
    /// The body is JSON, but not what the route takes.
    InvalidBody = "request.invalid_body", BAD_REQUEST, "The body is not what this route takes";
    /// A query parameter is unknown, given twice, or wrong.
    InvalidQuery = "request.invalid_query", BAD_REQUEST, "A query parameter is wrong";
    /// A header is wrong.
    InvalidHeader = "request.invalid_header", BAD_REQUEST, "A header is wrong";
    /// The request cannot be read.
    Malformed = "request.malformed", BAD_REQUEST, "The request cannot be read";
    /// The body is larger than the route takes.
    TooLarge = "request.too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The body's media type is none that the route takes.
    UnsupportedMediaType = "request.unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The media type is not supported";
    /// No answer in the media types that the request accepts.
    NotAcceptable = "request.not_acceptable", NOT_ACCEPTABLE, "No acceptable answer can be given";
    /// The body came too slowly.
    RequestTimedOut = "request.timed_out", REQUEST_TIMEOUT, "The request took too long to arrive";
    /// No such route.
    RouteNotFound = "route.not_found", NOT_FOUND, "There is no such route";
    /// The route does not know the method.
    MethodNotAllowed = "route.method_not_allowed", METHOD_NOT_ALLOWED, "The route does not know this method";
    /// `OpenStack-API-Version` cannot be read.
    VersionMalformed = "version.malformed", BAD_REQUEST, "The API version cannot be read";
    /// `OpenStack-API-Version` asks for what this service is too old or too new for.
    VersionNotSupported = "version.not_supported", NOT_ACCEPTABLE, "The API version is not supported";
    /// Who calls cannot be read from the headers.
    IdentityInvalid = "identity.invalid", BAD_REQUEST, "The caller's identity cannot be read";
    /// Nobody is known by what the request shows.
    IdentityRequired = "identity.required", UNAUTHORIZED, "Authentication is required";
    /// The token is for no project.
    IdentityWithoutProject = "identity.no_project", FORBIDDEN, "The token is for no project";
    /// Keystone cannot be asked.
    IdentityUnavailable = "identity.unavailable", SERVICE_UNAVAILABLE, "The caller's token cannot be checked";
    /// Policy does not allow it.
    PolicyDenied = "policy.denied", FORBIDDEN, "Policy does not allow this";
    /// The list's marker names nothing.
    InvalidMarker = "list.invalid_marker", BAD_REQUEST, "The marker names no element of the list";
    /// An attribute of a function is wrong.
    FunctionInvalid = "function.invalid", BAD_REQUEST, "An attribute of the function is wrong";
    /// No such function.
    FunctionNotFound = "function.not_found", NOT_FOUND, "There is no such function";
    /// The project has a function of that name.
    FunctionNameTaken = "function.name_taken", CONFLICT, "The name is taken";
    /// `If-Match` does not hold.
    FunctionStale = "function.stale", PRECONDITION_FAILED, "The function has changed";
    /// The function is changed by so many at once that this change found no gap.
    FunctionContended = "function.contended", CONFLICT, "The function is being changed by others";
    /// The package or the source cannot be used.
    CodeInvalid = "code.invalid", BAD_REQUEST, "The code cannot be used";
    /// The package is over a limit.
    CodeTooLarge = "code.too_large", PAYLOAD_TOO_LARGE, "The package is too large";
    /// The function has no code.
    CodeNotFound = "code.not_found", NOT_FOUND, "The function has no code";
    /// No such trigger.
    TriggerNotFound = "trigger.not_found", NOT_FOUND, "There is no such trigger";
    /// The caller cannot let the service act on the queue.
    TriggerNotDelegated = "trigger.not_delegated", FORBIDDEN, "The caller cannot let the service read the queue";
    /// An attribute of a trigger is wrong.
    TriggerInvalid = "trigger.invalid", BAD_REQUEST, "An attribute of the trigger is wrong";
    /// An event is no CloudEvent.
    EventInvalid = "event.invalid", BAD_REQUEST, "The event is not valid";
    /// An event is over Zaqar's limit.
    EventTooLarge = "event.too_large", PAYLOAD_TOO_LARGE, "The event is too large";
    /// An event names another project.
    EventForeignProject = "event.foreign_project", FORBIDDEN, "The event names another project";
    /// The queue did not take the events.
    EventQueueUnavailable = "event.queue_unavailable", SERVICE_UNAVAILABLE, "The queue is not available";
    /// No such execution.
    ExecutionNotFound = "execution.not_found", NOT_FOUND, "There is no such execution";
    /// It is finished and cannot be cancelled.
    ExecutionFinished = "execution.finished", CONFLICT, "The execution is finished";
    /// It cannot be re-driven in the state it is in.
    ExecutionNotDead = "execution.not_dead", CONFLICT, "The execution was not given up";
    /// Its function is gone.
    ExecutionFunctionGone = "execution.function_gone", CONFLICT, "The execution's function is gone";
    /// It changes hands so fast that this change found no gap.
    ExecutionContended = "execution.contended", CONFLICT, "The execution is changing";
    /// The worker that has it does not answer.
    ExecutionOwnerUnreachable = "execution.owner_unreachable", SERVICE_UNAVAILABLE, "The execution's worker does not answer";
    /// The function failed.
    InvocationFailed = "invocation.failed", BAD_GATEWAY, "The function failed";
    /// The function ran into its timeout.
    InvocationTimedOut = "invocation.timed_out", GATEWAY_TIMEOUT, "The function ran into its timeout";
    /// No place to run was found in time.
    InvocationOverloaded = "invocation.overloaded", SERVICE_UNAVAILABLE, "No place to run was free in time";
    /// The service cannot start the function at present.
    InvocationUnavailable = "invocation.unavailable", SERVICE_UNAVAILABLE, "The function cannot be started at present";
    /// It is not known how far the function came.
    InvocationInterrupted = "invocation.interrupted", BAD_GATEWAY, "The invocation was interrupted";
    /// Its owner cancelled it.
    InvocationCancelled = "invocation.cancelled", CONFLICT, "The invocation was cancelled";
    /// The function has no code yet.
    InvocationWithoutCode = "invocation.without_code", CONFLICT, "The function has no code";
    /// No such runtime.
    RuntimeNotFound = "runtime.not_found", NOT_FOUND, "There is no such runtime";
    /// The store does not answer.
    ServiceUnavailable = "service.unavailable", SERVICE_UNAVAILABLE, "The service is not available at present";
    /// Too many requests are under way.
    ServiceBusy = "service.busy", SERVICE_UNAVAILABLE, "Too many requests are under way";
    /// The service took too long.
    ServiceTimedOut = "service.timed_out", GATEWAY_TIMEOUT, "The service took too long";
    /// A fault of the service.
    Internal = "service.internal", INTERNAL_SERVER_ERROR, "The service failed";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SERVICE_TYPE}.{}", self.word())
    }
}

/// An error on its way to the caller. `layers` gives it the request id and writes the body.
#[derive(Debug)]
pub(super) struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    detail: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    headers: HeaderMap,
    invocation: Option<FailedInvocation>,
}

/// What a failed invocation adds to its error.
#[derive(Debug)]
struct FailedInvocation {
    execution: Option<ExecutionId>,
    failure: Option<serde_json::Value>,
}

/// What handlers answer.
pub(super) type Result<T> = std::result::Result<T, ApiError>;

/// What a user is told of a request that failed for a reason of ours.
const OUR_FAULT: &str = "Try again; if it stays, tell the operator the request id.";

impl ApiError {
    /// An error and what the caller should change.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let parts = Parts { code, detail: detail.into(), source: None, headers: HeaderMap::new(), invocation: None };
        Self(Box::new(parts))
    }

    /// An attribute that is wrong.
    pub fn invalid(code: Code, invalid: &Invalid) -> Self {
        Self::new(code, invalid.to_string())
    }

    /// A fault of ours; the source is for the log only.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Code::Internal, OUR_FAULT).caused_by(source)
    }

    /// What the log says beyond the answer.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// When to try again.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// One more header of the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The execution that failed, and why as its record says.
    pub fn execution(mut self, execution: Option<ExecutionId>, failure: Option<serde_json::Value>) -> Self {
        if let Some(value) = execution.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) {
            self.0.headers.insert(super::EXECUTION_ID, value);
        }
        self.0.invocation = Some(FailedInvocation { execution, failure });
        self
    }

    /// Which error it is.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The error and its causes in one line, for the log.
    pub fn chain(&self) -> String {
        let mut text = format!("{}: {}", self.0.code.title(), self.0.detail);
        if let Some(source) = &self.0.source {
            let _ = write!(text, ": {}", crate::task::chain(source.as_ref()));
        }
        text
    }

    /// Writes the body.
    pub fn render(&self, request_id: &RequestId, base: &str) -> Response {
        let Parts { code, detail, headers, invocation, .. } = &*self.0;
        let item = ErrorItem {
            request_id: request_id.to_string(),
            code: code.to_string(),
            status: code.status().as_u16(),
            title: code.title().to_owned(),
            detail: detail.clone(),
            links: vec![super::links::Link { rel: "help".to_owned(), href: format!("{base}/v1/errors#{code}") }],
            execution_id: invocation.as_ref().and_then(|invocation| invocation.execution).map(|id| id.to_string()),
            failure: invocation.as_ref().and_then(|invocation| invocation.failure.clone()),
            min_version: (*code == Code::VersionNotSupported).then(|| super::version::MINIMUM.to_owned()),
            max_version: (*code == Code::VersionNotSupported).then(|| super::version::MAXIMUM.to_owned()),
        };
        (code.status(), headers.clone(), axum::Json(ErrorBody { errors: vec![item] })).into_response()
    }
}

/// An error as it travels from the handler to the layer that writes it.
#[derive(Clone)]
pub(super) struct Carried(pub Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.0.code.status().into_response();
        response.extensions_mut().insert(Carried(Arc::new(self)));
        response
    }
}

/// Faults of the store, where nothing in the request can be wrong. Handlers map what can: [`or_missing`] and their own.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::BadMarker => Self::new(
                Code::InvalidMarker,
                "marker: take it from the 'next' link of a page, or use the id of an element",
            ),
            StoreError::Unavailable(_) => {
                Self::new(Code::ServiceUnavailable, OUR_FAULT).caused_by(error).retry_after(2)
            }
            StoreError::NotFound(_) | StoreError::Taken(_) | StoreError::Stale | StoreError::Unexpected(_) => {
                Self::internal(error)
            }
        }
    }
}

/// Says what is not there when the store says so.
pub(super) fn or_missing<T>(result: crate::store::Result<T>, missing: impl FnOnce() -> ApiError) -> Result<T> {
    result.map_err(|error| match error {
        StoreError::NotFound(_) => missing(),
        StoreError::Taken(_)
        | StoreError::Stale
        | StoreError::BadMarker
        | StoreError::Unavailable(_)
        | StoreError::Unexpected(_) => error.into(),
    })
}

/// A text of the caller's as it may stand in an answer: shortened, without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}

/// The body of every answer that is no success.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// The errors; at present always one.
    errors: Vec<ErrorItem>,
}

/// One error.
#[derive(Serialize, ToSchema)]
struct ErrorItem {
    /// What to search for in the service's log, and to tell the operator.
    request_id: String,
    /// Which error it is; a word that never changes its meaning.
    #[schema(example = "function.function.not_found")]
    code: String,
    /// The HTTP status.
    status: u16,
    /// What kind of error it is.
    title: String,
    /// What is wrong this time, and what to change.
    detail: String,
    /// Where the error is explained.
    links: Vec<super::links::Link>,
    /// The execution that failed; only of invocations.
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_id: Option<String>,
    /// Why it failed, as its record says; only of invocations.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<super::executions::FailureView>)]
    failure: Option<serde_json::Value>,
    /// Lowest version that can be asked for; only of `version.not_supported`.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_version: Option<String>,
    /// Highest version that can be asked for; only of `version.not_supported`.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_version: Option<String>,
}

/// The failure of a record as JSON.
pub(super) fn failure_value(failure: &Failure) -> Option<serde_json::Value> {
    serde_json::to_value(failure).ok()
}
