//! Messages over HTTP: posted, listed, read, deleted, popped. The statements are in [`super::rows`].

use std::collections::HashMap;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Queue;
use super::fault::{Fault, Result};
use super::queues::{self, QueueRow};
use super::request::{self, Caller, Query, Target};
use super::rows::{self, Draft, Listing, Shown};
use super::{limits, links};

/// Longest `Location` of a post, in bytes. The ids are in the body as well, and clients and proxies refuse a header line
/// of more than 8 KiB.
const LOCATION_MAX: usize = 4096;

/// `POST /v2/queues/{queue}/messages`
pub(super) async fn post(
    State(queue): State<Queue>,
    caller: Caller,
    Target { queue: name, .. }: Target,
    body: Body,
) -> Result<Response> {
    let too_large = || too_large(limits::POST_MAX);
    let body = request::body(body, limits::POST_MAX, too_large).await?;
    let length = body.len();
    let posted = parse(&body)?;
    let salt = queue.salt();
    let path = format!("/v2/queues/{name}/messages");
    let (project, written) = (caller.project.clone(), name.clone());
    let ids = queue
        .write(move |connection, now| {
            let row = match queues::find(connection, &caller.project, &written)? {
                Some(row) => row,
                None => queues::insert(connection, &caller.project, &written, serde_json::Map::new())?,
            };
            let drafts = drafts(posted, &row, length)?;
            rows::insert(connection, &row, &caller, salt, now, &drafts)
        })
        .await?;
    queue.posted(&project, &name);
    let mut location = format!("{path}?ids={}", ids.join(","));
    if location.len() > LOCATION_MAX {
        location.clone_from(&path);
    }
    let hrefs: Vec<String> = ids.iter().map(|id| format!("{path}/{id}")).collect();
    let answer = Json(json!({"resources": hrefs}));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], answer).into_response())
}

fn too_large(max: usize) -> Fault {
    Fault::request(format!("Message collection size is too large. Max size {max}"))
}

/// A message as it came: its body is kept as text, its numbers wait for the queue's settings.
struct Posted {
    ttl: Option<i64>,
    delay: Option<Option<i64>>,
    body: String,
}

/// Fields of an object, unread.
type Fields<'a> = HashMap<std::borrow::Cow<'a, str>, &'a RawValue>;

/// Reads as far as it can be done without the queue. Bodies are not looked into, so no depth of nesting is too much.
fn parse(body: &Bytes) -> Result<Vec<Posted>> {
    if body.is_empty() {
        return Err(Fault::body("Request body can not be empty"));
    }
    let document: &RawValue = serde_json::from_slice(body).map_err(|_| request::unparsable())?;
    let document: Fields = match document.get().as_bytes().first() {
        Some(b'{') => read(document)?,
        Some(b'[') => Fields::new(),
        _ => return Err(request::unparsable()),
    };
    let messages =
        *document.get("messages").ok_or_else(|| Fault::request("No messages were found in the request body."))?;
    if !messages.get().starts_with('[') {
        return Err(Fault::document_type());
    }
    let messages: Vec<&RawValue> = read(messages)?;
    if messages.is_empty() {
        return Err(Fault::request("No messages to enqueu."));
    }
    messages.into_iter().map(message).collect()
}

fn message(message: &RawValue) -> Result<Posted> {
    if !message.get().starts_with('{') {
        return Err(Fault::document_type());
    }
    let fields: Fields = read(message)?;
    let body = fields.get("body").ok_or_else(|| Fault::body("Missing \"body\" field."))?;
    let ttl = fields.get("ttl").map(|ttl| integer(ttl).ok_or_else(|| limits::not_an_integer("ttl"))).transpose()?;
    Ok(Posted { ttl, delay: fields.get("delay").map(|delay| integer(delay)), body: body.get().to_owned() })
}

fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T> {
    serde_json::from_str(raw.get()).map_err(|_| request::unparsable())
}

fn integer(raw: &RawValue) -> Option<i64> {
    serde_json::from_str(raw.get()).ok()
}

