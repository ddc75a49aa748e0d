//! `/v1/events`: events of a project, in each of the HTTP modes of CloudEvents, on their way to the platform queue.

use async_trait::async_trait;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::error::{ApiError, Code, Result, shown};
use super::identity::Caller;
use super::input::{NoParameters, Query, media_type, parse_json, read_body, unsupported};
use crate::model::event::EVENT_MAX_BYTES;
use crate::model::{Event, Invalid, ProjectId};

/// Largest event taken, in bytes. Zaqar's limit is for the whole request, so there has to be room around the event.
const EVENT_LIMIT: usize = EVENT_MAX_BYTES - 1024;

/// Most events of one batch.
const BATCH_MAX: usize = 100;

/// Largest body: a batch may be larger than one event, the poster splits it.
const BODY_LIMIT: usize = 4 << 20;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCHED: &str = "application/cloudevents-batch+json";
const JSON: &str = "application/json";

/// Puts events on the platform queue.
#[async_trait]
pub trait EventPoster: Send + Sync + 'static {
    /// Posts events and answers the ids of their messages, in order. Each event names its project and is at most
    /// [`EVENT_MAX_BYTES`] long; more of them than one request to the queue holds are split by the poster. Not
    /// idempotent: after an error some of the events may be on the queue.
    async fn post(&self, events: &[Event]) -> std::result::Result<Vec<String>, PostError>;
}

/// Why events are not on the queue.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The queue did not answer, or refused for a passing reason: try again.
    #[error("the queue is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The queue refused for a lasting reason: someone must look.
    #[error("the queue refused the events")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What was posted.
#[derive(Serialize, ToSchema)]
struct Posted {
    /// The events, in the order of the request.
    events: Vec<PostedEvent>,
}

/// An event that is on the queue.
#[derive(Serialize, ToSchema)]
struct PostedEvent {
    /// Its CloudEvents id; made here if it came without one.
    id: String,
    /// The message that carries it.
    message_id: String,
}

/// A CloudEvent in JSON.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct CloudEvent {
    /// `1.0`; may be left out.
    #[schema(required = false)]
    specversion: String,
    /// Its id, unique within the source; made here if it is left out.
    #[schema(required = false)]
    id: String,
    /// Where it happened.
    #[schema(example = "swift://photos")]
    source: String,
    /// What happened.
    #[schema(example = "object.created")]
    r#type: String,
    /// What it happened to.
    subject: Option<String>,
    /// When.
    #[schema(format = DateTime)]
    time: Option<String>,
    /// Media type of the data.
    datacontenttype: Option<String>,
    /// What there is to say of it.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
}

/// Post events. One as JSON, a batch of at most 100 as `application/cloudevents-batch+json`, or one with its attributes
/// in `ce-` headers and its data as the body.
#[utoipa::path(post, path = "/v1/events", tag = "events", operation_id = "post_events",
    request_body(content((CloudEvent = "application/cloudevents+json"), (CloudEvent = "application/json"),
                         (Vec<CloudEvent> = "application/cloudevents-batch+json"))),
    responses((status = 202, description = "The events are on the queue.", body = Posted)))]
pub(super) async fn post(
    State(api): State<Api>,
    caller: Caller,
    _query: Query<NoParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let kind = media_type(&headers)?;
    let binary = headers.keys().any(|name| name.as_str().starts_with("ce-"));
    let bodies = match kind.as_deref() {
        Some(STRUCTURED) => vec![parse_json(&read_body(&headers, body, BODY_LIMIT).await?)?],
        Some(BATCHED) => parse_json::<Vec<Value>>(&read_body(&headers, body, BODY_LIMIT).await?)?,
        kind if binary => {
            let kind = kind.map(str::to_owned);
            vec![from_binary(&headers, kind, &read_body(&headers, body, BODY_LIMIT).await?)?]
        }
        Some(JSON) => vec![parse_json(&read_body(&headers, body, BODY_LIMIT).await?)?],
        other => {
            return Err(unsupported(other, "application/json, application/cloudevents+json, a batch, or ce- headers"));
        }
    };
    if bodies.is_empty() || bodies.len() > BATCH_MAX {
        return Err(ApiError::new(Code::EventInvalid, format!("a batch must have 1 to {BATCH_MAX} events")));
    }
    let single = bodies.len() == 1;
    let events = bodies
        .into_iter()
        .enumerate()
        .map(|(place, body)| {
            let place = if single { String::new() } else { format!("[{place}].") };
            admit(body, caller.project(), &place)
        })
        .collect::<Result<Vec<_>>>()?;
    let message_ids = api.poster.post(&events).await.map_err(|error| match error {
        PostError::Unavailable(_) => {
            ApiError::new(Code::EventQueueUnavailable, "try again; events may then arrive twice")
                .retry_after(2)
                .caused_by(error)
        }
        PostError::Refused(_) => ApiError::internal(error),
    })?;
    api.gateways.nudge();
    let events = events
        .iter()
        .zip(message_ids)
        .map(|(event, message_id)| PostedEvent { id: event.id().to_owned(), message_id })
        .collect();
    Ok((StatusCode::ACCEPTED, Json(Posted { events })).into_response())
}

