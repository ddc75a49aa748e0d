//! Functions and their triggers.

use std::sync::Arc;

use futures::future::join_all;
use lambda_openstack::model::{Function, FunctionId, Timestamp, Trigger};
use lambda_openstack::store::{
    Direction, FunctionRef, PageRequest, Result, Scope, Store, StoreError, TriggerFilter, TriggerSort,
};

use crate::support::databases::Database;
use crate::support::samples;

async fn read(store: &Arc<dyn Store>, id: FunctionId) -> Result<Function> {
    store.function(&Scope::All, &FunctionRef::Id(id)).await
}

fn changed(function: &Function, description: &str) -> Function {
    let mut next = function.clone();
    next.description = description.to_owned();
    next.revision += 1;
    next.updated_at = Timestamp::from_millis(next.updated_at.as_millis() + 1);
    next
}

pub async fn a_function_reads_back_as_it_was_written(Database { store, .. }: Database) {
    let full = samples::function("p", "full");
    let mut bare = samples::function("p", "bare");
    bare.environment = Default::default();
    bare.max_concurrency = None;
    bare.provisioned_concurrency = None;
    bare.dead_letter_queue = None;
    bare.package = None;
    for function in [&full, &bare] {
        store.create_function(function, &[]).await.unwrap();
        assert_eq!(read(&store, function.id).await.unwrap(), *function);
        let by_name = FunctionRef::Name(function.name.clone());
        let scope = Scope::Project(function.project_id.clone());
        assert_eq!(store.function(&scope, &by_name).await.unwrap(), *function);
    }
    let absent = read(&store, FunctionId::generate()).await;
    assert!(matches!(absent, Err(StoreError::NotFound("function"))), "{absent:?}");
}

pub async fn a_name_is_unique_in_its_project_and_free_in_others(Database { store, .. }: Database) {
    store.create_function(&samples::function("p", "thumb"), &[]).await.unwrap();
    let again = store.create_function(&samples::function("p", "thumb"), &[]).await;
    assert!(matches!(again, Err(StoreError::Taken("name"))), "{again:?}");
    store.create_function(&samples::function("q", "thumb"), &[]).await.unwrap();
    store.create_function(&samples::function("p", "Thumb"), &[]).await.unwrap();
}

pub async fn a_creation_that_is_refused_leaves_no_trigger(Database { store, .. }: Database) {
    store.create_function(&samples::function("p", "thumb"), &[]).await.unwrap();
    let second = samples::function("p", "thumb");
    let triggers = [samples::trigger(&second), samples::trigger(&second)];
    store.create_function(&second, &triggers).await.unwrap_err();
    assert!(store.project_triggers(&second.project_id).await.unwrap().is_empty());
    let found = store.trigger(&Scope::All, triggers[0].id).await;
    assert!(matches!(found, Err(StoreError::NotFound("trigger"))), "{found:?}");
}

pub async fn a_creation_that_is_repeated_succeeds_and_makes_nothing_twice(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let triggers = [samples::trigger(&function)];
    store.create_function(&function, &triggers).await.unwrap();
    store.create_function(&function, &triggers).await.unwrap();
    store.create_trigger(&triggers[0]).await.unwrap();
    assert_eq!(store.project_triggers(&function.project_id).await.unwrap(), triggers);
}

pub async fn of_many_creations_with_one_name_one_succeeds(Database { store, .. }: Database) {
    let functions: Vec<_> = (0..8).map(|_| samples::function("p", "thumb")).collect();
    let created = join_all(
        functions.iter().map(|function| async { store.create_function(function, &[samples::trigger(function)]).await }),
    )
    .await;
    assert_eq!(created.iter().filter(|result| result.is_ok()).count(), 1, "{created:?}");
    assert!(created.iter().all(|result| matches!(result, Ok(()) | Err(StoreError::Taken("name")))), "{created:?}");
    assert_eq!(store.project_triggers(&functions[0].project_id).await.unwrap().len(), 1);
}

