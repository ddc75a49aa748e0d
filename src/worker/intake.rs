//! From the queue to the inbox. A message is claimed, matched to triggers, inserted as one execution per function, and
//! only then deleted: from the insert on, the store is the truth. A message that comes twice inserts nothing new.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::value::to_raw_value;
use serde_json::{Map, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Place, allowance};
use super::dispatch::{Dispatch, Event as DispatchEvent, Work};
use super::functions::Functions;
use crate::clock;
use crate::model::event::Event;
use crate::model::execution::{Change, Execution, Origin};
use crate::model::{ExecutionId, Function, FunctionId, ProjectId, Trigger, WorkerId};
use crate::openstack::OpenStackError;
use crate::openstack::zaqar::{self, Claim, Held, Message, NewMessage};
use crate::store::{Scope, Store, StoreError};
use crate::task::chain;
use crate::telemetry::metrics::{DeadLetterReason, Metrics};

/// Most messages in a claim: Zaqar's limit.
const CLAIM_MAX: usize = zaqar::PAGE_MAX;
/// Largest dead letter, in bytes: what Zaqar takes less what a post adds.
const LETTER_MAX: usize = zaqar::POST_MAX_BYTES - 256;
/// Pauses between tries while the store does not answer.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What intake works with.
pub struct Intake {
    /// This worker.
    pub me: WorkerId,
    /// The queue service.
    pub queue: zaqar::Client,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What functions are.
    pub functions: Functions,
    /// Room.
    pub admission: Arc<Admission>,
    /// Where work goes.
    pub dispatch: Dispatch,
    /// Notified when a caller of the gateway says that something was posted.
    pub nudge: Arc<Notify>,
    /// What is counted.
    pub metrics: Metrics,
    /// How it behaves.
    pub options: Options,
}

/// How intake behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The platform queue.
    pub queue: String,
    /// Where messages go that are no event or match nothing.
    pub dead_letter_queue: String,
    /// How long a dead letter is kept.
    pub dead_letter_ttl: Duration,
    /// Project of events that name none.
    pub default_project: ProjectId,
    /// How long a claim hides its messages.
    pub claim_ttl: Duration,
    /// How long messages live on beyond the claim.
    pub claim_grace: Duration,
    /// Most claims under way at once.
    pub claims: usize,
    /// Pauses between looks at an empty queue: shortly after something was there, and after long.
    pub poll_min: Duration,
    /// See `poll_min`.
    pub poll_max: Duration,
    /// What an execution may run here at most, for the room a function gets.
    pub max_sandboxes_per_function: u32,
    /// Executions that may wait.
    pub max_waiting: u32,
}

