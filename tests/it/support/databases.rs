//! A database of its own for each test, gone when the test ends: a SQLite file, or a database on a real mongod.

use std::future::Future;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Once};
use std::time::Duration;

use futures::FutureExt as _;
use lambda_openstack::config::DatabaseOptions;
use lambda_openstack::store::mongo::MongoStore;
use lambda_openstack::store::{self, Retention, Store};
use uuid::Uuid;

/// A migrated, empty store.
#[derive(Clone)]
pub struct Database {
    /// The store, opened.
    pub store: Arc<dyn Store>,
    /// What it was opened with.
    pub options: DatabaseOptions,
    transactions: bool,
}

impl Database {
    async fn new(options: DatabaseOptions, transactions: bool) -> Self {
        let store = open(&options, transactions).await;
        store.migrate().await.unwrap();
        Self { store, options, transactions }
    }

    /// The same database as another process sees it.
    pub async fn open_again(&self) -> Arc<dyn Store> {
        open(&self.options, self.transactions).await
    }

    /// The path of the file, if it is SQLite.
    pub fn sqlite_path(&self) -> Option<&str> {
        self.options.connection.strip_prefix("sqlite://")
    }

    /// The database beneath, if it is MongoDB.
    pub async fn mongo(&self) -> mongodb::Database {
        let client = mongodb::Client::with_uri_str(&self.options.connection).await.unwrap();
        client.default_database().unwrap()
    }
}

async fn open(options: &DatabaseOptions, transactions: bool) -> Arc<dyn Store> {
    if transactions {
        return store::open(options).await.unwrap();
    }
    let retention = Retention {
        executions: Duration::from_secs(options.execution_retention),
        logs: Duration::from_secs(options.log_retention),
    };
    let timeout = Duration::from_secs(options.timeout);
    Arc::new(MongoStore::open(&options.connection, timeout, retention).await.unwrap().without_transactions())
}

fn options(connection: String) -> DatabaseOptions {
    // Longer than in production: the machine may be busy with all the other tests.
    DatabaseOptions { connection, timeout: 60, ..DatabaseOptions::default() }
}

/// Runs a test on a SQLite file.
pub async fn with_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Database) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lambda.sqlite");
    test(Database::new(options(format!("sqlite://{}", path.display())), true).await).await;
}

/// Runs a test on a database of its own on the mongod of `MONGODB_URI`, and drops it.
pub async fn with_mongo<F: Future<Output = ()>>(test: impl FnOnce(Database) -> F) {
    on_mongod(true, test).await;
}

/// Like [`with_mongo`], for a store that makes do without transactions.
pub async fn with_mongo_without_transactions<F: Future<Output = ()>>(test: impl FnOnce(Database) -> F) {
    on_mongod(false, test).await;
}

async fn on_mongod<F: Future<Output = ()>>(transactions: bool, test: impl FnOnce(Database) -> F) {
    let Some(uri) = mongodb_uri() else { return };
    let name = format!("lambda_test_{}", Uuid::new_v4().simple());
    let database = Database::new(options(with_database(&uri, &name)), transactions).await;
    let beneath = database.mongo().await;
    let result = AssertUnwindSafe(test(database)).catch_unwind().await;
    beneath.drop().await.unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// The connection string of the tests' mongod; none when the tests that need it were opted out of by name.
#[expect(clippy::disallowed_methods, reason = "how the tests are run is no configuration of the service")]
pub fn mongodb_uri() -> Option<String> {
    if let Ok(uri) = std::env::var("MONGODB_URI") {
        return Some(uri);
    }
    assert!(
        std::env::var("LAMBDA_TEST_SKIP_MONGO").as_deref() == Ok("1"),
        "this test needs a MongoDB. `make test` starts one; by hand:\n    \
         tests/cloud/mongo.sh up && export MONGODB_URI=\"$(tests/cloud/mongo.sh uri)\"\n\
         LAMBDA_TEST_SKIP_MONGO=1 leaves out all tests that need it."
    );
    // Not by `eprintln!`, which the test harness swallows when a test passes.
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let _ = writeln!(std::io::stderr(), "SKIPPED: nothing is tested on MongoDB, as LAMBDA_TEST_SKIP_MONGO=1 says");
    });
    None
}

/// A connection string with the name of a database in its path.
fn with_database(uri: &str, name: &str) -> String {
    let (scheme, rest) = uri.split_once("://").expect("MONGODB_URI has a scheme");
    let (hosts, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let query = rest.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
    format!("{scheme}://{hosts}/{name}{query}")
}

/// Waits until a condition holds, at most two minutes; fails then, naming it.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let end = tokio::time::Instant::now() + Duration::from_secs(120);
    while !condition().await {
        assert!(tokio::time::Instant::now() < end, "still waiting until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn the_name_of_a_database_goes_between_hosts_and_options() {
    for (uri, expected) in [
        ("mongodb://a:1", "mongodb://a:1/n"),
        ("mongodb://a:1/", "mongodb://a:1/n"),
        ("mongodb://a:1,b:2/x?y=z", "mongodb://a:1,b:2/n?y=z"),
        ("mongodb://u:p@a:1/?replicaSet=rs0", "mongodb://u:p@a:1/n?replicaSet=rs0"),
    ] {
        assert_eq!(with_database(uri, "n"), expected);
    }
}
