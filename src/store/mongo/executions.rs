//! Executions as records: inserted, changed under their fence, read and listed.
//!
//! Beside the model's attributes a document has those of [`Keys`], `expire_at` once its retention runs, and the token of
//! the last write. The payload is sent once, with the insertion.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};
use mongodb::error::{ErrorKind, InsertManyError};

use super::super::execution_row::{self, Keys, Parts};
use super::super::{
    ExecutionFilter, ExecutionSort, ExecutionWrite, Inserted, Page, PageRequest, Result, Scope, StoreError,
};
use super::error::{DUPLICATE_KEY, refusal};
use super::page::{List, within};
use super::{MongoStore, document, durable};
use crate::model::{Execution, ExecutionId, ExecutionState};

/// Bytes of changes in one command; the server takes 16 MiB.
const COMMAND_BYTES: usize = 8 << 20;

/// Changes in one command.
const COMMAND_WRITES: usize = 1000;

/// One change, ready to be sent.
struct Update {
    id: String,
    token: [u8; 16],
    statement: Document,
    bytes: usize,
}

fn binary(token: &[u8; 16]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: token.to_vec() })
}

impl MongoStore {
    /// The values by which an execution is found, each with its field; none: the field must not be there.
    fn keys(&self, execution: &Execution) -> [(&'static str, Option<Bson>); 4] {
        let Keys { due_at, owner, owed_at, done_at } = Keys::of(execution);
        let date = |time| Bson::DateTime(document::date(time));
        [
            ("due_at", due_at.map(date)),
            ("owner", owner.map(|owner| Bson::String(owner.to_string()))),
            ("owed_at", owed_at.map(date)),
            ("expire_at", done_at.map(|done| date(done + self.retention.executions))),
        ]
    }

    pub(super) async fn add_executions(&self, executions: &[Execution]) -> Result<Inserted> {
        if executions.is_empty() {
            return Ok(Inserted::default());
        }
        let document = |execution: &Execution| {
            let mut document = document::write(execution)?;
            let keys = self.keys(execution);
            document.extend(keys.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
            Ok(document)
        };
        let documents = executions.iter().map(document).collect::<Result<Vec<_>>>()?;
        let mut inserted = Inserted::default();
        let mut known = vec![false; executions.len()];
        if let Err(error) = self.collection("executions").insert_many(documents).ordered(false).await {
            // Only duplicates say which were inserted: after any other error the caller repeats the call. The server
            // answers a duplicate, too, only when what it collides with is durable.
            let ErrorKind::InsertMany(InsertManyError {
                write_errors: Some(errors), write_concern_error: None, ..
            }) = error.kind.as_ref()
            else {
                return Err(error.into());
            };
            if errors.iter().any(|error| error.code != DUPLICATE_KEY) {
                return Err(error.into());
            }
            for error in errors {
                if let Some(known) = known.get_mut(error.index) {
                    *known = true;
                }
            }
        }
        for (execution, known) in executions.iter().zip(known) {
            if known { inserted.known.push(execution.id) } else { inserted.new.push(execution.id) }
        }
        Ok(inserted)
    }

    pub(super) async fn change_executions(&self, writes: &[ExecutionWrite]) -> Result<Vec<bool>> {
        let updates = writes.iter().map(|write| self.update(write)).collect::<Result<Vec<_>>>()?;
        let mut answers = Vec::with_capacity(writes.len());
        let mut rest = updates.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0_usize;
            let fitting = rest.iter().take(COMMAND_WRITES).take_while(|update| {
                bytes = bytes.saturating_add(update.bytes);
                bytes <= COMMAND_BYTES
            });
            let (batch, later) = rest.split_at(fitting.count().max(1));
            answers.extend(self.send(batch).await?);
            rest = later;
        }
        Ok(answers)
    }

    fn update(&self, ExecutionWrite { expected, next }: &ExecutionWrite) -> Result<Update> {
        let record = Parts::of(next)?.record;
        let token = execution_row::write_token(expected, &record)?;
        let mut set = document::from_object(&record)?;
        set.insert("token", binary(&token));
        let mut unset = Document::new();
        for (name, value) in self.keys(next) {
            match value {
                Some(value) => set.insert(name, value),
                None => unset.insert(name, ""),
            };
        }
        let id = next.id.to_string();
        let worker = expected.worker.map(|worker| worker.to_string());
        let found = doc! {
            "_id": &id, "state": expected.state.as_str(), "attempt": i64::from(expected.attempt), "worker": worker,
        };
        let statement = doc! { "q": found, "u": { "$set": set, "$unset": unset } };
        // Beside the result a record has a few hundred bytes and the failure, whose text is bounded.
        let bytes = next.result.as_ref().map_or(0, |result| result.bytes().len()) + (64 << 10);
        Ok(Update { id, token, statement, bytes })
    }

    /// Sends changes in one command. The server says only how many documents met their condition; if not all did, what
    /// each document has as its last token says which.
    async fn send(&self, batch: &[Update]) -> Result<Vec<bool>> {
        let updates: Vec<&Document> = batch.iter().map(|update| &update.statement).collect();
        let concern = mongodb::bson::serialize_to_document(&durable(self.timeout))
            .map_err(|error| StoreError::Unexpected(Box::new(error)))?;
        let command = doc! { "update": "executions", "ordered": false, "writeConcern": concern, "updates": updates };
        let reply = self.database.run_command(command).await?;
        if let Some(error) = first_error(&reply) {
            return Err(error);
        }
        let met = reply.get("n").and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from)));
        if met == i64::try_from(batch.len()).ok() {
            return Ok(vec![true; batch.len()]);
        }
        let ids: Vec<&str> = batch.iter().map(|update| update.id.as_str()).collect();
        let found =
            self.collection("executions").find(doc! { "_id": { "$in": ids } }).projection(doc! { "token": 1 }).await?;
        let found: Vec<Document> = found.try_collect().await?;
        let tokens: HashMap<&str, &Bson> =
            found.iter().filter_map(|found| Some((found.get_str("_id").ok()?, found.get("token")?))).collect();
        Ok(batch.iter().map(|update| tokens.get(update.id.as_str()) == Some(&&binary(&update.token))).collect())
    }

    pub(super) async fn get_execution(&self, scope: &Scope, id: ExecutionId) -> Result<Execution> {
        let mut filter = within(scope);
        filter.insert("_id", id.to_string());
        let found = self.collection("executions").find_one(filter).await?;
        document::read(found.ok_or(StoreError::NotFound("execution"))?)
    }

    pub(super) async fn require_execution(&self, scope: &Scope, id: ExecutionId) -> Result<()> {
        let mut filter = within(scope);
        filter.insert("_id", id.to_string());
        let found = self.collection("executions").find_one(filter).projection(doc! { "_id": 1 }).await?;
        found.map(|_| ()).ok_or(StoreError::NotFound("execution"))
    }

    pub(super) async fn list_executions(
        &self,
        scope: &Scope,
        filter: &ExecutionFilter,
        page: &PageRequest<ExecutionSort>,
    ) -> Result<Page<Execution>> {
        let mut conditions = within(scope);
        if let Some(function) = filter.function_id {
            conditions.insert("function_id", function.to_string());
        }
        if !filter.states.is_empty() {
            let states: Vec<&str> = filter.states.iter().copied().map(ExecutionState::as_str).collect();
            conditions.insert("state", doc! { "$in": states });
        }
        if let Some(event) = &filter.event_id {
            conditions.insert("event.id", event);
        }
        let mut received = Document::new();
        if let Some(since) = filter.since {
            received.insert("$gte", document::date(since));
        }
        if let Some(until) = filter.until {
            received.insert("$lt", document::date(until));
        }
        if !received.is_empty() {
            conditions.insert("received_at", received);
        }
        let sort = match page.sort {
            ExecutionSort::ReceivedAt => "received_at",
        };
        let list = List {
            collection: self.collection("executions"),
            sort,
            bytes: execution_row::large_bytes,
            timeout: self.timeout,
        };
        list.page(scope, conditions, page).await
    }
}

/// What went wrong with a command that the server answered with `ok`.
fn first_error(reply: &Document) -> Option<StoreError> {
    let concern = reply.get_document("writeConcernError").ok();
    let write = reply.get_array("writeErrors").ok().and_then(|errors| errors.first()).and_then(Bson::as_document);
    if let Some(error) = write {
        let code = error.get_i32("code").unwrap_or(0);
        return Some(refusal(code, format!("write error {code}")));
    }
    // Applied, but not yet everywhere: whatever the code, a repetition finds it done.
    concern.map(|error| {
        let code = error.get_i32("code").unwrap_or(0);
        StoreError::Unavailable(format!("write concern error {code}").into())
    })
}