/// Why a claim was not dealt with. Its messages come again when it ends.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The queue service did not do what it was asked.
    #[error("the queue")]
    Queue(#[from] OpenStackError),
    /// The store refused for good.
    #[error("the store")]
    Store(#[source] Arc<StoreError>),
}

/// An execution that is to be inserted, with its function and, if there is room for it here, its place.
struct Candidate {
    execution: Execution,
    function: Arc<Function>,
    place: Option<Place>,
}

impl Intake {
    /// Claims and takes in until cancelled. While messages keep coming, several claims are under way; an empty queue is
    /// looked at by one, less and less often.
    ///
    /// # Errors
    /// When the queues cannot be made ready. Later faults are logged and tried again.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), IntakeError> {
        for name in [&self.options.queue, &self.options.dead_letter_queue] {
            self.queue.ensure_queue(name, &Map::new()).await?;
        }
        let mut under_way = FuturesUnordered::new();
        let mut wanted = 1;
        let mut pause = self.options.poll_min;
        let mut ended = false;
        loop {
            while !ended && under_way.len() < wanted {
                let intake = Arc::clone(&self);
                let cancel = cancel.clone();
                under_way.push(async move { intake.claim_and_take(&cancel).await });
            }
            let Some(taken) = under_way.next().await else { return Ok(()) };
            match taken {
                Taken::Full => {
                    wanted = (wanted + 1).min(self.options.claims);
                    pause = self.options.poll_min;
                }
                Taken::Some => pause = self.options.poll_min,
                Taken::Nothing => {
                    wanted = 1;
                    if under_way.is_empty() {
                        tokio::select! {
                            () = cancel.cancelled() => {}
                            () = self.nudge.notified() => pause = self.options.poll_min,
                            () = tokio::time::sleep(pause) => pause = (pause * 2).min(self.options.poll_max),
                        }
                    }
                }
                Taken::Cancelled => {}
            }
            // What is claimed is finished; nothing new is claimed.
            ended = cancel.is_cancelled();
        }
    }

    async fn claim_and_take(&self, cancel: &CancellationToken) -> Taken {
        let Some(room) = self.room(cancel).await else { return Taken::Cancelled };
        let limit = room.min(CLAIM_MAX);
        let o = &self.options;
        let claim = match self.queue.claim(&o.queue, limit, o.claim_ttl, o.claim_grace).await {
            Ok(Some(claim)) => claim,
            Ok(None) => {
                self.metrics.claimed(0);
                return Taken::Nothing;
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "the queue cannot be claimed from: {error}");
                return Taken::Nothing;
            }
        };
        self.metrics.claimed(claim.messages.len());
        let messages = claim.messages.len();
        match self.take_in(claim, cancel).await {
            Ok(()) if messages >= limit => Taken::Full,
            Ok(()) => Taken::Some,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "a claim could not be dealt with, its messages will come again: {error}");
                Taken::Nothing
            }
        }
    }

    /// Waits until there is room; none when cancelled before.
    async fn room(&self, cancel: &CancellationToken) -> Option<usize> {
        loop {
            let freed = self.admission.freed();
            if cancel.is_cancelled() {
                return None;
            }
            let free = usize::try_from(self.admission.free()).unwrap_or(usize::MAX);
            self.metrics.set_room(free);
            if free > 0 {
                return Some(free);
            }
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = freed => {}
            }
        }
    }

    /// Deals with one claim: matches, inserts, deletes, hands on.
    async fn take_in(&self, claim: Claim, cancel: &CancellationToken) -> Result<(), IntakeError> {
        let mut candidates = Vec::new();
        let mut dead = Vec::new();
        let mut triggers = HashMap::new();
        for message in &claim.messages {
            self.metrics.queue_age(message.age);
            match self.candidates(message, &mut triggers, cancel).await? {
                Ok(of_message) => candidates.extend(of_message),
                Err(letter) => dead.push(letter),
            }
        }
        if !dead.is_empty() {
            self.queue.post(&self.options.dead_letter_queue, &dead).await.map_err(OpenStackError::from)?;
        }
        let works = self.insert(candidates, cancel).await?;
        let ids: Vec<_> = claim.messages.into_iter().map(|message| message.id).collect();
        // What cannot be deleted comes again and inserts nothing new.
        match self.queue.delete_claimed(&self.options.queue, &ids, &claim.id).await {
            Ok(Held::Done) => {}
            Ok(Held::Lost) => tracing::info!("messages that were taken in belong to somebody else's claim by now"),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "messages that were taken in could not be deleted: {error}");
            }
        }
        if !works.is_empty() {
            self.dispatch.tell(DispatchEvent::Work(works)).await;
        }
        Ok(())
    }

    /// The executions that a message asks for, or the dead letter it becomes.
    async fn candidates(
        &self,
        message: &Message,
        triggers: &mut HashMap<ProjectId, Vec<Trigger>>,
        cancel: &CancellationToken,
    ) -> Result<Result<Vec<Candidate>, NewMessage>, IntakeError> {
        let event = match Event::from_value(message.body.clone(), &message.id) {
            Ok(event) => event,
            Err(invalid) => {
                return Ok(Err(self.dead_letter(message, DeadLetterReason::InvalidEvent, &invalid.to_string())));
            }
        };
        let project = event.project().unwrap_or(&self.options.default_project).clone();
        if !triggers.contains_key(&project) {
            // Read for every claim: an event that was posted after its trigger was made always finds it.
            let of_project = self.ask(cancel, || self.store.project_triggers(&project)).await?;
            triggers.insert(project.clone(), of_project);
        }
        let mut functions: Vec<FunctionId> = triggers
            .get(&project)
            .into_iter()
            .flatten()
            .filter(|trigger| trigger.matches(&event))
            .map(|trigger| trigger.function_id)
            .collect();
        functions.sort_unstable();
        functions.dedup();
        let received = clock::now();
        let mut candidates = Vec::new();
        for id in functions {
            let Some(function) = self.function(id, cancel).await? else { continue };
            let origin = Origin::Queue { queue: self.options.queue.clone(), message_id: message.id.clone() };
            let execution_id = ExecutionId::derive(&self.options.queue, &message.id, id);
            let mut execution =
                Execution::receive(execution_id, &function, origin, (&event).into(), event.payload(), received);
            let limit = function
                .max_concurrency
                .map_or(u32::MAX, std::num::NonZeroU32::get)
                .min(self.options.max_sandboxes_per_function);
            let place = self.admission.admit(&project, id, allowance(limit, self.options.max_waiting));
            if place.is_some() {
                // A fresh record takes every worker.
                let _ = execution.apply(Change::Own { worker: self.me });
            }
            candidates.push(Candidate { execution, function, place });
        }
        if candidates.is_empty() {
            let text = format!(
                "no trigger of project '{project}' matches source '{}' and type '{}'",
                event.source(),
                event.event_type()
            );
            return Ok(Err(self.dead_letter(message, DeadLetterReason::NoTrigger, &text)));
        }
        self.metrics.matched();
        Ok(Ok(candidates))
    }

    async fn function(&self, id: FunctionId, cancel: &CancellationToken) -> Result<Option<Arc<Function>>, IntakeError> {
        let mut pause = PAUSE_MIN;
        loop {
            match self.functions.get(id).await {
                Ok(function) => return Ok(function),
                Err(error) if error.retryable() && !cancel.is_cancelled() => wait(&mut pause, &error, cancel).await,
                Err(error) => return Err(IntakeError::Store(error)),
            }
        }
    }

    fn dead_letter(&self, message: &Message, reason: DeadLetterReason, text: &str) -> NewMessage {
        self.metrics.dead_letter(reason);
        let reason = reason.as_str();
        tracing::info!(message.id, reason, "message {} is no work for anybody: {text}", message.id);
        let mut letter = json!({
            "reason": reason,
            "message": text,
            "queue": self.options.queue,
            "message_id": message.id,
            "event": message.body,
        });
        if letter.to_string().len() > LETTER_MAX {
            // What we add would make a message of the largest size too large: it goes on as it came, the reason is logged.
            letter = message.body.clone();
        }
        NewMessage { ttl: self.options.dead_letter_ttl, body: raw(&letter) }
    }

    /// Makes the executions durable; those that are new and have a place are handed on.
    async fn insert(&self, candidates: Vec<Candidate>, cancel: &CancellationToken) -> Result<Vec<Work>, IntakeError> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let executions: Vec<_> = candidates.iter().map(|candidate| candidate.execution.clone()).collect();
        let mut repeated = false;
        let mut pause = PAUSE_MIN;
        let inserted = loop {
            match self.store.insert_executions(&executions).await {
                Ok(inserted) => break inserted,
                Err(error) if error.retryable() && !cancel.is_cancelled() => {
                    repeated = true;
                    wait(&mut pause, &error, cancel).await;
                }
                Err(error) => return Err(IntakeError::Store(Arc::new(error))),
            }
        };
        self.metrics.inserted(inserted.new.len(), inserted.known.len());
        let mut works = Vec::new();
        for Candidate { execution, function, place } in candidates {
            let Some(place) = place else { continue };
            // After a try whose answer was lost, what is known may be what that try inserted: ours, and nobody runs it.
            let ours = inserted.new.contains(&execution.id) || (repeated && self.is_ours(&execution, cancel).await?);
            if ours {
                works.push(Work { execution, function, place: Some(place), call: None, recorded: true });
            }
        }
        Ok(works)
    }

    async fn is_ours(&self, execution: &Execution, cancel: &CancellationToken) -> Result<bool, IntakeError> {
        let stored = self.ask(cancel, || self.store.execution(&Scope::All, execution.id)).await?;
        Ok(stored.fence() == execution.fence())
    }

    /// Repeats a question to the store until it answers, or until cancelled.
    async fn ask<T, F>(&self, cancel: &CancellationToken, mut question: impl FnMut() -> F) -> Result<T, IntakeError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = PAUSE_MIN;
        loop {
            match question().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.retryable() && !cancel.is_cancelled() => wait(&mut pause, &error, cancel).await,
                Err(error) => return Err(IntakeError::Store(Arc::new(error))),
            }
        }
    }
}

/// The JSON text of a value.
pub(super) fn raw(value: &serde_json::Value) -> Box<serde_json::value::RawValue> {
    // A value is always writable.
    to_raw_value(value).unwrap_or_else(|_| serde_json::value::RawValue::NULL.to_owned())
}

async fn wait(pause: &mut Duration, error: &StoreError, cancel: &CancellationToken) {
    let error = chain(error);
    tracing::warn!(error, "the store does not answer, intake waits: {error}");
    tokio::select! {
        () = cancel.cancelled() => {}
        () = tokio::time::sleep(*pause) => *pause = (*pause * 2).min(PAUSE_MAX),
    }
}

/// What one claim brought.
enum Taken {
    /// As many messages as were asked for: there are probably more.
    Full,
    /// Fewer.
    Some,
    /// None, or a fault: not at once again.
    Nothing,
    /// Nothing was claimed any more.
    Cancelled,
}
