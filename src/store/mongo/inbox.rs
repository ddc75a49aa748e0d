//! Executions as an inbox: what is due, who owns what, what is owed.

use std::collections::{HashMap, VecDeque};

use futures::{StreamExt as _, TryStreamExt as _};
use mongodb::bson::{Bson, Document, doc};

use super::super::{Result, StoreError};
use super::{MongoStore, document, page};
use crate::model::{Execution, FunctionId, Timestamp, WorkerId};

/// Projects that are asked about at the same time.
const PROJECTS_AT_ONCE: usize = 16;

impl MongoStore {
    pub(super) async fn find_due(
        &self,
        now: Timestamp,
        limit: usize,
        without: &[FunctionId],
    ) -> Result<Vec<Execution>> {
        let executions = self.collection("executions");
        let due = doc! { "$lte": document::date(now) };
        // One step through the index per project, however much each has parked; the server sees that only if the query
        // bounds the index's first field.
        let any_project = doc! { "$gte": "" };
        let projects = executions.distinct("project_id", doc! { "project_id": any_project, "due_at": &due }).await?;
        let projects = projects.iter().filter_map(Bson::as_str).map(str::to_owned).collect();
        let order = self.turns.order(projects);
        let without: Vec<String> = without.iter().map(ToString::to_string).collect();
        let ask = |project: String| {
            let filter = doc! { "project_id": &project, "due_at": &due, "function_id": { "$nin": &without } };
            let find = executions
                .find(filter)
                .sort(doc! { "due_at": 1, "_id": 1 })
                .limit(page::limit(limit))
                .projection(doc! { "_id": 1 });
            async move {
                let found: Vec<Document> = find.await?.try_collect().await?;
                let ids = found.iter().filter_map(|found| Some(found.get_str("_id").ok()?.to_owned()));
                Ok::<_, StoreError>((project, ids.collect::<VecDeque<String>>()))
            }
        };
        let mut work = Vec::new();
        let mut asked = futures::stream::iter(order).map(ask).buffered(PROJECTS_AT_ONCE);
        while work.len() < limit
            && let Some((project, ids)) = asked.try_next().await?
        {
            if !ids.is_empty() {
                work.push((project, ids));
            }
        }
        drop(asked);
        let dealt = self.turns.deal(work, limit);
        if dealt.is_empty() {
            return Ok(Vec::new());
        }
        // Only those that nobody has taken meanwhile.
        let found = executions.find(doc! { "_id": { "$in": &dealt }, "due_at": &due }).await?;
        let found: Vec<Execution> =
            found.map_err(StoreError::from).and_then(|found| async { document::read(found) }).try_collect().await?;
        let mut by_id: HashMap<String, Execution> =
            found.into_iter().map(|execution| (execution.id.to_string(), execution)).collect();
        Ok(dealt.iter().filter_map(|id| by_id.remove(id)).collect())
    }

    pub(super) async fn find_next_due(&self) -> Result<Option<Timestamp>> {
        let parked = doc! { "due_at": { "$exists": true } };
        let executions = self.collection("executions");
        let next = executions.find_one(parked).sort(doc! { "due_at": 1 }).projection(doc! {
            "_id": 0, "due_at": 1,
        });
        let due = next.await?.and_then(|found| found.get_datetime("due_at").ok().copied());
        Ok(due.map(|due| Timestamp::from_millis(due.timestamp_millis())))
    }

    pub(super) async fn find_owners(&self) -> Result<Vec<WorkerId>> {
        // Any text: a bound is what makes the server step from one owner to the next.
        let owned = doc! { "owner": { "$gte": "" } };
        let owners = self.collection("executions").distinct("owner", owned).await?;
        let parse = |owner: &Bson| {
            let owner = owner.as_str().unwrap_or_default();
            owner.parse().map_err(|invalid| StoreError::Unexpected(Box::new(invalid)))
        };
        owners.iter().map(parse).collect()
    }

    pub(super) async fn find_owned(&self, worker: WorkerId, limit: usize) -> Result<Vec<Execution>> {
        self.oldest(doc! { "owner": worker.to_string() }, "received_at", limit).await
    }

    pub(super) async fn find_owing(&self, before: Timestamp, limit: usize) -> Result<Vec<Execution>> {
        self.oldest(doc! { "owed_at": { "$lt": document::date(before) } }, "owed_at", limit).await
    }

    async fn oldest(&self, filter: Document, by: &str, limit: usize) -> Result<Vec<Execution>> {
        if limit == 0 {
            // To the server no limit at all.
            return Ok(Vec::new());
        }
        let executions = self.collection("executions");
        let found = executions.find(filter).sort(doc! { by: 1, "_id": 1 }).limit(page::limit(limit)).await?;
        let found: Vec<Document> = found.try_collect().await?;
        found.into_iter().map(document::read).collect()
    }
}
