//! How an execution is laid out in either database: the part that never changes, the part that every write replaces,
//! and the few values beside them by which it is found.

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::StoreError;
use crate::model::execution::Fence;
use crate::model::{Execution, ExecutionState, Timestamp, WorkerId};

/// The attributes that a write leaves alone.
pub(super) const FIXED: [&str; 8] =
    ["id", "project_id", "function_id", "function_name", "origin", "event", "payload", "received_at"];

/// What an execution is found by, beside its own attributes. Each is there only while it means something, so that the
/// indexes on them hold what is in the inbox, not the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    /// When it may be taken: only while it is parked.
    pub due_at: Option<Timestamp>,
    /// Who has it: only until it is finished.
    pub owner: Option<WorkerId>,
    /// Since when its dead letter is owed: only until it is posted.
    pub owed_at: Option<Timestamp>,
    /// From when its retention counts: only once it is finished and owes nothing.
    pub done_at: Option<Timestamp>,
}

impl Keys {
    /// The keys of a record.
    pub(super) fn of(execution: &Execution) -> Self {
        let terminal = execution.state.is_terminal();
        let finished = execution.finished_at.unwrap_or(execution.received_at);
        let owes = terminal && execution.owes_dead_letter();
        let parked = execution.state == ExecutionState::Queued && execution.worker.is_none();
        Self {
            due_at: parked.then(|| execution.not_before.unwrap_or(execution.received_at)),
            owner: execution.worker.filter(|_| !terminal),
            owed_at: owes.then_some(finished),
            done_at: (terminal && !owes).then_some(finished),
        }
    }
}

/// An execution's attributes, as JSON.
pub(super) struct Parts {
    /// Those of [`FIXED`].
    pub fixed: Map<String, Value>,
    /// All others.
    pub record: Map<String, Value>,
}

impl Parts {
    /// Takes a record apart.
    pub(super) fn of(execution: &Execution) -> Result<Self, StoreError> {
        let mut record = object(execution)?;
        let fixed = FIXED.iter().filter_map(|name| record.remove_entry(*name)).collect();
        Ok(Self { fixed, record })
    }
}

/// The bytes of an execution that can be large, for the size of pages and batches.
pub(super) fn large_bytes(execution: &Execution) -> usize {
    execution.payload.bytes().len() + execution.result.as_ref().map_or(0, |result| result.bytes().len())
}

/// A document as a JSON object.
pub(super) fn object(document: &impl Serialize) -> Result<Map<String, Value>, StoreError> {
    match serde_json::to_value(document).map_err(|error| StoreError::Unexpected(Box::new(error)))? {
        Value::Object(object) => Ok(object),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(StoreError::Unexpected(format!("a document cannot be {other}").into()))
        }
    }
}

/// What names a write: the same expectation and the same outcome give the same token. It is kept in the record, so that
/// a write which is repeated because its answer was lost finds that it is done.
pub(super) fn write_token(expected: &Fence, record: &Map<String, Value>) -> Result<[u8; 16], StoreError> {
    let text = serde_json::to_vec(&(expected, record)).map_err(|error| StoreError::Unexpected(Box::new(error)))?;
    let mut token = [0; 16];
    token.copy_from_slice(&Sha256::digest(text)[..16]);
    Ok(token)
}
