//! Projects' own queues: the triggers on them, how looking at them goes, and who looks. And the secret that all share.

use futures::TryStreamExt as _;
use mongodb::bson::{self, Document, doc};

use super::super::{Result, StoreError};
use super::error::is_duplicate;
use super::{MongoStore, document};
use crate::model::trigger::queue::{QueueKey, QueueStatus, SourceQueue};
use crate::model::{Invalid, ProjectId, Trigger, TriggerId, WorkerId};

fn unexpected(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unexpected(Box::new(error))
}

impl MongoStore {
    pub(super) async fn find_queue_triggers(&self) -> Result<Vec<Trigger>> {
        let found = self
            .collection("triggers")
            .find(doc! { "queue.name": { "$exists": true } })
            .sort(doc! { "created_at": 1, "_id": 1 })
            .await?;
        let found: Vec<Document> = found.try_collect().await?;
        self.with_function(found.into_iter().map(document::read).collect::<Result<_>>()?).await
    }

    pub(super) async fn write_queue_status(&self, id: TriggerId, status: &QueueStatus) -> Result<()> {
        let status = bson::serialize_to_bson(status).map_err(unexpected)?;
        let trigger = doc! { "_id": id.to_string(), "queue.name": { "$exists": true } };
        let set = doc! { "$set": { "queue.status": status } };
        let written = self.collection("triggers").update_one(trigger, set).await?;
        if written.matched_count == 1 { Ok(()) } else { Err(StoreError::NotFound("trigger")) }
    }

    pub(super) async fn list_queue_owners(&self) -> Result<Vec<(QueueKey, WorkerId)>> {
        let found: Vec<Document> =
            self.collection("queue_owners").find(doc! {}).sort(doc! { "_id": 1 }).await?.try_collect().await?;
        let read = |found: Document| {
            let text = |name: &str| found.get_str(name).map_err(unexpected);
            let invalid = |invalid: Invalid| unexpected(invalid);
            let key = QueueKey {
                project_id: ProjectId::parse(text("project_id")?).map_err(invalid)?,
                queue: SourceQueue::parse(text("queue")?).map_err(invalid)?,
            };
            Ok((key, text("worker")?.parse().map_err(invalid)?))
        };
        found.into_iter().map(read).collect()
    }

    pub(super) async fn claim_queue(&self, queue: &QueueKey, from: Option<WorkerId>, worker: WorkerId) -> Result<bool> {
        let owners = self.collection("queue_owners");
        let id = queue.to_string();
        let worker = worker.to_string();
        match from {
            None => {
                let owned = doc! {
                    "_id": &id,
                    "project_id": queue.project_id.as_str(),
                    "queue": queue.queue.as_str(),
                    "worker": &worker,
                };
                match owners.insert_one(owned).await {
                    Ok(_) => return Ok(true),
                    // Somebody's, perhaps ours by a call whose answer was lost.
                    Err(error) if is_duplicate(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Some(from) => {
                let expected = doc! { "_id": &id, "worker": from.to_string() };
                if owners.update_one(expected, doc! { "$set": { "worker": &worker } }).await?.matched_count == 1 {
                    return Ok(true);
                }
            }
        }
        Ok(owners.find_one(doc! { "_id": id, "worker": worker }).await?.is_some())
    }

    pub(super) async fn give_up_queue(&self, queue: &QueueKey, worker: WorkerId) -> Result<()> {
        let owned = doc! { "_id": queue.to_string(), "worker": worker.to_string() };
        self.collection("queue_owners").delete_one(owned).await?;
        Ok(())
    }

    pub(super) async fn keep_secret(&self, fresh: &str) -> Result<String> {
        let secrets = self.collection("secrets");
        let set = doc! { "$setOnInsert": { "value": fresh } };
        match secrets.update_one(doc! { "_id": "posting" }, set).upsert(true).await {
            Err(error) if !is_duplicate(&error) => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        let kept = secrets.find_one(doc! { "_id": "posting" }).await?.ok_or(StoreError::NotFound("secret"))?;
        Ok(kept.get_str("value").map_err(unexpected)?.to_owned())
    }
}
