//! Queues: made, listed, changed, counted, emptied and deleted.
//!
//! As in Zaqar, a queue is made by the first post if nobody made it before, and one that is not there looks like an
//! empty one to everything but PATCH.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Map, Value, json};

use super::Queue;
use super::fault::{Fault, Result};
use super::id::PublicId;
use super::metadata::{self, Settings};
use super::request::{self, Caller, Query, Target};
use super::{limits, links};

/// The only media type that Zaqar takes for a change of metadata.
const PATCH_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";

/// A queue's row.
pub(super) struct QueueRow {
    pub(super) id: i64,
    pub(super) metadata: Map<String, Value>,
}

impl QueueRow {
    pub(super) fn settings(&self) -> Settings {
        Settings::of(&self.metadata)
    }
}

/// Finds a queue.
pub(super) fn find(connection: &Connection, project: &str, name: &str) -> Result<Option<QueueRow>> {
    let row: Option<(i64, String)> = connection
        .prepare_cached("SELECT id, metadata FROM queues WHERE project = ?1 AND name = ?2")?
        .query_row((project, name), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(row.map(|(id, metadata)| QueueRow { id, metadata: decode(&metadata) }))
}

/// Makes a queue that is not there.
pub(super) fn insert(
    connection: &Connection,
    project: &str,
    name: &str,
    metadata: Map<String, Value>,
) -> Result<QueueRow> {
    connection.prepare_cached("INSERT INTO queues (project, name, metadata) VALUES (?1, ?2, ?3)")?.execute((
        project,
        name,
        Value::Object(metadata.clone()).to_string(),
    ))?;
    Ok(QueueRow { id: connection.last_insert_rowid(), metadata })
}

fn decode(metadata: &str) -> Map<String, Value> {
    // It was written by us; what cannot be read any more counts as nothing rather than as a queue out of reach.
    serde_json::from_str(metadata).unwrap_or_default()
}

fn location(name: &str) -> [(header::HeaderName, String); 1] {
    [(header::LOCATION, format!("/v2/queues/{name}"))]
}

/// `PUT /v2/queues/{queue}`
pub(super) async fn create(
    State(queue): State<Queue>,
    caller: Caller,
    Target { queue: name, .. }: Target,
    body: Body,
) -> Result<Response> {
    let body = request::body(body, limits::METADATA_MAX, metadata_too_large).await?;
    let metadata = if body.is_empty() { Map::new() } else { request::object(&body)? };
    metadata::check(&metadata)?;
    let answer = location(&name);
    let created = queue
        .write(move |connection, _| {
            if find(connection, &caller.project, &name)?.is_some() {
                return Ok(false);
            }
            insert(connection, &caller.project, &name, metadata)?;
            Ok(true)
        })
        .await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok((status, answer).into_response())
}

fn metadata_too_large() -> Fault {
    Fault::request(format!("Queue metadata is too large. Max size: {}", limits::METADATA_MAX))
}

/// `GET /v2/queues/{queue}`
pub(super) async fn show(
    State(queue): State<Queue>,
    caller: Caller,
    Target { queue: name, .. }: Target,
) -> Result<Json<Value>> {
    let found = queue.read(move |connection, _| find(connection, &caller.project, &name)).await?;
    Ok(Json(Value::Object(metadata::shown(found.map(|row| row.metadata).unwrap_or_default()))))
}

/// `PATCH /v2/queues/{queue}`
pub(super) async fn update(
    State(queue): State<Queue>,
    caller: Caller,
    Target { queue: name, .. }: Target,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>> {
    let body = request::body(body, limits::METADATA_MAX, metadata_too_large).await?;
    if headers.get(header::CONTENT_TYPE).is_none_or(|found| found != PATCH_TYPE) {
        let reason = format!("Accepted media type for PATCH: {PATCH_TYPE}.");
        return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "415 Unsupported Media Type", reason));
    }
    if body.is_empty() {
        return Err(Fault::body("PATCH body could not be empty for update."));
    }
    let changes = metadata::changes(request::document(&body)?)?;
    let changed = queue
        .write(move |connection, _| {
            let row =
                find(connection, &caller.project, &name)?.ok_or_else(|| Fault::no_queue(&caller.project, &name))?;
            let changed = metadata::patched(row.metadata, changes)?;
            let text = Value::Object(changed.clone()).to_string();
            if text.len() > limits::METADATA_MAX {
                return Err(metadata_too_large());
            }
            connection.prepare_cached("UPDATE queues SET metadata = ?2 WHERE id = ?1")?.execute((row.id, text))?;
            Ok(changed)
        })
        .await?;
    Ok(Json(Value::Object(metadata::shown(changed))))
}

