//! Logs of executions.

use rusqlite::{Connection, params};

use super::super::{Result, Scope};
use super::{executions, query};
use crate::model::execution::LogChunk;
use crate::model::{ExecutionId, Timestamp};

/// Keeps parts; what is there already is replaced.
pub(super) fn append(db: &Connection, chunks: &[LogChunk], now: Timestamp) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO logs (execution_id, attempt, sequence, project_id, written_at, document) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (execution_id, attempt, sequence) DO UPDATE SET document = excluded.document",
    )?;
    for chunk in chunks {
        insert.execute(params![
            chunk.execution_id.to_string(),
            chunk.attempt,
            chunk.sequence,
            chunk.project_id.as_str(),
            now.as_millis(),
            query::text(chunk)?,
        ])?;
    }
    Ok(())
}

/// Reads parts in order.
pub(super) fn read(
    db: &Connection,
    scope: &Scope,
    execution: ExecutionId,
    after: Option<(u32, u32)>,
    limit: usize,
) -> Result<Vec<LogChunk>> {
    executions::require(db, scope, execution)?;
    let (attempt, sequence) = after.map_or((-1, -1), |(attempt, sequence)| (i64::from(attempt), i64::from(sequence)));
    query::all(
        db,
        "SELECT document FROM logs WHERE execution_id = ? AND (attempt, sequence) > (?, ?)
         ORDER BY attempt, sequence LIMIT ?",
        params![execution.to_string(), attempt, sequence, query::limit(limit)],
        |row| query::document(row, 0),
    )
}
