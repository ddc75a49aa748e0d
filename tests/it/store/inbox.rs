//! What is due, owned and owed.

use std::time::Duration;

use lambda_openstack::clock;
use lambda_openstack::model::execution::{Change, WaitingFor};
use lambda_openstack::model::{Execution, Function, Timestamp, WorkerId};
use lambda_openstack::store::Store;

use super::executions::write;
use crate::support::databases::Database;
use crate::support::samples::{self, after, execution_at, failed, owned, running, succeeded};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + seconds * 1000)
}

async fn insert(store: &dyn Store, executions: &[Execution]) {
    assert_eq!(store.insert_executions(executions).await.unwrap().new.len(), executions.len());
}

async fn change(store: &dyn Store, before: &Execution, next: &Execution) {
    assert_eq!(store.write_executions(&[write(before, next)]).await.unwrap(), [true]);
}

fn of(project: &str, received: &[i64]) -> Vec<Execution> {
    let function = samples::function(project, "thumb");
    received.iter().map(|seconds| execution_at(&function, at(*seconds))).collect()
}

pub async fn only_what_is_parked_and_due_is_found(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let due = execution_at(&function, at(-5));
    let exactly = execution_at(&function, at(0));
    let later = execution_at(&function, at(1));
    let taken = owned(&execution_at(&function, at(-9)), WorkerId::generate());
    let started = running(&taken.clone());
    let started = Execution { id: lambda_openstack::model::ExecutionId::generate(), ..started };
    let done = succeeded(&running(&owned(&execution_at(&function, at(-9)), WorkerId::generate())), at(-8));
    insert(&*store, &[later, exactly.clone(), due.clone(), taken, started, done]).await;
    let found = store.due_executions(at(0), 10, &[]).await.unwrap();
    assert_eq!(found, [due.clone(), exactly]);
    assert_eq!(store.due_executions(at(0), 1, &[]).await.unwrap(), std::slice::from_ref(&due));
    assert_eq!(store.due_executions(at(0), 0, &[]).await.unwrap(), []);
    assert_eq!(store.due_executions(at(-6), 10, &[]).await.unwrap(), []);

    // Parked again, it is due later.
    let parked = after(&due, Change::Park { not_before: at(60), waiting_for: WaitingFor::FunctionLimit });
    change(&*store, &due, &parked).await;
    assert!(!store.due_executions(at(59), 10, &[]).await.unwrap().contains(&parked));
    assert!(store.due_executions(at(60), 10, &[]).await.unwrap().contains(&parked));
}

pub async fn the_longest_due_comes_first_and_projects_take_turns(Database { store, .. }: Database) {
    let flood = of("flood", &[-90, -80, -70, -60, -50, -40, -30, -20]);
    let single = of("single", &[-1]);
    let pair = of("pair", &[-2, -3]);
    for executions in [&flood, &single, &pair] {
        insert(&*store, executions).await;
    }
    let found = store.due_executions(at(0), 6, &[]).await.unwrap();
    assert_eq!(found.len(), 6);
    // One of each before any gets two, each project's oldest first.
    let mut first: Vec<_> = found[..3].to_vec();
    first.sort_by_key(|execution| execution.received_at);
    assert_eq!(first, [flood[0].clone(), pair[1].clone(), single[0].clone()]);
    let mut second: Vec<_> = found[3..5].to_vec();
    second.sort_by_key(|execution| execution.received_at);
    assert_eq!(second, [flood[1].clone(), pair[0].clone()]);
    assert_eq!(found[5], flood[2]);
}

pub async fn the_next_call_goes_on_with_the_next_project(Database { store, .. }: Database) {
    let names: Vec<String> = (0..20).map(|n| format!("project-{n:02}")).collect();
    for name in &names {
        insert(&*store, &of(name, &[-3, -2, -1])).await;
    }
    let mut served = Vec::new();
    for _ in 0..4 {
        let found = store.due_executions(at(0), 5, &[]).await.unwrap();
        served.extend(found.into_iter().map(|execution| execution.project_id.to_string()));
    }
    served.sort_unstable();
    assert_eq!(served, names);
}

