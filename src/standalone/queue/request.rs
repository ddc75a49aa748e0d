//! What every request is checked for before a handler sees it, and how bodies and query parameters are read.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::fault::{Fault, Result};
use super::limits;

/// The project of requests that name none.
pub(super) const DEFAULT_PROJECT: &str = "demo";

/// How much of a body that is too large is read and thrown away, so that its sender gets to read the answer.
const DISCARD_MAX: usize = 16 * 1024 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Its project; queues of different projects have nothing to do with each other.
    pub(super) project: String,
    /// What it calls itself; its own messages are hidden from its lists.
    pub(super) client: Uuid,
}

/// The layer over everything under `/v2`: refuses what names no client or project, and gives every answer an id.
pub(super) async fn check(mut request: Request, next: Next) -> Response {
    let mut response = match checked(request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(fault) => fault.into_response(),
    };
    if let Ok(id) = HeaderValue::from_str(crate::model::RequestId::generate().as_str()) {
        response.headers_mut().insert("x-openstack-request-id", id);
    }
    response
}

fn checked(headers: &HeaderMap) -> Result<Caller> {
    let bad = |title: &str, description: &str| Fault::new(StatusCode::BAD_REQUEST, title, description);
    let has_body = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    if has_body
        && text(headers, "content-type")?
            .is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded"))
    {
        return Err(bad(
            "Invalid Content-Type",
            "Endpoint does not accept `application/x-www-form-urlencoded` content; currently supported media type is \
             `application/json`; specify proper client-side media type with the \"Content-Type\" header.",
        ));
    }
    if !headers.get_all(header::ACCEPT).iter().all(accepts_json) {
        return Err(Fault::new(
            StatusCode::NOT_ACCEPTABLE,
            "Media type not acceptable",
            "Endpoint only serves `application/json`; specify client-side media type support with the \"Accept\" header.",
        ));
    }
    let client =
        text(headers, "client-id")?.ok_or_else(|| bad("Missing header value", "The Client-Id header is required."))?;
    let client = Uuid::try_parse(client).map_err(|_| bad("Wrong UUID value", "Malformed hexadecimal UUID."))?;
    let project = match text(headers, "x-project-id")? {
        // openstacksdk without authentication sends an empty one.
        None | Some("") => DEFAULT_PROJECT,
        Some(project) if project.len() > limits::PROJECT_MAX => return Err(bad_identification()),
        Some(project) => project,
    };
    Ok(Caller { project: project.to_owned(), client })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>> {
    headers.get(name).map(HeaderValue::to_str).transpose().map_err(|_| {
        Fault::new(StatusCode::BAD_REQUEST, "Invalid header value", format!("The {name} header is not plain text."))
    })
}

fn accepts_json(accept: &HeaderValue) -> bool {
    accept.to_str().is_ok_and(|accept| {
        accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            !refused && ["*/*", "application/*", "application/json"].iter().any(|json| kind.eq_ignore_ascii_case(json))
        })
    })
}

fn bad_identification() -> Fault {
    Fault::new(
        StatusCode::BAD_REQUEST,
        "Invalid queue identification",
        "The format of the submitted queue name or project id is not valid.",
    )
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self> {
        // It is there wherever `check` is; without it nobody is let in.
        parts.extensions.get::<Self>().cloned().ok_or_else(Fault::unavailable)
    }
}

/// The queue that the path names, and what it names within it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The queue; its form has been checked.
    pub(super) queue: String,
    /// A message, claim or subscription; empty where the path has none.
    pub(super) item: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self> {
        let found = RawPathParams::from_request_parts(parts, state).await.map_err(|_| bad_identification())?;
        let mut target = Self { queue: String::new(), item: String::new() };
        for (name, value) in &found {
            match name {
                "queue" => value.clone_into(&mut target.queue),
                _ => value.clone_into(&mut target.item),
            }
        }
        if limits::is_queue_name(&target.queue) { Ok(target) } else { Err(bad_identification()) }
    }
}

