//! How the API reaches workers: one multiplexed connection to each gateway, kept while it is good, and none to a worker in
//! the same process; which worker a call goes to; and what may be tried again. A call that may have reached a worker is
//! never sent a second time.

mod announce;
mod choose;
mod connection;
mod way;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lambda_agent::tls::Fingerprint;
use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::choose::Candidate;
use self::connection::{Connection, ConnectionError};
pub use self::way::LocalWorker;
use self::way::Way;
use crate::model::execution::{Failure, Phase, Reason};
use crate::model::worker::{Worker, WorkerState};
use crate::model::{ExecutionId, FunctionId, ProjectId, WorkerId};
use crate::store::{Store, StoreError};
use crate::task::{OnFailure, Tasks, chain};

/// How long the list of workers is believed.
const WORKERS_FRESH: Duration = Duration::from_secs(1);

/// How many workers are tried for one call.
const WORKERS_TRIED: usize = 3;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The list of workers cannot be had.
    #[error("the workers are not known")]
    Store(#[source] StoreError),
    /// No worker takes work.
    #[error("no worker takes work")]
    NoWorker,
    /// No worker could be reached; the call was sent to none.
    #[error("no worker could be reached")]
    NotSent(#[source] ConnectionError),
    /// Every worker that was tried has as many calls as this process gives it.
    #[error("too many calls are under way")]
    Full,
    /// The connection was lost after the call was sent.
    #[error("the worker was lost")]
    Lost(#[source] ConnectionError),
    /// The worker did not answer within the patience.
    #[error("the worker did not answer in time")]
    Late,
}

/// A call that a worker has done.
#[derive(Debug)]
pub(super) struct Called {
    /// The execution that was recorded; none: the worker refused before it had one.
    pub execution: Option<ExecutionId>,
    /// What the handler returned, or why it did not.
    pub result: Result<Bytes, Box<Failure>>,
}

/// The gateways of all workers. Clones share the connections, which end with the last of them.
#[derive(Clone)]
pub(super) struct Gateways(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    local: Option<Arc<dyn LocalWorker>>,
    tasks: Tasks,
    silence: Duration,
    workers: Cache<(), Arc<Vec<Worker>>>,
    connections: Cache<WorkerId, Arc<Connection>>,
    nudge: Notify,
    end: CancellationToken,
    // The connections' tasks watch it: a cache drops its values some time after it was dropped itself.
    _end: DropGuard,
}

impl Gateways {
    /// Starts what reaches out to workers, one of which may be `local`. Workers that were silent for longer than `silence`
    /// get no calls.
    pub fn start(store: Arc<dyn Store>, local: Option<Arc<dyn LocalWorker>>, tasks: &Tasks, silence: Duration) -> Self {
        let end = CancellationToken::new();
        let this = Self(Arc::new(Inner {
            store,
            local,
            tasks: tasks.clone(),
            silence,
            workers: Cache::builder().max_capacity(1).time_to_live(WORKERS_FRESH).build(),
            connections: Cache::builder().max_capacity(4096).build(),
            nudge: Notify::new(),
            _end: end.clone().drop_guard(),
            end,
        }));
        let nudging = this.clone();
        tasks.supervise("nudge", OnFailure::Restart, move |cancel| {
            let gateways = nudging.clone();
            async move {
                loop {
                    tokio::select! {
                        () = gateways.0.nudge.notified() => gateways.send_nudge().await,
                        () = cancel.cancelled() => return Ok::<(), std::convert::Infallible>(()),
                    }
                }
            }
        });
        this
    }

    /// Runs a function on a worker and waits for the answer, at most `patience` long.
    pub async fn call(
        &self,
        project: &ProjectId,
        function: FunctionId,
        event: Bytes,
        patience: Duration,
    ) -> Result<Called, CallError> {
        let deadline = Instant::now() + patience;
        let workers = self.workers().await.map_err(CallError::Store)?;
        let order = choose::order(function, &self.candidates(&workers).await);
        let mut outcome = Err(CallError::NoWorker);
        for id in order.into_iter().take(WORKERS_TRIED) {
            let Some(worker) = workers.iter().find(|worker| worker.id == id) else { continue };
            let way = match self.way(worker).await {
                Ok(way) => way,
                Err(error) => {
                    tracing::warn!(worker.id = %id, error = chain(&error), "worker {id} cannot be reached: {}", chain(&error));
                    outcome = Err(CallError::NotSent(error));
                    continue;
                }
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match way.call(project, function, event.clone(), left).await {
                Ok(called) => {
                    // It was leaving when the call came, and did not begin: another one can.
                    if never_begun(&called) {
                        outcome = Ok(called);
                        continue;
                    }
                    return Ok(called);
                }
                Err(error @ ConnectionError::NotSent) => outcome = Err(CallError::NotSent(error)),
                Err(ConnectionError::Full) => outcome = Err(CallError::Full),
                Err(ConnectionError::Late) => return Err(CallError::Late),
                Err(
                    error @ (ConnectionError::Lost
                    | ConnectionError::Refused(_)
                    | ConnectionError::Io(_)
                    | ConnectionError::Wire(_)
                    | ConnectionError::Unexpected),
                ) => return Err(CallError::Lost(error)),
            }
        }
        outcome
    }

    /// Asks the worker that owns an execution to stop it; whether it did.
    pub async fn cancel(&self, worker: WorkerId, execution: ExecutionId) -> Result<bool, CallError> {
        let workers = self.0.store.workers().await.map_err(CallError::Store)?;
        let (worker, _) = workers.iter().find(|(known, _)| known.id == worker).ok_or(CallError::NoWorker)?;
        let way = self.way(worker).await.map_err(CallError::NotSent)?;
        match way.cancel(execution).await {
            Ok(found) => Ok(found),
            Err(ConnectionError::Late) => Err(CallError::Late),
            Err(ConnectionError::Full) => Err(CallError::Full),
            Err(error) => Err(CallError::Lost(error)),
        }
    }

    /// Tells one worker that there is something in the inbox or on the queue. Does not wait; many at once become one. A nudge that is
    /// lost costs nothing but time: workers look there by themselves.
    pub fn nudge(&self) {
        self.0.nudge.notify_one();
    }

    async fn send_nudge(&self) {
        let Ok(workers) = self.workers().await else { return };
        let mut candidates = self.candidates(&workers).await;
        candidates.sort_by(|a, b| a.relative_load().total_cmp(&b.relative_load()));
        for candidate in candidates.into_iter().take(WORKERS_TRIED) {
            let Some(worker) = workers.iter().find(|worker| worker.id == candidate.id) else { continue };
            if let Ok(way) = self.way(worker).await
                && way.nudge().await.is_ok()
            {
                return;
            }
        }
    }

    /// The workers that take work. Asked for at most once a second, however many want to know.
    async fn workers(&self) -> Result<Arc<Vec<Worker>>, StoreError> {
        let inner = &self.0;
        let fetched = inner.workers.try_get_with((), async {
            let all = inner.store.workers().await?;
            let known: HashMap<_, _> = all.iter().map(|(worker, _)| (worker.id, worker.state)).collect();
            for (id, connection) in &inner.connections {
                if known.get(&*id).is_none_or(|state| *state == WorkerState::Dead) {
                    connection.close();
                    inner.connections.invalidate(&*id).await;
                }
            }
            let able =
                |(worker, silent): &(Worker, Duration)| worker.state == WorkerState::Active && *silent < inner.silence;
            Ok::<_, StoreError>(Arc::new(all.into_iter().filter(able).map(|(worker, _)| worker).collect()))
        });
        // The error is shared by all who waited for it; each gets its own with the same words.
        fetched.await.map_err(|error| match &*error {
            StoreError::Unavailable(source) => StoreError::Unavailable(chain(source.as_ref()).into()),
            error @ (StoreError::NotFound(_)
            | StoreError::Taken(_)
            | StoreError::Stale
            | StoreError::BadMarker
            | StoreError::Unexpected(_)) => StoreError::Unexpected(chain(error).into()),
        })
    }

    async fn candidates(&self, workers: &[Worker]) -> Vec<Candidate> {
        let mut candidates = Vec::with_capacity(workers.len());
        for worker in workers {
            // The heartbeat may be seconds old, and what this process has sent since is not in it.
            let in_flight = self.0.connections.get(&worker.id).await.map_or(0, |connection| connection.in_flight());
            let load = worker.executions.max(in_flight);
            candidates.push(Candidate { id: worker.id, capacity: worker.capacity.max(1), load });
        }
        candidates
    }

    /// How a worker is reached.
    async fn way(&self, worker: &Worker) -> Result<Way, ConnectionError> {
        match &self.0.local {
            Some(local) if local.id() == worker.id => Ok(Way::Here(Arc::clone(local))),
            Some(_) | None => self.connection(worker).await.map(Way::There),
        }
    }

    /// The connection to a worker; dialled when there is none, by one of those who want it.
    async fn connection(&self, worker: &Worker) -> Result<Arc<Connection>, ConnectionError> {
        if let Some(connection) = self.0.connections.get(&worker.id).await
            && !connection.is_closed()
        {
            return Ok(connection);
        }
        let inner = &self.0;
        let result = inner
            .connections
            .entry(worker.id)
            .and_try_compute_with(|entry| async {
                if entry.is_some_and(|entry| !entry.value().is_closed()) {
                    return Ok(Op::Nop);
                }
                let end = inner.end.child_token();
                let connection =
                    Connection::dial(&worker.gateway, fingerprint(worker)?, &worker.caller_secret, end, &inner.tasks)
                        .await?;
                Ok(Op::Put(Arc::new(connection)))
            })
            .await?;
        match result {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) | CompResult::Unchanged(entry) => {
                Ok(entry.into_value())
            }
            CompResult::Removed(_) | CompResult::StillNone(_) => Err(ConnectionError::NotSent),
        }
    }
}

/// By what a worker's gateway is known; none on this host, where it is talked to without TLS.
fn fingerprint(worker: &Worker) -> Result<Option<Fingerprint>, ConnectionError> {
    if worker.gateway.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback()) {
        return Ok(None);
    }
    let known = worker.gateway_fingerprint.as_ref().and_then(|text| text.parse().ok());
    // The secret is for the worker only, so it is not sent without TLS.
    let unknown = || std::io::Error::other("the worker does not tell its certificate");
    known.map(Some).ok_or_else(|| ConnectionError::Io(unknown()))
}

fn never_begun(called: &Called) -> bool {
    called.result.as_ref().is_err_and(|failure| failure.reason == Reason::ShuttingDown && failure.phase == Phase::Queue)
}
