//! Logs.

use lambda_openstack::store::{Scope, StoreError};

use crate::support::databases::Database;
use crate::support::samples;

pub async fn a_log_is_read_in_order_from_any_place(Database { store, .. }: Database) {
    let function = samples::function("p", "thumb");
    let (execution, other) = (samples::execution(&function), samples::execution(&function));
    let early = store.log(&Scope::All, execution.id, None, 10).await;
    assert!(matches!(early, Err(StoreError::NotFound("execution"))), "{early:?}");
    store.insert_executions(&[execution.clone(), other.clone()]).await.unwrap();
    assert_eq!(store.log(&Scope::All, execution.id, None, 10).await.unwrap(), []);

    // Sequence 10 comes after 9, not after 1.
    let places: Vec<_> = (0..12).map(|sequence| (1, sequence)).chain([(2, 0), (2, 1), (10, 0)]).collect();
    let chunks: Vec<_> =
        places.iter().map(|(attempt, sequence)| samples::log_chunk(&execution, *attempt, *sequence, "ü\0")).collect();
    let mut shuffled = chunks.clone();
    shuffled.rotate_left(7);
    shuffled.push(samples::log_chunk(&other, 1, 0, "another's"));
    store.append_logs(&shuffled).await.unwrap();
    store.append_logs(&[]).await.unwrap();
    assert_eq!(store.log(&Scope::All, execution.id, None, 100).await.unwrap(), chunks);
    assert_eq!(store.log(&Scope::All, execution.id, None, 3).await.unwrap(), chunks[..3]);
    assert_eq!(store.log(&Scope::All, execution.id, None, 0).await.unwrap(), []);
    for (behind, place) in places.iter().enumerate() {
        let found = store.log(&Scope::All, execution.id, Some(*place), 100).await.unwrap();
        assert_eq!(found, chunks[behind + 1..], "{place:?}");
    }
    assert_eq!(store.log(&Scope::All, execution.id, Some((1, 99)), 1).await.unwrap(), chunks[12..13]);
}

pub async fn a_part_that_is_sent_again_replaces_the_first(Database { store, .. }: Database) {
    let execution = samples::execution(&samples::function("p", "thumb"));
    store.insert_executions(std::slice::from_ref(&execution)).await.unwrap();
    let first = [samples::log_chunk(&execution, 1, 0, "first"), samples::log_chunk(&execution, 1, 1, "kept")];
    store.append_logs(&first).await.unwrap();
    let again = [samples::log_chunk(&execution, 1, 0, "second"), samples::log_chunk(&execution, 1, 2, "new")];
    store.append_logs(&again).await.unwrap();
    let found = store.log(&Scope::All, execution.id, None, 10).await.unwrap();
    assert_eq!(found, [again[0].clone(), first[1].clone(), again[1].clone()]);
}
