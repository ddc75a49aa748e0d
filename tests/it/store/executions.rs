//! Executions as records, and the fence around their changes.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use lambda_openstack::clock;
use lambda_openstack::model::execution::{Change, Fence, Measures, WaitingFor};
use lambda_openstack::model::{Execution, ExecutionId, ExecutionState, Payload, WorkerId};
use lambda_openstack::store::{ExecutionWrite, Inserted, Scope, Store, StoreError};

use crate::support::databases::Database;
use crate::support::samples::{self, after, failed, owned, running, succeeded};

pub fn write(before: &Execution, next: &Execution) -> ExecutionWrite {
    ExecutionWrite { expected: before.fence(), next: next.clone() }
}

async fn read(store: &dyn Store, id: ExecutionId) -> Execution {
    store.execution(&Scope::All, id).await.unwrap()
}

pub async fn an_execution_reads_back_in_every_state(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let parked = samples::execution(&function);
    store.insert_executions(std::slice::from_ref(&parked)).await.unwrap();
    assert_eq!(read(&*store, parked.id).await, parked);
    let taken = owned(&parked, WorkerId::generate());
    let started = running(&taken);
    let now = clock::now();
    let retried = after(
        &started,
        Change::Retry { failure: samples::failure(&started), measures: Measures::default(), not_before: now },
    );
    let again = running(&owned(&retried, WorkerId::generate()));
    let dead = failed(&again, now, Some("dead"));
    let posted = after(&dead, Change::DeadLetterPosted { at: now });
    let redriven = after(&posted, Change::Redrive { at: now, deadline: now + Duration::from_secs(9) });
    let done = succeeded(&running(&owned(&redriven, WorkerId::generate())), now);
    let mut before = parked;
    for next in [taken, started, retried, again, dead, posted, redriven, done] {
        assert_eq!(store.write_executions(&[write(&before, &next)]).await.unwrap(), [true], "{next:?}");
        assert_eq!(read(&*store, next.id).await, next);
        before = next;
    }
    let absent = store.execution(&Scope::All, ExecutionId::generate()).await;
    assert!(matches!(absent, Err(StoreError::NotFound("execution"))), "{absent:?}");
}

pub async fn what_is_inserted_twice_is_known_and_unchanged(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let first: Vec<_> = (0..3).map(|_| samples::execution(&function)).collect();
    let ids = |executions: &[Execution]| executions.iter().map(|execution| execution.id).collect::<Vec<_>>();
    let inserted = store.insert_executions(&first).await.unwrap();
    assert_eq!(inserted, Inserted { new: ids(&first), known: vec![] });

    let new = samples::execution(&function);
    let mut other = owned(&first[1], WorkerId::generate());
    other.payload = Payload::parse(Bytes::from_static(b"0")).unwrap();
    // Twice in one call, too.
    let mixed = [other.clone(), new.clone(), first[2].clone(), new.clone()];
    let inserted = store.insert_executions(&mixed).await.unwrap();
    assert_eq!(inserted, Inserted { new: vec![new.id], known: vec![other.id, first[2].id, new.id] });
    assert_eq!(read(&*store, other.id).await, first[1]);
    assert_eq!(store.insert_executions(&[]).await.unwrap(), Inserted::default());
}

pub async fn of_many_who_insert_the_same_each_execution_is_new_to_one(database: Database) {
    let function = samples::function("p", "thumb");
    let executions: Vec<_> = (0..40).map(|_| samples::execution(&function)).collect();
    let other = database.open_again().await;
    let stores = [&database.store, &other, &database.store, &other];
    let inserted = join_all(stores.map(|store| store.insert_executions(&executions))).await;
    let new: Vec<ExecutionId> = inserted.into_iter().flat_map(|inserted| inserted.unwrap().new).collect();
    assert_eq!(new.len(), executions.len());
    assert_eq!(new.into_iter().collect::<HashSet<_>>().len(), executions.len());
}

pub async fn a_write_is_refused_unless_worker_attempt_and_state_are_as_expected(Database { store, .. }: Database) {
    let worker = WorkerId::generate();
    let function = samples::function("p", "thumb");
    let parked = samples::execution(&function);
    let started = running(&owned(&parked, worker));
    let done = succeeded(&started, clock::now());
    store.insert_executions(std::slice::from_ref(&started)).await.unwrap();
    let right = started.fence();
    for wrong in [
        Fence { worker: None, ..right },
        Fence { worker: Some(WorkerId::generate()), ..right },
        Fence { attempt: right.attempt + 1, ..right },
        Fence { attempt: right.attempt - 1, ..right },
        Fence { state: ExecutionState::Queued, ..right },
        Fence { state: ExecutionState::Succeeded, ..right },
    ] {
        let write = ExecutionWrite { expected: wrong, next: done.clone() };
        assert_eq!(store.write_executions(&[write]).await.unwrap(), [false], "{wrong:?}");
        assert_eq!(read(&*store, done.id).await, started);
    }
    let absent = samples::execution(&function);
    let taken = owned(&absent, worker);
    assert_eq!(store.write_executions(&[write(&absent, &taken)]).await.unwrap(), [false]);
    store.execution(&Scope::All, absent.id).await.unwrap_err();
    assert_eq!(store.write_executions(&[write(&started, &done)]).await.unwrap(), [true]);
}

