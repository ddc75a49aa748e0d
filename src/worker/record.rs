//! Writes down what happened: records and logs, in batches, in the order of their events. Nobody waits for it but a
//! dispatcher whose queue to it is full.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::model::execution::LogChunk;
use crate::model::{Execution, ExecutionId};
use crate::store::{ExecutionWrite, Store, StoreError};
use crate::task::chain;
use crate::telemetry::metrics::Metrics;

/// Something to write.
#[derive(Debug)]
pub enum Record {
    /// The first record of an execution that the store does not know: a synchronous call.
    New(Execution),
    /// A change of a record.
    Change(ExecutionWrite),
    /// A part of a log.
    Log(LogChunk),
}

/// Shortest time between the beginnings of two batches. The first record after a pause is written at once; under load
/// those of many calls share what a write costs, which would else be more than all the rest of a call, and one call in a
/// hundred at most meets a commit. Who looks for a record that is not written yet waits for it
/// (`api::executions::find`).
const BATCH_EVERY: Duration = Duration::from_millis(40);
/// Records that may wait to be written.
const QUEUE: usize = 4096;
/// Most records in one batch.
const BATCH: usize = 256;
/// Pauses between tries while the store does not answer.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Hands records over. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Recorder {
    records: mpsc::Sender<Record>,
}

impl Recorder {
    /// The handle, and the queue that [`run`] empties.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Record>) {
        let (records, receiver) = mpsc::channel(QUEUE);
        (Self { records }, receiver)
    }

    /// Hands one over; waits when the queue is full.
    pub async fn write(&self, record: Record) {
        if self.records.send(record).await.is_err() {
            tracing::error!("a record is lost: the recorder has ended");
        }
    }
}

/// Writes until every [`Recorder`] is gone and all that they handed over is written. `owing` is notified when dead
/// letters have to be posted.
pub async fn run(store: Arc<dyn Store>, mut records: mpsc::Receiver<Record>, owing: Arc<Notify>, metrics: Metrics) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut next = Instant::now();
    loop {
        // More than one batch is there already: waiting would gather nothing.
        if records.len() < BATCH {
            sleep_until(next).await;
        }
        if records.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        next = Instant::now() + BATCH_EVERY;
        let merged = Merged::from(batch.drain(..));
        merged.write(store.as_ref(), &owing, &metrics).await;
    }
}

/// A batch in which each execution stands once: what came first says what the store must have, what came last says what
/// it shall have.
#[derive(Default)]
struct Merged {
    logs: Vec<LogChunk>,
    new: Vec<Execution>,
    changes: Vec<ExecutionWrite>,
    places: HashMap<ExecutionId, Place>,
}

#[derive(Clone, Copy)]
enum Place {
    New(usize),
    Change(usize),
}

impl Merged {
    fn from(records: impl Iterator<Item = Record>) -> Self {
        let mut merged = Self::default();
        for record in records {
            match record {
                Record::Log(chunk) => merged.logs.push(chunk),
                Record::New(execution) => {
                    merged.places.insert(execution.id, Place::New(merged.new.len()));
                    merged.new.push(execution);
                }
                Record::Change(write) => match merged.places.get(&write.next.id) {
                    Some(Place::New(at)) => merged.new[*at] = write.next,
                    Some(Place::Change(at)) => merged.changes[*at].next = write.next,
                    None => {
                        merged.places.insert(write.next.id, Place::Change(merged.changes.len()));
                        merged.changes.push(write);
                    }
                },
            }
        }
        merged
    }

    async fn write(self, store: &dyn Store, owing: &Notify, metrics: &Metrics) {
        // The log first: whoever sees that an execution is over finds its log complete.
        if !self.logs.is_empty() {
            insist("logs", || store.append_logs(&self.logs)).await;
        }
        if !self.new.is_empty() {
            insist("new records", || store.insert_executions(&self.new)).await;
        }
        if self.changes.is_empty() {
            return;
        }
        let Some(applied) = insist("records", || store.write_executions(&self.changes)).await else { return };
        for (write, applied) in self.changes.iter().zip(applied) {
            if !applied {
                metrics.write_refused();
                tracing::warn!(
                    execution.id = %write.next.id,
                    "execution {} belongs to somebody else by now, what happened to it here is not recorded",
                    write.next.id
                );
            } else if write.next.owes_dead_letter() {
                owing.notify_one();
            }
        }
    }
}

/// Repeats a call of the store until it answers. What it refuses for good is logged and left.
async fn insist<T, F>(what: &'static str, mut call: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE_MIN;
    loop {
        match call().await {
            Ok(value) => return Some(value),
            Err(error) if error.retryable() => {
                let error = chain(&error);
                tracing::warn!(error, "{what} cannot be written now, they are kept: {error}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "{what} cannot be written: {error}");
                return None;
            }
        }
    }
}
