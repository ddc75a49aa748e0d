//! Why a request is refused, in Zaqar's words: `{"title", "description"}` under the status that Zaqar gives.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    title: String,
    description: String,
}

/// What the handlers and the statements answer.
pub(super) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    pub(super) fn new(status: StatusCode, title: impl Into<String>, description: impl Into<String>) -> Self {
        Self { status, title: title.into(), description: description.into() }
    }

    /// 400: an argument is out of its range.
    pub(super) fn request(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid API request", description)
    }

    /// 400: the body is not what it has to be.
    pub(super) fn body(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid request body", description)
    }

    /// 400: the body is JSON of the wrong kind.
    pub(super) fn document_type() -> Self {
        Self::body("Document type not supported.")
    }

    /// 404.
    pub(super) fn not_found(description: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", description)
    }

    /// 404: there is no such queue.
    pub(super) fn no_queue(project: &str, name: &str) -> Self {
        Self::not_found(format!("Queue {name} does not exist for project {project}"))
    }

    /// 409.
    pub(super) fn conflict(description: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Resource conflict", description)
    }

    /// 503: it is our fault; trying again is right.
    pub(super) fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Service temporarily unavailable",
            "The queue could not be read or written. Please try again in a few seconds.",
        )
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        // Statements carry their values apart, so the text names no body.
        tracing::error!(error = %error, "the queue's database failed: {error}");
        Self::unavailable()
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = json!({"title": self.title, "description": self.description}).to_string();
        (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}
