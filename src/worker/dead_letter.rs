//! Posts what was given up to its dead letter queue, and notes in the record that it was.
//!
//! A letter whose event came from a project's own queue goes to the queue that its function names in that project, through
//! the trust of the trigger; where that cannot be, and for all others, to a queue of the service's project.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::intake::raw;
use super::queues::ProjectQueues;
use crate::clock;
use crate::model::execution::{Change, Origin};
use crate::model::{Execution, ProjectId, Trigger, TriggerId, WorkerId};
use crate::openstack::OpenStackError;
use crate::openstack::zaqar::{self, NewMessage};
use crate::store::{ExecutionWrite, Scope, Store, StoreError};
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
    /// The queue service, in the service's own project.
    pub queue: zaqar::Client,
    /// The dead letter queue of functions that name none.
    pub platform_queue: String,
    /// The ways to projects' own queues.
    pub project_queues: ProjectQueues,
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
        let message = NewMessage { ttl: self.ttl, body: raw(&body) };
        let own = match &execution.origin {
            Origin::Queue { trigger_id: Some(trigger), .. } if letter.queue.as_str() != self.platform_queue => {
                self.way_to_own(&execution.project_id, *trigger).await?
            }
            Origin::Queue { .. } | Origin::Invocation | Origin::AsyncInvocation => None,
        };
        if let Some(client) = own {
            match post(&client, letter.queue.as_str(), &message).await {
                Ok(()) => return self.note(execution).await,
                // Others' letters need not wait for this project's queue.
                Err(error) if error.retryable() => {
                    let error = chain(&error);
                    tracing::warn!(execution.id = %execution.id, error, "a dead letter has to wait: {error}");
                    return Ok(false);
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::info!(
                        execution.id = %execution.id, error,
                        "a dead letter cannot be posted to the project's own queue, it goes to the platform's: {error}"
                    );
                }
            }
        }
        let is_elsewhere = matches!(execution.origin, Origin::Queue { trigger_id: Some(_), .. });
        let name = if is_elsewhere { self.platform_queue.as_str() } else { letter.queue.as_str() };
        match post(&self.queue, name, &message).await {
            Ok(()) => {}
            Err(error) if error.retryable() => return Err(error.into()),
            Err(error) => {
                // Larger than a message may be, for instance. The record keeps the event: it can be re-driven from there.
                let error = chain(&error);
                tracing::error!(execution.id = %execution.id, error, "a dead letter cannot be posted: {error}");
            }
        }
        self.note(execution).await
    }

    /// The way to a project's own queues: through the trigger that brought the event, or through another one of the
    /// project if that is gone. None: there is none.
    async fn way_to_own(&self, project: &ProjectId, trigger: TriggerId) -> Result<Option<zaqar::Client>, StoreError> {
        let trigger = match self.store.trigger(&Scope::Project(project.clone()), trigger).await {
            Ok(trigger) => Some(trigger),
            Err(StoreError::NotFound(_)) => {
                let others = self.store.project_triggers(project).await?;
                others.into_iter().find(|trigger| trigger.queue.is_some())
            }
            Err(error) => return Err(error),
        };
        let trust_id = trigger.and_then(|Trigger { queue, .. }| queue?.trust_id);
        // Without a trust there is a way only where there is no Keystone.
        Ok(self.project_queues.client(project, trust_id.as_deref()).ok())
    }

    /// Notes that a letter is posted; whether the record agrees.
    async fn note(&self, execution: Execution) -> Result<bool, TaskError> {
        self.metrics.dead_letter(DeadLetterReason::GivenUp);
        let expected = execution.fence();
        let mut next = execution;
        next.apply(Change::DeadLetterPosted { at: clock::now() })?;
        Ok(self.store.write_executions(&[ExecutionWrite { expected, next }]).await?.first() == Some(&true))
    }
}

async fn post(client: &zaqar::Client, queue: &str, message: &NewMessage) -> Result<(), OpenStackError> {
    client.ensure_queue(queue, &Map::new()).await?;
    client.post(queue, std::slice::from_ref(message)).await?;
    Ok(())
}
