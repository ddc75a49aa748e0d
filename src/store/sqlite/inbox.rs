//! Executions as an inbox: what is due, who owns what, what is owed, what may go.

use std::collections::VecDeque;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::turns::Turns;
use super::super::{Result, StoreError};
use super::{executions, query};
use crate::model::{Execution, FunctionId, Timestamp, WorkerId};

/// Parked executions that are due.
pub(super) fn due(
    db: &Connection,
    turns: &Turns,
    now: Timestamp,
    limit: usize,
    without: &[FunctionId],
) -> Result<Vec<Execution>> {
    let without: Vec<String> = without.iter().map(ToString::to_string).collect();
    let without = query::text(&without)?;
    let mut parked = db.prepare_cached(
        "SELECT id FROM executions WHERE project_id = ? AND due_at <= ?
         AND function_id NOT IN (SELECT value FROM json_each(?)) ORDER BY due_at, id LIMIT ?",
    )?;
    let mut work = Vec::new();
    for project in turns.order(projects_with_due(db, now)?) {
        let ids =
            parked.query_map(params![project, now.as_millis(), without, query::limit(limit)], |row| row.get(0))?;
        let ids = ids.collect::<rusqlite::Result<VecDeque<String>>>()?;
        if !ids.is_empty() {
            work.push((project, ids));
        }
        if work.len() >= limit {
            break;
        }
    }
    let mut read = db.prepare_cached(&format!("{} WHERE executions.id = ?", executions::SELECT))?;
    let read_one = |id: String| read.query_one([id], |row| Ok(executions::read(row)))?;
    turns.deal(work, limit).into_iter().map(read_one).collect()
}

// One step through the index per project, however much each has parked.
fn projects_with_due(db: &Connection, now: Timestamp) -> Result<Vec<String>> {
    let any = db
        .prepare_cached("SELECT 1 FROM executions WHERE due_at <= ? LIMIT 1")?
        .query_row([now.as_millis()], |_| Ok(()))
        .optional()?;
    let mut projects: Vec<String> = Vec::new();
    if any.is_none() {
        return Ok(projects);
    }
    let mut next = db.prepare_cached(
        "SELECT project_id FROM executions INDEXED BY executions_due_project
         WHERE project_id > ? AND due_at <= ? ORDER BY project_id LIMIT 1",
    )?;
    loop {
        let behind = projects.last().map_or("", String::as_str);
        match next.query_row(params![behind, now.as_millis()], |row| row.get(0)).optional()? {
            Some(project) => projects.push(project),
            None => return Ok(projects),
        }
    }
}

/// When the next parked execution becomes due.
pub(super) fn next_due(db: &Connection) -> Result<Option<Timestamp>> {
    let due: Option<i64> = db
        .prepare_cached("SELECT min(due_at) FROM executions WHERE due_at IS NOT NULL")?
        .query_row((), |row| row.get(0))?;
    Ok(due.map(Timestamp::from_millis))
}

/// Workers that own something.
pub(super) fn owners(db: &Connection) -> Result<Vec<WorkerId>> {
    query::all(db, "SELECT DISTINCT owner FROM executions WHERE owner IS NOT NULL", (), |row| {
        let owner: String = row.get(0)?;
        owner.parse().map_err(|invalid| StoreError::Unexpected(Box::new(invalid)))
    })
}

/// What a worker owns.
pub(super) fn owned(db: &Connection, worker: WorkerId, limit: usize) -> Result<Vec<Execution>> {
    let sql = format!("{} WHERE owner = ? ORDER BY received_at, executions.id LIMIT ?", executions::SELECT);
    query::all(db, &sql, params![worker.to_string(), query::limit(limit)], executions::read)
}

/// Whose dead letter is not posted.
pub(super) fn owing(db: &Connection, before: Timestamp, limit: usize) -> Result<Vec<Execution>> {
    let sql = format!("{} WHERE owed_at < ? ORDER BY owed_at, executions.id LIMIT ?", executions::SELECT);
    query::all(db, &sql, params![before.as_millis(), query::limit(limit)], executions::read)
}

/// Removes at most `limit` executions that were done before `before`; how many.
pub(super) fn expire_executions(db: &Connection, before: Timestamp, limit: usize) -> Result<usize> {
    let gone: Vec<String> = query::all(
        db,
        "SELECT id FROM executions WHERE done_at < ? ORDER BY done_at LIMIT ?",
        params![before.as_millis(), query::limit(limit)],
        |row| Ok(row.get(0)?),
    )?;
    let mut row = db.prepare_cached("DELETE FROM executions WHERE id = ?")?;
    let mut input = db.prepare_cached("DELETE FROM inputs WHERE id = ?")?;
    for id in &gone {
        row.execute([id])?;
        input.execute([id])?;
    }
    Ok(gone.len())
}

/// Removes at most `limit` parts of logs that were written before `before`; how many.
pub(super) fn expire_logs(db: &Connection, before: Timestamp, limit: usize) -> Result<usize> {
    let gone = db
        .prepare_cached(
            "DELETE FROM logs WHERE rowid IN (SELECT rowid FROM logs WHERE written_at < ? ORDER BY written_at LIMIT ?)",
        )?
        .execute(params![before.as_millis(), query::limit(limit)])?;
    Ok(gone)
}
