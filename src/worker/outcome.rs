//! What an agent says of a failure, as it will stand in the record.

use serde::Deserialize;
use serde_json::Value;

use lambda_agent::wire::{AttemptMeasures, FailureKind, SandboxFailure, SandboxPhase};

use crate::model::RequestId;
use crate::model::execution::{Component, ErrorDetail, Failure, Measures, Phase, Reason, WaitingFor};
use crate::model::time::Millis;

/// Longest message kept, in bytes.
const MESSAGE_MAX: usize = 4096;
/// Most lines of a stack kept, and the longest of them.
const TRACE_LINES: usize = 64;
const TRACE_LINE_MAX: usize = 1024;

/// The Runtime API's error object.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ErrorObject {
    error_type: String,
    error_message: String,
    stack_trace: Vec<Value>,
}

/// The failure that a handler reported itself.
#[must_use]
pub fn handler_error(request_id: RequestId, body: &[u8]) -> Failure {
    let object = serde_json::from_slice::<ErrorObject>(body).unwrap_or_else(|_| ErrorObject {
        error_type: "Function.Unknown".to_owned(),
        error_message: String::from_utf8_lossy(body).into_owned(),
        stack_trace: Vec::new(),
    });
    let reason = reason_of(&object.error_type).unwrap_or(Reason::HandlerError);
    let trace = object.stack_trace.into_iter().map(|line| match line {
        Value::String(text) => text,
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    });
    Failure {
        request_id,
        component: component_of(reason),
        phase: Phase::Invoke,
        reason,
        error: detail(object.error_type, object.error_message, trace),
    }
}

/// The failure of a result over the limit.
#[must_use]
pub fn result_too_large(request_id: RequestId) -> Failure {
    of_function(
        request_id,
        Phase::Invoke,
        Reason::ResultTooLarge,
        "Function.ResponseSizeTooLarge",
        "the result is larger than 6 MiB",
    )
}

/// The failure of a result that is not JSON.
#[must_use]
pub fn result_not_json(request_id: RequestId, why: &str) -> Failure {
    of_function(request_id, Phase::Invoke, Reason::ResultNotJson, "Runtime.MarshalError", why)
}

fn of_function(request_id: RequestId, phase: Phase, reason: Reason, error_type: &str, message: &str) -> Failure {
    let error = ErrorDetail { error_type: error_type.to_owned(), message: message.to_owned(), trace: Vec::new() };
    Failure { request_id, component: Component::Function, phase, reason, error }
}

/// The failure of a sandbox that ended.
#[must_use]
pub fn sandbox_failure(request_id: RequestId, failure: SandboxFailure) -> Failure {
    let phase = match failure.phase {
        SandboxPhase::Package => Phase::Package,
        SandboxPhase::Init => Phase::Init,
        SandboxPhase::Invoke | SandboxPhase::Idle => Phase::Invoke,
    };
    let reason = match failure.kind {
        FailureKind::InitError => reason_of(&failure.error_type).unwrap_or(Reason::ImportError),
        FailureKind::Exited => Reason::ProcessExited,
        FailureKind::TimedOut if phase == Phase::Init => Reason::InitTimedOut,
        FailureKind::TimedOut => Reason::TimedOut,
        FailureKind::OutOfMemory => Reason::OutOfMemory,
        FailureKind::PackageInvalid => Reason::PackageInvalid,
        FailureKind::PackageUnavailable => Reason::PackageUnavailable,
        FailureKind::EntrypointMissing => Reason::HandlerNotFound,
        FailureKind::Platform => Reason::SandboxFailed,
    };
    Failure {
        request_id,
        component: component_of(reason),
        phase,
        reason,
        error: detail(failure.error_type, failure.message, failure.trace.into_iter()),
    }
}

/// What a caller is told who needs an instance that cannot be had.
#[must_use]
pub const fn no_instance(waiting_for: WaitingFor) -> &'static str {
    match waiting_for {
        WaitingFor::Quota => "the service has used up its quota in the cloud; tell the operator",
        WaitingFor::Operator => "the service cannot boot instances as it is configured; tell the operator",
        WaitingFor::Capacity => "the cloud has no room for another instance now; try again later",
        WaitingFor::Cloud
        | WaitingFor::Worker
        | WaitingFor::Retry
        | WaitingFor::FunctionLimit
        | WaitingFor::Sandbox => "instances do not come up now; try again later",
    }
}

