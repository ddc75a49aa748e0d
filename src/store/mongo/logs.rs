//! Logs of executions.

use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};
use mongodb::error::{ErrorKind, InsertManyError};

use super::super::{Result, Scope};
use super::error::DUPLICATE_KEY;
use super::{MongoStore, document, page};
use crate::clock;
use crate::model::ExecutionId;
use crate::model::execution::LogChunk;

impl MongoStore {
    pub(super) async fn put_logs(&self, chunks: &[LogChunk]) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let logs = self.collection("logs");
        let expire_at = document::date(clock::now() + self.retention.logs);
        let document = |chunk: &LogChunk| {
            let mut document = document::write(chunk)?;
            document.insert("expire_at", expire_at);
            Ok(document)
        };
        let documents = chunks.iter().map(document).collect::<Result<Vec<_>>>()?;
        let Err(error) = logs.insert_many(&documents).ordered(false).await else { return Ok(()) };
        let ErrorKind::InsertMany(InsertManyError { write_errors: Some(errors), write_concern_error: None, .. }) =
            error.kind.as_ref()
        else {
            return Err(error.into());
        };
        if errors.iter().any(|error| error.code != DUPLICATE_KEY) {
            return Err(error.into());
        }
        // A part that is sent again is rare: one at a time.
        for document in errors.iter().filter_map(|error| documents.get(error.index)) {
            let place = doc! {
                "execution_id": document.get("execution_id"),
                "attempt": document.get("attempt"),
                "sequence": document.get("sequence"),
            };
            logs.replace_one(place, document).await?;
        }
        Ok(())
    }

    pub(super) async fn read_log(
        &self,
        scope: &Scope,
        execution: ExecutionId,
        after: Option<(u32, u32)>,
        limit: usize,
    ) -> Result<Vec<LogChunk>> {
        self.require_execution(scope, execution).await?;
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut filter = doc! { "execution_id": execution.to_string() };
        if let Some((attempt, sequence)) = after.map(|(attempt, sequence)| (i64::from(attempt), i64::from(sequence))) {
            filter.insert("attempt", doc! { "$gte": attempt });
            filter.insert(
                "$or",
                [doc! { "attempt": { "$gt": attempt } }, doc! { "attempt": attempt, "sequence": { "$gt": sequence } }],
            );
        }
        let found = self
            .collection("logs")
            .find(filter)
            .sort(doc! { "attempt": 1, "sequence": 1 })
            .limit(page::limit(limit))
            .await?;
        let found: Vec<Document> = found.try_collect().await?;
        found.into_iter().map(document::read).collect()
    }
}
