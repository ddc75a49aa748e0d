//! What callers ask of a worker, whichever way they come: over the line (`caller`) or from the API in the same process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::clock;
use crate::model::execution::{Change, Component, EventSummary, Execution, Failure, Origin, Phase, Reason};
use crate::model::{ExecutionId, FunctionId, Payload, RequestId, WorkerId};
use crate::task::chain;
use crate::worker::dispatch::{Call, Dispatch, Event, Work};
use crate::worker::functions::Functions;
use crate::worker::outcome;

/// Takes callers' requests to the dispatcher. Clones share it.
#[derive(Clone)]
pub struct Calls {
    pub(super) me: WorkerId,
    pub(super) dispatch: Dispatch,
    pub(super) functions: Functions,
    pub(super) permits: Arc<Semaphore>,
    pub(super) nudged: [Arc<Notify>; 2],
    pub(super) changed: Arc<Notify>,
}

impl Calls {
    /// The worker that is asked.
    #[must_use]
    pub const fn worker(&self) -> WorkerId {
        self.me
    }

    /// Runs a function for a caller that waits for at most `patience`. One that goes away stops nothing.
    ///
    /// # Errors
    /// Why there is no execution. One that failed is none: it is returned as it is recorded.
    pub async fn call(&self, id: FunctionId, body: Bytes, patience: Duration) -> Result<Execution, Box<Failure>> {
        let function = match self.functions.get(id).await {
            Ok(Some(function)) => function,
            Ok(None) => return Err(refusal(Reason::FunctionDeleted, "the function was deleted")),
            Err(error) => {
                let error = chain(error.as_ref());
                tracing::warn!(function.id = %id, error, "a function could not be looked up for a call: {error}");
                return Err(refusal(Reason::Overloaded, "the store does not answer; try again"));
            }
        };
        let payload = Payload::parse(body).map_err(|invalid| refusal(Reason::HandlerError, &invalid.to_string()))?;
        let Ok(_permit) = self.permits.try_acquire() else {
            return Err(refusal(Reason::Overloaded, "the worker has as many calls as it can take; try again later"));
        };
        let mut execution = Execution::receive(
            ExecutionId::generate(),
            &function,
            Origin::Invocation,
            EventSummary::of_payload(&payload),
            payload,
            clock::now(),
        );
        // A fresh record takes every worker.
        let _ = execution.apply(Change::Own { worker: self.me });
        let (reply, done) = oneshot::channel();
        let call = Call { reply, patience_until: Instant::now() + patience };
        let work = Work { execution, function, place: None, call: Some(call), recorded: false };
        self.dispatch.tell(Event::Work(vec![work])).await;
        done.await.map_err(|_| refusal(Reason::ShuttingDown, "the worker has stopped"))
    }

    /// Stops an execution of this worker; whether there was one to stop.
    pub async fn cancel(&self, id: ExecutionId) -> bool {
        let (reply, found) = oneshot::channel();
        self.dispatch.tell(Event::Cancel(id, reply)).await;
        found.await.unwrap_or(false)
    }

    /// There may be something new in the inbox or on the queue.
    pub fn nudge(&self) {
        for task in &self.nudged {
            task.notify_one();
        }
    }

    /// A function has changed: what is asked after this sees the change. `in_force` is dropped when that is so for events
    /// as well.
    pub async fn function_changed(&self, id: FunctionId, in_force: Option<oneshot::Sender<()>>) {
        self.functions.forget(id).await;
        self.dispatch.tell(Event::FunctionChanged(id, in_force)).await;
        self.changed.notify_one();
    }
}

/// Why nothing was begun.
pub(super) fn refusal(reason: Reason, message: &str) -> Box<Failure> {
    Box::new(outcome::platform(RequestId::generate(), Component::Worker, Phase::Queue, reason, message))
}
