//! Executions as records: inserted, changed under their fence, read and listed.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::{Map, Value};

use super::super::execution_row::{self, Keys, Parts};
use super::super::marker::SortValue;
use super::super::{
    ExecutionFilter, ExecutionSort, ExecutionWrite, Inserted, Page, PageRequest, Result, Scope, StoreError,
};
use super::query::{self, Conditions, List, Listed};
use crate::model::{Execution, ExecutionId, ExecutionState};

/// The columns that [`read`] takes, first.
pub(super) const SELECT: &str = "SELECT inputs.fixed, executions.record FROM executions JOIN inputs USING (id)";

/// Rows that are written at a stretch, in about a tenth of a millisecond.
const AT_A_STRETCH: usize = 8;

/// Inserts those that are not known.
pub(super) fn insert(db: &Connection, executions: &[Execution]) -> Result<Inserted> {
    let mut row = db.prepare_cached(
        "INSERT INTO executions (id, project_id, function_id, event_id, received_at, state, attempt, worker,
         due_at, owner, owed_at, done_at, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO NOTHING",
    )?;
    let mut input = db.prepare_cached("INSERT INTO inputs (id, fixed) VALUES (?, ?)")?;
    let mut inserted = Inserted::default();
    for (number, execution) in executions.iter().enumerate() {
        give_way(number);
        let Parts { fixed, record } = Parts::of(execution)?;
        let keys = Keys::of(execution);
        let id = execution.id.to_string();
        let new = row.execute(params![
            id,
            execution.project_id.as_str(),
            execution.function_id.to_string(),
            execution.event.id,
            execution.received_at.as_millis(),
            execution.state.as_str(),
            execution.attempt,
            execution.worker.map(|worker| worker.to_string()),
            query::millis(keys.due_at),
            keys.owner.map(|owner| owner.to_string()),
            query::millis(keys.owed_at),
            query::millis(keys.done_at),
            query::text(&record)?,
        ])?;
        if new == 1 {
            input.execute(params![id, query::text(&fixed)?])?;
            inserted.new.push(execution.id);
        } else {
            inserted.known.push(execution.id);
        }
    }
    Ok(inserted)
}

/// Writes changes whose expectation holds.
pub(super) fn write(db: &Connection, writes: &[ExecutionWrite]) -> Result<Vec<bool>> {
    let mut update = db.prepare_cached(
        "UPDATE executions SET state = ?, attempt = ?, worker = ?, due_at = ?, owner = ?, owed_at = ?, done_at = ?,
         token = ?, record = ? WHERE id = ? AND state = ? AND attempt = ? AND worker IS ?",
    )?;
    let mut last = db.prepare_cached("SELECT token FROM executions WHERE id = ?")?;
    let mut write_one = |ExecutionWrite { expected, next }: &ExecutionWrite| {
        let record = Parts::of(next)?.record;
        let keys = Keys::of(next);
        let token = execution_row::write_token(expected, &record)?;
        let id = next.id.to_string();
        let changed = update.execute(params![
            next.state.as_str(),
            next.attempt,
            next.worker.map(|worker| worker.to_string()),
            query::millis(keys.due_at),
            keys.owner.map(|owner| owner.to_string()),
            query::millis(keys.owed_at),
            query::millis(keys.done_at),
            token,
            query::text(&record)?,
            id,
            expected.state.as_str(),
            expected.attempt,
            expected.worker.map(|worker| worker.to_string()),
        ])?;
        if changed == 1 {
            return Ok(true);
        }
        let found: Option<Option<Vec<u8>>> = last.query_row([&id], |row| row.get(0)).optional()?;
        Ok(found.flatten().is_some_and(|found| found == token))
    };
    let in_turn = writes.iter().enumerate().map(|(number, write)| {
        give_way(number);
        write_one(write)
    });
    in_turn.collect()
}

/// A long batch lets others run in between, who have a caller that waits: the kernel would leave it the processor for
/// milliseconds.
fn give_way(number: usize) {
    if number % AT_A_STRETCH == AT_A_STRETCH - 1 {
        std::thread::yield_now();
    }
}

/// Reads an execution from a row of [`SELECT`].
pub(super) fn read(row: &Row<'_>) -> Result<Execution> {
    let column = |number| -> Result<Map<String, Value>> { query::document(row, number) };
    let mut object = column(0)?;
    object.extend(column(1)?);
    serde_json::from_value(Value::Object(object)).map_err(|error| StoreError::Unexpected(Box::new(error)))
}

/// Reads one execution.
pub(super) fn get(db: &Connection, scope: &Scope, id: ExecutionId) -> Result<Execution> {
    let mut conditions = Conditions::within(scope);
    conditions.equal("id", Some(id));
    query::one(db, SELECT, &conditions, "execution", read)
}

/// Whether the scope has the execution, else [`StoreError::NotFound`].
pub(super) fn require(db: &Connection, scope: &Scope, id: ExecutionId) -> Result<()> {
    let mut conditions = Conditions::within(scope);
    conditions.equal("id", Some(id));
    query::one(db, "SELECT 1 FROM executions", &conditions, "execution", |_| Ok(()))
}

/// Lists executions.
pub(super) fn list(
    db: &Connection,
    scope: &Scope,
    filter: &ExecutionFilter,
    page: &PageRequest<ExecutionSort>,
) -> Result<Page<Execution>> {
    let mut conditions = Conditions::within(scope);
    conditions.equal("function_id", filter.function_id);
    conditions.one_of("state", filter.states.iter().copied().map(ExecutionState::as_str));
    conditions.equal("event_id", filter.event_id.as_ref());
    if let Some(since) = filter.since {
        conditions.and("received_at >= ?", [since.as_millis().into()]);
    }
    if let Some(until) = filter.until {
        conditions.and("received_at < ?", [until.as_millis().into()]);
    }
    let sort = match page.sort {
        ExecutionSort::ReceivedAt => "received_at",
    };
    let read: fn(&Row<'_>) -> Result<Listed<Execution>> = |row| {
        let execution = read(row)?;
        let (value, id) = (SortValue::Time(execution.received_at.as_millis()), execution.id.to_string());
        let bytes = execution_row::large_bytes(&execution);
        Ok(Listed { item: execution, bytes, value, id })
    };
    List { select: SELECT, table: "executions", sort, read }.page(db, scope, conditions, page)
}
