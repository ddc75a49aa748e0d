//! The tables. Documents are JSON text; what a query looks for stands beside them in columns.
//!
//! Times are milliseconds since the epoch, ids lower-case text. Each entry of [`STEPS`] is applied once, in order, and
//! never changed after its release: what comes later is added as another step.

use rusqlite::Connection;

use super::super::{Result, StoreError};

const STEPS: [&str; 4] = [
    "
    CREATE TABLE functions (
        id TEXT PRIMARY KEY, project_id TEXT NOT NULL, name TEXT NOT NULL, runtime TEXT NOT NULL, package TEXT,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, document TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX functions_name ON functions (project_id, name);
    CREATE INDEX functions_created ON functions (project_id, created_at, id);
    CREATE INDEX functions_updated ON functions (project_id, updated_at, id);
    CREATE INDEX functions_all_created ON functions (created_at, id);
    CREATE INDEX functions_package ON functions (package) WHERE package IS NOT NULL;

    CREATE TABLE packages (digest TEXT PRIMARY KEY, put_at INTEGER NOT NULL) STRICT;
    CREATE INDEX packages_put ON packages (put_at);
    -- Apart, so that a change of put_at does not write the archive anew.
    CREATE TABLE archives (digest TEXT PRIMARY KEY, archive BLOB NOT NULL) STRICT;

    CREATE TABLE triggers (
        id TEXT PRIMARY KEY, project_id TEXT NOT NULL, function_id TEXT NOT NULL, created_at INTEGER NOT NULL,
        document TEXT NOT NULL
    ) STRICT;
    CREATE INDEX triggers_project ON triggers (project_id, created_at, id);
    CREATE INDEX triggers_function ON triggers (function_id, created_at, id);
    CREATE INDEX triggers_all ON triggers (created_at, id);

    CREATE TABLE executions (
        id TEXT PRIMARY KEY, project_id TEXT NOT NULL, function_id TEXT NOT NULL, event_id TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        state TEXT NOT NULL, attempt INTEGER NOT NULL, worker TEXT,
        due_at INTEGER, owner TEXT, owed_at INTEGER, done_at INTEGER,
        token BLOB, record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX executions_project ON executions (project_id, received_at, id);
    CREATE INDEX executions_function ON executions (function_id, received_at, id, state);
    CREATE INDEX executions_state ON executions (project_id, state, received_at, id);
    CREATE INDEX executions_event ON executions (project_id, event_id);
    CREATE INDEX executions_all ON executions (received_at, id, state);
    CREATE INDEX executions_due ON executions (due_at) WHERE due_at IS NOT NULL;
    CREATE INDEX executions_due_project ON executions (project_id, due_at, id, function_id) WHERE due_at IS NOT NULL;
    CREATE INDEX executions_owner ON executions (owner, received_at, id) WHERE owner IS NOT NULL;
    CREATE INDEX executions_owed ON executions (owed_at, id) WHERE owed_at IS NOT NULL;
    CREATE INDEX executions_done ON executions (done_at) WHERE done_at IS NOT NULL;
    -- What never changes of an execution, apart, so that a change does not write the event anew.
    CREATE TABLE inputs (id TEXT PRIMARY KEY, fixed TEXT NOT NULL) STRICT;

    CREATE TABLE logs (
        execution_id TEXT NOT NULL, attempt INTEGER NOT NULL, sequence INTEGER NOT NULL,
        project_id TEXT NOT NULL, written_at INTEGER NOT NULL, document TEXT NOT NULL,
        PRIMARY KEY (execution_id, attempt, sequence)
    ) STRICT;
    CREATE INDEX logs_written ON logs (written_at);

    CREATE TABLE workers (
        id TEXT PRIMARY KEY, dead INTEGER NOT NULL, heartbeat_at INTEGER NOT NULL, forgotten_at INTEGER,
        document TEXT
    ) STRICT;

    CREATE TABLE instances (
        id TEXT PRIMARY KEY, project_id TEXT NOT NULL, created_at INTEGER NOT NULL, document TEXT NOT NULL
    ) STRICT;
    CREATE INDEX instances_project ON instances (project_id, created_at, id);
",
    "CREATE TABLE deployment (only INTEGER PRIMARY KEY CHECK (only = 1), name TEXT NOT NULL) STRICT;",
    "
    ALTER TABLE triggers ADD COLUMN queue TEXT;
    CREATE INDEX triggers_queue ON triggers (created_at, id) WHERE queue IS NOT NULL;
    CREATE TABLE queue_owners (
        project_id TEXT NOT NULL, queue TEXT NOT NULL, worker TEXT NOT NULL, PRIMARY KEY (project_id, queue)
    ) STRICT;
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
",
    "
    ALTER TABLE functions ADD COLUMN provisioned INTEGER;
    CREATE INDEX functions_provisioned ON functions (project_id, created_at, id) WHERE provisioned IS NOT NULL;
",
];

/// Applies the steps that the file has not had yet. To be called in a transaction that writes, so that of many which
/// start at once one does it and the others find it done.
pub(super) fn migrate(db: &Connection) -> Result<()> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let applied = usize::try_from(version).map_err(|error| StoreError::Unexpected(Box::new(error)))?;
    // A file of a later release has steps that this one does not know; they only add.
    for (number, step) in STEPS.iter().enumerate().skip(applied) {
        db.execute_batch(step)?;
        db.pragma_update(None, "user_version", i64::try_from(number + 1).unwrap_or(i64::MAX))?;
    }
    Ok(())
}

/// The steps that [`migrate`] would apply.
pub(super) fn missing(db: &Connection) -> Result<Vec<String>> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let applied = usize::try_from(version).map_err(|error| StoreError::Unexpected(Box::new(error)))?;
    Ok((applied + 1..=STEPS.len()).map(|step| format!("step {step}")).collect())
}
