//! Triggers on projects' own queues, who looks at the queues, and the secret that all share.

use futures::future::join_all;
use lambda_openstack::clock;
use lambda_openstack::model::trigger::queue::{
    BatchSize, QueueBinding, QueueFault, QueueKey, QueueStatus, SourceQueue,
};
use lambda_openstack::model::{Function, Trigger, WorkerId};
use lambda_openstack::store::{Scope, StoreError};

use crate::support::databases::Database;
use crate::support::samples;

fn on_queue(function: &Function, queue: &str) -> Trigger {
    let name = SourceQueue::parse(queue).unwrap();
    let batch_size = BatchSize::new(7).unwrap();
    let trust_id = Some("$trust.1".to_owned());
    let queue = QueueBinding { name, batch_size, trust_id, status: QueueStatus::Pending };
    Trigger { queue: Some(queue), ..samples::trigger(function) }
}

fn key(project: &str, queue: &str) -> QueueKey {
    QueueKey { project_id: samples::project(project), queue: SourceQueue::parse(queue).unwrap() }
}

pub async fn triggers_on_queues_are_found_over_all_projects(Database { store, .. }: Database) {
    let (mine, other) = (samples::function("p", "a"), samples::function("q", "b"));
    let first = on_queue(&mine, "orders.v1");
    store.create_function(&mine, &[samples::trigger(&mine), first.clone()]).await.unwrap();
    store.create_function(&other, &[]).await.unwrap();
    let second = on_queue(&other, "orders.v1");
    store.create_trigger(&second).await.unwrap();
    assert_eq!(store.queue_triggers().await.unwrap(), [first.clone(), second.clone()]);
    store.delete_function(&Scope::All, mine.id, None).await.unwrap();
    assert_eq!(store.queue_triggers().await.unwrap(), [second]);
}

pub async fn how_a_queue_goes_is_kept_with_its_trigger(Database { store, .. }: Database) {
    let function = samples::function("p", "a");
    let (on_platform, own) = (samples::trigger(&function), on_queue(&function, "orders"));
    store.create_function(&function, &[on_platform.clone(), own.clone()]).await.unwrap();
    for status in [
        QueueStatus::Active { since: clock::now() },
        QueueStatus::Error { since: clock::now(), reason: QueueFault::TrustInvalid, message: "$no.".to_owned() },
    ] {
        store.set_queue_status(own.id, &status).await.unwrap();
        let found = store.trigger(&Scope::All, own.id).await.unwrap();
        let queue = QueueBinding { status, ..own.queue.clone().unwrap() };
        assert_eq!(found, Trigger { queue: Some(queue), ..own.clone() });
        // The creation that is repeated finds its own work.
        store.create_trigger(&own).await.unwrap();
    }
    let platform = store.set_queue_status(on_platform.id, &QueueStatus::Pending).await;
    assert!(matches!(platform, Err(StoreError::NotFound("trigger"))), "{platform:?}");
    store.delete_trigger(&Scope::All, own.id).await.unwrap();
    let gone = store.set_queue_status(own.id, &QueueStatus::Pending).await;
    assert!(matches!(gone, Err(StoreError::NotFound("trigger"))), "{gone:?}");
}

pub async fn of_many_who_take_a_queue_one_has_it(Database { store, .. }: Database) {
    let queue = key("p", "orders");
    let workers: Vec<_> = (0..8).map(|_| WorkerId::generate()).collect();
    for round in 0..3 {
        let from = store.queue_owners().await.unwrap().first().map(|(_, owner)| *owner);
        assert_eq!(from.is_some(), round > 0);
        let racing = workers.iter().filter(|worker| Some(**worker) != from);
        let taken = join_all(racing.map(|worker| async {
            let took = store.take_queue(&queue, from, *worker).await.unwrap();
            took.then_some(*worker)
        }))
        .await;
        let winners: Vec<_> = taken.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(store.queue_owners().await.unwrap(), [(queue.clone(), winners[0])]);
        // The same call again, its first answer lost.
        assert!(store.take_queue(&queue, from, winners[0]).await.unwrap());
    }
}

pub async fn a_queue_is_released_by_its_owner_only(Database { store, .. }: Database) {
    let (mine, other) = (WorkerId::generate(), WorkerId::generate());
    let queues = [key("p", "orders"), key("p", "orders.2"), key("q", "orders")];
    for queue in &queues {
        assert!(store.take_queue(queue, None, mine).await.unwrap());
        store.release_queue(queue, other).await.unwrap();
    }
    assert_eq!(store.queue_owners().await.unwrap().len(), 3);
    store.release_queue(&queues[0], mine).await.unwrap();
    store.release_queue(&queues[0], mine).await.unwrap();
    let left: Vec<_> = store.queue_owners().await.unwrap().into_iter().map(|(queue, _)| queue).collect();
    assert_eq!(left, queues[1..]);
    assert!(!store.take_queue(&queues[0], Some(mine), other).await.unwrap(), "it is nobody's");
    assert!(store.take_queue(&queues[0], None, other).await.unwrap());
}

pub async fn the_first_secret_stays(Database { store, .. }: Database) {
    let kept = join_all(["a", "b", "c"].map(|fresh| store.posting_secret(fresh))).await;
    let kept: Vec<_> = kept.into_iter().map(Result::unwrap).collect();
    assert!(kept.iter().all(|secret| *secret == kept[0]), "{kept:?}");
    assert_eq!(store.posting_secret("d").await.unwrap(), kept[0]);
}