/// Puts the queue's settings where a message says nothing, and checks the numbers.
fn drafts(posted: Vec<Posted>, row: &QueueRow, length: usize) -> Result<Vec<Draft>> {
    let settings = row.settings();
    if let Some(max) = settings.post_max.and_then(|max| usize::try_from(max).ok())
        && length > max
    {
        return Err(too_large(max));
    }
    posted
        .into_iter()
        .map(|message| {
            let ttl = message.ttl.or(settings.message_ttl).unwrap_or(limits::MESSAGE_TTL_DEFAULT);
            // A queue without a delay of its own does not look at those of messages.
            let delay = match (settings.delay, message.delay) {
                (None, _) => 0,
                (Some(default), None) => default,
                (Some(_), Some(delay)) => delay.ok_or_else(|| limits::not_an_integer("delay"))?,
            };
            Ok(Draft { ttl: limits::message_ttl(ttl)?, delay: limits::message_delay(delay)?, body: message.body })
        })
        .collect()
}

/// `GET /v2/queues/{queue}/messages`: a page, or those with the given ids.
pub(super) async fn list(State(queue): State<Queue>, caller: Caller, target: Target, query: Query) -> Result<Response> {
    match query.list("ids") {
        Some(ids) => by_ids(&queue, caller, target.queue, limits::ids(ids)?).await,
        None => page(&queue, caller, target.queue, &query).await,
    }
}

async fn by_ids(queue: &Queue, caller: Caller, name: String, ids: Vec<&str>) -> Result<Response> {
    let nothing = Fault::not_found(format!(
        "No messages with IDs: {ids:?} found in the queue {name} for project {}.",
        caller.project
    ));
    let ids = rows::parse_ids(&ids);
    let salt = queue.salt();
    let found = queue
        .read(move |connection, now| match queues::find(connection, &caller.project, &name)? {
            Some(row) => rows::by_ids(connection, &row, &name, salt, now, &ids),
            None => Ok(Vec::new()),
        })
        .await?;
    if found.is_empty() {
        return Err(nothing);
    }
    Ok(Json(Messages { messages: found, links: None }).into_response())
}

async fn page(queue: &Queue, caller: Caller, name: String, query: &Query) -> Result<Response> {
    let limit = limits::page(query.number("limit")?)?;
    let echo = query.flag("echo")?;
    let include_claimed = query.flag("include_claimed")?;
    let include_delayed = query.flag("include_delayed")?;
    let salt = queue.salt();
    let Some(after) = rows::marker(query.text("marker"), salt) else {
        // As in Zaqar, a marker that is none has nothing behind it.
        return Ok(Json(Messages { messages: Vec::new(), links: Some(json!([])) }).into_response());
    };
    let path = format!("/v2/queues/{name}/messages");
    let (messages, last) = queue
        .read(move |connection, now| {
            let Some(row) = queues::find(connection, &caller.project, &name)? else {
                return Ok((Vec::new(), None));
            };
            let include_delayed = include_delayed || row.settings().delay.is_none();
            let hidden = (!echo).then_some(caller.client);
            let listing = Listing { after, limit, hidden, include_claimed, include_delayed };
            rows::page(connection, &row, &name, salt, now, &listing)
        })
        .await?;
    let links = links(&path, query, last.map(|marker| marker.to_string()));
    Ok(Json(Messages { messages, links: Some(links) }).into_response())
}

#[derive(serde::Serialize)]
struct Messages {
    messages: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Value>,
}

/// `GET /v2/queues/{queue}/messages/{message}`
pub(super) async fn show(State(queue): State<Queue>, caller: Caller, target: Target) -> Result<Json<Shown>> {
    let Target { queue: name, item } = target;
    let missing =
        Fault::not_found(format!("Message {item} does not exist in queue {name} for project {}", caller.project));
    let ids = rows::parse_ids(&[item.as_str()]);
    let salt = queue.salt();
    let found = queue
        .read(move |connection, now| match queues::find(connection, &caller.project, &name)? {
            Some(row) => rows::by_ids(connection, &row, &name, salt, now, &ids),
            None => Ok(Vec::new()),
        })
        .await?;
    found.into_iter().next().map(Json).ok_or(missing)
}

