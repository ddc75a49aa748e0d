//! Functions and triggers.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::marker::SortValue;
use super::super::{
    FunctionFilter, FunctionRef, FunctionSort, Page, PageRequest, Result, Scope, StoreError, TriggerFilter, TriggerSort,
};
use super::query::{self, Conditions, List, Listed};
use crate::model::{Function, FunctionId, ProjectId, Trigger, TriggerId};

/// Adds a function with its triggers.
pub(super) fn create(db: &Connection, function: &Function, triggers: &[Trigger]) -> Result<()> {
    if let Some(known) = by_id(db, function.id)? {
        // The same call again, its first answer lost.
        return if known.created_at == function.created_at { Ok(()) } else { Err(StoreError::Taken("id")) };
    }
    write_function(
        db,
        "INSERT INTO functions (project_id, name, runtime, package, created_at, updated_at, provisioned, document, id)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        function,
    )?;
    triggers.iter().try_for_each(|trigger| insert_trigger(db, trigger))
}

fn write_function(db: &Connection, sql: &str, function: &Function) -> Result<()> {
    let written = db.prepare_cached(sql)?.execute(params![
        function.project_id.as_str(),
        function.name.as_str(),
        function.runtime.as_str(),
        function.package.map(|package| package.sha256.to_string()),
        function.created_at.as_millis(),
        function.updated_at.as_millis(),
        function.provisioned_concurrency.map(std::num::NonZeroU32::get),
        query::text(function)?,
        function.id.to_string(),
    ]);
    match written {
        Ok(_) => Ok(()),
        Err(error) if query::is_taken(&error) => Err(StoreError::Taken("name")),
        Err(error) => Err(error.into()),
    }
}

