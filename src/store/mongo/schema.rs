//! The indexes: one for every question that is asked often, partial where only the inbox is asked about.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use super::super::Result;

fn index(name: &str, keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).options(IndexOptions::builder().name(name.to_owned()).build()).build()
}

fn unique(name: &str, keys: Document) -> IndexModel {
    let options = IndexOptions::builder().name(name.to_owned()).unique(true).build();
    IndexModel::builder().keys(keys).options(options).build()
}

/// Of those documents only that have the field.
fn only_with(field: &str, name: &str, keys: Document) -> IndexModel {
    let options = IndexOptions::builder()
        .name(name.to_owned())
        .partial_filter_expression(doc! { field: { "$exists": true } })
        .build();
    IndexModel::builder().keys(keys).options(options).build()
}

/// Documents go when the date in their `expire_at` has come; those without stay.
fn expiring() -> IndexModel {
    let options = IndexOptions::builder().name("expire_at".to_owned()).expire_after(Duration::ZERO).build();
    IndexModel::builder().keys(doc! { "expire_at": 1 }).options(options).build()
}

fn indexes() -> Vec<(&'static str, Vec<IndexModel>)> {
    let functions = vec![
        unique("project_name", doc! { "project_id": 1, "name": 1 }),
        index("project_created", doc! { "project_id": 1, "created_at": 1, "_id": 1 }),
        index("project_updated", doc! { "project_id": 1, "updated_at": 1, "_id": 1 }),
        index("created", doc! { "created_at": 1, "_id": 1 }),
        index("updated", doc! { "updated_at": 1, "_id": 1 }),
        index("name", doc! { "name": 1, "_id": 1 }),
        index("package", doc! { "package.sha256": 1 }),
        only_with("provisioned_concurrency", "provisioned", doc! { "provisioned_concurrency": 1, "project_id": 1 }),
    ];
    let triggers = vec![
        index("project_created", doc! { "project_id": 1, "created_at": 1, "_id": 1 }),
        index("function_created", doc! { "function_id": 1, "created_at": 1, "_id": 1 }),
        index("created", doc! { "created_at": 1, "_id": 1 }),
        only_with("queue.name", "queue", doc! { "queue.name": 1, "created_at": 1, "_id": 1 }),
    ];
    let executions = vec![
        index("project_received", doc! { "project_id": 1, "received_at": 1, "_id": 1 }),
        index("function_received", doc! { "function_id": 1, "received_at": 1, "_id": 1, "state": 1 }),
        index("project_state", doc! { "project_id": 1, "state": 1, "received_at": 1, "_id": 1 }),
        index("project_event", doc! { "project_id": 1, "event.id": 1 }),
        index("received", doc! { "received_at": 1, "_id": 1, "state": 1 }),
        only_with("due_at", "due", doc! { "due_at": 1 }),
        only_with("due_at", "project_due", doc! { "project_id": 1, "due_at": 1, "_id": 1, "function_id": 1 }),
        only_with("owner", "owner", doc! { "owner": 1, "received_at": 1, "_id": 1 }),
        only_with("owed_at", "owed", doc! { "owed_at": 1, "_id": 1 }),
        expiring(),
    ];
    let logs = vec![unique("execution", doc! { "execution_id": 1, "attempt": 1, "sequence": 1 }), expiring()];
    vec![
        ("functions", functions),
        ("triggers", triggers),
        ("executions", executions),
        ("logs", logs),
        ("workers", vec![expiring()]),
        ("instances", vec![index("project_created", doc! { "project_id": 1, "created_at": 1, "_id": 1 })]),
        // What the driver's GridFS would make with its first file, and one for the packages' age.
        (
            "packages.files",
            vec![
                index("filename_1_uploadDate_1", doc! { "filename": 1, "uploadDate": 1 }),
                index("put_at", doc! { "metadata.put_at": 1 }),
            ],
        ),
        ("packages.chunks", vec![unique("files_id_1_n_1", doc! { "files_id": 1, "n": 1 })]),
    ]
}

/// Makes what is not there. Of many that do so at once all succeed.
pub(super) async fn migrate(database: &Database) -> Result<()> {
    for (collection, indexes) in indexes() {
        database.collection::<Document>(collection).create_indexes(indexes).await?;
    }
    Ok(())
}

/// The indexes that [`migrate`] would make, as `collection.name`. More of them than we know do no harm.
pub(super) async fn missing(database: &Database) -> Result<Vec<String>> {
    let there = database.list_collection_names().await?;
    let mut missing = Vec::new();
    for (collection, indexes) in indexes() {
        let known = if there.iter().any(|name| name == collection) {
            database.collection::<Document>(collection).list_index_names().await?
        } else {
            Vec::new()
        };
        let wanted = indexes.into_iter().filter_map(|index| index.options?.name);
        missing.extend(wanted.filter(|name| !known.contains(name)).map(|name| format!("{collection}.{name}")));
    }
    Ok(missing)
}
