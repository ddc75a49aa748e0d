//! Projects' own queues: the triggers on them, how looking at them goes, and who looks. And the secret that all share.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{Result, Scope, StoreError};
use super::{functions, query};
use crate::model::trigger::queue::{QueueKey, QueueStatus, SourceQueue};
use crate::model::{Invalid, ProjectId, Trigger, TriggerId, WorkerId};

fn unexpected(invalid: Invalid) -> StoreError {
    StoreError::Unexpected(Box::new(invalid))
}

/// Every trigger on a project's own queue.
pub(super) fn triggers(db: &Connection) -> Result<Vec<Trigger>> {
    let sql = "SELECT document FROM triggers WHERE queue IS NOT NULL ORDER BY created_at, id";
    query::all(db, sql, (), |row| query::document(row, 0))
}

/// Notes how looking at a trigger's queue goes.
pub(super) fn set_status(db: &Connection, id: TriggerId, status: QueueStatus) -> Result<()> {
    let mut trigger = functions::trigger(db, &Scope::All, id)?;
    let Some(queue) = &mut trigger.queue else { return Err(StoreError::NotFound("trigger")) };
    queue.status = status;
    db.prepare_cached("UPDATE triggers SET document = ? WHERE id = ?")?
        .execute(params![query::text(&trigger)?, id.to_string()])?;
    Ok(())
}

/// Who looks at which queue.
pub(super) fn owners(db: &Connection) -> Result<Vec<(QueueKey, WorkerId)>> {
    query::all(db, "SELECT project_id, queue, worker FROM queue_owners ORDER BY project_id, queue", (), |row| {
        let text = |column| row.get::<_, String>(column);
        let key = QueueKey {
            project_id: ProjectId::parse(&text(0)?).map_err(unexpected)?,
            queue: SourceQueue::parse(&text(1)?).map_err(unexpected)?,
        };
        Ok((key, text(2)?.parse().map_err(unexpected)?))
    })
}

/// Makes a worker the one that looks at a queue; whether it is.
pub(super) fn take(db: &Connection, queue: &QueueKey, from: Option<WorkerId>, worker: WorkerId) -> Result<bool> {
    let key = params![queue.project_id.as_str(), queue.queue.as_str()];
    let owner: Option<String> = db
        .prepare_cached("SELECT worker FROM queue_owners WHERE project_id = ? AND queue = ?")?
        .query_row(key, |row| row.get(0))
        .optional()?;
    let worker = worker.to_string();
    if owner.as_deref() == Some(worker.as_str()) {
        return Ok(true);
    }
    if owner != from.map(|from| from.to_string()) {
        return Ok(false);
    }
    db.prepare_cached(
        "INSERT INTO queue_owners (project_id, queue, worker) VALUES (?, ?, ?)
         ON CONFLICT (project_id, queue) DO UPDATE SET worker = excluded.worker",
    )?
    .execute(params![queue.project_id.as_str(), queue.queue.as_str(), worker])?;
    Ok(true)
}

/// Makes a queue nobody's, if it is this worker's.
pub(super) fn release(db: &Connection, queue: &QueueKey, worker: WorkerId) -> Result<()> {
    db.prepare_cached("DELETE FROM queue_owners WHERE project_id = ? AND queue = ? AND worker = ?")?
        .execute(params![queue.project_id.as_str(), queue.queue.as_str(), worker.to_string()])?;
    Ok(())
}

/// The secret that all share; the first who asks gives it.
pub(super) fn keep_secret(db: &Connection, fresh: &str) -> Result<String> {
    db.prepare_cached("INSERT INTO secrets (name, value) VALUES ('posting', ?) ON CONFLICT DO NOTHING")?
        .execute([fresh])?;
    Ok(db.prepare_cached("SELECT value FROM secrets WHERE name = 'posting'")?.query_row((), |row| row.get(0))?)
}
