//! A MongoDB, and databases of ours in it that hold many records: one function and one execution are made by the service
//! itself, and their documents are written again and again, each with ids, name and time of its own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::stream::FuturesUnordered;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::{Client, Collection};
use serde_json::json;
use uuid::Uuid;

use crate::bench::Bench;
use crate::service::{PATIENCE, Standalone, invocations};

/// Documents in one insertion.
const BATCH: u32 = 5000;

/// A MongoDB.
pub struct Mongo {
    uri: String,
    client: Client,
}

/// What stands in a database.
pub struct Records {
    /// The connection string, with the database.
    pub connection: String,
    /// Ids of some of the functions.
    pub functions: Vec<String>,
    /// Ids of some of the executions.
    pub executions: Vec<String>,
}

async fn script(bench: &Bench, what: &str) -> Result<String> {
    let mut script = tokio::process::Command::new(bench.root.join("tests/cloud/mongo.sh"));
    let output = script.arg(what).stderr(Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "mongo.sh {what}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

impl Mongo {
    /// The one that is given, or one that is started; whoever started the measures ends it.
    pub async fn up(bench: &Bench) -> Result<Self> {
        let uri = if let Some(uri) = &bench.mongodb {
            uri.clone()
        } else {
            script(bench, "up").await?;
            script(bench, "uri").await?
        };
        let client = Client::with_uri_str(&uri).await?;
        Ok(Self { uri, client })
    }

    /// The connection string of a database.
    pub fn connection(&self, database: &str) -> String {
        let (base, query) = self.uri.split_once('?').unwrap_or((&self.uri, ""));
        format!("{}/{database}?{query}", base.trim_end_matches('/'))
    }

    /// Forgets a database.
    pub async fn drop(&self, database: &str) -> Result<()> {
        Ok(self.client.database(database).drop().await?)
    }

    /// Makes a database with so many functions, each with a trigger, and so many executions.
    pub async fn records(&self, bench: &Bench, name: &str, functions: u32, executions: u32) -> Result<Records> {
        self.drop(name).await?;
        let database = self.client.database(name);
        let connection = self.connection(name);
        let service = Standalone::start(bench, &configuration(&connection)).await?;
        service.api.python("first", "def handler(event, context):\n    return event\n", json!({})).await?;
        service.api.connection().post(&invocations("first"), Bytes::from_static(br#"{"n": 1}"#)).await?;
        service.api.finished("first", 1, PATIENCE).await?;
        service.stop().await?;
        let [function, trigger, execution] =
            ["functions", "triggers", "executions"].map(|name| database.collection::<Document>(name));
        let first = async |collection: &Collection<Document>| {
            collection.find_one(doc! {}).await?.context("the service has written nothing")
        };
        let (a_function, a_trigger, an_execution) =
            (first(&function).await?, first(&trigger).await?, first(&execution).await?);
        // Without indexes it is several times faster; the service makes them when it starts.
        for collection in [&function, &trigger, &execution] {
            collection.drop_indexes().await?;
        }
        let now = DateTime::now().timestamp_millis();
        let ids: Vec<_> = (0..functions).map(|_| Uuid::new_v4().to_string()).collect();
        let id = |number: u32| ids.get(number as usize % ids.len()).cloned().unwrap_or_default();
        insert(&function, functions, |number| {
            let mut new = a_function.clone();
            new.extend(doc! {"_id": id(number), "name": format!("function-{number}"), "created_at": ago(now, number)});
            new.insert("updated_at", ago(now, number));
            new
        })
        .await?;
        insert(&trigger, functions, |number| {
            let mut new = a_trigger.clone();
            new.extend(
                doc! {"_id": Uuid::new_v4().to_string(), "function_id": id(number), "created_at": ago(now, number)},
            );
            new
        })
        .await?;
        let mut some = Vec::new();
        insert(&execution, executions, |number| {
            let mut new = an_execution.clone();
            let own = Uuid::new_v4().to_string();
            if number % (executions / 1000).max(1) == 0 {
                some.push(own.clone());
            }
            new.extend(doc! {"_id": own, "function_id": id(number), "received_at": ago(now, number)});
            new
        })
        .await?;
        let step = (ids.len() / 1000).max(1);
        Ok(Records { connection, functions: ids.into_iter().step_by(step).collect(), executions: some })
    }
}

/// A standalone service on this database; it may take long to make indexes.
pub fn configuration(connection: &str) -> String {
    format!("[database]\nconnection = {connection}\ntimeout = 300\n")
}

fn ago(now: i64, number: u32) -> Bson {
    Bson::DateTime(DateTime::from_millis(now - i64::from(number)))
}

/// Inserts documents, two batches at a time.
async fn insert(collection: &Collection<Document>, count: u32, mut make: impl FnMut(u32) -> Document) -> Result<()> {
    let mut writes = FuturesUnordered::new();
    let mut next = 0;
    while next < count {
        let end = (next + BATCH).min(count);
        let documents: Vec<_> = (next..end).map(&mut make).collect();
        next = end;
        let collection = collection.clone();
        writes.push(tokio::spawn(async move { collection.insert_many(documents).ordered(false).await }));
        while writes.len() >= 2 {
            writes.try_next().await?.context("no write")??;
        }
    }
    while let Some(written) = writes.try_next().await? {
        written?;
    }
    Ok(())
}

/// Starts a service on a database, once its indexes are made.
pub async fn serve(bench: &Bench, records: &Records) -> Result<Standalone> {
    let patience = Duration::from_secs(200);
    tokio::time::timeout(patience, Standalone::start_within(bench, &configuration(&records.connection), patience))
        .await?
}
