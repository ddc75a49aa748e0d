//! Cleans up after workers that died: their executions go back to the inbox, their instances are deleted, and whatever the
//! driver has booted for this deployment that nobody knows of goes too.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::outcome;
use crate::clock;
use crate::driver::Driver;
use crate::model::execution::{Change, Component, Measures, Phase, Reason};
use crate::model::function::QueueName;
use crate::model::worker::WorkerState;
use crate::model::{InstanceId, WorkerId};
use crate::scheduler::retry::survives_loss;
use crate::store::{ExecutionWrite, Scope, Store};
use crate::task::{TaskError, chain};

/// Executions released at once.
const BATCH: usize = 200;
/// How often old records, logs and packages are looked for.
const SWEEP: Duration = Duration::from_secs(300);
/// A package that no function names is kept this long: its function may be about to be made.
const PACKAGE_KEPT: Duration = Duration::from_secs(3600);

/// Time for one call of a driver.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// What the reaper works with.
pub struct Reaper {
    /// This worker.
    pub me: WorkerId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The drivers of this worker.
    pub drivers: Vec<Arc<dyn Driver>>,
    /// Notified when executions went back to the inbox.
    pub nudge: Arc<Notify>,
    /// Notified when a dead letter has to be posted.
    pub owing: Arc<Notify>,
    /// Where events go that were given up here.
    pub dead_letter_queue: QueueName,
    /// Silence after which a worker is dead.
    pub dead_after: Duration,
    /// How long finished executions and their logs are kept, where the database does not see to it.
    pub retention: crate::store::Retention,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Workers declared dead.
    pub workers: usize,
    /// Executions that went back to the inbox or were given up.
    pub executions: usize,
    /// Instances deleted.
    pub instances: usize,
}

impl Reaper {
    /// Goes round until cancelled.
    ///
    /// # Errors
    /// When the store or the driver does not answer: the supervisor starts it again, the next round is the retry.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), TaskError> {
        let mut swept = tokio::time::Instant::now();
        loop {
            let report = self.round(self.dead_after).await?;
            if report != Report::default() {
                tracing::info!(
                    report.workers,
                    report.executions,
                    report.instances,
                    "reaped {} workers, {} executions, {} instances",
                    report.workers,
                    report.executions,
                    report.instances
                );
            }
            if swept.elapsed() >= SWEEP {
                swept = tokio::time::Instant::now();
                let now = clock::now();
                self.store.expire(now - self.retention.executions, now - self.retention.logs).await?;
                self.store.delete_unused_packages(now - PACKAGE_KEPT).await?;
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.dead_after / 2) => {}
            }
        }
    }

    /// One round, in which a worker is dead after this silence. A program that is alone on its store gives zero at its
    /// start: whoever is written there is a former run of itself.
    ///
    /// # Errors
    /// When the store or the driver does not answer.
    pub async fn round(&self, dead_after: Duration) -> Result<Report, TaskError> {
        let mut report = Report::default();
        let mut alive = HashSet::from([self.me]);
        // Read before the workers: a worker is written there before it owns anything, so an owner that is not there then
        // was forgotten and wrote too late.
        let owners = self.store.owners().await?;
        let mut known = HashSet::new();
        for (worker, age) in self.store.workers().await? {
            known.insert(worker.id);
            if worker.id == self.me {
                continue;
            }
            let dead = worker.state == WorkerState::Dead
                || (age >= dead_after && self.store.declare_dead(worker.id, dead_after).await?);
            if !dead {
                alive.insert(worker.id);
                continue;
            }
            report.workers += 1;
            report.executions += self.release(worker.id).await?;
            // Only now: until all is released, the next round must find it again.
            self.store.delete_worker(worker.id).await?;
        }
        for owner in owners.into_iter().filter(|owner| !known.contains(owner) && *owner != self.me) {
            report.executions += self.release(owner).await?;
        }
        for driver in &self.drivers {
            // One cloud that does not answer keeps nobody from cleaning up the others.
            match self.reap_instances(driver.as_ref(), &alive).await {
                Ok(deleted) => report.instances += deleted,
                Err(error) => {
                    let (name, error) = (driver.name(), chain(error.as_ref()));
                    tracing::warn!(driver = name, error, "leftovers of driver {name} cannot be looked for: {error}");
                }
            }
        }
        Ok(report)
    }

    /// Gives the executions of a dead worker back to the inbox; how many.
    async fn release(&self, worker: WorkerId) -> Result<usize, TaskError> {
        let mut released = 0;
        loop {
            let owned = self.store.owned_executions(worker, BATCH).await?;
            if owned.is_empty() {
                return Ok(released);
            }
            let mut writes = Vec::with_capacity(owned.len());
            for mut execution in owned {
                let expected = execution.fence();
                let change = if survives_loss(&execution) {
                    Change::Release
                } else {
                    let message = "the worker was lost again and again while it ran this event";
                    let failure = outcome::platform(
                        execution.request_id(),
                        Component::Worker,
                        Phase::Invoke,
                        Reason::WorkerLost,
                        message,
                    );
                    let dead_letter = Some(self.dead_letter_queue.clone());
                    Change::Fail { at: clock::now(), failure, measures: Measures::default(), dead_letter }
                };
                execution.apply(change)?;
                writes.push(ExecutionWrite { expected, next: execution });
            }
            self.store.write_executions(&writes).await?;
            released += writes.len();
            self.nudge.notify_one();
            self.owing.notify_one();
        }
    }

    /// Deletes instances of workers that are gone, and those that the driver finds but nobody wrote down; how many.
    async fn reap_instances(&self, driver: &dyn Driver, alive: &HashSet<WorkerId>) -> Result<usize, TaskError> {
        let booted = tokio::time::timeout(CALL_TIMEOUT, driver.list()).await??;
        // Read after the driver's list: what is booted in between is written down before.
        let known = self.store.instances(&Scope::All).await?;
        let mut unowned: Vec<InstanceId> = known
            .iter()
            .filter(|instance| instance.driver == driver.name() && !alive.contains(&instance.worker))
            .map(|instance| instance.id)
            .collect();
        let written: HashSet<_> = known.iter().map(|instance| instance.id).collect();
        unowned.extend(booted.into_iter().filter(|id| !written.contains(id)));
        let mut deleted = 0;
        for id in unowned {
            match tokio::time::timeout(CALL_TIMEOUT, driver.delete(id)).await? {
                Ok(()) => {
                    self.store.delete_instance(id).await?;
                    deleted += 1;
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(instance.id = %id, error, "instance {id} cannot be reaped yet: {error}");
                }
            }
        }
        Ok(deleted)
    }
}