/// A failure that the worker itself speaks of.
#[must_use]
pub fn platform(
    request_id: RequestId,
    component: Component,
    phase: Phase,
    reason: Reason,
    message: impl Into<String>,
) -> Failure {
    let error = ErrorDetail { error_type: format!("Platform.{reason:?}"), message: message.into(), trace: Vec::new() };
    Failure { request_id, component, phase, reason, error }
}

fn reason_of(error_type: &str) -> Option<Reason> {
    Some(match error_type {
        "Runtime.ImportModuleError" => Reason::ImportError,
        "Runtime.UserCodeSyntaxError" => Reason::SyntaxError,
        "Runtime.HandlerNotFound" | "Runtime.MalformedHandlerName" | "Runtime.InvalidEntrypoint" => {
            Reason::HandlerNotFound
        }
        "Runtime.MarshalError" => Reason::ResultNotJson,
        "Runtime.OutOfMemory" => Reason::OutOfMemory,
        "Function.ResponseSizeTooLarge" => Reason::ResultTooLarge,
        _ => return None,
    })
}

const fn component_of(reason: Reason) -> Component {
    match reason {
        Reason::HandlerError
        | Reason::ImportError
        | Reason::SyntaxError
        | Reason::HandlerNotFound
        | Reason::ResultNotJson
        | Reason::ResultTooLarge
        | Reason::PackageInvalid
        | Reason::FunctionDeleted
        | Reason::FunctionWithoutCode
        | Reason::InstanceImpossible => Component::Function,
        Reason::ProcessExited | Reason::TimedOut | Reason::InitTimedOut | Reason::OutOfMemory => Component::Sandbox,
        Reason::SandboxFailed | Reason::InstanceLost | Reason::InstanceUnavailable => Component::Instance,
        Reason::PackageUnavailable
        | Reason::WorkerLost
        | Reason::RuntimeUnknown
        | Reason::EventExpired
        | Reason::Cancelled
        | Reason::ShuttingDown
        | Reason::Overloaded => Component::Worker,
    }
}

fn detail(error_type: String, message: String, trace: impl Iterator<Item = String>) -> ErrorDetail {
    ErrorDetail {
        error_type: shorten(error_type, 256),
        message: shorten(message, MESSAGE_MAX),
        trace: trace.take(TRACE_LINES).map(|line| shorten(line, TRACE_LINE_MAX)).collect(),
    }
}

fn shorten(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What the agent measured, as it will stand in the record. `init` only for the first event of a sandbox.
#[must_use]
pub fn measures(measured: &AttemptMeasures, init: Option<Millis>) -> Measures {
    Measures {
        init_ms: init,
        duration_ms: Some(std::time::Duration::from_micros(measured.duration_us).into()),
        peak_memory_bytes: (measured.peak_memory_bytes > 0).then_some(measured.peak_memory_bytes),
        log_bytes: measured.log_bytes,
        log_truncated: measured.log_truncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_handler_raised_is_told_with_its_type_message_and_stack() {
        let body = br#"{"errorType":"ValueError","errorMessage":"no","stackTrace":["  File main.py, line 2\n"]}"#;
        let failure = handler_error(RequestId::generate(), body);
        assert_eq!((failure.component, failure.reason), (Component::Function, Reason::HandlerError));
        assert_eq!(failure.error.error_type, "ValueError");
        assert_eq!(failure.error.trace.len(), 1);
    }

    #[test]
    fn an_error_that_is_no_error_object_is_kept_as_text() {
        let failure = handler_error(RequestId::generate(), b"boom");
        assert_eq!((failure.error.error_type.as_str(), failure.error.message.as_str()), ("Function.Unknown", "boom"));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let body = serde_json::json!({"errorType": "E", "errorMessage": "é".repeat(5000)}).to_string();
        let message = handler_error(RequestId::generate(), body.as_bytes()).error.message;
        assert!(message.len() <= MESSAGE_MAX + '…'.len_utf8());
        assert!(message.ends_with('…'));
    }

    #[test]
    fn out_of_memory_is_not_a_crash() {
        let failure = SandboxFailure {
            kind: FailureKind::OutOfMemory,
            phase: SandboxPhase::Invoke,
            error_type: "Runtime.OutOfMemory".to_owned(),
            message: "the limit of 128 MiB was reached".to_owned(),
            trace: Vec::new(),
        };
        let failure = sandbox_failure(RequestId::generate(), failure);
        assert_eq!((failure.component, failure.reason), (Component::Sandbox, Reason::OutOfMemory));
    }
}
