//! Workers and instances.

use std::time::Duration;

use futures::future::join_all;
use lambda_openstack::clock;
use lambda_openstack::model::execution::Change;
use lambda_openstack::model::instance::{Instance, InstanceState};
use lambda_openstack::model::worker::{Worker, WorkerState};
use lambda_openstack::model::{InstanceId, Timestamp, WorkerId};
use lambda_openstack::store::{Scope, Store, StoreError};

use super::executions::write;
use crate::support::databases::{Database, eventually};
use crate::support::samples::{self, after, owned, running};

const LONG: Duration = Duration::from_secs(3600);

async fn find(store: &dyn Store, id: WorkerId) -> Option<(Worker, Duration)> {
    store.workers().await.unwrap().into_iter().find(|(worker, _)| worker.id == id)
}

pub async fn a_heartbeat_is_dated_by_the_store(Database { store, .. }: Database) {
    let mut worker = samples::worker();
    // Whatever this machine's clock says.
    worker.heartbeat_at = Timestamp::from_millis(1);
    store.heartbeat(&worker).await.unwrap();
    let (found, age) = find(&*store, worker.id).await.unwrap();
    assert!(clock::now().since(found.heartbeat_at) < LONG, "{found:?}");
    assert!(age < LONG, "{age:?}");
    assert_eq!(found, Worker { heartbeat_at: found.heartbeat_at, ..worker.clone() });

    let beat = found.heartbeat_at;
    worker.state = WorkerState::Draining;
    worker.executions = 0;
    eventually("the heartbeat is newer", || async {
        store.heartbeat(&worker).await.unwrap();
        find(&*store, worker.id).await.unwrap().0.heartbeat_at > beat
    })
    .await;
    let (found, _) = find(&*store, worker.id).await.unwrap();
    assert_eq!((found.state, found.executions), (WorkerState::Draining, 0));
    eventually("the heartbeat grows old", || async {
        find(&*store, worker.id).await.unwrap().1 > Duration::from_millis(20)
    })
    .await;
    assert_eq!(store.workers().await.unwrap().len(), 1);
}

pub async fn a_silent_worker_is_declared_dead_once_and_stays_dead(Database { store, .. }: Database) {
    let worker = samples::worker();
    store.heartbeat(&worker).await.unwrap();
    assert!(!store.declare_dead(worker.id, LONG).await.unwrap());
    let silent = Duration::from_millis(30);
    eventually("it was silent long enough", || async { store.declare_dead(worker.id, silent).await.unwrap() }).await;
    assert_eq!(find(&*store, worker.id).await.unwrap().0.state, WorkerState::Dead);
    // Whoever asks again, having lost the answer, hears the same.
    assert!(store.declare_dead(worker.id, LONG).await.unwrap());
    for _ in 0..2 {
        let late = store.heartbeat(&worker).await;
        assert!(matches!(late, Err(StoreError::Stale)), "{late:?}");
    }
    assert_eq!(find(&*store, worker.id).await.unwrap().0.state, WorkerState::Dead);
}

pub async fn a_worker_that_beats_is_not_declared_dead(database: Database) {
    let store = &database.store;
    let worker = samples::worker();
    let beats = async {
        for _ in 0..50 {
            store.heartbeat(&worker).await.unwrap();
        }
    };
    let watch = async {
        for _ in 0..50 {
            // A beat is some milliseconds old at most: far less than this.
            assert!(!store.declare_dead(worker.id, Duration::from_secs(20)).await.unwrap());
        }
    };
    store.heartbeat(&worker).await.unwrap();
    tokio::join!(beats, watch);
}

pub async fn a_worker_that_is_not_known_can_be_declared_dead(Database { store, .. }: Database) {
    let worker = samples::worker();
    let declared = join_all((0..4).map(|_| store.declare_dead(worker.id, LONG))).await;
    assert!(declared.iter().all(|declared| matches!(declared, Ok(true))), "{declared:?}");
    let first = store.heartbeat(&worker).await;
    assert!(matches!(first, Err(StoreError::Stale)), "{first:?}");
    assert!(find(&*store, worker.id).await.is_none());
}

