//! What only a server can show.

use std::time::Duration;

use lambda_openstack::clock;
use lambda_openstack::config::DatabaseOptions;
use lambda_openstack::model::{Execution, WorkerId};
use lambda_openstack::store::{self, Scope, StoreError};
use lambda_openstack::task::chain;
use mongodb::bson::{Document, doc};

use crate::support::databases::{Database, eventually, with_mongo};
use crate::support::samples::{self, execution_at, failed, owned, running, succeeded};

#[tokio::test]
async fn what_is_finished_and_old_expires_and_nothing_else() {
    with_mongo(|database| async move {
        let function = samples::function("p", "thumb");
        let old = clock::now() - Duration::from_secs(40 * 86_400);
        let started = || running(&owned(&execution_at(&function, old), WorkerId::generate()));
        let gone = succeeded(&started(), old);
        let kept = [
            succeeded(&started(), clock::now()),
            failed(&started(), old, Some("dead")),
            started(),
            execution_at(&function, old),
        ];
        // Old when it is inserted, or by a write.
        let by_write = started();
        let store = &database.store;
        store.insert_executions(&[gone.clone(), by_write.clone()]).await.unwrap();
        store.insert_executions(&kept).await.unwrap();
        let done = succeeded(&by_write, old);
        let write = super::executions::write(&by_write, &done);
        assert_eq!(store.write_executions(&[write]).await.unwrap(), [true]);
        for id in [gone.id, done.id] {
            eventually("the finished one is gone", || async {
                matches!(store.execution(&Scope::All, id).await, Err(StoreError::NotFound("execution")))
            })
            .await;
        }
        for execution in &kept {
            assert_eq!(store.execution(&Scope::All, execution.id).await.unwrap(), *execution);
        }
        assert_eq!(store.expire(clock::now(), clock::now()).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn logs_expire_by_the_retention_that_the_store_was_opened_with() {
    with_mongo(|database| async move {
        let options = DatabaseOptions { log_retention: 0, ..database.options.clone() };
        let forgetful = store::open(&options).await.unwrap();
        let execution = samples::execution(&samples::function("p", "thumb"));
        let store = &database.store;
        store.insert_executions(std::slice::from_ref(&execution)).await.unwrap();
        store.append_logs(&[samples::log_chunk(&execution, 1, 0, "kept")]).await.unwrap();
        forgetful.append_logs(&[samples::log_chunk(&execution, 1, 1, "gone")]).await.unwrap();
        eventually("one is gone", || async { store.log(&Scope::All, execution.id, None, 9).await.unwrap().len() == 1 })
            .await;
        let left = store.log(&Scope::All, execution.id, None, 9).await.unwrap();
        assert_eq!(left[0].lines[0].text, "kept");
    })
    .await;
}

/// The plan of a query must be a walk along an index that reads no more than it finds.
#[tokio::test]
async fn what_is_asked_all_the_time_is_answered_from_an_index() {
    with_mongo(|database| async move {
        let function = samples::function("p", "thumb");
        let executions: Vec<Execution> = (0..50).map(|_| samples::execution(&function)).collect();
        database.store.insert_executions(&executions).await.unwrap();
        let beneath = database.mongo().await;
        let now = mongodb::bson::DateTime::from_millis(clock::now().as_millis() + 60_000);
        for (what, query, stage) in [
            (
                "projects with something due",
                doc! { "distinct": "executions", "key": "project_id", "query": { "project_id": { "$gte": "" }, "due_at": { "$lte": now } } },
                "DISTINCT_SCAN",
            ),
            (
                "owners",
                doc! { "distinct": "executions", "key": "owner", "query": { "owner": { "$gte": "" } } },
                "DISTINCT_SCAN",
            ),
            (
                "one project's due",
                doc! { "find": "executions", "sort": { "due_at": 1, "_id": 1 }, "limit": 5, "projection": { "_id": 1 },
                       "filter": { "project_id": "p", "due_at": { "$lte": now }, "function_id": { "$nin": ["x"] } } },
                "PROJECTION_COVERED",
            ),
            (
                "the next due",
                doc! { "find": "executions", "sort": { "due_at": 1 }, "limit": 1, "projection": { "_id": 0, "due_at": 1 },
                       "filter": { "due_at": { "$exists": true } } },
                "IXSCAN",
            ),
            (
                "owned by a worker",
                doc! { "find": "executions", "sort": { "received_at": 1, "_id": 1 }, "limit": 5,
                       "filter": { "owner": "w" } },
                "IXSCAN",
            ),
            (
                "owing a dead letter",
                doc! { "find": "executions", "sort": { "owed_at": 1, "_id": 1 }, "limit": 5,
                       "filter": { "owed_at": { "$lt": now } } },
                "IXSCAN",
            ),
            (
                "a project's list",
                doc! { "find": "executions", "sort": { "received_at": -1, "_id": -1 }, "limit": 5,
                       "filter": { "$and": [{ "project_id": "p", "state": { "$in": ["queued", "failed"] } },
                                            { "received_at": { "$lte": now } }] } },
                "IXSCAN",
            ),
        ] {
            let explained: Document =
                beneath.run_command(doc! { "explain": query, "verbosity": "queryPlanner" }).await.unwrap();
            let plan = explained.get_document("queryPlanner").unwrap().get_document("winningPlan").unwrap().to_string();
            assert!(plan.contains(stage), "{what}: {plan}");
            assert!(!plan.contains("COLLSCAN") && !plan.contains("\"SORT\""), "{what}: {plan}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable_within_the_timeout() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let connection = format!("mongodb://user:hunter2@127.0.0.1:{port}/lambda");
    let options = DatabaseOptions { connection, timeout: 1, ..DatabaseOptions::default() };
    let store = store::open(&options).await.unwrap();
    let begun = std::time::Instant::now();
    for result in [store.ping().await, store.heartbeat(&samples::worker()).await] {
        let error = result.unwrap_err();
        assert!(error.retryable(), "{error:?}");
        assert!(!chain(&error).contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_connection_string_that_is_not_valid_is_not_shown() {
    for connection in [
        "mongodb://user:hunter2@/x",
        "mongodb://user:hunter2@h:1",
        "mongodb://user:hunter2@h:1/",
        "mongodb://user:hunter2:extra@h:1/x",
        "mongodb://user:hunter2@h:port/x",
        "mongodb://user:hunter2@h/x?hunter2=hunter2",
        "mysql://user:hunter2@h/x",
        "hunter2",
        "",
    ] {
        let options = DatabaseOptions { connection: connection.to_owned(), ..DatabaseOptions::default() };
        let error = store::open(&options).await.err().unwrap();
        assert!(matches!(error, StoreError::Unexpected(_)), "{connection}");
        assert!(!chain(&error).contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

/// The server refuses for a while, as during an election; the store says so, and the repeated call finds its own work.
#[tokio::test]
async fn a_write_whose_answer_was_lost_is_recognised_when_it_is_repeated() {
    with_mongo(|database: Database| async move {
        let store = &database.store;
        let admin = database.mongo().await.client().database("admin");
        let fail = |command: &str, mode: Document| {
            doc! { "configureFailPoint": "failCommand", "mode": mode, "data": {
                "failCommands": [command], "appName": "lambda-lost",
                "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" },
            } }
        };
        let with_name = |connection: &str| {
            let separator = if connection.contains('?') { '&' } else { '?' };
            format!("{connection}{separator}appName=lambda-lost")
        };
        let options =
            DatabaseOptions { connection: with_name(&database.options.connection), ..database.options.clone() };
        let unlucky = store::open(&options).await.unwrap();
        let execution = samples::execution(&samples::function("p", "thumb"));
        store.insert_executions(std::slice::from_ref(&execution)).await.unwrap();
        let next = owned(&execution, WorkerId::generate());
        let write = super::executions::write(&execution, &next);
        // A mongod that is not ours may not let tests break it.
        if admin.run_command(fail("update", doc! { "times": 1 })).await.is_err() {
            eprintln!("SKIPPED: this mongod has no fail points");
            return;
        }
        let lost = unlucky.write_executions(std::slice::from_ref(&write)).await;
        admin.run_command(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await.unwrap();
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
        assert_eq!(unlucky.write_executions(&[write]).await.unwrap(), [true]);
        assert_eq!(store.execution(&Scope::All, next.id).await.unwrap(), next);
    })
    .await;
}
