//! The statements on messages. Everything here runs on a thread of [`super::lane`], within a transaction.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::age;
use super::fault::Result;
use super::id::PublicId;
use super::queues::QueueRow;
use super::request::Caller;
use super::schema;

/// A message to be kept.
pub(super) struct Draft {
    /// Seconds that it lives.
    pub(super) ttl: i64,
    /// Seconds that it is held back.
    pub(super) delay: i64,
    /// Any JSON, as it came.
    pub(super) body: String,
}

/// A message as it is given out.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) href: String,
    pub(super) ttl: i64,
    pub(super) age: i64,
    pub(super) body: Box<RawValue>,
    /// Only where a message is popped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) claim_count: Option<i64>,
}

/// Which messages a list asks for.
pub(super) struct Listing {
    /// Those behind this one.
    pub(super) after: i64,
    /// At most so many.
    pub(super) limit: i64,
    /// Without those of this client.
    pub(super) hidden: Option<Uuid>,
    /// With those that are claimed.
    pub(super) include_claimed: bool,
    /// With those that are held back.
    pub(super) include_delayed: bool,
}

/// A message that is there, and the live claim that holds it.
pub(super) struct Held {
    marker: i64,
    claim_row: Option<i64>,
    /// The claim's public name.
    pub(super) claim: Option<String>,
}

/// What a row of `SELECT marker, created, ttl, body, claim_count, c.id, c.created` says.
pub(super) struct MessageRow {
    pub(super) marker: i64,
    pub(super) created: i64,
    pub(super) ttl: i64,
    pub(super) body: String,
    pub(super) claim_count: i64,
    claim: Option<(i64, i64)>,
}

impl MessageRow {
    fn read(row: &Row) -> rusqlite::Result<Self> {
        let claim: Option<i64> = row.get(5)?;
        Ok(Self {
            marker: row.get(0)?,
            created: row.get(1)?,
            ttl: row.get(2)?,
            body: row.get(3)?,
            claim_count: row.get(4)?,
            claim: claim.zip(row.get(6)?),
        })
    }

    /// The message as it is given out.
    pub(super) fn shown(self, queue: &str, salt: u16, now: i64) -> Shown {
        let id = PublicId::new(self.created, salt, self.marker);
        let mut href = format!("/v2/queues/{queue}/messages/{id}");
        if let Some((claim, created)) = self.claim {
            href.push_str("?claim_id=");
            href.push_str(&PublicId::new(created, salt, claim).to_string());
        }
        Shown {
            id: id.to_string(),
            href,
            ttl: self.ttl,
            age: age(self.created, now),
            // Only JSON was let in.
            body: RawValue::from_string(self.body).unwrap_or_else(|_| RawValue::NULL.to_owned()),
            claim_count: None,
        }
    }
}

/// Keeps messages in the order given; their ids.
pub(super) fn insert(
    connection: &Connection,
    queue: &QueueRow,
    caller: &Caller,
    salt: u16,
    now: i64,
    drafts: &[Draft],
) -> Result<Vec<String>> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO messages (queue, client, created, ttl, expires, visible, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut ids = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let marker = insert.insert((
            queue.id,
            caller.client.as_bytes(),
            now,
            draft.ttl,
            now + draft.ttl * 1000,
            now + draft.delay * 1000,
            &draft.body,
        ))?;
        ids.push(PublicId::new(now, salt, marker).to_string());
    }
    Ok(ids)
}

/// Those of the texts that can be ids at all; the others name nothing.
pub(super) fn parse_ids(ids: &[&str]) -> Vec<PublicId> {
    ids.iter().filter_map(|id| PublicId::parse(id)).collect()
}

/// Where a list goes on: behind the marker that the last page gave, or behind the message with that id, which is what
/// openstacksdk sends. None: the text is neither.
pub(super) fn marker(text: Option<&str>, salt: u16) -> Option<i64> {
    let Some(text) = text else {
        return Some(0);
    };
    match PublicId::parse(text) {
        Some(id) => id.is_of(salt).then(|| id.number()),
        None => text.parse().ok(),
    }
}

/// The messages with these ids, as far as they are there.
pub(super) fn by_ids(
    connection: &Connection,
    queue: &QueueRow,
    name: &str,
    salt: u16,
    now: i64,
    ids: &[PublicId],
) -> Result<Vec<Shown>> {
    let mut select = connection.prepare_cached(
        "SELECT m.marker, m.created, m.ttl, m.body, m.claim_count, c.id, c.created FROM messages m
         LEFT JOIN claims c ON c.id = m.claim AND c.expires > ?3
         WHERE m.marker = ?1 AND m.queue = ?2 AND m.expires > ?3",
    )?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let row = select.query_row((id.number(), queue.id, now), MessageRow::read).optional()?;
        if let Some(row) = row.filter(|row| id.names(row.created, salt, row.marker)) {
            found.push(row.shown(name, salt, now));
        }
    }
    Ok(found)
}