/// Makes an event of the caller's project of a body.
fn admit(body: Value, project: &ProjectId, place: &str) -> Result<Event> {
    let wrong = |invalid: Invalid| ApiError::new(Code::EventInvalid, format!("{place}{invalid}"));
    let event = Event::from_value(body, &Uuid::new_v4().to_string()).map_err(wrong)?;
    if event.project().is_some_and(|named| named != project) {
        return Err(ApiError::new(
            Code::EventForeignProject,
            format!("{place}projectid: must be the project of the request, '{project}', or be left out"),
        ));
    }
    let event = event.for_project(project);
    let size = event.payload().bytes().len();
    if size > EVENT_LIMIT {
        return Err(ApiError::new(
            Code::EventTooLarge,
            format!("{place}event: has {size} bytes as JSON; at most {EVENT_LIMIT} are taken"),
        ));
    }
    Ok(event)
}

/// The binary mode of the HTTP protocol binding: attributes are `ce-` headers, percent-encoded; the body is the data.
fn from_binary(headers: &HeaderMap, kind: Option<String>, body: &Bytes) -> Result<Value> {
    let mut object = Map::new();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        let wrong =
            || ApiError::new(Code::EventInvalid, format!("ce-{}: must be percent-encoded UTF-8", shown(attribute)));
        let text = percent_decoded(value.to_str().map_err(|_| wrong())?).ok_or_else(wrong)?;
        if attribute == "data"
            || attribute == "data_base64"
            || object.insert(attribute.to_owned(), text.into()).is_some()
        {
            return Err(ApiError::new(
                Code::EventInvalid,
                format!("ce-{}: is given twice, or is no attribute", shown(attribute)),
            ));
        }
    }
    if !body.is_empty() {
        let json = kind.as_deref().is_none_or(|kind| kind == JSON || kind.ends_with("+json"));
        if json {
            object.insert("data".to_owned(), parse_json(body)?);
        } else if let Some(text) = kind
            .as_deref()
            .filter(|kind| kind.starts_with("text/") || *kind == "application/xml")
            .and_then(|_| std::str::from_utf8(body).ok())
        {
            object.insert("data".to_owned(), text.into());
        } else {
            let data = base64::engine::general_purpose::STANDARD.encode(body);
            object.insert("data_base64".to_owned(), data.into());
        }
    }
    if let Some(kind) = kind {
        object.insert("datacontenttype".to_owned(), kind.into());
    }
    Ok(Value::Object(object))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = behind.get(2..)?;
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn binary(headers: &[(&'static str, &'static str)], kind: Option<&str>, body: &'static [u8]) -> Result<Value> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        from_binary(&headers, kind.map(str::to_owned), &Bytes::from_static(body))
    }

    #[test]
    fn binary_mode_takes_attributes_from_headers_and_data_from_the_body() {
        let head = [("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t"), ("ce-subject", "na%C3%AFve"), ("other", "x")];
        assert_eq!(
            binary(&head, Some("application/json"), b"{\"a\":1}").unwrap(),
            json!({"id": "1", "source": "s", "type": "t", "subject": "naïve", "datacontenttype": "application/json",
                   "data": {"a": 1}})
        );
        assert_eq!(binary(&head, Some("text/plain"), b"hello").unwrap()["data"], "hello");
        assert_eq!(binary(&head, Some("image/png"), b"\x89PNG").unwrap()["data_base64"], "iVBORw==");
        assert_eq!(binary(&head, None, b"").unwrap().get("data"), None);
        assert!(binary(&[("ce-source", "%zz")], None, b"").is_err());
        assert!(binary(&[("ce-data", "x")], None, b"").is_err());
        assert!(binary(&head, Some("application/json"), b"{").is_err());
    }

    #[test]
    fn an_event_belongs_to_the_callers_project_and_fits_the_queue() {
        let demo = ProjectId::parse("demo").unwrap();
        let event = admit(json!({"source": "s", "type": "t"}), &demo, "").unwrap();
        assert_eq!(event.project(), Some(&demo));
        assert!(admit(json!({"source": "s", "type": "t", "projectid": "demo"}), &demo, "").is_ok());
        let refused = |body| admit(body, &demo, "[3].").unwrap_err();
        assert_eq!(refused(json!({"source": "s", "type": "t", "projectid": "p2"})).code(), Code::EventForeignProject);
        assert_eq!(
            refused(json!({"source": "s", "type": "t", "data": "x".repeat(EVENT_LIMIT)})).code(),
            Code::EventTooLarge
        );
        let invalid = refused(json!({"type": "t"}));
        assert!(invalid.chain().contains("[3].source: is required"), "{}", invalid.chain());
    }
}
