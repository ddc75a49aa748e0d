//! From a queue to the inbox: the platform's ([`super::platform`]) and projects' own ([`super::queues`]). A message is
//! claimed, matched to triggers, inserted as one execution per function, and only then deleted: from the insert on, the
//! store is the truth. A message that comes twice inserts nothing new.

mod source;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::to_raw_value;
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

pub use self::source::{Kind, Source, Trust};

use self::source::Reading;
use super::admission::{Admission, Place, allowance};
use super::dispatch::{Dispatch, Event as DispatchEvent, Work};
use super::functions::Functions;
use crate::clock;
use crate::model::execution::{Change, Execution, Origin};
use crate::model::{Function, FunctionId, ProjectId, Trigger, TriggerId, WorkerId};
use crate::openstack::OpenStackError;
use crate::openstack::zaqar::{self, Claim, Held, Message, NewMessage};
use crate::scheduler::polls::Look;
use crate::store::{Scope, Store, StoreError};
use crate::task::chain;
use crate::telemetry::metrics::{DeadLetterReason, Metrics};

/// Largest dead letter, in bytes: what Zaqar takes less what a post adds.
const LETTER_MAX: usize = zaqar::POST_MAX_BYTES - 256;
/// Pauses between tries while the store does not answer.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What intake works with.
pub struct Intake {
    /// This worker.
    pub me: WorkerId,
    /// The service's own way to the queue service: for dead letters.
    pub queue: zaqar::Client,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What functions are.
    pub functions: Functions,
    /// Room.
    pub admission: Arc<Admission>,
    /// Where work goes.
    pub dispatch: Dispatch,
    /// What is counted.
    pub metrics: Metrics,
    /// How it behaves.
    pub options: Options,
}

/// How intake behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where messages go that are no event or match nothing.
    pub dead_letter_queue: String,
    /// How long a dead letter is kept.
    pub dead_letter_ttl: Duration,
    /// How long a claim hides its messages.
    pub claim_ttl: Duration,
    /// How long messages live on beyond the claim.
    pub claim_grace: Duration,
    /// What an execution may run here at most, for the room a function gets.
    pub max_sandboxes_per_function: u32,
    /// Executions that may wait.
    pub max_waiting: u32,
}

