//! The file: how it is opened, what its tables mean, and what is thrown away of it.
//!
//! * `queues`: one row per queue; ids are never given twice, so rows of a deleted queue can never show up in another.
//! * `claims`: one row per claim. A claim lives until `expires`; what it holds after that is free.
//! * `messages`: `marker` orders them, grows for ever and is what lists continue from. `claim` names a row of `claims`
//!   or nothing. A message past `expires` does not exist any more, whether it is still in the file or not.
//!
//! All times are milliseconds since the epoch, all `ttl` and `grace` are seconds.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::OpenError;

/// The shape of the file that this release writes. A change of it is additive, and adds a step to [`migrate`].
const VERSION: i64 = 1;

/// Statements kept prepared per connection; there are fewer than this.
const STATEMENTS: usize = 64;

/// Rows that one round of [`collect`] removes at most, so that no request waits long behind it.
const COLLECT_MAX: u32 = 1000;

const TABLES: &str = "
    CREATE TABLE file (salt INTEGER NOT NULL);
    CREATE TABLE queues (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project TEXT NOT NULL,
        name TEXT NOT NULL,
        metadata TEXT NOT NULL,
        UNIQUE (project, name)
    );
    CREATE TABLE claims (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue INTEGER NOT NULL,
        created INTEGER NOT NULL,
        renewed INTEGER NOT NULL,
        ttl INTEGER NOT NULL,
        expires INTEGER NOT NULL
    );
    CREATE INDEX claims_by_expiry ON claims (queue, expires);
    CREATE TABLE messages (
        marker INTEGER PRIMARY KEY AUTOINCREMENT,
        queue INTEGER NOT NULL,
        client BLOB NOT NULL,
        created INTEGER NOT NULL,
        ttl INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        visible INTEGER NOT NULL,
        claim INTEGER,
        claim_count INTEGER NOT NULL DEFAULT 0,
        body TEXT NOT NULL
    );
    CREATE INDEX messages_all ON messages (queue);
    CREATE INDEX messages_free ON messages (queue) WHERE claim IS NULL;
    CREATE INDEX messages_claimed ON messages (claim) WHERE claim IS NOT NULL;
    CREATE INDEX messages_by_expiry ON messages (expires);
";

/// Opens the file, makes it when it is not there, and brings it to this release's shape.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let mut connection = connect(path)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// One more connection to an opened file.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "journal_mode", "wal")?;
    // An answered post survives a power cut, not only a crash of this process.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        0 => {
            transaction.execute_batch(TABLES)?;
            transaction.execute("INSERT INTO file (salt) VALUES (?1)", [rand::random::<u16>()])?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        _ => return Err(OpenError::Version { found, known: VERSION }),
    }
    transaction.commit()?;
    Ok(())
}

/// What makes this file's ids its own.
pub(super) fn salt(connection: &Connection) -> rusqlite::Result<u16> {
    connection.query_row("SELECT salt FROM file", [], |row| row.get(0))
}

/// Removes some of what has expired; whether there is more. Nothing depends on it but the size of the file and the
/// speed of claims: everybody who reads looks at the times.
pub(super) fn collect(connection: &Connection, now: i64) -> rusqlite::Result<bool> {
    let expired: Vec<i64> = {
        let mut select = connection.prepare_cached("SELECT id FROM claims WHERE expires <= ?1 LIMIT ?2")?;
        select.query_map((now, COLLECT_MAX), |row| row.get(0))?.collect::<Result<_, _>>()?
    };
    for claim in &expired {
        free(connection, *claim)?;
    }
    let removed = connection
        .prepare_cached(
            "DELETE FROM messages WHERE marker IN
             (SELECT marker FROM messages INDEXED BY messages_by_expiry WHERE expires <= ?1 LIMIT ?2)",
        )?
        .execute((now, COLLECT_MAX))?;
    let full = COLLECT_MAX as usize;
    Ok(expired.len() == full || removed == full)
}

/// Ends a claim: what it holds can be claimed by others.
pub(super) fn free(connection: &Connection, claim: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE messages SET claim = NULL WHERE claim = ?1")?.execute([claim])?;
    connection.prepare_cached("DELETE FROM claims WHERE id = ?1")?.execute([claim])?;
    Ok(())
}