pub async fn a_stale_revision_is_refused(Database { store, .. }: Database) {
    let first = samples::function("p", "thumb");
    store.create_function(&first, &[]).await.unwrap();
    let second = changed(&first, "second");
    store.replace_function(&Scope::All, &second, 1).await.unwrap();
    let stale = store.replace_function(&Scope::All, &changed(&first, "other"), 1).await;
    assert!(matches!(stale, Err(StoreError::Stale)), "{stale:?}");
    assert_eq!(read(&store, first.id).await.unwrap(), second);
    let absent = store.replace_function(&Scope::All, &samples::function("p", "x"), 1).await;
    assert!(matches!(absent, Err(StoreError::NotFound("function"))), "{absent:?}");
    let stale = store.delete_function(&Scope::All, first.id, Some(1)).await;
    assert!(matches!(stale, Err(StoreError::Stale)), "{stale:?}");
    store.delete_function(&Scope::All, first.id, Some(2)).await.unwrap();
}

pub async fn a_replacement_that_is_repeated_succeeds(Database { store, .. }: Database) {
    let first = samples::function("p", "thumb");
    store.create_function(&first, &[]).await.unwrap();
    let second = changed(&first, "second");
    store.replace_function(&Scope::All, &second, 1).await.unwrap();
    store.replace_function(&Scope::All, &second, 1).await.unwrap();
}

pub async fn of_many_replacements_of_one_revision_one_succeeds(Database { store, .. }: Database) {
    let first = samples::function("p", "thumb");
    store.create_function(&first, &[]).await.unwrap();
    let (store, first) = (&store, &first);
    let replaced = join_all(
        (0..8).map(|n| async move { store.replace_function(&Scope::All, &changed(first, &n.to_string()), 1).await }),
    )
    .await;
    assert_eq!(replaced.iter().filter(|result| result.is_ok()).count(), 1, "{replaced:?}");
    assert!(replaced.iter().all(|result| matches!(result, Ok(()) | Err(StoreError::Stale))), "{replaced:?}");
    let winner = replaced.iter().position(Result::is_ok).unwrap();
    assert_eq!(read(store, first.id).await.unwrap().description, winner.to_string());
}

pub async fn a_rename_to_a_taken_name_is_refused(Database { store, .. }: Database) {
    let (one, two) = (samples::function("p", "one"), samples::function("p", "two"));
    store.create_function(&one, &[]).await.unwrap();
    store.create_function(&two, &[]).await.unwrap();
    let mut renamed = changed(&two, "renamed");
    renamed.name = one.name.clone();
    let refused = store.replace_function(&Scope::All, &renamed, 1).await;
    assert!(matches!(refused, Err(StoreError::Taken("name"))), "{refused:?}");
    assert_eq!(read(&store, two.id).await.unwrap(), two);
}

pub async fn a_function_never_moves_to_another_project(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    store.create_function(&function, &[]).await.unwrap();
    let mut moved = changed(&function, "moved");
    moved.project_id = samples::project("q");
    store.replace_function(&Scope::All, &moved, 1).await.unwrap_err();
    assert_eq!(read(&store, function.id).await.unwrap(), function);
}

pub async fn deletion_takes_the_triggers_along_and_frees_the_name(Database { store, .. }: Database) {
    let (gone, kept) = (samples::function("p", "thumb"), samples::function("p", "kept"));
    let of_kept = samples::trigger(&kept);
    store.create_function(&gone, &[samples::trigger(&gone), samples::trigger(&gone)]).await.unwrap();
    store.create_function(&kept, std::slice::from_ref(&of_kept)).await.unwrap();
    store.delete_function(&Scope::All, gone.id, None).await.unwrap();
    assert_eq!(store.project_triggers(&gone.project_id).await.unwrap(), [of_kept]);
    let again = store.delete_function(&Scope::All, gone.id, None).await;
    assert!(matches!(again, Err(StoreError::NotFound("function"))), "{again:?}");
    store.create_function(&samples::function("p", "thumb"), &[]).await.unwrap();
}