/// Why a claim was not dealt with. Its messages come again when it ends.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The queue cannot be claimed from.
    #[error("the queue cannot be claimed from")]
    Claim(#[source] OpenStackError),
    /// A dead letter cannot be posted.
    #[error("a dead letter cannot be posted")]
    Letter(#[source] OpenStackError),
    /// The store refused for good.
    #[error("the store")]
    Store(#[source] Arc<StoreError>),
}

/// What a claim got.
#[derive(Debug)]
pub struct Claimed {
    /// The messages.
    pub claim: Claim,
    /// Whether there were as many as were asked for: there are probably more.
    pub is_full: bool,
}

/// An execution that is to be inserted, with its function and, if there is room for it here, its place.
struct Candidate {
    execution: Execution,
    function: Arc<Function>,
    place: Option<Place>,
}

impl Intake {
    /// Waits until there is room; how much. None when cancelled before.
    pub async fn room(&self, cancel: &CancellationToken) -> Option<usize> {
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

    /// Claims at most `limit` messages; none when there are none.
    ///
    /// # Errors
    /// When the queue does not do what it is asked.
    pub async fn claim(&self, source: &Source, limit: usize) -> Result<Option<Claimed>, IntakeError> {
        let o = &self.options;
        let claim = source.client.claim(&source.queue, limit, o.claim_ttl, o.claim_grace).await;
        let claim = claim.map_err(IntakeError::Claim)?;
        self.metrics.claimed(claim.as_ref().map_or(0, |claim| claim.messages.len()));
        Ok(claim.map(|claim| Claimed { is_full: claim.messages.len() >= limit, claim }))
    }

    /// Claims at most `limit` messages and deals with them.
    ///
    /// # Errors
    /// See [`Self::claim`] and [`Self::take_in`].
    pub async fn look(&self, source: &Source, limit: usize, cancel: &CancellationToken) -> Result<Look, IntakeError> {
        let Some(Claimed { claim, is_full }) = self.claim(source, limit).await? else { return Ok(Look::Empty) };
        self.take_in(source, claim, cancel).await?;
        Ok(if is_full { Look::Full } else { Look::Some })
    }

    /// Deals with one claim: matches, inserts, hands on, deletes.
    ///
    /// # Errors
    /// When the queue does not do what it is asked, or the store refuses. The messages come again when the claim ends.
    pub async fn take_in(&self, source: &Source, claim: Claim, cancel: &CancellationToken) -> Result<(), IntakeError> {
        let mut candidates = Vec::new();
        let mut dead = Vec::new();
        let mut triggers = HashMap::new();
        for message in &claim.messages {
            self.metrics.queue_age(message.age);
            match self.candidates(source, message, &mut triggers, cancel).await? {
                Ok(of_message) => candidates.extend(of_message),
                Err(letter) => dead.push(letter),
            }
        }
        if !dead.is_empty() {
            self.bury(source, &triggers, &dead, cancel).await?;
        }
        let works = self.insert(candidates, cancel).await?;
        // What is in the store runs, while the queue is still being told.
        if !works.is_empty() {
            self.dispatch.tell(DispatchEvent::Work(works)).await;
            // It goes first.
            tokio::task::yield_now().await;
        }
        let ids: Vec<_> = claim.messages.into_iter().map(|message| message.id).collect();
        // What cannot be deleted comes again and inserts nothing new.
        match source.client.delete_claimed(&source.queue, &ids, &claim.id).await {
            Ok(Held::Done) => {}
            Ok(Held::Lost) => tracing::info!("messages that were taken in belong to somebody else's claim by now"),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "messages that were taken in could not be deleted: {error}");
            }
        }
        Ok(())
    }

    /// The executions that a message asks for, or the dead letter it becomes.
    async fn candidates(
        &self,
        source: &Source,
        message: &Message,
        triggers: &mut HashMap<ProjectId, Vec<Trigger>>,
        cancel: &CancellationToken,
    ) -> Result<Result<Vec<Candidate>, NewMessage>, IntakeError> {
        let reading = match source.read(message) {
            Ok(reading) => reading,
            Err((reason, text)) => return Ok(Err(self.dead_letter(source, message, reason, &text))),
        };
        let Reading { event, project, .. } = &reading;
        if !triggers.contains_key(project) {
            // Read for every claim: an event that was posted after its trigger was made always finds it.
            let of_project = self.ask(cancel, || self.store.project_triggers(project)).await?;
            let of_source = of_project.into_iter().filter(|trigger| source.feeds(trigger)).collect();
            triggers.insert(project.clone(), of_source);
        }
        let mut matching: Vec<(FunctionId, TriggerId)> = triggers
            .get(project)
            .into_iter()
            .flatten()
            .filter(|trigger| trigger.matches(event))
            .map(|trigger| (trigger.function_id, trigger.id))
            .collect();
        matching.sort_unstable();
        matching.dedup_by_key(|(function, _)| *function);
        let received = clock::now();
        let mut candidates = Vec::new();
        for (id, trigger) in matching {
            let Some(function) = self.function(id, cancel).await? else { continue };
            let origin = Origin::Queue {
                queue: source.queue.clone(),
                message_id: message.id.clone(),
                trigger_id: source.is_own().then_some(trigger),
            };
            let execution_id = reading.execution_id(id);
            let mut execution =
                Execution::receive(execution_id, &function, origin, event.into(), event.payload(), received);
            let limit = function
                .max_concurrency
                .map_or(u32::MAX, std::num::NonZeroU32::get)
                .min(self.options.max_sandboxes_per_function);
            let place = self.admission.admit(project, id, allowance(limit, self.options.max_waiting));
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
            return Ok(Err(self.dead_letter(source, message, DeadLetterReason::NoTrigger, &text)));
        }
        self.metrics.matched();
        Ok(Ok(candidates))
    }

    /// Posts dead letters: those of a project's own queue to the queue that the oldest function on it names for its own,
    /// all others to the platform's.
    async fn bury(
        &self,
        source: &Source,
        triggers: &HashMap<ProjectId, Vec<Trigger>>,
        letters: &[NewMessage],
        cancel: &CancellationToken,
    ) -> Result<(), IntakeError> {
        if source.is_own()
            && let Some(trigger) = triggers.values().flatten().min_by_key(|trigger| trigger.created_at)
            && let Some(function) = self.function(trigger.function_id, cancel).await?
            && let Some(named) = &function.dead_letter_queue
            && named.as_str() != source.queue
        {
            source.client.ensure_queue(named.as_str(), &Map::new()).await.map_err(IntakeError::Letter)?;
            let posted = source.client.post(named.as_str(), letters).await;
            return posted.map(|_| ()).map_err(|error| IntakeError::Letter(error.into()));
        }
        let posted = self.queue.post(&self.options.dead_letter_queue, letters).await;
        posted.map(|_| ()).map_err(|error| IntakeError::Letter(error.into()))
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

    fn dead_letter(&self, source: &Source, message: &Message, reason: DeadLetterReason, text: &str) -> NewMessage {
        self.metrics.dead_letter(reason);
        let reason = reason.as_str();
        tracing::info!(message.id, reason, "message {} is no work for anybody: {text}", message.id);
        let mut letter = json!({
            "reason": reason,
            "message": text,
            "queue": source.queue,
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
