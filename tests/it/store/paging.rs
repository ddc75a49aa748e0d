//! Lists: orders, filters, and pages that stay stable while the list changes.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use lambda_openstack::model::{
    Execution, ExecutionId, ExecutionState, Function, FunctionId, Payload, Timestamp, WorkerId,
};
use lambda_openstack::store::{
    Direction, ExecutionFilter, ExecutionSort, FunctionFilter, FunctionSort, PageRequest, Scope, Store, StoreError,
    TriggerFilter, TriggerSort,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::executions::write;
use crate::support::databases::Database;
use crate::support::samples::{self, execution_at, failed, owned, running, succeeded};

fn request<K>(limit: usize, marker: Option<String>, sort: K, direction: Direction) -> PageRequest<K> {
    PageRequest { limit, marker, sort, direction }
}

async fn executions(store: &dyn Store, scope: &Scope, filter: &ExecutionFilter) -> Vec<ExecutionId> {
    let page = request(1000, None, ExecutionSort::ReceivedAt, Direction::Ascending);
    let page = store.executions(scope, filter, &page).await.unwrap();
    assert_eq!(page.next, None);
    page.items.iter().map(|execution| execution.id).collect()
}

pub async fn every_order_and_direction_gives_each_function_once(Database { store, .. }: Database) {
    let mut functions: Vec<Function> = Vec::new();
    for n in 0_i64..23 {
        let mut function = samples::function("p", &format!("name-{}", (n * 7) % 23));
        // Many have the same times, so that the id has to break ties.
        function.created_at = Timestamp::from_millis(1_795_000_000_000 + n / 5);
        function.updated_at = Timestamp::from_millis(1_795_000_000_000 + (n * 3) % 4);
        store.create_function(&function, &[]).await.unwrap();
        functions.push(function);
    }
    store.create_function(&samples::function("q", "foreign"), &[]).await.unwrap();
    let scope = Scope::Project(functions[0].project_id.clone());
    for sort in [FunctionSort::CreatedAt, FunctionSort::UpdatedAt, FunctionSort::Name] {
        functions.sort_by_key(|function| {
            let time = match sort {
                FunctionSort::CreatedAt => Some(function.created_at),
                FunctionSort::UpdatedAt => Some(function.updated_at),
                FunctionSort::Name => None,
            };
            (time, time.is_none().then(|| function.name.clone()), function.id)
        });
        for direction in [Direction::Ascending, Direction::Descending] {
            for limit in [1, 4, 22, 23, 24] {
                let (mut found, mut marker, mut pages) = (Vec::new(), None, 0);
                loop {
                    let page = request(limit, marker, sort, direction);
                    let page = store.functions(&scope, &FunctionFilter::default(), &page).await.unwrap();
                    assert!(page.items.len() <= limit && !page.items.is_empty());
                    found.extend(page.items);
                    pages += 1;
                    marker = page.next;
                    if marker.is_none() {
                        break;
                    }
                }
                if direction == Direction::Descending {
                    found.reverse();
                }
                assert!(found == functions, "{sort:?} {direction:?} {limit}");
                assert_eq!(pages, functions.len().div_ceil(limit), "no empty page at the end");
            }
        }
    }
}

/// While a reader walks the list, others insert, change and delete at random. Whatever was there all the time is seen
/// exactly once, nothing is seen twice, and the order holds.
pub async fn pages_of_executions_stay_stable_while_others_come_go_and_change(database: Database) {
    let store = &database.store;
    let function = samples::function("p", "thumb");
    let scope = Scope::Project(function.project_id.clone());
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let direction = if seed % 2 == 0 { Direction::Ascending } else { Direction::Descending };
        let base = 1_795_000_000_000 + i64::try_from(seed).unwrap() * 10_000;
        let received = |random: &mut StdRng| Timestamp::from_millis(base + random.random_range(0..30));
        let mut here: Vec<Execution> = (0..40).map(|_| execution_at(&function, received(&mut random))).collect();
        store.insert_executions(&here).await.unwrap();
        let mut always: HashSet<ExecutionId> = here.iter().map(|execution| execution.id).collect();
        let filter = ExecutionFilter {
            since: Some(Timestamp::from_millis(base)),
            until: Some(Timestamp::from_millis(base + 30)),
            ..ExecutionFilter::default()
        };
        let (mut seen, mut marker) = (Vec::new(), None);
        loop {
            let page = request(random.random_range(1..6), marker, ExecutionSort::ReceivedAt, direction);
            let page = store.executions(&scope, &filter, &page).await.unwrap();
            let last = page.items.last().map(|execution| execution.id);
            seen.extend(page.items.into_iter().map(|execution| (execution.received_at, execution.id)));
            marker = page.next;
            if marker.is_none() {
                break;
            }
            let new: Vec<_> = (0..3).map(|_| execution_at(&function, received(&mut random))).collect();
            store.insert_executions(&new).await.unwrap();
            here.extend(new);
            // The very element that the marker was made of may go.
            let gone = if random.random_bool(0.5) { last } else { here.choose(&mut random).map(|gone| gone.id) };
            let gone = gone.unwrap();
            delete(&database, gone).await;
            here.retain(|execution| execution.id != gone);
            always.remove(&gone);
            if let Some(changed) = here.iter_mut().find(|execution| execution.worker.is_none()) {
                let next = owned(changed, WorkerId::generate());
                assert_eq!(store.write_executions(&[write(changed, &next)]).await.unwrap(), [true]);
                *changed = next;
            }
        }
        let ids: BTreeSet<_> = seen.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), seen.len(), "seed {seed}: seen twice");
        assert!(always.iter().all(|id| ids.contains(id)), "seed {seed}: missed");
        let mut ordered = seen.clone();
        ordered.sort_unstable();
        if direction == Direction::Descending {
            ordered.reverse();
        }
        assert_eq!(seen, ordered, "seed {seed}");
    }
}