/// `DELETE /v2/queues/{queue}/messages/{message}`
pub(super) async fn delete(
    State(queue): State<Queue>,
    caller: Caller,
    target: Target,
    query: Query,
) -> Result<StatusCode> {
    let claim = query.text("claim_id").map(|claim| vec![claim.to_owned()]);
    let ids = rows::parse_ids(&[target.item.as_str()]);
    remove(&queue, caller, target.queue, ids, claim, Unclaimed::Refuse).await
}

/// `DELETE /v2/queues/{queue}/messages`: those with the given ids, or the oldest free ones, which are returned.
pub(super) async fn delete_many(
    State(queue): State<Queue>,
    caller: Caller,
    target: Target,
    query: Query,
) -> Result<Response> {
    match (query.list("ids"), query.number("pop")?) {
        (Some(_), Some(_)) => {
            Err(Fault::request("pop and id params cannot be present together in the delete request."))
        }
        (None, None) => Err(Fault::request(
            "The request should have either \"ids\" or \"pop\" parameter in the request, to be able to delete.",
        )),
        (None, Some(count)) => pop(&queue, caller, target.queue, limits::pop(count)?).await,
        (Some(ids), None) => {
            let ids = rows::parse_ids(&limits::ids(ids)?);
            let claims = query.list("claim_ids").map(|claims| claims.into_iter().map(str::to_owned).collect());
            // As in Zaqar, whoever names no claim deletes whatever claim there is.
            let unclaimed = if claims.is_some() { Unclaimed::Refuse } else { Unclaimed::DeleteAll };
            Ok(remove(&queue, caller, target.queue, ids, claims, unclaimed).await?.into_response())
        }
    }
}

/// What a deletion without a claim does to claimed messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unclaimed {
    Refuse,
    DeleteAll,
}

async fn remove(
    queue: &Queue,
    caller: Caller,
    name: String,
    ids: Vec<super::id::PublicId>,
    claims: Option<Vec<String>>,
    unclaimed: Unclaimed,
) -> Result<StatusCode> {
    let salt = queue.salt();
    queue
        .write(move |connection, now| {
            let Some(row) = queues::find(connection, &caller.project, &name)? else {
                return Ok(StatusCode::NO_CONTENT);
            };
            let held = rows::held(connection, &row, salt, now, &ids)?;
            if unclaimed == Unclaimed::Refuse {
                let live = |claim: &String| Ok(super::claims::find(connection, &row, claim, salt, now)?.is_some());
                for message in &held {
                    permitted(message.claim.as_deref(), claims.as_deref(), live)?;
                }
            }
            rows::remove(connection, &held)?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// Whether a message under that live claim may be deleted by somebody who shows those claims.
fn permitted(held: Option<&str>, shown: Option<&[String]>, is_live: impl Fn(&String) -> Result<bool>) -> Result<()> {
    let refused = |status, description: &str| Err(Fault::new(status, "Unable to delete", description));
    match (held, shown) {
        (None, None) => Ok(()),
        (Some(held), Some(shown)) if shown.iter().any(|claim| claim.eq_ignore_ascii_case(held)) => Ok(()),
        (Some(_), None) => {
            refused(StatusCode::FORBIDDEN, "This message is claimed; it cannot be deleted without a valid claim ID.")
        }
        (None, Some(_)) => {
            refused(StatusCode::BAD_REQUEST, "A claim was specified, but the message is not currently claimed.")
        }
        (Some(_), Some(shown)) => {
            for claim in shown {
                if is_live(claim)? {
                    return refused(StatusCode::FORBIDDEN, "This message is claimed by another claim.");
                }
            }
            refused(StatusCode::BAD_REQUEST, "The specified claim does not exist or has expired.")
        }
    }
}

async fn pop(queue: &Queue, caller: Caller, name: String, count: i64) -> Result<Response> {
    let salt = queue.salt();
    let popped = queue
        .write(move |connection, now| match queues::find(connection, &caller.project, &name)? {
            Some(row) => rows::pop(connection, &row, &name, salt, now, count),
            None => Ok(Vec::new()),
        })
        .await?;
    Ok(Json(Messages { messages: popped, links: None }).into_response())
}