/// The query parameters. As in Zaqar, blank ones count as absent and unknown ones as nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    fn parse(query: &str) -> Self {
        // Whatever it is, it can be read as pairs: bytes that are not UTF-8 are replaced.
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        Self(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// All of them.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The last one of that name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A number.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>> {
        self.text(name)
            .map(|value| value.trim().parse().map_err(|_| invalid(name, "The value must be an integer.")))
            .transpose()
    }

    /// Yes or no; no when absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        match self.text(name) {
            Some("true" | "True" | "t" | "yes" | "y" | "1" | "on") => Ok(true),
            None | Some("false" | "False" | "f" | "no" | "n" | "0" | "off") => Ok(false),
            Some(_) => Err(invalid(name, "The value of the parameter must be \"true\" or \"false\".")),
        }
    }

    /// Values separated by commas, or given again and again; none when absent.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&str>> {
        let values: Vec<&str> = self
            .0
            .iter()
            .filter(|(found, _)| found == name)
            .flat_map(|(_, value)| value.split(','))
            .filter(|value| !value.is_empty())
            .collect();
        (!values.is_empty()).then_some(values)
    }
}

fn invalid(name: &str, reason: &str) -> Fault {
    Fault::new(StatusCode::BAD_REQUEST, "Invalid parameter", format!("The \"{name}\" parameter is invalid. {reason}"))
}

/// Reads a body of at most `max` bytes; `too_large` says what is wrong with a larger one.
pub(super) async fn body(body: Body, max: usize, too_large: impl FnOnce() -> Fault) -> Result<Bytes> {
    let read = async {
        let mut stream = body.into_data_stream();
        let mut whole: Vec<u8> = Vec::new();
        let mut length = 0_usize;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| Fault::body("Request body could not be read."))?;
            length = length.saturating_add(chunk.len());
            if length > DISCARD_MAX {
                break;
            }
            if length <= max {
                whole.extend_from_slice(&chunk);
            }
        }
        if length > max { Err(too_large()) } else { Ok(Bytes::from(whole)) }
    };
    tokio::time::timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| {
        Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", "The body did not arrive in time."))
    })
}

/// Reads a JSON object or array; as in Zaqar, anything else is no document.
pub(super) fn document(bytes: &[u8]) -> Result<Value> {
    if bytes.is_empty() {
        return Err(Fault::body("Request body can not be empty"));
    }
    match serde_json::from_slice(bytes) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => Ok(value),
        Ok(_) | Err(_) => Err(unparsable()),
    }
}

/// Reads a JSON object.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    let Value::Object(map) = document(bytes)? else {
        return Err(Fault::document_type());
    };
    Ok(map)
}

/// 400: the body is not JSON.
pub(super) fn unparsable() -> Fault {
    Fault::body("Request body could not be parsed.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_parameters_count_as_absent_and_lists_come_in_both_forms() {
        let query = Query::parse("ids=a,b&ids=c&limit=&echo=True&x=%ff");
        assert_eq!(query.list("ids"), Some(vec!["a", "b", "c"]));
        assert_eq!(query.number("limit"), Ok(None));
        assert_eq!(query.flag("echo"), Ok(true));
        assert_eq!(query.list("none"), None);
        assert!(Query::parse("limit=x").number("limit").is_err());
        assert!(Query::parse("echo=maybe").flag("echo").is_err());
    }

    #[test]
    fn only_what_takes_json_gets_json() {
        for (accept, good) in [
            ("*/*", true),
            ("application/json", true),
            ("text/html,application/xhtml+xml,*/*;q=0.8", true),
            ("application/*", true),
            ("text/html", false),
            ("application/json;q=0", false),
        ] {
            assert_eq!(accepts_json(&HeaderValue::from_static(accept)), good, "{accept}");
        }
    }

    #[test]
    fn a_scalar_is_no_document() {
        assert!(document(b"{}").is_ok());
        assert!(document(b"[]").is_ok());
        for bad in ["", "1", "null", "\"x\"", "{", "{}{}"] {
            assert!(document(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(object(b"[]").is_err());
    }
}
