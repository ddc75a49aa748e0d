//! Projects' own queues. Each is looked at by one worker at a time ([`crate::scheduler::ownership`]), few at once and as
//! seldom as they deserve ([`crate::scheduler::polls`]), with the trust of whoever made a trigger on it. What goes wrong
//! with one is told on its triggers and disturbs no other.
//!
//! That only one worker looks is for thrift and not for safety: a message that two take in becomes one execution, as on
//! the platform's queue.

mod access;
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::access::{MakeClient, ProjectQueues};
use self::look::{Listeners, Looked};
use super::intake::Intake;
use crate::config::ZaqarOptions;
use crate::model::WorkerId;
use crate::model::trigger::queue::{QueueKey, QueueStatus};
use crate::model::worker::WorkerState;
use crate::scheduler::ownership::{Assignment, assign};
use crate::scheduler::polls::{Pace, Polls};
use crate::store::{Store, StoreError};
use crate::task::chain;

/// What looks at projects' own queues.
pub struct Queues {
    /// This worker.
    pub me: WorkerId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What takes messages in.
    pub intake: Arc<Intake>,
    /// The ways to the queues.
    pub access: ProjectQueues,
    /// Says which queues have something, where Zaqar tells us.
    pub wake_ups: tokio::sync::Mutex<mpsc::Receiver<QueueKey>>,
    /// How it behaves.
    pub options: Options,
}

/// How projects' own queues are looked at.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often.
    pub pace: Pace,
    /// Between two looks at which queues there are and whose they are.
    pub refresh: Duration,
    /// Silence after which a worker is dead and its queues are taken over.
    pub dead_after: Duration,
}

/// Pause after the first failure of a queue.
const RETRY_MIN: Duration = Duration::from_secs(1);

impl Options {
    /// As `[zaqar]` says.
    #[must_use]
    pub fn new(zaqar: &ZaqarOptions, dead_after: Duration) -> Self {
        Self {
            pace: Pace {
                min: Duration::from_millis(zaqar.queue_poll_min_ms),
                max: Duration::from_millis(zaqar.queue_poll_max_ms),
                idle_rate: zaqar.queue_idle_rate,
                at_once: zaqar.queue_claims,
                failed_min: RETRY_MIN,
                failed_max: Duration::from_secs(zaqar.queue_retry_max),
            },
            refresh: Duration::from_secs_f64(zaqar.queue_refresh),
            dead_after,
        }
    }
}

/// The queues that this worker has.
struct Held {
    polls: Polls<QueueKey>,
    listeners: BTreeMap<QueueKey, Listeners>,
    /// Those that are being looked at.
    under_way: BTreeSet<QueueKey>,
    /// Those to be given up when the look at them has ended.
    leaving: BTreeSet<QueueKey>,
}