fn by_id(db: &Connection, id: FunctionId) -> Result<Option<Function>> {
    match get(db, &Scope::All, &FunctionRef::Id(id)) {
        Ok(function) => Ok(Some(function)),
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Reads one function.
pub(super) fn get(db: &Connection, scope: &Scope, function: &FunctionRef) -> Result<Function> {
    let mut conditions = Conditions::within(scope);
    match function {
        FunctionRef::Id(id) => conditions.equal("id", Some(id)),
        FunctionRef::Name(name) => conditions.equal("name", Some(name)),
    }
    query::one(db, "SELECT document FROM functions", &conditions, "function", |row| query::document(row, 0))
}

/// Lists functions.
pub(super) fn list(
    db: &Connection,
    scope: &Scope,
    filter: &FunctionFilter,
    page: &PageRequest<FunctionSort>,
) -> Result<Page<Function>> {
    let mut conditions = Conditions::within(scope);
    conditions.equal("name", filter.name.as_ref());
    conditions.equal("runtime", filter.runtime.as_ref());
    let read: fn(&Row<'_>) -> Result<Listed<Function>> = match page.sort {
        FunctionSort::CreatedAt => |row| listed(row, |function| SortValue::Time(function.created_at.as_millis())),
        FunctionSort::UpdatedAt => |row| listed(row, |function| SortValue::Time(function.updated_at.as_millis())),
        FunctionSort::Name => |row| listed(row, |function| SortValue::Text(function.name.to_string())),
    };
    let sort = match page.sort {
        FunctionSort::CreatedAt => "created_at",
        FunctionSort::UpdatedAt => "updated_at",
        FunctionSort::Name => "name",
    };
    List { select: "SELECT document FROM functions", table: "functions", sort, read }.page(db, scope, conditions, page)
}

fn listed(row: &Row<'_>, sort: fn(&Function) -> SortValue) -> Result<Listed<Function>> {
    let function: Function = query::document(row, 0)?;
    let (value, id) = (sort(&function), function.id.to_string());
    Ok(Listed { item: function, bytes: 0, value, id })
}

/// Every function of the scope that has provisioned concurrency.
pub(super) fn provisioned(db: &Connection, scope: &Scope) -> Result<Vec<Function>> {
    let project = match scope {
        Scope::Project(project) => Some(project.as_str()),
        Scope::All => None,
    };
    let sql = "SELECT document FROM functions WHERE provisioned IS NOT NULL AND (?1 IS NULL OR project_id = ?1)
               ORDER BY created_at, id";
    query::all(db, sql, [project], |row| query::document(row, 0))
}

/// Replaces a function.
pub(super) fn replace(db: &Connection, scope: &Scope, function: &Function, expected_revision: u64) -> Result<()> {
    let known = get(db, scope, &FunctionRef::Id(function.id))?;
    if known == *function {
        return Ok(());
    }
    if known.revision != expected_revision || known.project_id != function.project_id {
        return Err(StoreError::Stale);
    }
    write_function(
        db,
        "UPDATE functions SET project_id = ?, name = ?, runtime = ?, package = ?, created_at = ?, updated_at = ?,
         provisioned = ?, document = ? WHERE id = ?",
        function,
    )
}

/// Removes a function and its triggers.
pub(super) fn delete(db: &Connection, scope: &Scope, id: FunctionId, expected_revision: Option<u64>) -> Result<()> {
    let known = get(db, scope, &FunctionRef::Id(id))?;
    if expected_revision.is_some_and(|expected| expected != known.revision) {
        return Err(StoreError::Stale);
    }
    let id = id.to_string();
    db.prepare_cached("DELETE FROM functions WHERE id = ?")?.execute([&id])?;
    db.prepare_cached("DELETE FROM triggers WHERE function_id = ?")?.execute([&id])?;
    Ok(())
}

/// Adds a trigger to a function that is there.
pub(super) fn create_trigger(db: &Connection, trigger: &Trigger) -> Result<()> {
    let scope = Scope::Project(trigger.project_id.clone());
    get(db, &scope, &FunctionRef::Id(trigger.function_id))?;
    insert_trigger(db, trigger)
}

fn insert_trigger(db: &Connection, trigger: &Trigger) -> Result<()> {
    let id = trigger.id.to_string();
    let known: Option<String> = db
        .prepare_cached("SELECT document FROM triggers WHERE id = ?")?
        .query_row([&id], |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        // The same call again; how its queue goes may have changed in between.
        let known: Trigger = query::parse(&known)?;
        let same = (known.function_id, known.created_at) == (trigger.function_id, trigger.created_at);
        return if same { Ok(()) } else { Err(StoreError::Taken("id")) };
    }
    db.prepare_cached(
        "INSERT INTO triggers (id, project_id, function_id, queue, created_at, document) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        id,
        trigger.project_id.as_str(),
        trigger.function_id.to_string(),
        trigger.queue.as_ref().map(|queue| queue.name.as_str()),
        trigger.created_at.as_millis(),
        query::text(trigger)?,
    ])?;
    Ok(())
}

/// Reads one trigger.
pub(super) fn trigger(db: &Connection, scope: &Scope, id: TriggerId) -> Result<Trigger> {
    let mut conditions = Conditions::within(scope);
    conditions.equal("id", Some(id));
    query::one(db, "SELECT document FROM triggers", &conditions, "trigger", |row| query::document(row, 0))
}

/// Lists triggers.
pub(super) fn triggers(
    db: &Connection,
    scope: &Scope,
    filter: &TriggerFilter,
    page: &PageRequest<TriggerSort>,
) -> Result<Page<Trigger>> {
    let mut conditions = Conditions::within(scope);
    conditions.equal("function_id", filter.function_id);
    let sort = match page.sort {
        TriggerSort::CreatedAt => "created_at",
    };
    let read: fn(&Row<'_>) -> Result<Listed<Trigger>> = |row| {
        let trigger: Trigger = query::document(row, 0)?;
        let (value, id) = (SortValue::Time(trigger.created_at.as_millis()), trigger.id.to_string());
        Ok(Listed { item: trigger, bytes: 0, value, id })
    };
    List { select: "SELECT document FROM triggers", table: "triggers", sort, read }.page(db, scope, conditions, page)
}

/// Removes a trigger.
pub(super) fn delete_trigger(db: &Connection, scope: &Scope, id: TriggerId) -> Result<()> {
    trigger(db, scope, id)?;
    db.prepare_cached("DELETE FROM triggers WHERE id = ?")?.execute([id.to_string()])?;
    Ok(())
}

/// Every trigger of a project.
pub(super) fn project_triggers(db: &Connection, project: &ProjectId) -> Result<Vec<Trigger>> {
    let sql = "SELECT document FROM triggers WHERE project_id = ? ORDER BY created_at, id";
    query::all(db, sql, [project.as_str()], |row| query::document(row, 0))
}

/// All triggers of some functions.
pub(super) fn triggers_of(db: &Connection, functions: &[FunctionId]) -> Result<Vec<Trigger>> {
    let sql =
        "SELECT document FROM triggers WHERE function_id IN (SELECT value FROM json_each(?)) ORDER BY created_at, id";
    let ids: Vec<String> = functions.iter().map(ToString::to_string).collect();
    query::all(db, sql, [query::text(&ids)?], |row| query::document(row, 0))
}