pub async fn a_forgotten_worker_is_refused(Database { store, .. }: Database) {
    let (gone, kept) = (samples::worker(), samples::worker());
    store.heartbeat(&gone).await.unwrap();
    store.heartbeat(&kept).await.unwrap();
    for _ in 0..2 {
        store.delete_worker(gone.id).await.unwrap();
    }
    store.delete_worker(WorkerId::generate()).await.unwrap();
    let late = store.heartbeat(&gone).await;
    assert!(matches!(late, Err(StoreError::Stale)), "{late:?}");
    let left: Vec<_> = store.workers().await.unwrap().into_iter().map(|(worker, _)| worker.id).collect();
    assert_eq!(left, [kept.id]);
}

pub async fn a_worker_that_owns_something_is_not_forgotten(Database { store, .. }: Database) {
    let worker = samples::worker();
    store.heartbeat(&worker).await.unwrap();
    let taken = owned(&samples::execution(&samples::function("p", "thumb")), worker.id);
    store.insert_executions(std::slice::from_ref(&taken)).await.unwrap();
    let refused = store.delete_worker(worker.id).await;
    assert!(matches!(refused, Err(StoreError::Stale)), "{refused:?}");
    store.heartbeat(&worker).await.unwrap();
    let released = after(&taken, Change::Release);
    assert_eq!(store.write_executions(&[write(&taken, &released)]).await.unwrap(), [true]);
    store.delete_worker(worker.id).await.unwrap();
}

pub async fn what_a_dead_worker_owned_is_adopted_once(database: Database) {
    let dead = WorkerId::generate();
    let started = running(&owned(&samples::execution(&samples::function("p", "thumb")), dead));
    database.store.insert_executions(std::slice::from_ref(&started)).await.unwrap();
    // It was forgotten, or never known: what it owns is found all the same.
    assert_eq!(database.store.owners().await.unwrap(), [dead]);
    assert!(database.store.declare_dead(dead, LONG).await.unwrap());

    let other = database.open_again().await;
    let adopt = [&database.store, &other].map(|store| {
        let heir = WorkerId::generate();
        let next = owned(&after(&started, Change::Release), heir);
        let write = write(&started, &next);
        async move { (heir, store.write_executions(&[write]).await.unwrap() == [true]) }
    });
    let heirs: Vec<_> = join_all(adopt).await.into_iter().filter(|(_, won)| *won).map(|(heir, _)| heir).collect();
    assert_eq!(heirs.len(), 1);
    assert_eq!(database.store.owners().await.unwrap(), heirs);
    // The worker was only slow: its result is refused.
    let late = samples::succeeded(&started, clock::now());
    assert_eq!(database.store.write_executions(&[write(&started, &late)]).await.unwrap(), [false]);
    let found = database.store.execution(&Scope::All, started.id).await.unwrap();
    assert_eq!((found.worker, found.interruptions), (Some(heirs[0]), 1));
}

pub async fn instances_are_kept_and_forgotten(Database { store, .. }: Database) {
    let (mut mine, other) = (samples::instance("p"), samples::instance("q"));
    store.put_instance(&mine).await.unwrap();
    store.put_instance(&other).await.unwrap();
    mine.state = InstanceState::Draining;
    mine.error = None;
    mine.ready_at = None;
    store.put_instance(&mine).await.unwrap();
    let scope = Scope::Project(samples::project("p"));
    assert_eq!(store.instances(&scope).await.unwrap(), [mine.clone()]);
    assert_eq!(store.instances(&Scope::All).await.unwrap().len(), 2);
    // One of the pool is nobody's until it is given away.
    let mut ready = Instance { project_id: None, ..samples::instance("p") };
    store.put_instance(&ready).await.unwrap();
    assert_eq!(store.instances(&scope).await.unwrap(), [mine.clone()]);
    ready.project_id.clone_from(&mine.project_id);
    store.put_instance(&ready).await.unwrap();
    assert_eq!(store.instances(&scope).await.unwrap().len(), 2);
    store.delete_instance(ready.id).await.unwrap();
    for id in [mine.id, mine.id, InstanceId::generate()] {
        store.delete_instance(id).await.unwrap();
    }
    assert_eq!(store.instances(&Scope::All).await.unwrap(), [other]);
}

pub async fn a_deployment_has_one_name_for_all_who_ask(database: Database) {
    let other = database.open_again().await;
    let asked = join_all((0..8).map(|n| {
        let store = if n % 2 == 0 { &database.store } else { &other };
        async { store.deployment().await.unwrap() }
    }));
    let names = asked.await;
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    assert_eq!(other.deployment().await.unwrap(), names[0]);
}
