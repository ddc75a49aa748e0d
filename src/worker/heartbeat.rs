//! Shows that this worker is alive, and learns which others are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::dispatch::{Dispatch, Event};
use crate::model::worker::{Worker, WorkerState};
use crate::store::{Store, StoreError};
use crate::task::chain;

/// What the task works with.
pub struct Heartbeat {
    /// What is said of this worker; the numbers are filled in at each beat.
    pub worker: Worker,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Whose numbers are told, and who is told of the others.
    pub dispatch: Dispatch,
    /// Between two beats.
    pub interval: Duration,
    /// Silence after which the others take this worker for dead.
    pub dead_after: Duration,
    /// Cancelled when the worker drains.
    pub draining: CancellationToken,
}

impl Heartbeat {
    /// Registers the worker; must have succeeded before anything is taken on.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn first(&self) -> Result<(), StoreError> {
        self.store.heartbeat(&self.worker).await
    }

    /// Beats until cancelled.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when this worker was declared dead: what it had belongs to others, it must end.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), StoreError> {
        let mut shown = Instant::now();
        loop {
            match self.beat().await {
                Ok(()) => {
                    shown = Instant::now();
                    self.dispatch.tell(Event::MayStart(true)).await;
                }
                Err(StoreError::Stale) => return Err(StoreError::Stale),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "no heartbeat could be given: {error}");
                    if shown.elapsed() + self.interval >= self.dead_after {
                        // The others may be adopting our executions at this moment.
                        self.dispatch.tell(Event::MayStart(false)).await;
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    async fn beat(&self) -> Result<(), StoreError> {
        let load = self.dispatch.load();
        let mut worker = self.worker.clone();
        worker.executions = load.waiting + load.running;
        worker.sandboxes = load.sandboxes;
        if self.draining.is_cancelled() {
            worker.state = WorkerState::Draining;
        }
        self.store.heartbeat(&worker).await?;
        let workers = self.store.workers().await?;
        let live = workers
            .into_iter()
            .filter(|(other, age)| {
                other.id == worker.id || (other.state == WorkerState::Active && *age < self.dead_after)
            })
            .map(|(other, _)| other.id)
            .collect();
        self.dispatch.tell(Event::LiveWorkers(live)).await;
        Ok(())
    }
}
