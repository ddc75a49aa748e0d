//! What can go wrong with a call to another service, named for what the caller can do about it.

use std::time::Duration;

use osauth::ErrorKind;
use reqwest::StatusCode;

/// Whatever stood behind an error.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// Longest text that is taken over from a service's answer, in characters.
const TEXT_MAX: usize = 300;

/// Why a call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenStackError {
    /// What the call is about is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// The service does not know us, also after a new token: the credentials are wrong.
    #[error("not authenticated: {0}")]
    Unauthorized(String),
    /// We may not do that.
    #[error("not permitted: {0}")]
    Forbidden(String),
    /// It is in a state in which that cannot be done.
    #[error("in conflict: {0}")]
    Conflict(String),
    /// Too much was asked for in too short a time.
    #[error("over a limit: {detail}")]
    OverLimit {
        /// What the service said.
        detail: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The service, or this client before it, refuses what was asked; the text says why.
    #[error("refused: {0}")]
    Invalid(String),
    /// The service cannot be reached, or has a fault of its own. Whether the call took effect is unknown.
    #[error("{service} is not available")]
    Unavailable {
        /// Which one.
        service: &'static str,
        /// What happened.
        #[source]
        source: Source,
    },
    /// The service answered something that it should not answer.
    #[error("{service} answered something unexpected: {detail}")]
    Protocol {
        /// Which one.
        service: &'static str,
        /// What is odd about it. Never the body itself.
        detail: String,
    },
}

impl OpenStackError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::OverLimit { .. } | Self::Unavailable { .. } => true,
            Self::NotFound(_)
            | Self::Unauthorized(_)
            | Self::Forbidden(_)
            | Self::Conflict(_)
            | Self::Invalid(_)
            | Self::Protocol { .. } => false,
        }
    }

    pub(super) fn unavailable(service: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { service, source: source.into() }
    }

    pub(super) fn protocol(service: &'static str, detail: impl Into<String>) -> Self {
        Self::Protocol { service, detail: detail.into() }
    }

    /// What an answer that is no success means.
    pub(super) fn from_answer(
        service: &'static str,
        status: StatusCode,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let detail = explanation(body).unwrap_or_else(|| format!("status {}", status.as_u16()));
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized(detail),
            StatusCode::FORBIDDEN => Self::Forbidden(detail),
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::NotFound(detail),
            StatusCode::CONFLICT => Self::Conflict(detail),
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Self::OverLimit { detail, retry_after },
            _ if status.is_client_error() => Self::Invalid(detail),
            _ if status.is_server_error() => {
                Self::unavailable(service, format!("status {}: {detail}", status.as_u16()))
            }
            _ => Self::protocol(service, format!("status {}", status.as_u16())),
        }
    }

    /// What a failed authentication means.
    pub(super) fn from_auth(service: &'static str, error: osauth::Error) -> Self {
        let whole = error.to_string();
        // The kind stands before the message, in words that say nothing more.
        let text = clean(whole.strip_prefix(&format!("{}: ", error.kind())).unwrap_or(&whole));
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Unauthorized(text),
            ErrorKind::AccessDenied => Self::Forbidden(text),
            ErrorKind::InvalidInput | ErrorKind::InvalidConfig => Self::Invalid(text),
            // The catalog may name the service tomorrow.
            ErrorKind::EndpointNotFound => Self::unavailable(service, text),
            // Keystone may be back in a second.
            ErrorKind::ResourceNotFound
            | ErrorKind::TooManyItems
            | ErrorKind::IncompatibleApiVersion
            | ErrorKind::Conflict
            | ErrorKind::OperationTimedOut
            | ErrorKind::OperationFailed
            | ErrorKind::ProtocolError
            | ErrorKind::InvalidResponse
            | ErrorKind::InternalServerError
            | _ => Self::unavailable("identity", text),
        }
    }
}

/// What a service's error body says, in the shapes that OpenStack has for it.
pub(super) fn explanation(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let object = value.as_object()?;
    // Zaqar: {title, description}. Guideline: {errors: [{title, detail}]}. Keystone, Nova: {error: {message}}. Neutron:
    // {NeutronError: {message, detail}}.
    let inner = object
        .get("errors")
        .and_then(|errors| errors.get(0))
        .or_else(|| object.values().find(|value| value.is_object()))
        .and_then(serde_json::Value::as_object)
        .unwrap_or(object);
    // Neutron has an empty detail beside its message.
    let text = |name: &str| inner.get(name).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
    let first = text("title");
    let second = text("description").or_else(|| text("detail")).or_else(|| text("message"));
    let whole = match (first, second) {
        // Zun says everything twice.
        (Some(first), Some(second)) if first == second => first.to_owned(),
        (Some(first), Some(second)) => format!("{first}: {second}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => return None,
    };
    Some(clean(&whole))
}

/// Text of others, made fit for one line of a log.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(status: u16, body: &str) -> OpenStackError {
        OpenStackError::from_answer("messaging", StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
    }

    #[test]
    fn the_service_s_own_words_are_kept() {
        for (body, said) in [
            (r#"{"title":"Not found","description":"no queue"}"#, "Not found: no queue"),
            (r#"{"errors":[{"title":"T","detail":"D"}]}"#, "T: D"),
            (r#"{"errors":[{"title":"T","detail":"T"}]}"#, "T"),
            (r#"{"error":{"code":404,"title":"T","message":"M"}}"#, "T: M"),
            (r#"{"itemNotFound":{"code":404,"message":"M"}}"#, "M"),
            (r#"{"NeutronError":{"type":"T","message":"M","detail":""}}"#, "M"),
            ("<html>", "status 404"),
            ("[]", "status 404"),
            ("", "status 404"),
        ] {
            assert_eq!(from(404, body).to_string(), format!("not found: {said}"), "{body}");
        }
    }

    #[test]
    fn every_status_has_a_meaning() {
        for (status, retryable) in [
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (409, false),
            (413, true),
            (429, true),
            (500, true),
            (503, true),
            (302, false),
        ] {
            assert_eq!(from(status, "{}").retryable(), retryable, "{status}");
        }
    }

    #[test]
    fn a_hostile_text_stays_one_short_line() {
        let body = serde_json::json!({"title": "a\nb", "description": "x".repeat(10_000)}).to_string();
        let text = from(400, &body).to_string();
        assert!(text.len() < 400 && !text.contains('\n'));
    }
}