/// Nothing in the trait deletes one execution; retention does.
async fn delete(database: &Database, id: ExecutionId) {
    match database.sqlite_path() {
        Some(path) => {
            let file = rusqlite::Connection::open(path).unwrap();
            file.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
            assert_eq!(file.execute("DELETE FROM executions WHERE id = ?", [id.to_string()]).unwrap(), 1);
        }
        None => {
            let executions = database.mongo().await.collection::<mongodb::bson::Document>("executions");
            let deleted = executions.delete_one(mongodb::bson::doc! { "_id": id.to_string() }).await.unwrap();
            assert_eq!(deleted.deleted_count, 1);
        }
    }
}

pub async fn filters_of_executions_hold_together(Database { store, .. }: Database) {
    let (one, two, foreign) =
        (samples::function("p", "one"), samples::function("p", "two"), samples::function("q", "one"));
    let mut all = Vec::new();
    for (n, function) in [&one, &two, &foreign, &one, &one, &two].into_iter().enumerate() {
        let received = Timestamp::from_millis(1_795_000_000_000 + i64::try_from(n).unwrap());
        let started = running(&owned(&execution_at(function, received), WorkerId::generate()));
        all.push(match n {
            0 | 5 => succeeded(&started, received),
            1 | 3 => failed(&started, received, None),
            _ => started,
        });
    }
    store.insert_executions(&all).await.unwrap();
    let project = Scope::Project(one.project_id.clone());
    let at = |n: usize| Some(all[n].received_at);
    let any = ExecutionFilter::default();
    let of = |function: &Function| ExecutionFilter { function_id: Some(function.id), ..any.clone() };
    let states = |states: &[ExecutionState]| ExecutionFilter { states: states.to_vec(), ..any.clone() };
    use ExecutionState as S;
    for (scope, filter, expected) in [
        (&project, any.clone(), vec![0, 1, 3, 4, 5]),
        (&Scope::All, any.clone(), vec![0, 1, 2, 3, 4, 5]),
        (&project, of(&one), vec![0, 3, 4]),
        (&project, of(&foreign), vec![]),
        (&Scope::All, of(&foreign), vec![2]),
        (&project, states(&[S::Succeeded]), vec![0, 5]),
        (&project, states(&[S::Succeeded, S::Failed]), vec![0, 1, 3, 5]),
        (&project, states(&[S::Cancelled]), vec![]),
        (&Scope::All, states(&[S::Running]), vec![2, 4]),
        (&project, ExecutionFilter { since: at(1), until: at(5), ..any.clone() }, vec![1, 3, 4]),
        (&project, ExecutionFilter { since: at(3), ..of(&one) }, vec![3, 4]),
        (&project, ExecutionFilter { states: vec![S::Failed], ..of(&one) }, vec![3]),
        (&project, ExecutionFilter { event_id: Some(all[4].event.id.clone()), ..any.clone() }, vec![4]),
        (&project, ExecutionFilter { event_id: Some(all[2].event.id.clone()), ..any.clone() }, vec![]),
        (&project, ExecutionFilter { event_id: Some("'; --".to_owned()), ..any.clone() }, vec![]),
    ] {
        let expected: Vec<ExecutionId> = expected.into_iter().map(|n: usize| all[n].id).collect();
        assert_eq!(executions(&*store, scope, &filter).await, expected, "{filter:?}");
    }
}

