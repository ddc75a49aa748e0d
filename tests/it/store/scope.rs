//! A tenant's query is bound to its project by the store, whatever the caller forgets.

use lambda_openstack::clock;
use lambda_openstack::model::Trigger;
use lambda_openstack::store::{
    Direction, ExecutionFilter, ExecutionSort, FunctionFilter, FunctionRef, FunctionSort, PageRequest, Scope,
    StoreError, TriggerFilter, TriggerSort,
};

use crate::support::databases::Database;
use crate::support::samples;

fn all<K>(sort: K) -> PageRequest<K> {
    PageRequest { limit: 10, marker: None, sort, direction: Direction::Ascending }
}

pub async fn another_projects_documents_are_not_found(Database { store, .. }: Database) {
    let function = samples::function("owner", "thumb");
    let trigger = samples::trigger(&function);
    let execution = samples::execution(&function);
    store.create_function(&function, std::slice::from_ref(&trigger)).await.unwrap();
    store.insert_executions(std::slice::from_ref(&execution)).await.unwrap();
    store.append_logs(&[samples::log_chunk(&execution, 1, 0, "secret")]).await.unwrap();
    store.put_instance(&samples::instance("owner")).await.unwrap();

    let (owner, stranger) = (Scope::Project(function.project_id.clone()), Scope::Project(samples::project("stranger")));
    let mut next = function.clone();
    next.revision = 2;
    let by_name = FunctionRef::Name(function.name.clone());
    let everything = (FunctionFilter::default(), TriggerFilter::default(), ExecutionFilter::default());
    let of_function = TriggerFilter { function_id: Some(function.id) };

    for (call, result) in [
        ("function by id", store.function(&stranger, &FunctionRef::Id(function.id)).await.map(drop)),
        ("function by name", store.function(&stranger, &by_name).await.map(drop)),
        ("replace_function", store.replace_function(&stranger, &next, 1).await),
        ("replace_function, unchanged", store.replace_function(&stranger, &function, 1).await),
        ("delete_function", store.delete_function(&stranger, function.id, None).await),
        ("delete_function, with its revision", store.delete_function(&stranger, function.id, Some(1)).await),
        ("trigger", store.trigger(&stranger, trigger.id).await.map(drop)),
        ("delete_trigger", store.delete_trigger(&stranger, trigger.id).await),
        ("create_trigger", {
            let foreign = Trigger { project_id: samples::project("stranger"), ..samples::trigger(&function) };
            store.create_trigger(&foreign).await
        }),
        ("execution", store.execution(&stranger, execution.id).await.map(drop)),
        ("log", store.log(&stranger, execution.id, None, 10).await.map(drop)),
    ] {
        assert!(matches!(result, Err(StoreError::NotFound(_))), "{call}: {result:?}");
    }
    for (call, count) in [
        ("functions", store.functions(&stranger, &everything.0, &all(FunctionSort::Name)).await.unwrap().items.len()),
        ("triggers", store.triggers(&stranger, &everything.1, &all(TriggerSort::CreatedAt)).await.unwrap().items.len()),
        (
            "triggers of the function",
            store.triggers(&stranger, &of_function, &all(TriggerSort::CreatedAt)).await.unwrap().items.len(),
        ),
        (
            "executions",
            store.executions(&stranger, &everything.2, &all(ExecutionSort::ReceivedAt)).await.unwrap().items.len(),
        ),
        ("project_triggers", store.project_triggers(&samples::project("stranger")).await.unwrap().len()),
        ("instances", store.instances(&stranger).await.unwrap().len()),
    ] {
        assert_eq!(count, 0, "{call}");
    }

    // The owner finds all of it, unchanged.
    assert_eq!(store.function(&owner, &by_name).await.unwrap(), function);
    assert_eq!(store.trigger(&owner, trigger.id).await.unwrap(), trigger);
    assert_eq!(store.execution(&owner, execution.id).await.unwrap(), execution);
    assert_eq!(store.log(&owner, execution.id, None, 10).await.unwrap().len(), 1);
    assert_eq!(store.instances(&owner).await.unwrap().len(), 1);
    // Workers see all projects' work.
    assert_eq!(store.due_executions(clock::now(), 10, &[]).await.unwrap(), [execution]);
}
