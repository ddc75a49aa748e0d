//! Workers and instances. Heartbeats are dated, and their age is judged, by the server's clock alone.

use std::time::Duration;

use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};

use super::super::{FORGOTTEN_WORKER_REFUSED, Result, Scope, StoreError};
use super::error::is_duplicate;
use super::{MongoStore, document, page};
use crate::clock;
use crate::model::instance::Instance;
use crate::model::worker::Worker;
use crate::model::{DeploymentId, InstanceId, WorkerId};

impl MongoStore {
    pub(super) async fn name_deployment(&self) -> Result<DeploymentId> {
        let named = doc! { "$setOnInsert": { "name": DeploymentId::generate().to_string() } };
        let deployment = self.collection("deployment");
        let known = || async {
            let found = deployment.find_one(doc! { "_id": "this" }).await?;
            found.map(|found| Ok(found.get_str("name")?.parse()?)).transpose().map_err(StoreError::Unexpected)
        };
        // The one who is second to insert it is refused, and finds it.
        match deployment.update_one(doc! { "_id": "this" }, named).upsert(true).await {
            Err(error) if !is_duplicate(&error) => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        known().await?.ok_or_else(|| StoreError::Unexpected("the deployment's name is gone".into()))
    }

    pub(super) async fn beat(&self, worker: &Worker) -> Result<()> {
        let alive = doc! { "_id": worker.id.to_string(), "state": { "$ne": "dead" } };
        // Literal, since a text that begins with a dollar sign would be an expression.
        let written =
            doc! { "$mergeObjects": ["$$ROOT", { "$literal": document::write(worker)? }, { "heartbeat_at": "$$NOW" }] };
        let workers = self.collection("workers");
        let beat = workers.update_one(alive, vec![doc! { "$replaceWith": written }]).upsert(true);
        match beat.await {
            Ok(_) => Ok(()),
            // It is there but does not meet the condition: dead, or forgotten.
            Err(error) if is_duplicate(&error) => Err(StoreError::Stale),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn list_workers(&self) -> Result<Vec<(Worker, Duration)>> {
        let pipeline = [
            doc! { "$match": { "forgotten_at": { "$exists": false } } },
            doc! { "$set": { "age_ms": { "$subtract": ["$$NOW", "$heartbeat_at"] } } },
            doc! { "$sort": { "_id": 1 } },
        ];
        let found: Vec<Document> = self.collection("workers").aggregate(pipeline).await?.try_collect().await?;
        let read = |found: Document| {
            let age = u64::try_from(found.get_i64("age_ms").unwrap_or(0)).unwrap_or(0);
            Ok((document::read(found)?, Duration::from_millis(age)))
        };
        found.into_iter().map(read).collect()
    }

    pub(super) async fn bury(&self, worker: WorkerId, silent_for: Duration) -> Result<bool> {
        let workers = self.collection("workers");
        let id = worker.to_string();
        let silent_for = i64::try_from(silent_for.as_millis()).unwrap_or(i64::MAX);
        let silent = doc! {
            "_id": &id,
            "state": { "$ne": "dead" },
            "$expr": { "$lte": ["$heartbeat_at", { "$subtract": ["$$NOW", silent_for] }] },
        };
        if workers.update_one(silent, doc! { "$set": { "state": "dead" } }).await?.matched_count == 1 {
            return Ok(true);
        }
        // One that is not known becomes a forgotten one, which refuses its first heartbeat.
        let now = clock::now();
        let forgotten = doc! { "$setOnInsert": {
            "state": "dead",
            "forgotten_at": document::date(now),
            "expire_at": document::date(now + FORGOTTEN_WORKER_REFUSED),
        } };
        let made = workers.update_one(doc! { "_id": &id }, forgotten).upsert(true).await;
        match made {
            Ok(made) if made.upserted_id.is_some() => return Ok(true),
            Ok(_) => {}
            // Another one has made it at the same moment.
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(workers.find_one(doc! { "_id": &id, "state": "dead" }).await?.is_some())
    }

    pub(super) async fn forget_worker(&self, worker: WorkerId) -> Result<()> {
        let id = worker.to_string();
        let executions = self.collection("executions");
        if executions.find_one(doc! { "owner": &id }).projection(doc! { "_id": 1 }).await?.is_some() {
            return Err(StoreError::Stale);
        }
        let now = clock::now();
        let forgotten = doc! { "$set": {
            "state": "dead",
            "forgotten_at": document::date(now),
            "expire_at": document::date(now + FORGOTTEN_WORKER_REFUSED),
        } };
        let known = doc! { "_id": id, "forgotten_at": { "$exists": false } };
        self.collection("workers").update_one(known, forgotten).await?;
        Ok(())
    }

    pub(super) async fn write_instance(&self, instance: &Instance) -> Result<()> {
        let id = doc! { "_id": instance.id.to_string() };
        self.collection("instances").replace_one(id, document::write(instance)?).upsert(true).await?;
        Ok(())
    }

    pub(super) async fn list_instances(&self, scope: &Scope) -> Result<Vec<Instance>> {
        let instances = self.collection("instances");
        let found = instances.find(page::within(scope)).sort(doc! { "created_at": 1, "_id": 1 }).await?;
        let found: Vec<Document> = found.try_collect().await?;
        found.into_iter().map(document::read).collect()
    }

    pub(super) async fn forget_instance(&self, id: InstanceId) -> Result<()> {
        self.collection("instances").delete_one(doc! { "_id": id.to_string() }).await?;
        Ok(())
    }
}
