//! Claims: messages are hidden from everybody else for a time.
//!
//! A claim is one row, made in the transaction that marks its messages, on the one thread that writes. So no two live
//! claims ever hold the same message.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Map, Value, json};

use super::Queue;
use super::fault::{Fault, Result};
use super::id::PublicId;
use super::metadata::DeadLetters;
use super::queues::{self, QueueRow};
use super::request::{self, Caller, Query, Target};
use super::rows::{self, MessageRow, Shown};
use super::{age, limits, schema};

/// Rounds of looking for messages when all that were found had to go to the dead letter queue. What is left after them
/// goes with the next claim.
const ROUNDS_MAX: usize = 50;

/// How long a claim holds, and how long its messages live on.
#[derive(Clone, Copy)]
struct Terms {
    ttl: i64,
    grace: i64,
}

impl Terms {
    fn parse(document: &Map<String, Value>) -> Result<Self> {
        let field = |name: &str, default| match document.get(name) {
            None => Ok(default),
            Some(value) => limits::integer(name, value),
        };
        let ttl = field("ttl", limits::CLAIM_TTL_DEFAULT)?;
        let grace = field("grace", limits::CLAIM_GRACE_DEFAULT)?;
        Ok(Self { ttl: limits::claim_ttl(ttl)?, grace: limits::claim_grace(grace)? })
    }

    const fn expires(self, now: i64) -> i64 {
        now + self.ttl * 1000
    }
}

/// A live claim.
pub(super) struct ClaimRow {
    id: i64,
    renewed: i64,
    ttl: i64,
}

/// Finds a claim that has not expired.
pub(super) fn find(
    connection: &Connection,
    queue: &QueueRow,
    text: &str,
    salt: u16,
    now: i64,
) -> Result<Option<ClaimRow>> {
    let Some(id) = PublicId::parse(text) else {
        return Ok(None);
    };
    let found: Option<(i64, ClaimRow)> = connection
        .prepare_cached("SELECT created, id, renewed, ttl FROM claims WHERE id = ?1 AND queue = ?2 AND expires > ?3")?
        .query_row((id.number(), queue.id, now), |row| {
            Ok((row.get(0)?, ClaimRow { id: row.get(1)?, renewed: row.get(2)?, ttl: row.get(3)? }))
        })
        .optional()?;
    Ok(found.filter(|(created, claim)| id.names(*created, salt, claim.id)).map(|(_, claim)| claim))
}

fn missing(caller: &Caller, queue: &str, claim: &str) -> Fault {
    Fault::not_found(format!("Claim {claim} does not exist in queue {queue} for project {}", caller.project))
}

/// `POST /v2/queues/{queue}/claims`
pub(super) async fn create(
    State(queue): State<Queue>,
    caller: Caller,
    Target { queue: name, .. }: Target,
    query: Query,
    body: Body,
) -> Result<Response> {
    let body = read(body).await?;
    let document = if body.is_empty() { Map::new() } else { request::object(&body)? };
    let terms = Terms::parse(&document)?;
    let limit = limits::page(query.number("limit")?)?;
    let salt = queue.salt();
    let path = format!("/v2/queues/{name}/claims");
    let claimed = queue
        .write_claim(move |connection, now| match queues::find(connection, &caller.project, &name)? {
            Some(row) => claim(connection, &caller.project, &row, &name, salt, now, terms, limit),
            None => Ok(None),
        })
        .await?;
    let Some((claim, messages)) = claimed else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let answer = Json(Claimed { messages });
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("{path}/{claim}"))], answer).into_response())
}

#[derive(serde::Serialize)]
struct Claimed {
    messages: Vec<Shown>,
}

async fn read(body: Body) -> Result<Bytes> {
    request::body(body, limits::SMALL_MAX, super::body_too_large).await
}

#[expect(clippy::too_many_arguments, reason = "they are what the statement binds, and there is one caller")]
fn claim(
    connection: &Connection,
    project: &str,
    queue: &QueueRow,
    name: &str,
    salt: u16,
    now: i64,
    terms: Terms,
    limit: i64,
) -> Result<Option<(PublicId, Vec<Shown>)>> {
    let dead_letters = queue.settings().dead_letters;
    let mut taken: Vec<MessageRow> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let candidates = rows::free(connection, queue, now, limit)?;
        let (worn, fresh): (Vec<_>, Vec<_>) = candidates
            .into_iter()
            .partition(|message| dead_letters.as_ref().is_some_and(|dead| message.claim_count >= dead.max_claims));
        if let Some(dead_letters) = &dead_letters {
            bury(connection, project, dead_letters, &worn, now)?;
        }
        taken = fresh;
        // Where some went away there may be others behind them.
        if worn.is_empty() || !taken.is_empty() {
            break;
        }
    }
    if taken.is_empty() {
        return Ok(None);
    }
    let expires = terms.expires(now);
    let number = connection
        .prepare_cached("INSERT INTO claims (queue, created, renewed, ttl, expires) VALUES (?1, ?2, ?2, ?3, ?4)")?
        .insert((queue.id, now, terms.ttl, expires))?;
    let mut mark =
        connection.prepare_cached("UPDATE messages SET claim = ?2, claim_count = claim_count + 1 WHERE marker = ?1")?;
    for message in &taken {
        mark.execute((message.marker, number))?;
    }
    outlive(connection, number, terms, now)?;
    Ok(Some((PublicId::new(now, salt, number), held(connection, number, name, salt, now)?)))
}

