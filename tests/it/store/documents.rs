//! Documents of other releases, and migrations.

use futures::future::join_all;
use lambda_openstack::model::{Execution, Function};
use lambda_openstack::store::{FunctionRef, Scope};
use mongodb::bson::{Document, doc};
use rusqlite::Connection;

use crate::support::databases::Database;
use crate::support::samples;

pub async fn migrating_twice_and_at_once_changes_nothing(database: Database) {
    let function = samples::function("p", "thumb");
    database.store.create_function(&function, &[]).await.unwrap();
    let stores = join_all((0..4).map(|_| database.open_again())).await;
    let migrated = join_all(stores.iter().map(|store| store.migrate())).await;
    assert!(migrated.iter().all(Result::is_ok), "{migrated:?}");
    let found = stores[3].function(&Scope::All, &FunctionRef::Id(function.id)).await.unwrap();
    assert_eq!(found, function);
    stores[0].ping().await.unwrap();
}

/// Writes a function and an execution, changes their documents behind the store's back, reads them.
async fn reads_after(
    database: &Database,
    json: impl Fn(&str) -> String,
    mongo: Document,
    mongo_function: Document,
) -> (Function, Execution) {
    let function = samples::function("p", "thumb");
    let execution = samples::execution(&function);
    database.store.create_function(&function, &[]).await.unwrap();
    database.store.insert_executions(std::slice::from_ref(&execution)).await.unwrap();
    match database.sqlite_path() {
        Some(path) => {
            let file = Connection::open(path).unwrap();
            let changed = [
                format!("UPDATE functions SET document = {}", json("document")),
                format!("UPDATE executions SET record = {}", json("record")),
                format!("UPDATE inputs SET fixed = {}", json("fixed")),
            ]
            .map(|sql| file.execute(&sql, ()).unwrap());
            assert_eq!(changed, [1, 1, 1]);
        }
        None => {
            let beneath = database.mongo().await;
            for (collection, change) in [("functions", mongo_function), ("executions", mongo)] {
                let changed = beneath.collection::<Document>(collection).update_one(doc! {}, change).await.unwrap();
                assert_eq!(changed.modified_count, 1, "{collection}");
            }
        }
    }
    let read_function = database.store.function(&Scope::All, &FunctionRef::Id(function.id)).await.unwrap();
    let read_execution = database.store.execution(&Scope::All, execution.id).await.unwrap();
    assert_eq!((read_function.id, read_execution.id), (function.id, execution.id));
    (read_function, read_execution)
}

pub async fn a_document_of_an_earlier_release_reads(database: Database) {
    let without = ["attempts_forgiven", "interruptions", "measures", "redrives", "description", "max_concurrency"];
    let paths = without.map(|name| format!(", '$.{name}'")).concat();
    let unset = |names: &[&str]| {
        let names: Document = names.iter().map(|name| ((*name).to_owned(), "".into())).collect();
        doc! { "$unset": names }
    };
    let (function, execution) = reads_after(
        &database,
        |column| format!("json_remove({column}{paths})"),
        unset(&without[..4]),
        unset(&without[4..]),
    )
    .await;
    assert_eq!((function.description.as_str(), function.max_concurrency), ("", None));
    assert_eq!((execution.redrives, execution.measures.log_bytes), (0, 0));
}

pub async fn a_document_of_a_later_release_reads(database: Database) {
    let later = doc! { "$set": { "later": { "than": ["this"] }, "later_at": mongodb::bson::DateTime::now() } };
    let (function, execution) = reads_after(
        &database,
        |column| format!("json_set({column}, '$.later', json('{{\"than\": [1]}}'))"),
        later.clone(),
        later,
    )
    .await;
    assert_eq!(function.description, samples::function("p", "thumb").description);
    // What this release writes does not stumble over it either.
    let next = samples::owned(&execution, lambda_openstack::model::WorkerId::generate());
    let write = super::executions::write(&execution, &next);
    assert_eq!(database.store.write_executions(&[write]).await.unwrap(), [true]);
    assert_eq!(database.store.execution(&Scope::All, next.id).await.unwrap(), next);
}