/// `DELETE /v2/queues/{queue}`: with everything in it.
pub(super) async fn delete(
    State(queue): State<Queue>,
    caller: Caller,
    Target { queue: name, .. }: Target,
) -> Result<StatusCode> {
    queue
        .write(move |connection, _| {
            if let Some(row) = find(connection, &caller.project, &name)? {
                for statement in [
                    "DELETE FROM messages WHERE queue = ?1",
                    "DELETE FROM claims WHERE queue = ?1",
                    "DELETE FROM queues WHERE id = ?1",
                ] {
                    connection.prepare_cached(statement)?.execute([row.id])?;
                }
            }
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// `GET /v2/queues`
pub(super) async fn list(State(queue): State<Queue>, caller: Caller, query: Query) -> Result<Json<Value>> {
    let limit = limits::page(query.number("limit")?)?;
    let detailed = query.flag("detailed")?;
    let counted = query.flag("with_count")?;
    let marker = query.text("marker").unwrap_or_default().to_owned();
    let name = query.text("name").unwrap_or_default().to_owned();
    // Any other parameter asks for queues whose metadata has that value.
    let known = ["marker", "limit", "detailed", "name", "with_count"];
    let wanted: Vec<(String, Value)> = query
        .pairs()
        .iter()
        .filter(|(key, _)| !known.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number))))
        .collect();
    let (found, total) = queue
        .read(move |connection, _| {
            let found = page(connection, &caller.project, &marker, &name, &wanted, limit)?;
            let total = counted.then(|| count(connection, &caller.project)).transpose()?;
            Ok((found, total))
        })
        .await?;
    let next = found.last().map(|(name, _)| name.clone());
    let queues: Vec<Value> = found
        .into_iter()
        .map(|(name, metadata)| {
            let mut entry = json!({"name": name, "href": format!("/v2/queues/{name}")});
            if detailed && let Some(entry) = entry.as_object_mut() {
                entry.insert("metadata".to_owned(), Value::Object(metadata::shown(metadata)));
            }
            entry
        })
        .collect();
    let mut answer = json!({"queues": queues, "links": links("/v2/queues", &query, next)});
    if let (Some(total), Some(answer)) = (total, answer.as_object_mut()) {
        answer.insert("count".to_owned(), json!(total));
    }
    Ok(Json(answer))
}

type Named = (String, Map<String, Value>);

fn page(
    connection: &Connection,
    project: &str,
    marker: &str,
    name: &str,
    wanted: &[(String, Value)],
    limit: i64,
) -> Result<Vec<Named>> {
    let mut select = connection.prepare_cached(
        "SELECT name, metadata FROM queues WHERE project = ?1 AND name > ?2 AND instr(name, ?3) > 0 ORDER BY name",
    )?;
    let mut rows = select.query((project, marker, name))?;
    let mut found = Vec::new();
    let limit = usize::try_from(limit).unwrap_or(0);
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let metadata = decode(&row.get::<_, String>(1)?);
        if wanted.iter().all(|(key, value)| metadata.get(key) == Some(value)) {
            found.push((row.get(0)?, metadata));
        }
    }
    Ok(found)
}

