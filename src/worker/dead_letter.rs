//! Posts what was given up to its dead letter queue, and notes in the record that it was.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::intake::raw;
use crate::clock;
use crate::model::execution::Change;
use crate::model::{Execution, WorkerId};
use crate::openstack::zaqar::{self, NewMessage};
use crate::store::{ExecutionWrite, Store};
use crate::task::{TaskError, chain};
use crate::telemetry::metrics::{DeadLetterReason, Metrics};

/// How often records are looked through for letters that somebody else should have posted.
const SWEEP: Duration = Duration::from_secs(10);
/// After this time a letter is posted by any worker: its own is gone.
const ABANDONED: Duration = Duration::from_secs(60);
/// Most letters in one round.
const BATCH: usize = 100;

/// What the task works with.
pub struct DeadLetters {
    /// This worker.
    pub me: WorkerId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The queue service.
    pub queue: zaqar::Client,
    /// Notified when there is one to post.
    pub owing: Arc<Notify>,
    /// What is counted.
    pub metrics: Metrics,
    /// How long a letter is kept.
    pub ttl: Duration,
}

impl DeadLetters {
    /// Posts until cancelled.
    ///
    /// # Errors
    /// When the store or the queue does not answer: the supervisor starts it again, and the records still say what is owed.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), TaskError> {
        loop {
            let posted = self.post_all().await?;
            if posted == BATCH {
                continue;
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = self.owing.notified() => {}
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }

    async fn post_all(&self) -> Result<usize, TaskError> {
        let now = clock::now();
        let owing = self.store.owing_dead_letters(now + Duration::from_secs(1), BATCH).await?;
        let mut posted = 0;
        for execution in owing {
            let mine = execution.worker == Some(self.me);
            let abandoned = execution.finished_at.is_some_and(|at| now.since(at) > ABANDONED);
            if (mine || abandoned) && self.post(execution).await? {
                posted += 1;
            }
        }
        Ok(posted)
    }

    /// Posts one letter; whether the record agrees that it is posted now.
    async fn post(&self, execution: Execution) -> Result<bool, TaskError> {
        let Some(letter) = &execution.dead_letter else { return Ok(false) };
        let event: serde_json::Value = serde_json::from_slice(execution.payload.bytes())?;
        let body = json!({
            "reason": execution.failure.as_ref().map(|failure| failure.reason),
            "failure": execution.failure,
            "execution_id": execution.id,
            "project_id": execution.project_id,
            "function_id": execution.function_id,
            "function_name": execution.function_name,
            "attempts": execution.attempt,
            "state": execution.state,
            "event": event,
        });
        let name = letter.queue.as_str();
        self.queue.ensure_queue(name, &Map::new()).await?;
        match self.queue.post(name, &[NewMessage { ttl: self.ttl, body: raw(&body) }]).await {
            Ok(_) => {}
            Err(error) if error.source.retryable() => return Err(error.into()),
            Err(error) => {
                // Larger than a message may be, for instance. The record keeps the event: it can be re-driven from there.
                let error = chain(&error);
                tracing::error!(execution.id = %execution.id, error, "a dead letter cannot be posted: {error}");
            }
        }
        self.metrics.dead_letter(DeadLetterReason::GivenUp);
        let expected = execution.fence();
        let mut next = execution;
        next.apply(Change::DeadLetterPosted { at: clock::now() })?;
        Ok(self.store.write_executions(&[ExecutionWrite { expected, next }]).await?.first() == Some(&true))
    }
}