pub async fn a_write_that_is_repeated_says_that_it_was_applied(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let parked = samples::execution(&function);
    let taken = owned(&parked, WorkerId::generate());
    store.insert_executions(std::slice::from_ref(&parked)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(store.write_executions(&[write(&parked, &taken)]).await.unwrap(), [true]);
    }
    // The same expectation and another outcome is another write.
    let other = owned(&parked, WorkerId::generate());
    assert_eq!(store.write_executions(&[write(&parked, &other)]).await.unwrap(), [false]);
    assert_eq!(read(&*store, taken.id).await, taken);
}

pub async fn a_write_that_was_followed_by_another_is_not_taken_for_applied(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let parked = samples::execution(&function);
    store.insert_executions(std::slice::from_ref(&parked)).await.unwrap();
    let taken = owned(&parked, WorkerId::generate());
    let released = after(&taken, Change::Release);
    let taken_by_other = owned(&released, WorkerId::generate());
    for (before, next) in [(&parked, &taken), (&taken, &released), (&released, &taken_by_other)] {
        assert_eq!(store.write_executions(&[write(before, next)]).await.unwrap(), [true]);
    }
    // The first owner, whose answer was lost, asks again: it must not think that it owns the execution.
    assert_eq!(store.write_executions(&[write(&parked, &taken)]).await.unwrap(), [false]);
    assert_eq!(read(&*store, parked.id).await, taken_by_other);
}

pub async fn each_write_of_a_batch_has_its_own_answer(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let parked: Vec<_> = (0..60).map(|_| samples::execution(&function)).collect();
    store.insert_executions(&parked).await.unwrap();
    let (mine, other) = (WorkerId::generate(), WorkerId::generate());
    let lost: Vec<_> = parked.iter().step_by(3).map(|execution| write(execution, &owned(execution, other))).collect();
    assert!(store.write_executions(&lost).await.unwrap().into_iter().all(|applied| applied));

    let mine: Vec<_> = parked.iter().map(|execution| write(execution, &owned(execution, mine))).collect();
    let expected: Vec<bool> = (0..60).map(|n| n % 3 != 0).collect();
    assert_eq!(store.write_executions(&mine).await.unwrap(), expected);
    // All of it again, as after a lost answer.
    assert_eq!(store.write_executions(&mine).await.unwrap(), expected);
    assert_eq!(store.write_executions(&[]).await.unwrap(), Vec::<bool>::new());
}

pub async fn a_batch_may_be_larger_than_one_command(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let worker = WorkerId::generate();
    let started: Vec<_> = (0..5).map(|_| running(&owned(&samples::execution(&function), worker))).collect();
    store.insert_executions(&started).await.unwrap();
    let result = Payload::parse(Bytes::from(format!("\"{}\"", "x".repeat(3 << 20)))).unwrap();
    let done = |execution: &Execution| {
        let change = Change::Succeed { at: clock::now(), result: result.clone(), measures: Measures::default() };
        write(execution, &after(execution, change))
    };
    let writes: Vec<_> = started.iter().map(done).collect();
    assert_eq!(store.write_executions(&writes).await.unwrap(), [true; 5]);
    for write in &writes {
        assert!(read(&*store, write.next.id).await == write.next);
    }
}

pub async fn two_workers_who_race_for_executions_each_win_others(database: Database) {
    let function = samples::function("p", "thumb");
    let parked: Vec<_> = (0..100).map(|_| samples::execution(&function)).collect();
    database.store.insert_executions(&parked).await.unwrap();
    let other = database.open_again().await;
    let race = [&database.store, &other].map(|store| async move {
        let worker = WorkerId::generate();
        let mut won = Vec::new();
        loop {
            let due = store.due_executions(clock::now(), 7, &[]).await.unwrap();
            if due.is_empty() {
                return (worker, won);
            }
            let writes: Vec<_> = due.iter().map(|execution| write(execution, &owned(execution, worker))).collect();
            let applied = store.write_executions(&writes).await.unwrap();
            won.extend(due.iter().zip(applied).filter(|(_, applied)| *applied).map(|(execution, _)| execution.id));
        }
    });
    let results = join_all(race).await;
    let all: HashSet<ExecutionId> = results.iter().flat_map(|(_, won)| won.iter().copied()).collect();
    assert_eq!(results.iter().map(|(_, won)| won.len()).sum::<usize>(), 100);
    assert_eq!(all.len(), 100);
    for (worker, won) in results {
        let owned = database.store.owned_executions(worker, 1000).await.unwrap();
        assert_eq!(owned.len(), won.len());
        assert!(owned.iter().all(|execution| execution.waiting_for == Some(WaitingFor::Sandbox)));
    }
}