fn count(connection: &Connection, project: &str) -> Result<i64> {
    let count = connection
        .prepare_cached("SELECT count(*) FROM queues WHERE project = ?1")?
        .query_row([project], |row| row.get(0))?;
    Ok(count)
}

/// `GET /v2/queues/{queue}/stats`
pub(super) async fn stats(
    State(queue): State<Queue>,
    caller: Caller,
    Target { queue: name, .. }: Target,
) -> Result<Json<Value>> {
    let salt = queue.salt();
    let messages = queue
        .read(move |connection, now| match find(connection, &caller.project, &name)? {
            Some(row) => counted(connection, row.id, now, salt, &name),
            None => Ok(json!({"claimed": 0, "free": 0, "total": 0})),
        })
        .await?;
    Ok(Json(json!({"messages": messages})))
}

fn counted(connection: &Connection, queue: i64, now: i64, salt: u16, name: &str) -> Result<Value> {
    let (total, claimed): (i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), count(c.id) FROM messages m
             LEFT JOIN claims c ON c.id = m.claim AND c.expires > ?2
             WHERE m.queue = ?1 AND m.expires > ?2",
        )?
        .query_row((queue, now), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut messages = json!({"claimed": claimed, "free": total - claimed, "total": total});
    for (end, statement) in [
        ("oldest", "SELECT marker, created FROM messages WHERE queue = ?1 AND expires > ?2 ORDER BY marker LIMIT 1"),
        (
            "newest",
            "SELECT marker, created FROM messages WHERE queue = ?1 AND expires > ?2 ORDER BY marker DESC LIMIT 1",
        ),
    ] {
        let found: Option<(i64, i64)> = connection
            .prepare_cached(statement)?
            .query_row((queue, now), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let (Some((marker, created)), Some(messages)) = (found, messages.as_object_mut()) {
            let entry = json!({
                "href": format!("/v2/queues/{name}/messages/{}", PublicId::new(created, salt, marker)),
                "age": super::age(created, now),
                "created": seconds_text(created),
            });
            messages.insert(end.to_owned(), entry);
        }
    }
    Ok(messages)
}

/// `2026-11-22T10:00:00Z`, as Zaqar writes times.
fn seconds_text(millis: i64) -> String {
    let text = crate::model::Timestamp::from_millis(millis.div_euclid(1000) * 1000).to_string();
    text.replace(".000Z", "Z")
}

/// `POST /v2/queues/{queue}/purge`: removes what nobody has claimed.
pub(super) async fn purge(
    State(queue): State<Queue>,
    caller: Caller,
    Target { queue: name, .. }: Target,
    body: Body,
) -> Result<StatusCode> {
    let body = request::body(body, limits::SMALL_MAX, super::body_too_large).await?;
    if !purges_messages(&body)? {
        return Ok(StatusCode::NO_CONTENT);
    }
    queue
        .write(move |connection, now| {
            if let Some(row) = find(connection, &caller.project, &name)? {
                connection
                    .prepare_cached(
                        "DELETE FROM messages WHERE queue = ?1
                         AND NOT EXISTS (SELECT 1 FROM claims WHERE id = messages.claim AND expires > ?2)",
                    )?
                    .execute((row.id, now))?;
            }
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

fn purges_messages(body: &[u8]) -> Result<bool> {
    if body.is_empty() {
        return Ok(true);
    }
    let document = request::object(body)?;
    let Some(kinds) = document.get("resource_types") else {
        return Err(Fault::request("Post body must contain key \"resource_types\"."));
    };
    let known = |kind: &Value| matches!(kind.as_str(), Some("messages" | "subscriptions"));
    match kinds.as_array() {
        Some(kinds) if kinds.iter().all(known) => Ok(kinds.iter().any(|kind| kind == "messages")),
        _ => Err(Fault::request("Resource types must be a sub set of {'messages', 'subscriptions'}.")),
    }
}