pub async fn filters_of_functions_and_triggers_hold(Database { store, .. }: Database) {
    let (one, mut two) = (samples::function("p", "one"), samples::function("p", "two"));
    two.runtime = lambda_openstack::model::runtime::RuntimeName::parse("provided").unwrap();
    let (of_one, of_two) = (samples::trigger(&one), samples::trigger(&two));
    store.create_function(&one, std::slice::from_ref(&of_one)).await.unwrap();
    store.create_function(&two, std::slice::from_ref(&of_two)).await.unwrap();
    for (filter, expected) in [
        (FunctionFilter { name: Some(one.name.clone()), runtime: None }, vec![&one]),
        (FunctionFilter { name: None, runtime: Some("provided".to_owned()) }, vec![&two]),
        (FunctionFilter { name: Some(one.name.clone()), runtime: Some("provided".to_owned()) }, vec![]),
        (FunctionFilter { name: None, runtime: None }, vec![&one, &two]),
    ] {
        let page = request(10, None, FunctionSort::Name, Direction::Ascending);
        let found = store.functions(&Scope::All, &filter, &page).await.unwrap().items;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
    for (function_id, expected) in
        [(Some(two.id), vec![&of_two]), (Some(FunctionId::generate()), vec![]), (None, vec![&of_one, &of_two])]
    {
        let page = request(10, None, TriggerSort::CreatedAt, Direction::Ascending);
        let found = store.triggers(&Scope::All, &TriggerFilter { function_id }, &page).await.unwrap().items;
        let ids = |triggers: Vec<&lambda_openstack::model::Trigger>| {
            triggers.into_iter().map(|trigger| trigger.id).collect::<BTreeSet<_>>()
        };
        assert_eq!(ids(found.iter().collect()), ids(expected));
    }
}

pub async fn an_id_is_a_marker_and_a_wrong_marker_is_refused(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let mut all: Vec<_> =
        (0..4).map(|n| execution_at(&function, Timestamp::from_millis(1_795_000_000_000 + n))).collect();
    all[3] = execution_at(&samples::function("q", "thumb"), all[3].received_at);
    store.insert_executions(&all).await.unwrap();
    let scope = Scope::Project(function.project_id.clone());
    let filter = ExecutionFilter { states: vec![ExecutionState::Running], ..ExecutionFilter::default() };
    let page = |marker: &str| request(10, Some(marker.to_owned()), ExecutionSort::ReceivedAt, Direction::Ascending);
    let any = ExecutionFilter::default();
    let found = store.executions(&scope, &any, &page(&all[0].id.to_string())).await.unwrap();
    assert_eq!(found.items, all[1..3]);
    // The filter does not let the element through, but it has its place in the list.
    assert_eq!(store.executions(&scope, &filter, &page(&all[0].id.to_string())).await.unwrap().items, []);

    store.create_function(&function, &[]).await.unwrap();
    store.create_function(&samples::function("p", "other"), &[]).await.unwrap();
    let first = request(1, None, FunctionSort::Name, Direction::Ascending);
    let of_functions = store.functions(&scope, &FunctionFilter::default(), &first).await.unwrap().next.unwrap();
    let foreign = all[3].id.to_string();
    let absent = ExecutionId::generate().to_string();
    for bad in [foreign.as_str(), &absent, &of_functions, "", "x", "../..", "\u{0}", &"A".repeat(100_000)] {
        let refused = store.executions(&scope, &any, &page(bad)).await;
        assert!(matches!(refused, Err(StoreError::BadMarker)), "{bad:.80}: {refused:?}");
    }
    let other_order = request(1, Some(of_functions), FunctionSort::CreatedAt, Direction::Ascending);
    let refused = store.functions(&scope, &FunctionFilter::default(), &other_order).await;
    assert!(matches!(refused, Err(StoreError::BadMarker)), "{refused:?}");
}

pub async fn a_page_ends_early_when_it_grows_large(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let result = Payload::parse(Bytes::from(format!("\"{}\"", "x".repeat(6 << 20)))).unwrap();
    let mut all = Vec::new();
    for n in 0..5 {
        let started = running(&owned(
            &execution_at(&function, Timestamp::from_millis(1_795_000_000_000 + n)),
            WorkerId::generate(),
        ));
        let mut done = succeeded(&started, started.received_at);
        done.result = Some(result.clone());
        store.insert_executions(std::slice::from_ref(&done)).await.unwrap();
        all.push(done.id);
    }
    let (mut sizes, mut found, mut marker) = (Vec::new(), Vec::new(), None);
    loop {
        let page = request(100, marker, ExecutionSort::ReceivedAt, Direction::Ascending);
        let page = store.executions(&Scope::All, &ExecutionFilter::default(), &page).await.unwrap();
        sizes.push(page.items.len());
        found.extend(page.items.iter().map(|execution| execution.id));
        marker = page.next;
        if marker.is_none() {
            break;
        }
    }
    assert_eq!((found, sizes), (all, vec![2, 2, 1]));
}
