//! What only a file can show.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use lambda_openstack::clock;
use lambda_openstack::config::DatabaseOptions;
use lambda_openstack::model::{Execution, Timestamp, WorkerId};
use lambda_openstack::store::{self, ExecutionFilter, Scope, StoreError};

use crate::support::databases::{Database, with_sqlite};
use crate::support::samples::{self, execution_at, failed, owned, running, succeeded};

#[tokio::test]
async fn the_file_survives_being_opened_anew_and_is_private() {
    with_sqlite(|database| async move {
        let Database { store, options, .. } = database.clone();
        let execution = samples::execution(&samples::function("p", "thumb"));
        store.insert_executions(std::slice::from_ref(&execution)).await.unwrap();
        drop(store);
        let path = database.sqlite_path().unwrap();
        // As after a careless copy.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let store = store::open(&options).await.unwrap();
        store.migrate().await.unwrap();
        assert_eq!(store.execution(&Scope::All, execution.id).await.unwrap(), execution);
        for name in [path.to_owned(), format!("{path}-wal")] {
            assert_eq!(std::fs::metadata(&name).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_answered_is_in_the_file_though_nothing_was_closed() {
    with_sqlite(|database| async move {
        let executions: Vec<Execution> =
            (0..20).map(|_| samples::execution(&samples::function("p", "thumb"))).collect();
        database.store.insert_executions(&executions).await.unwrap();
        // The files as a kill -9 at this moment would leave them.
        let path = database.sqlite_path().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let copied = copy.path().join("copy.sqlite");
        std::fs::copy(path, &copied).unwrap();
        std::fs::copy(format!("{path}-wal"), copy.path().join("copy.sqlite-wal")).unwrap();
        let connection = format!("sqlite://{}", copied.display());
        let store = store::open(&DatabaseOptions { connection, ..database.options }).await.unwrap();
        for execution in &executions {
            assert_eq!(store.execution(&Scope::All, execution.id).await.unwrap(), *execution);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_finished_and_old_expires_and_nothing_else() {
    with_sqlite(|Database { store, .. }| async move {
        let function = samples::function("p", "thumb");
        let old = clock::now() - Duration::from_secs(100);
        let cut = clock::now() - Duration::from_secs(50);
        let started = |at: Timestamp| {
            running(&owned(&execution_at(&function, at - Duration::from_secs(9)), WorkerId::generate()))
        };
        let gone: Vec<_> = (0..1203).map(|_| succeeded(&started(old), old)).collect();
        let kept = [
            succeeded(&started(old), clock::now()),
            failed(&started(old), old, Some("dead")),
            started(old),
            execution_at(&function, old),
        ];
        store.insert_executions(&gone).await.unwrap();
        store.insert_executions(&kept).await.unwrap();
        store.append_logs(&[samples::log_chunk(&kept[0], 1, 0, "x")]).await.unwrap();
        assert_eq!(store.expire(cut, cut).await.unwrap(), 1203);
        assert_eq!(store.expire(cut, cut).await.unwrap(), 0);
        for execution in &kept {
            assert_eq!(store.execution(&Scope::All, execution.id).await.unwrap(), *execution);
        }
        let expired = store.execution(&Scope::All, gone[7].id).await;
        assert!(matches!(expired, Err(StoreError::NotFound("execution"))), "{expired:?}");
        assert_eq!(store.log(&Scope::All, kept[0].id, None, 9).await.unwrap().len(), 1);
        store.expire(cut, clock::now() + Duration::from_secs(1)).await.unwrap();
        assert_eq!(store.log(&Scope::All, kept[0].id, None, 9).await.unwrap(), []);
        let page = store::PageRequest {
            limit: 10,
            marker: None,
            sort: store::ExecutionSort::ReceivedAt,
            direction: store::Direction::Ascending,
        };
        assert_eq!(store.executions(&Scope::All, &ExecutionFilter::default(), &page).await.unwrap().items.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_path_that_cannot_be_used_is_refused_with_a_reason() {
    let open = |connection: &str| {
        let options = DatabaseOptions { connection: connection.to_owned(), ..DatabaseOptions::default() };
        async move {
            let error = store::open(&options).await.err().unwrap();
            lambda_openstack::task::chain(&error)
        }
    };
    assert!(open("sqlite://relative.sqlite").await.contains("absolute"));
    assert!(open("sqlite:///proc/none/x.sqlite").await.contains("/proc/none/x.sqlite"));
    let directory = tempfile::tempdir().unwrap();
    assert!(open(&format!("sqlite://{}", directory.path().display())).await.contains("cannot be opened"));
    let file = directory.path().join("text");
    std::fs::write(&file, "this is a text and certainly no database, whatever one may think of it").unwrap();
    assert!(open(&format!("sqlite://{}", file.display())).await.contains("not a database"));
}
