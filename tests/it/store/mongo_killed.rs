//! A mongod of the test's own is killed while the store writes to it.

use std::cell::{Cell, RefCell};
use std::process::Stdio;
use std::time::Duration;

use lambda_openstack::config::DatabaseOptions;
use lambda_openstack::model::{Execution, WorkerId};
use lambda_openstack::store::{self, Result, Scope};

use super::executions::write;
use crate::support::databases::{eventually, mongodb_uri};
use crate::support::samples::{self, owned};

/// A mongod with a port and a directory of its own, gone with this.
struct Mongod {
    port: u16,
    target: tempfile::TempDir,
}

impl Mongod {
    fn script(&self, verb: &str) -> std::process::Command {
        let mut script = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cloud/mongo.sh"));
        script.arg(verb).stdin(Stdio::null()).env_remove("MONGODB_URI");
        script.env("LAMBDA_TEST_MONGO_PORT", self.port.to_string()).env("CARGO_TARGET_DIR", self.target.path());
        script
    }

    async fn run(&self, verb: &str) {
        let status = tokio::process::Command::from(self.script(verb)).status().await.unwrap();
        assert!(status.success(), "mongo.sh {verb}: {status}");
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let _ = self.script("down").status();
    }
}

/// Repeats a call for as long as the database is away, counting how often it was.
async fn persist<T, F: Future<Output = Result<T>>>(away: &Cell<u32>, call: impl Fn() -> F) -> T {
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) if error.retryable() => away.set(away.get() + 1),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_and_what_is_repeated_is_recognised() {
    if mongodb_uri().is_none() {
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mongod = Mongod { port, target: tempfile::tempdir().unwrap() };
    mongod.run("up").await;
    let connection = format!("mongodb://127.0.0.1:{port}/lambda?replicaSet=rs0");
    // Short, so that calls are given up while mongod is away.
    let store = store::open(&DatabaseOptions { connection, timeout: 1, ..DatabaseOptions::default() }).await.unwrap();
    let away = Cell::new(0);
    persist(&away, || store.migrate()).await;
    let function = samples::function("p", "thumb");
    let worker = WorkerId::generate();

    let done = Cell::new(0_u32);
    let killed = Cell::new(false);
    let (away, kept) = (Cell::new(0), RefCell::new(Vec::<Execution>::new()));
    let work = async {
        while !killed.get() {
            let batch: Vec<_> = (0..5).map(|_| samples::execution(&function)).collect();
            let inserted = persist(&away, || store.insert_executions(&batch)).await;
            assert_eq!(inserted.new.len() + inserted.known.len(), batch.len());
            let taken: Vec<_> = batch.iter().map(|parked| owned(parked, worker)).collect();
            let writes: Vec<_> = batch.iter().zip(&taken).map(|(parked, taken)| write(parked, taken)).collect();
            assert_eq!(persist(&away, || store.write_executions(&writes)).await, [true; 5]);
            kept.borrow_mut().extend(taken);
            done.set(done.get() + 1);
        }
    };
    let kills = async {
        for _ in 0..3 {
            let before = done.get();
            eventually("some more is written", || async { done.get() > before + 10 }).await;
            mongod.run("kill9").await;
            let failures = away.get();
            eventually("a call has failed", || async { away.get() > failures }).await;
            mongod.run("start").await;
        }
        killed.set(true);
    };
    tokio::time::timeout(Duration::from_secs(300), async { tokio::join!(work, kills) }).await.unwrap();

    assert!(away.get() >= 3);
    let kept = kept.into_inner();
    for execution in &kept {
        let found = persist(&away, || store.execution(&Scope::All, execution.id)).await;
        assert_eq!(found, *execution);
    }
    let owned = persist(&away, || store.owned_executions(worker, 100_000)).await;
    assert_eq!(owned.len(), kept.len());
}