impl Queues {
    /// Looks at queues until cancelled, and then gives them up, so that others need not wait for silence.
    ///
    /// # Errors
    /// None: faults are logged and tried again.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), StoreError> {
        let mut wake_ups = self.wake_ups.lock().await;
        let mut held = Held {
            polls: Polls::new(self.options.pace),
            listeners: BTreeMap::new(),
            under_way: BTreeSet::new(),
            leaving: BTreeSet::new(),
        };
        let mut looks: FuturesUnordered<BoxFuture<'_, Looked>> = FuturesUnordered::new();
        let mut refreshed: Option<Instant> = None;
        while !cancel.is_cancelled() {
            if refreshed.is_none_or(|at| at.elapsed() >= self.options.refresh) {
                if let Err(error) = self.refresh(&mut held).await {
                    let error = chain(&error);
                    tracing::warn!(error, "which queues there are cannot be read, it is tried again: {error}");
                }
                refreshed = Some(Instant::now());
            }
            while let Some(key) = held.polls.next(Instant::now()) {
                let Some(listeners) = held.listeners.get(&key) else { continue };
                held.under_way.insert(key);
                looks.push(look::look(&self.intake, &self.access, listeners.clone(), &cancel).boxed());
            }
            let refresh_at = refreshed.map_or_else(Instant::now, |at| at + self.options.refresh);
            let next = held.polls.next_due().map_or(refresh_at, |due| due.min(refresh_at));
            tokio::select! {
                () = cancel.cancelled() => {}
                Some(looked) = looks.next(), if !looks.is_empty() => self.looked(&mut held, looked).await,
                Some(key) = wake_ups.recv() => held.polls.wake(&key, Instant::now()),
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
        // What is claimed is taken in; nothing new is claimed.
        while let Some(looked) = looks.next().await {
            self.looked(&mut held, looked).await;
        }
        for key in held.listeners.keys().chain(&held.leaving) {
            self.release(key, self.me).await;
        }
        Ok(())
    }

    /// Sees which queues there are and whose, takes what is for this worker and gives up what is not.
    async fn refresh(&self, held: &mut Held) -> Result<(), StoreError> {
        let mut listeners: BTreeMap<QueueKey, Vec<_>> = BTreeMap::new();
        for trigger in self.store.queue_triggers().await? {
            if let Some(key) = trigger.queue_key() {
                listeners.entry(key).or_default().push(trigger);
            }
        }
        let owners: BTreeMap<_, _> = self.store.queue_owners().await?.into_iter().collect();
        if listeners.is_empty() && owners.is_empty() && held.listeners.is_empty() {
            return Ok(());
        }
        let live = self.store.workers().await?.into_iter();
        let live = live
            .filter(|(worker, age)| worker.state == WorkerState::Active && *age < self.options.dead_after)
            .map(|(worker, _)| worker.id)
            .collect();
        let wanted = listeners.keys().cloned().collect();
        let Assignment { keep, take, give_up, forget } = assign(self.me, &live, &wanted, &owners);
        // Also what somebody took from us while we were silent.
        let kept: BTreeSet<_> = keep.iter().chain(&give_up).cloned().collect();
        let lost: Vec<_> = held.listeners.keys().filter(|key| !kept.contains(*key)).cloned().collect();
        for key in give_up.into_iter().chain(lost) {
            held.polls.remove(&key);
            held.listeners.remove(&key);
            if held.under_way.contains(&key) {
                held.leaving.insert(key);
            } else {
                self.release(&key, self.me).await;
            }
        }
        for (key, owner) in forget {
            self.release(&key, owner).await;
        }
        let mut mine = keep;
        for (key, from) in take {
            if self.store.take_queue(&key, from, self.me).await? {
                tracing::debug!(project.id = %key.project_id, queue = %key.queue, "queue {key} is looked at here");
                mine.push(key);
            }
        }
        for key in mine {
            let Some(triggers) = listeners.remove(&key) else { continue };
            // Taken back before it was given up.
            held.leaving.remove(&key);
            let voice = held.listeners.get(&key).and_then(|known| known.voice);
            held.listeners.insert(key.clone(), Listeners { key: key.clone(), triggers, voice });
            if !held.under_way.contains(&key) {
                held.polls.add(&key, Instant::now());
            }
        }
        Ok(())
    }

    /// Takes note of what a look came to.
    async fn looked(&self, held: &mut Held, looked: Looked) {
        let Looked { key, look, voice, statuses } = looked;
        held.under_way.remove(&key);
        let failures = held.polls.looked(&key, look, Instant::now());
        if held.leaving.remove(&key) {
            self.release(&key, self.me).await;
        }
        let Some(listeners) = held.listeners.get_mut(&key) else { return };
        held.polls.add(&key, Instant::now());
        listeners.voice = voice.or(listeners.voice);
        for (trigger, status) in statuses {
            let known = listeners.triggers.iter_mut().find(|known| known.id == trigger);
            let Some(queue) = known.and_then(|known| known.queue.as_mut()) else { continue };
            if queue.status.is_like(&status) || !look::is_worth_telling(&status, failures) {
                continue;
            }
            if let QueueStatus::Error { reason, message, .. } = &status {
                let (reason, queue) = (reason.as_str(), &key.queue);
                tracing::info!(
                    trigger.id = %trigger, project.id = %key.project_id, %queue, reason,
                    "queue {key} cannot be looked at for trigger {trigger}: {message}"
                );
            }
            match self.store.set_queue_status(trigger, &status).await {
                Ok(()) => queue.status = status,
                // It is deleted: the next refresh sees it.
                Err(StoreError::NotFound(_)) => {}
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(trigger.id = %trigger, error, "a trigger's status cannot be written: {error}");
                }
            }
        }
    }

    async fn release(&self, key: &QueueKey, owner: WorkerId) {
        if let Err(error) = self.store.release_queue(key, owner).await {
            let error = chain(&error);
            tracing::warn!(error, "queue {key} could not be given up, it will be taken over: {error}");
        }
    }
}