/// Moves messages that were claimed too often to the dead letter queue, where they are free.
fn bury(
    connection: &Connection,
    project: &str,
    dead_letters: &DeadLetters,
    messages: &[MessageRow],
    now: i64,
) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let target = match queues::find(connection, project, &dead_letters.queue)? {
        Some(row) => row,
        None => queues::insert(connection, project, &dead_letters.queue, Map::new())?,
    };
    let mut bury = connection.prepare_cached(
        "UPDATE messages SET queue = ?2, claim = NULL, claim_count = 0, visible = 0,
         ttl = coalesce(?3, ttl), expires = coalesce(?4 + ?3 * 1000, expires) WHERE marker = ?1",
    )?;
    for message in messages {
        bury.execute((message.marker, target.id, dead_letters.ttl, now))?;
    }
    Ok(())
}

/// Makes messages that would end before their claim outlive it by the grace.
fn outlive(connection: &Connection, claim: i64, terms: Terms, now: i64) -> Result<()> {
    let expires = terms.expires(now);
    connection
        .prepare_cached("UPDATE messages SET ttl = ?3, expires = ?4 WHERE claim = ?1 AND expires < ?2")?
        .execute((claim, expires, terms.ttl + terms.grace, expires + terms.grace * 1000))?;
    Ok(())
}

/// What a claim holds, oldest first.
fn held(connection: &Connection, claim: i64, name: &str, salt: u16, now: i64) -> Result<Vec<Shown>> {
    Ok(rows::of_claim(connection, claim, now)?.into_iter().map(|row| row.shown(name, salt, now)).collect())
}

/// `GET /v2/queues/{queue}/claims/{claim}`
pub(super) async fn show(State(queue): State<Queue>, caller: Caller, target: Target) -> Result<Json<Value>> {
    let Target { queue: name, item } = target;
    let missing = missing(&caller, &name, &item);
    let href = format!("/v2/queues/{name}/claims/{item}");
    let salt = queue.salt();
    let found = queue
        .read(move |connection, now| {
            let Some(row) = queues::find(connection, &caller.project, &name)? else {
                return Ok(None);
            };
            let Some(claim) = find(connection, &row, &item, salt, now)? else {
                return Ok(None);
            };
            let messages = held(connection, claim.id, &name, salt, now)?;
            Ok(Some((claim, messages)))
        })
        .await?;
    let (claim, messages) = found.ok_or(missing)?;
    let now = queue.now();
    Ok(Json(json!({"age": age(claim.renewed, now), "ttl": claim.ttl, "href": href, "messages": messages})))
}

/// `PATCH /v2/queues/{queue}/claims/{claim}`: the claim lasts `ttl` seconds from now.
pub(super) async fn update(
    State(queue): State<Queue>,
    caller: Caller,
    target: Target,
    body: Body,
) -> Result<StatusCode> {
    let terms = Terms::parse(&request::object(&read(body).await?)?)?;
    let Target { queue: name, item } = target;
    let missing = missing(&caller, &name, &item);
    let salt = queue.salt();
    queue
        .write_claim(move |connection, now| {
            let row = queues::find(connection, &caller.project, &name)?.ok_or_else(|| missing.clone())?;
            let claim = find(connection, &row, &item, salt, now)?.ok_or(missing)?;
            connection
                .prepare_cached("UPDATE claims SET ttl = ?2, renewed = ?3, expires = ?4 WHERE id = ?1")?
                .execute((claim.id, terms.ttl, now, terms.expires(now)))?;
            outlive(connection, claim.id, terms, now)?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// `DELETE /v2/queues/{queue}/claims/{claim}`: what it holds is free at once.
pub(super) async fn release(State(queue): State<Queue>, caller: Caller, target: Target) -> Result<StatusCode> {
    let salt = queue.salt();
    queue
        .write_claim(move |connection, now| {
            if let Some(row) = queues::find(connection, &caller.project, &target.queue)?
                && let Some(claim) = find(connection, &row, &target.item, salt, now)?
            {
                schema::free(connection, claim.id)?;
            }
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}
