//! A first measure of both stores, to be run by name: `cargo test --test it measure -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use lambda_openstack::clock;
use lambda_openstack::model::WorkerId;

use super::executions::write;
use crate::support::databases::{Database, with_mongo, with_sqlite};
use crate::support::samples::{self, execution, owned, running, succeeded};

async fn measure(name: &str, Database { store, .. }: Database) {
    let functions: Vec<_> = (0..10).map(|n| samples::function(&format!("p{n}"), "thumb")).collect();
    for concurrency in [1, 8] {
        let worker = WorkerId::generate();
        let taken: Vec<_> =
            (0..1000).map(|n| running(&owned(&execution(&functions[n % functions.len()]), worker))).collect();
        let rate = |count: usize, took: Duration| format!("{:.0}/s", count as f64 / took.as_secs_f64());
        let begun = Instant::now();
        stream::iter(taken.chunks(20))
            .for_each_concurrent(concurrency, |batch| async {
                assert_eq!(store.insert_executions(batch).await.unwrap().new.len(), batch.len());
            })
            .await;
        let inserted = rate(1000, begun.elapsed());
        let writes: Vec<_> = taken.iter().map(|before| write(before, &succeeded(before, clock::now()))).collect();
        let begun = Instant::now();
        stream::iter(writes.chunks(100))
            .for_each_concurrent(concurrency, |batch| async {
                assert!(store.write_executions(batch).await.unwrap().iter().all(|applied| *applied));
            })
            .await;
        let written = rate(1000, begun.elapsed());
        let begun = Instant::now();
        stream::iter(writes.chunks(100))
            .for_each_concurrent(concurrency, |batch| async {
                assert!(store.write_executions(batch).await.unwrap().iter().all(|applied| *applied));
            })
            .await;
        let repeated = rate(1000, begun.elapsed());
        let singles: Vec<_> = (0..500).map(|n| execution(&functions[n % functions.len()])).collect();
        let begun = Instant::now();
        stream::iter(&singles)
            .for_each_concurrent(concurrency, |one| async {
                store.insert_executions(std::slice::from_ref(one)).await.unwrap();
            })
            .await;
        let single = rate(singles.len(), begun.elapsed());
        let begun = Instant::now();
        for _ in 0..100 {
            assert_eq!(store.due_executions(clock::now(), 20, &[]).await.unwrap().len(), 20);
        }
        let due = begun.elapsed() / 100;
        println!(
            "{name}, {concurrency} at a time: insert by 20 {inserted}, write by 100 {written}, the same repeated \
             {repeated}, insert one by one {single}; 20 due of 10 projects in {due:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measure, not a test"]
async fn measure_sqlite() {
    with_sqlite(|database| measure("SQLite", database)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measure, not a test"]
async fn measure_mongo() {
    with_mongo(|database| measure("MongoDB", database)).await;
}