pub async fn functions_that_cannot_run_do_not_hide_others(Database { store, .. }: Database) {
    let (full, free) = (samples::function("p", "full"), samples::function("p", "free"));
    let received = |function: &Function, seconds| execution_at(function, at(seconds));
    let waiting: Vec<_> = (0..50).map(|n| received(&full, n - 100)).collect();
    let other = received(&free, -1);
    insert(&*store, &waiting).await;
    insert(&*store, std::slice::from_ref(&other)).await;
    // A project that has nothing else must not use up a place either.
    let elsewhere = of("q", &[-500]);
    insert(&*store, &elsewhere).await;
    let without = [full.id, elsewhere[0].function_id];
    assert_eq!(store.due_executions(at(0), 5, &without).await.unwrap(), [other]);
    assert_eq!(store.due_executions(at(0), 100, &[]).await.unwrap().len(), 52);
}

pub async fn the_next_due_time_is_that_of_the_first_that_is_parked(Database { store, .. }: Database) {
    assert_eq!(store.next_due().await.unwrap(), None);
    let executions = of("p", &[30, 10, 20]);
    insert(&*store, &executions).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(10)));
    change(&*store, &executions[1], &owned(&executions[1], WorkerId::generate())).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(20)));
}

pub async fn what_a_worker_owns_is_found_until_it_is_finished(Database { store, .. }: Database) {
    let (mine, other) = (WorkerId::generate(), WorkerId::generate());
    let parked = of("p", &[-1, -2, -3, -4]);
    insert(&*store, &parked).await;
    assert_eq!(store.owners().await.unwrap(), []);
    for (execution, worker) in parked.iter().zip([mine, mine, mine, other]) {
        change(&*store, execution, &owned(execution, worker)).await;
    }
    let taken: Vec<_> = parked[..3].iter().rev().map(|execution| owned(execution, mine)).collect();
    assert_eq!(store.owned_executions(mine, 10).await.unwrap(), taken);
    assert_eq!(store.owned_executions(mine, 2).await.unwrap(), taken[..2]);
    assert_eq!(store.owned_executions(mine, 0).await.unwrap(), []);
    let mut owners = store.owners().await.unwrap();
    owners.sort_unstable();
    let mut expected = [mine, other];
    expected.sort_unstable();
    assert_eq!(owners, expected);

    let started = running(&taken[0]);
    change(&*store, &taken[0], &started).await;
    assert_eq!(store.owned_executions(mine, 10).await.unwrap().len(), 3);
    change(&*store, &started, &succeeded(&started, clock::now())).await;
    change(&*store, &taken[1], &after(&taken[1], Change::Release)).await;
    assert_eq!(store.owned_executions(mine, 10).await.unwrap(), taken[2..]);
    change(&*store, &taken[2], &failed(&taken[2], clock::now(), None)).await;
    assert_eq!(store.owners().await.unwrap(), [other]);
}

pub async fn a_dead_letter_is_owed_until_it_is_posted(Database { store, .. }: Database) {
    let worker = WorkerId::generate();
    let started: Vec<_> = of("p", &[-9, -8, -7]).iter().map(|parked| running(&owned(parked, worker))).collect();
    insert(&*store, &started).await;
    let early = failed(&started[0], at(-5), Some("dead"));
    let late = failed(&started[1], at(-2), Some("dead"));
    let silent = failed(&started[2], at(-5), None);
    for (before, next) in started.iter().zip([&early, &late, &silent]) {
        change(&*store, before, next).await;
    }
    assert_eq!(store.owing_dead_letters(at(0), 10).await.unwrap(), [early.clone(), late.clone()]);
    assert_eq!(store.owing_dead_letters(at(0), 1).await.unwrap(), std::slice::from_ref(&early));
    assert_eq!(store.owing_dead_letters(at(-2), 10).await.unwrap(), std::slice::from_ref(&early));
    assert_eq!(store.owing_dead_letters(at(-5), 10).await.unwrap(), []);
    change(&*store, &early, &after(&early, Change::DeadLetterPosted { at: at(0) })).await;
    assert_eq!(store.owing_dead_letters(at(0), 10).await.unwrap(), [late]);
}

pub async fn a_redriven_execution_is_in_the_inbox_again(Database { store, .. }: Database) {
    let started = running(&owned(&of("p", &[-9])[0], WorkerId::generate()));
    let dead = failed(&started, at(-5), Some("dead"));
    insert(&*store, std::slice::from_ref(&dead)).await;
    assert_eq!(store.owners().await.unwrap(), []);
    let redriven = after(&dead, Change::Redrive { at: at(0), deadline: at(0) + Duration::from_secs(60) });
    change(&*store, &dead, &redriven).await;
    assert_eq!(store.owing_dead_letters(at(9), 10).await.unwrap(), []);
    assert_eq!(store.due_executions(at(0), 10, &[]).await.unwrap(), [redriven]);
}
