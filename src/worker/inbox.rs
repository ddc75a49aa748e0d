//! What is parked in the inbox and due: retries, what had no room when it came, what asynchronous invocations put there,
//! what dead workers left. Taken by whichever worker has room, oldest first, in turn over projects.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, allowance};
use super::dispatch::give_up::expiry;
use super::dispatch::{Dispatch, Event, Work};
use super::functions::Functions;
use super::outcome;
use crate::clock;
use crate::model::execution::{Change, Component, Execution, Measures, Phase, Reason};
use crate::model::function::QueueName;
use crate::model::{Timestamp, WorkerId};
use crate::store::{ExecutionWrite, Store, StoreError};
use crate::task::chain;

/// Most executions taken at once.
const BATCH: usize = 64;
/// How often the inbox is looked at without a reason, so that what another process parked is found.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// Shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(10);

/// What the inbox task works with.
pub struct Inbox {
    /// This worker.
    pub me: WorkerId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What functions are.
    pub functions: Functions,
    /// Room.
    pub admission: Arc<Admission>,
    /// Where work goes.
    pub dispatch: Dispatch,
    /// Notified when something was put into the inbox.
    pub nudge: Arc<Notify>,
    /// Notified when a dead letter has to be posted.
    pub owing: Arc<Notify>,
    /// Where events go whose function names no queue.
    pub dead_letter_queue: QueueName,
    /// What a function may run here at most.
    pub max_sandboxes_per_function: u32,
    /// Executions that may wait.
    pub max_waiting: u32,
}

/// When the inbox is looked at again.
enum Wait {
    /// After this time.
    Until(Duration),
    /// When an execution has left the worker.
    ForRoom,
}

/// What becomes of a due execution.
enum Fate {
    /// It is taken on.
    Take(Box<Work>),
    /// It ends here.
    End(Box<Execution>),
    /// There is no room for it.
    Leave,
}

impl Inbox {
    /// Takes what is due until cancelled.
    ///
    /// # Errors
    /// When the store refuses for good.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), StoreError> {
        loop {
            // Armed before looking: what comes while we look is not missed.
            let freed = self.admission.freed();
            let wait = match self.look().await {
                Ok(Some(0)) => Wait::ForRoom,
                Ok(Some(_)) => Wait::Until(LOOK_MIN),
                Ok(None) => self.until_next().await,
                Err(error) if error.retryable() => {
                    let error = chain(&error);
                    tracing::warn!(error, "the inbox cannot be looked at: {error}");
                    Wait::Until(LOOK_MAX)
                }
                Err(error) => return Err(error),
            };
            let (pause, for_room) = match wait {
                Wait::Until(pause) => (pause, false),
                Wait::ForRoom => (LOOK_MAX, true),
            };
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = self.nudge.notified() => {}
                // Room comes in ones; what comes within a moment is taken together.
                () = freed, if for_room => tokio::time::sleep(LOOK_MIN).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Nothing could be taken: because nothing is due yet, or because what is due belongs to functions that hold all
    /// they may.
    async fn until_next(&self) -> Wait {
        match self.store.next_due().await {
            Ok(Some(due)) if due <= clock::now() => Wait::ForRoom,
            Ok(Some(due)) => Wait::Until(due.since(clock::now()).clamp(LOOK_MIN, LOOK_MAX)),
            Ok(None) | Err(_) => Wait::Until(LOOK_MAX),
        }
    }

    /// Takes one batch; how many, none when nothing was due.
    async fn look(&self) -> Result<Option<usize>, StoreError> {
        let room = usize::try_from(self.admission.free()).unwrap_or(usize::MAX).min(BATCH);
        if room == 0 {
            return Ok(Some(0));
        }
        let now = clock::now();
        let due = self.store.due_executions(now, room, &self.admission.saturated()).await?;
        if due.is_empty() {
            return Ok(None);
        }
        let mut writes = Vec::new();
        let mut works = Vec::new();
        for execution in due {
            let expected = execution.fence();
            match self.fate(execution, now).await? {
                Fate::Take(work) => {
                    writes.push(ExecutionWrite { expected, next: work.execution.clone() });
                    works.push(Some(*work));
                }
                Fate::End(next) => {
                    writes.push(ExecutionWrite { expected, next: *next });
                    works.push(None);
                }
                Fate::Leave => {}
            }
        }
        if writes.is_empty() {
            return Ok(None);
        }
        let applied = self.store.write_executions(&writes).await?;
        let mut taken = Vec::new();
        for ((write, work), applied) in writes.iter().zip(works).zip(applied) {
            if !applied {
                continue; // Another worker was faster.
            }
            if write.next.owes_dead_letter() {
                self.owing.notify_one();
            }
            taken.extend(work);
        }
        let count = taken.len();
        if !taken.is_empty() {
            self.dispatch.tell(Event::Work(taken)).await;
        }
        Ok(Some(count))
    }

    async fn fate(&self, mut execution: Execution, now: Timestamp) -> Result<Fate, StoreError> {
        let function = match self.functions.get(execution.function_id).await {
            Ok(function) => function,
            Err(error) => {
                let error = chain(error.as_ref());
                tracing::warn!(error, "a function cannot be looked up, its executions stay in the inbox: {error}");
                return Ok(Fate::Leave);
            }
        };
        let Some(function) = function else {
            let message = "the function was deleted while the event was waiting";
            let request_id = execution.request_id();
            let reason = Reason::FunctionDeleted;
            let failure = outcome::platform(request_id, Component::Function, Phase::Queue, reason, message);
            let dead_letter = Some(self.dead_letter_queue.clone());
            let change = Change::Fail { at: now, failure, measures: Measures::default(), dead_letter };
            return Ok(end(execution, change));
        };
        if execution.deadline <= now {
            let queue = function.dead_letter_queue.clone().unwrap_or_else(|| self.dead_letter_queue.clone());
            let change = expiry(&execution, Some(queue), now);
            return Ok(end(execution, change));
        }
        let limit =
            function.max_concurrency.map_or(u32::MAX, std::num::NonZeroU32::get).min(self.max_sandboxes_per_function);
        let Some(place) = self.admission.admit(&execution.project_id, function.id, allowance(limit, self.max_waiting))
        else {
            return Ok(Fate::Leave);
        };
        match execution.apply(Change::Own { worker: self.me }) {
            Ok(()) => {
                Ok(Fate::Take(Box::new(Work { execution, function, place: Some(place), call: None, recorded: true })))
            }
            Err(illegal) => {
                tracing::error!(execution.id = %execution.id, error = %illegal, "what is due cannot be taken: {illegal}");
                Ok(Fate::Leave)
            }
        }
    }
}

fn end(mut execution: Execution, change: Change) -> Fate {
    match execution.apply(change) {
        Ok(()) => Fate::End(Box::new(execution)),
        Err(illegal) => {
            tracing::error!(execution.id = %execution.id, error = %illegal, "what is due cannot be ended: {illegal}");
            Fate::Leave
        }
    }
}