/// A page of messages in order, and the marker of its last.
pub(super) fn page(
    connection: &Connection,
    queue: &QueueRow,
    name: &str,
    salt: u16,
    now: i64,
    listing: &Listing,
) -> Result<(Vec<Shown>, Option<i64>)> {
    let mut select = connection.prepare_cached(
        "SELECT m.marker, m.created, m.ttl, m.body, m.claim_count, c.id, c.created
         FROM messages m INDEXED BY messages_all
         LEFT JOIN claims c ON c.id = m.claim AND c.expires > ?3
         WHERE m.queue = ?1 AND m.marker > ?2 AND m.expires > ?3
         AND (?4 IS NULL OR m.client <> ?4) AND (?5 OR c.id IS NULL) AND (?6 OR m.visible <= ?3)
         ORDER BY m.marker LIMIT ?7",
    )?;
    let hidden = listing.hidden.map(Uuid::into_bytes);
    let rows = select.query_map(
        (queue.id, listing.after, now, hidden, listing.include_claimed, listing.include_delayed, listing.limit),
        MessageRow::read,
    )?;
    let rows: Vec<MessageRow> = rows.collect::<rusqlite::Result<_>>()?;
    let last = rows.last().map(|row| row.marker);
    Ok((rows.into_iter().map(|row| row.shown(name, salt, now)).collect(), last))
}

/// The oldest messages that nobody holds.
pub(super) fn free(connection: &Connection, queue: &QueueRow, now: i64, limit: i64) -> Result<Vec<MessageRow>> {
    free_expired(connection, queue, now)?;
    let mut select = connection.prepare_cached(
        "SELECT marker, created, ttl, body, claim_count, NULL, NULL FROM messages INDEXED BY messages_free
         WHERE queue = ?1 AND claim IS NULL AND expires > ?2 AND (?3 OR visible <= ?2) ORDER BY marker LIMIT ?4",
    )?;
    let include_delayed = queue.settings().delay.is_none();
    let rows = select.query_map((queue.id, now, include_delayed, limit), MessageRow::read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Frees what the queue's expired claims hold, before anything is looked for among the free.
fn free_expired(connection: &Connection, queue: &QueueRow, now: i64) -> Result<()> {
    let expired: Vec<i64> = connection
        .prepare_cached("SELECT id FROM claims WHERE queue = ?1 AND expires <= ?2")?
        .query_map((queue.id, now), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for claim in expired {
        schema::free(connection, claim)?;
    }
    Ok(())
}

/// What a live claim holds, in order.
pub(super) fn of_claim(connection: &Connection, claim: i64, now: i64) -> Result<Vec<MessageRow>> {
    let mut select = connection.prepare_cached(
        "SELECT m.marker, m.created, m.ttl, m.body, m.claim_count, c.id, c.created
         FROM messages m JOIN claims c ON c.id = m.claim WHERE m.claim = ?1 AND m.expires > ?2 ORDER BY m.marker",
    )?;
    let rows = select.query_map((claim, now), MessageRow::read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Takes the oldest free messages out of the queue for good.
pub(super) fn pop(
    connection: &Connection,
    queue: &QueueRow,
    name: &str,
    salt: u16,
    now: i64,
    count: i64,
) -> Result<Vec<Shown>> {
    let rows = free(connection, queue, now, count)?;
    let mut delete = connection.prepare_cached("DELETE FROM messages WHERE marker = ?1")?;
    let mut popped = Vec::with_capacity(rows.len());
    for row in rows {
        delete.execute([row.marker])?;
        let claim_count = row.claim_count;
        popped.push(Shown { claim_count: Some(claim_count), ..row.shown(name, salt, now) });
    }
    Ok(popped)
}

/// Looks up messages that are to be deleted, with their live claims.
pub(super) fn held(
    connection: &Connection,
    queue: &QueueRow,
    salt: u16,
    now: i64,
    ids: &[PublicId],
) -> Result<Vec<Held>> {
    let mut select = connection.prepare_cached(
        "SELECT m.created, m.claim, c.id, c.created FROM messages m
         LEFT JOIN claims c ON c.id = m.claim AND c.expires > ?3
         WHERE m.marker = ?1 AND m.queue = ?2 AND m.expires > ?3",
    )?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let read = |row: &Row| {
            let live: Option<i64> = row.get(2)?;
            let claim = live.zip(row.get(3)?).map(|(claim, created)| PublicId::new(created, salt, claim).to_string());
            let created: i64 = row.get(0)?;
            Ok((created, Held { marker: id.number(), claim_row: row.get(1)?, claim }))
        };
        let row = select.query_row((id.number(), queue.id, now), read).optional()?;
        found.extend(row.filter(|(created, _)| id.names(*created, salt, id.number())).map(|(_, held)| held));
    }
    Ok(found)
}

/// Deletes messages. A claim of which nothing is left ends, as with Zaqar's MongoDB driver.
pub(super) fn remove(connection: &Connection, messages: &[Held]) -> Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM messages WHERE marker = ?1")?;
    for message in messages {
        delete.execute([message.marker])?;
    }
    let mut claims: Vec<i64> = messages.iter().filter_map(|message| message.claim_row).collect();
    claims.sort_unstable();
    claims.dedup();
    let mut end = connection
        .prepare_cached("DELETE FROM claims WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM messages WHERE claim = ?1)")?;
    for claim in claims {
        end.execute([claim])?;
    }
    Ok(())
}
