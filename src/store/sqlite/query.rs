//! What the queries share: conditions, pages, and what SQLite's errors mean.

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, Row, params_from_iter};
use serde::de::DeserializeOwned;

use super::super::marker::{Marker, PageBuilder, Position, SortValue};
use super::super::{Page, PageRequest, Result, Scope, StoreError};
use crate::model::Timestamp;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let passing = error.sqlite_error_code().is_some_and(|code| {
            matches!(
                code,
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::OutOfMemory
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::OperationAborted
                    | ErrorCode::FileLockingProtocolFailed
            )
        });
        if passing { Self::Unavailable(Box::new(error)) } else { Self::Unexpected(Box::new(error)) }
    }
}

/// Whether the error says that a unique value is there already.
pub(super) fn is_taken(error: &rusqlite::Error) -> bool {
    const PRIMARY_KEY: i32 = 1555;
    const UNIQUE: i32 = 2067;
    error.sqlite_error().is_some_and(|error| matches!(error.extended_code, PRIMARY_KEY | UNIQUE))
}

/// Reads the document in a column.
pub(super) fn document<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    parse(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?)
}

/// Reads a document.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Unexpected(Box::new(error)))
}

/// Writes a document.
pub(super) fn text(document: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(document).map_err(|error| StoreError::Unexpected(Box::new(error)))
}

/// A time as its column holds it.
pub(super) fn millis(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_millis)
}

/// A bound as LIMIT takes it.
pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The conditions of a query, all of which must hold.
#[derive(Default)]
pub(super) struct Conditions {
    clauses: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// Those that bind a query to a scope.
    pub(super) fn within(scope: &Scope) -> Self {
        let mut conditions = Self::default();
        match scope {
            Scope::Project(project) => conditions.and("project_id = ?", [project.as_str().to_owned().into()]),
            Scope::All => {}
        }
        conditions
    }

    /// One more, with a value for each `?` in it.
    pub(super) fn and<const N: usize>(&mut self, clause: &str, values: [Value; N]) {
        self.clauses.push(clause.to_owned());
        self.values.extend(values);
    }

    /// One more, on a column that must be equal to a text.
    pub(super) fn equal(&mut self, column: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.and(&format!("{column} = ?"), [value.to_string().into()]);
        }
    }

    /// One more, on a column that must be one of some texts; none given: no condition.
    pub(super) fn one_of(&mut self, column: &str, values: impl ExactSizeIterator<Item = impl ToString>) {
        if values.len() == 0 {
            return;
        }
        let places = vec!["?"; values.len()].join(", ");
        self.clauses.push(format!("{column} IN ({places})"));
        self.values.extend(values.map(|value| Value::from(value.to_string())));
    }

    fn sql(&self) -> String {
        if self.clauses.is_empty() { "1".to_owned() } else { self.clauses.join(" AND ") }
    }
}

/// Reads the one row that meets the conditions.
pub(super) fn one<T>(
    db: &Connection,
    select: &str,
    conditions: &Conditions,
    kind: &'static str,
    read: impl FnOnce(&Row<'_>) -> Result<T>,
) -> Result<T> {
    let mut statement = db.prepare_cached(&format!("{select} WHERE {}", conditions.sql()))?;
    let mut rows = statement.query(params_from_iter(&conditions.values))?;
    match rows.next()? {
        Some(row) => read(row),
        None => Err(StoreError::NotFound(kind)),
    }
}

/// Reads all rows of a query, the values of which are given in order.
pub(super) fn all<T>(
    db: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// An element of a list.
pub(super) struct Listed<T> {
    /// The element.
    pub item: T,
    /// The bytes that it carries.
    pub bytes: usize,
    /// Its place in the order.
    pub value: SortValue,
    /// Its id.
    pub id: String,
}

/// A list that can be read in pages.
pub(super) struct List<'a, T> {
    /// `SELECT … FROM …`, the columns being those that `read` takes.
    pub select: &'a str,
    /// The table that markers are looked up in.
    pub table: &'a str,
    /// The column of the order, which names it in markers too.
    pub sort: &'a str,
    /// Reads an element.
    pub read: fn(&Row<'_>) -> Result<Listed<T>>,
}

impl<T> List<'_, T> {
    /// Reads one page of what meets the conditions, which must hold the scope's own.
    pub(super) fn page<K>(
        &self,
        db: &Connection,
        scope: &Scope,
        mut conditions: Conditions,
        page: &PageRequest<K>,
    ) -> Result<Page<T>> {
        let (sort, table) = (self.sort, self.table);
        if let Some(marker) = &page.marker {
            let position = self.position(db, scope, marker)?;
            let value = match position.value {
                SortValue::Time(time) => Value::from(time),
                SortValue::Text(text) => Value::from(text),
            };
            let behind = if page.direction.is_ascending() { ">" } else { "<" };
            conditions.and(&format!("({sort}, {table}.id) {behind} (?, ?)"), [value, position.id.into()]);
        }
        let order = if page.direction.is_ascending() { "ASC" } else { "DESC" };
        let sql = format!(
            "{} WHERE {} ORDER BY {sort} {order}, {table}.id {order} LIMIT {}",
            self.select,
            conditions.sql(),
            limit(page.limit.saturating_add(1)),
        );
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(&conditions.values))?;
        let mut built = PageBuilder::new(page.limit);
        while let Some(row) = rows.next()? {
            let Listed { item, bytes, value, id } = (self.read)(row)?;
            if !built.offer(item, Position { key: sort.to_owned(), value, id }, bytes) {
                break;
            }
        }
        Ok(built.finish())
    }

    // An element that a filter no longer lets through still has its place.
    fn position(&self, db: &Connection, scope: &Scope, marker: &str) -> Result<Position> {
        let id = match Marker::parse(marker, self.sort)? {
            Marker::Position(position) => return Ok(position),
            Marker::Element(id) => id,
        };
        let mut conditions = Conditions::within(scope);
        conditions.equal("id", Some(&id));
        let select = format!("SELECT {} FROM {}", self.sort, self.table);
        let found = one(db, &select, &conditions, "element", |row| Ok(row.get(0)?));
        match found {
            Ok(Value::Integer(time)) => Ok(Position { key: self.sort.to_owned(), value: SortValue::Time(time), id }),
            Ok(Value::Text(text)) => Ok(Position { key: self.sort.to_owned(), value: SortValue::Text(text), id }),
            Ok(Value::Null | Value::Real(_) | Value::Blob(_)) | Err(StoreError::NotFound(_)) => {
                Err(StoreError::BadMarker)
            }
            Err(other) => Err(other),
        }
    }
}
