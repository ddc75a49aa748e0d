//! Workers and instances. The store's own clock is this machine's: all that use the file are on it.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{FORGOTTEN_WORKER_REFUSED, Result, Scope, StoreError};
use super::query;
use crate::model::instance::Instance;
use crate::model::worker::{Worker, WorkerState};
use crate::model::{DeploymentId, InstanceId, ProjectId, Timestamp, WorkerId};

/// The deployment's name; given by the first who asks.
pub(super) fn deployment(db: &Connection) -> Result<DeploymentId> {
    db.prepare_cached("INSERT INTO deployment (only, name) VALUES (1, ?) ON CONFLICT DO NOTHING")?
        .execute([DeploymentId::generate().to_string()])?;
    let name: String = db.prepare_cached("SELECT name FROM deployment")?.query_row((), |row| row.get(0))?;
    name.parse().map_err(|invalid| StoreError::Unexpected(Box::<crate::model::Invalid>::new(invalid)))
}

/// Writes a worker's document.
pub(super) fn heartbeat(db: &Connection, worker: &Worker, now: Timestamp) -> Result<()> {
    let written = db
        .prepare_cached(
            "INSERT INTO workers (id, dead, heartbeat_at, document) VALUES (?, 0, ?, ?)
             ON CONFLICT (id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at, document = excluded.document
             WHERE dead = 0",
        )?
        .execute(params![worker.id.to_string(), now.as_millis(), query::text(worker)?])?;
    if written == 1 { Ok(()) } else { Err(StoreError::Stale) }
}

/// All workers that are not forgotten.
pub(super) fn workers(db: &Connection, now: Timestamp) -> Result<Vec<(Worker, Duration)>> {
    let sql = "SELECT document, heartbeat_at, dead FROM workers WHERE forgotten_at IS NULL ORDER BY id";
    query::all(db, sql, (), |row| {
        let mut worker: Worker = query::document(row, 0)?;
        worker.heartbeat_at = Timestamp::from_millis(row.get(1)?);
        if row.get(2)? {
            worker.state = WorkerState::Dead;
        }
        let age = now.since(worker.heartbeat_at);
        Ok((worker, age))
    })
}

/// Declares a worker dead that was silent; whether it is dead now.
pub(super) fn declare_dead(db: &Connection, worker: WorkerId, silent_for: Duration, now: Timestamp) -> Result<bool> {
    let id = worker.to_string();
    // One that is not known becomes a forgotten one, which refuses its first heartbeat.
    db.prepare_cached(
        "INSERT INTO workers (id, dead, heartbeat_at, forgotten_at) VALUES (?1, 1, ?2, ?2)
         ON CONFLICT (id) DO UPDATE SET dead = 1 WHERE heartbeat_at <= ?3",
    )?
    .execute(params![id, now.as_millis(), (now - silent_for).as_millis()])?;
    let dead = db.prepare_cached("SELECT dead FROM workers WHERE id = ?")?.query_row([&id], |row| row.get(0))?;
    Ok(dead)
}

/// Forgets a worker that owns nothing.
pub(super) fn delete_worker(db: &Connection, worker: WorkerId, now: Timestamp) -> Result<()> {
    let id = worker.to_string();
    let owns = db
        .prepare_cached("SELECT 1 FROM executions WHERE owner = ? LIMIT 1")?
        .query_row([&id], |_| Ok(()))
        .optional()?;
    if owns.is_some() {
        return Err(StoreError::Stale);
    }
    db.prepare_cached("UPDATE workers SET dead = 1, forgotten_at = ? WHERE id = ? AND forgotten_at IS NULL")?
        .execute(params![now.as_millis(), id])?;
    // Those whose id need not be refused any more.
    db.prepare_cached("DELETE FROM workers WHERE forgotten_at < ?")?
        .execute([(now - FORGOTTEN_WORKER_REFUSED).as_millis()])?;
    Ok(())
}

/// Writes an instance's document.
pub(super) fn put_instance(db: &Connection, instance: &Instance) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO instances (id, project_id, created_at, document) VALUES (?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET project_id = excluded.project_id, document = excluded.document",
    )?
    .execute(params![
        instance.id.to_string(),
        // One of the pool belongs to no project, and no project has an empty name.
        instance.project_id.as_ref().map_or("", ProjectId::as_str),
        instance.created_at.as_millis(),
        query::text(instance)?,
    ])?;
    Ok(())
}

/// All instances of a scope, oldest first.
pub(super) fn instances(db: &Connection, scope: &Scope) -> Result<Vec<Instance>> {
    let project = match scope {
        Scope::Project(project) => Some(project.as_str()),
        Scope::All => None,
    };
    let sql = match project {
        Some(_) => "SELECT document FROM instances WHERE project_id = ?1 ORDER BY created_at, id",
        None => "SELECT document FROM instances WHERE ?1 IS NULL ORDER BY created_at, id",
    };
    query::all(db, sql, [project], |row| query::document(row, 0))
}

/// Forgets an instance.
pub(super) fn delete_instance(db: &Connection, id: InstanceId) -> Result<()> {
    db.prepare_cached("DELETE FROM instances WHERE id = ?")?.execute([id.to_string()])?;
    Ok(())
}