pub async fn a_trigger_needs_a_function_of_its_project(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let trigger = samples::trigger(&function);
    let early = store.create_trigger(&trigger).await;
    assert!(matches!(early, Err(StoreError::NotFound("function"))), "{early:?}");
    store.create_function(&function, &[]).await.unwrap();
    let foreign = Trigger { project_id: samples::project("q"), ..samples::trigger(&function) };
    let foreign = store.create_trigger(&foreign).await;
    assert!(matches!(foreign, Err(StoreError::NotFound("function"))), "{foreign:?}");
    store.create_trigger(&trigger).await.unwrap();
    assert_eq!(store.trigger(&Scope::All, trigger.id).await.unwrap(), trigger);
    assert_eq!(read(&store, function.id).await.unwrap(), function);
    store.delete_trigger(&Scope::All, trigger.id).await.unwrap();
    let again = store.delete_trigger(&Scope::All, trigger.id).await;
    assert!(matches!(again, Err(StoreError::NotFound("trigger"))), "{again:?}");
}

pub async fn a_trigger_that_is_created_while_its_function_goes_is_not_left_behind(Database { store, .. }: Database) {
    for round in 0..10 {
        let function = samples::function("p", &format!("thumb{round}"));
        store.create_function(&function, &[]).await.unwrap();
        let triggers: Vec<_> = (0..4).map(|_| samples::trigger(&function)).collect();
        let create = join_all(triggers.iter().map(|trigger| store.create_trigger(trigger)));
        let (created, deleted) = tokio::join!(create, store.delete_function(&Scope::All, function.id, None));
        deleted.unwrap();
        for result in &created {
            assert!(matches!(result, Ok(()) | Err(StoreError::NotFound("function"))), "{created:?}");
        }
        assert_eq!(store.project_triggers(&function.project_id).await.unwrap(), []);
        let page =
            PageRequest { limit: 9, marker: None, sort: TriggerSort::CreatedAt, direction: Direction::Ascending };
        let listed = store.triggers(&Scope::All, &TriggerFilter::default(), &page).await.unwrap();
        assert_eq!(listed.items, []);
        for trigger in &triggers {
            store.trigger(&Scope::All, trigger.id).await.unwrap_err();
        }
    }
}

pub async fn the_triggers_of_a_project_are_all_there(Database { store, .. }: Database) {
    let (mine, other) = (samples::function("p", "thumb"), samples::function("q", "thumb"));
    let mut triggers: Vec<_> = (0..300).map(|_| samples::trigger(&mine)).collect();
    store.create_function(&mine, &triggers).await.unwrap();
    store.create_function(&other, &[samples::trigger(&other)]).await.unwrap();
    triggers.sort_by_key(|trigger| (trigger.created_at, trigger.id));
    assert_eq!(store.project_triggers(&mine.project_id).await.unwrap(), triggers);
    assert_eq!(store.function_triggers(&[mine.id]).await.unwrap(), triggers);
    assert_eq!(store.function_triggers(&[mine.id, other.id]).await.unwrap().len(), triggers.len() + 1);
    assert_eq!(store.function_triggers(&[]).await.unwrap(), []);
}

pub async fn functions_with_provisioned_concurrency_are_found_over_all_projects(Database { store, .. }: Database) {
    let (p, q) = (samples::function("p", "kept"), samples::function("q", "kept"));
    let mut without = samples::function("p", "without");
    without.provisioned_concurrency = None;
    for function in [&p, &q, &without] {
        store.create_function(function, &[]).await.unwrap();
    }
    let found = async |scope: &Scope| {
        let found = store.provisioned_functions(scope).await.unwrap();
        let mut ids: Vec<_> = found.into_iter().map(|function| function.id).collect();
        ids.sort();
        ids
    };
    let sorted = |mut ids: Vec<FunctionId>| {
        ids.sort();
        ids
    };
    assert_eq!(found(&Scope::All).await, sorted(vec![p.id, q.id]));
    assert_eq!(found(&Scope::Project(q.project_id.clone())).await, [q.id]);
    let (mut given_up, mut taken_up) = (changed(&p, "given up"), changed(&without, "taken up"));
    given_up.provisioned_concurrency = None;
    taken_up.provisioned_concurrency = std::num::NonZeroU32::new(1);
    for next in [&given_up, &taken_up] {
        store.replace_function(&Scope::All, next, 1).await.unwrap();
    }
    store.delete_function(&Scope::All, q.id, None).await.unwrap();
    assert_eq!(found(&Scope::All).await, [without.id]);
    assert_eq!(store.provisioned_functions(&Scope::All).await.unwrap(), [taken_up]);
}
