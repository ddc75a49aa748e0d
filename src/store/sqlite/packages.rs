//! Packages.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::{Result, StoreError};
use crate::model::Timestamp;
use crate::model::package::PackageDigest;

/// Keeps a package, or notes that it was put again.
pub(super) fn put(db: &Connection, digest: PackageDigest, archive: &[u8], now: Timestamp) -> Result<()> {
    let digest = digest.to_string();
    db.prepare_cached(
        "INSERT INTO packages (digest, put_at) VALUES (?, ?)
         ON CONFLICT (digest) DO UPDATE SET put_at = max(put_at, excluded.put_at)",
    )?
    .execute(params![digest, now.as_millis()])?;
    db.prepare_cached("INSERT INTO archives (digest, archive) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING")?
        .execute(params![digest, archive])?;
    Ok(())
}

/// Reads a package.
pub(super) fn get(db: &Connection, digest: PackageDigest) -> Result<Vec<u8>> {
    db.prepare_cached("SELECT archive FROM archives WHERE digest = ?")?
        .query_row([digest.to_string()], |row| row.get(0))
        .optional()?
        .ok_or(StoreError::NotFound("package"))
}

/// Removes one package that no function names and that was last put before `older_than`; whether there was one.
pub(super) fn delete_one_unused(db: &Connection, older_than: Timestamp) -> Result<bool> {
    let digest: Option<String> = db
        .prepare_cached(
            "SELECT digest FROM packages WHERE put_at < ?
             AND NOT EXISTS (SELECT 1 FROM functions WHERE functions.package = packages.digest) LIMIT 1",
        )?
        .query_row([older_than.as_millis()], |row| row.get(0))
        .optional()?;
    let Some(digest) = digest else { return Ok(false) };
    db.prepare_cached("DELETE FROM packages WHERE digest = ?")?.execute([&digest])?;
    db.prepare_cached("DELETE FROM archives WHERE digest = ?")?.execute([&digest])?;
    Ok(true)
}
