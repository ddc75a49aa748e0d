//! What the service remembers. One trait, two implementations, one conformance suite (`tests/it/store.rs`).
//!
//! The store decides nothing: it keeps documents, binds a tenant's reading to its project, and refuses a write whose
//! expectation does not hold. bson and SQL stay inside its files.

mod execution_row;
mod marker;
pub mod metered;
pub mod mongo;
pub mod sqlite;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::config::DatabaseOptions;
use crate::model::execution::{Fence, LogChunk};
use crate::model::function::FunctionName;
use crate::model::instance::Instance;
use crate::model::package::PackageDigest;
use crate::model::trigger::queue::{QueueKey, QueueStatus};
use crate::model::worker::Worker;
use crate::model::{
    DeploymentId, Execution, ExecutionId, ExecutionState, Function, FunctionId, InstanceId, ProjectId, Timestamp,
    Trigger, TriggerId, WorkerId,
};

/// Whose documents a query may see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One project's.
    Project(ProjectId),
    /// Everybody's: for workers, and for operators whom policy allows it.
    All,
}

/// A function, by what a path names it with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FunctionRef {
    /// By its id.
    Id(FunctionId),
    /// By its name, within the scope's project.
    Name(FunctionName),
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such document in this scope.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Another document has that unique value.
    #[error("the {0} is taken")]
    Taken(&'static str),
    /// The document has changed since it was read.
    #[error("the document has changed since it was read")]
    Stale,
    /// The marker names nothing.
    #[error("the marker names no element of the list")]
    BadMarker,
    /// The database did not answer, or refused for a passing reason: try again.
    #[error("the database is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A document cannot be read, or the database refused for a lasting reason: someone must look.
    #[error("the database holds or answered something unexpected")]
    Unexpected(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::NotFound(_) | Self::Taken(_) | Self::Stale | Self::BadMarker | Self::Unexpected(_) => false,
        }
    }
}

/// What the store answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Which way a list runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A page that is asked for. Lists are cut by the value of the sort key and the id of the last element, never by
/// counting, so that rows which come and go do not shift the others.
#[derive(Clone, Debug)]
pub struct PageRequest<K> {
    /// At most this many elements.
    pub limit: usize,
    /// Where the last page ended: a [`Page::next`] of before, or the id of an element.
    pub marker: Option<String>,
    /// What the list is ordered by; the id breaks ties in the same direction.
    pub sort: K,
    /// Which way.
    pub direction: Direction,
}

/// A page.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Its elements.
    pub items: Vec<T>,
    /// The marker of the next page; none: this was the last.
    pub next: Option<String>,
}

/// What functions can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionSort {
    /// Their making.
    CreatedAt,
    /// Their last change.
    UpdatedAt,
    /// Their name.
    Name,
}

/// Which functions.
#[derive(Clone, Debug, Default)]
pub struct FunctionFilter {
    /// With this name.
    pub name: Option<FunctionName>,
    /// With this runtime.
    pub runtime: Option<String>,
}

/// What executions can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionSort {
    /// When they were received.
    ReceivedAt,
}

/// Which executions.
#[derive(Clone, Debug, Default)]
pub struct ExecutionFilter {
    /// Of this function.
    pub function_id: Option<FunctionId>,
    /// In one of these states; empty: any.
    pub states: Vec<ExecutionState>,
    /// Received at or after.
    pub since: Option<Timestamp>,
    /// Received before.
    pub until: Option<Timestamp>,
    /// Of the event with this CloudEvents id.
    pub event_id: Option<String>,
}

/// What triggers can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerSort {
    /// Their making.
    CreatedAt,
}

/// Which triggers.
#[derive(Clone, Debug, Default)]
pub struct TriggerFilter {
    /// Of this function.
    pub function_id: Option<FunctionId>,
}

/// Which of the executions that were to be inserted are new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inserted {
    /// These were not known before and are durable now.
    pub new: Vec<ExecutionId>,
    /// These were there already; nothing of them was changed.
    pub known: Vec<ExecutionId>,
}

/// A change of an execution's record: all but its identity, origin, moment of receipt, event and payload is written.
#[derive(Clone, Debug)]
pub struct ExecutionWrite {
    /// What must be found, else nothing is written.
    pub expected: Fence,
    /// The record as it shall be.
    pub next: Execution,
}

/// What the service remembers.
///
/// Calls are safe to repeat after [`StoreError::Unavailable`], which says nothing of whether the call was carried out:
/// a repeated creation, replacement or conditional write that finds its own work done answers as the first would have.
/// Of two things the repeater must know: what was inserted the first time comes back as [`Inserted::known`], and what
/// was deleted the first time as [`StoreError::NotFound`].
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Brings tables, collections and indexes to this release's shape. Additive, safe from many nodes at once.
    async fn migrate(&self) -> Result<()>;

    /// What [`Self::migrate`] would add: names of collections' indexes or of steps. Empty: the store has this release's
    /// shape.
    async fn missing(&self) -> Result<Vec<String>>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<()>;

    /// What this deployment is called in the clouds that it boots instances in: made by the first who asks, the same for
    /// all ever after.
    async fn deployment(&self) -> Result<DeploymentId>;

    // --- functions ---

    /// Adds a function with its first triggers, all or nothing. [`StoreError::Taken`] when the project has the name.
    async fn create_function(&self, function: &Function, triggers: &[Trigger]) -> Result<()>;

    /// Reads one function.
    async fn function(&self, scope: &Scope, function: &FunctionRef) -> Result<Function>;

    /// Lists functions.
    async fn functions(
        &self,
        scope: &Scope,
        filter: &FunctionFilter,
        page: &PageRequest<FunctionSort>,
    ) -> Result<Page<Function>>;

    /// Every function of the scope that has provisioned concurrency, oldest first.
    async fn provisioned_functions(&self, scope: &Scope) -> Result<Vec<Function>>;

    /// Replaces a function whose revision is still `expected_revision`; else [`StoreError::Stale`].
    async fn replace_function(&self, scope: &Scope, function: &Function, expected_revision: u64) -> Result<()>;

    /// Removes a function and its triggers; with `expected_revision` only if it still has it.
    async fn delete_function(&self, scope: &Scope, id: FunctionId, expected_revision: Option<u64>) -> Result<()>;

    // --- packages: content-addressed, shared by all who upload the same bytes ---

    /// Keeps a package. What is there already stays as it is and counts as put now.
    async fn put_package(&self, digest: PackageDigest, archive: Bytes) -> Result<()>;

    /// Reads a package.
    async fn package(&self, digest: PackageDigest) -> Result<Bytes>;

    /// Removes packages that no function names and that were last put before `older_than`; how many. Give a running
    /// upload time to create its function: an hour at least.
    async fn delete_unused_packages(&self, older_than: Timestamp) -> Result<u64>;

    // --- triggers ---

    /// Adds a trigger. [`StoreError::NotFound`] when its function is not there.
    async fn create_trigger(&self, trigger: &Trigger) -> Result<()>;

    /// Reads one trigger.
    async fn trigger(&self, scope: &Scope, id: TriggerId) -> Result<Trigger>;

    /// Lists triggers.
    async fn triggers(
        &self,
        scope: &Scope,
        filter: &TriggerFilter,
        page: &PageRequest<TriggerSort>,
    ) -> Result<Page<Trigger>>;

    /// Removes a trigger.
    async fn delete_trigger(&self, scope: &Scope, id: TriggerId) -> Result<()>;

    /// Every trigger of a project, for matching.
    async fn project_triggers(&self, project: &ProjectId) -> Result<Vec<Trigger>>;

    /// Every trigger of these functions, which the caller has found before; what it costs does not depend on how many
    /// others there are.
    async fn function_triggers(&self, functions: &[FunctionId]) -> Result<Vec<Trigger>>;

    // --- projects' own queues ---

    /// Every trigger on a project's own queue, of all projects, oldest first: for those who look at the queues.
    async fn queue_triggers(&self) -> Result<Vec<Trigger>>;

    /// Notes how looking at a trigger's queue goes. [`StoreError::NotFound`] when the trigger is gone.
    async fn set_queue_status(&self, id: TriggerId, status: &QueueStatus) -> Result<()>;

    /// Which worker looks at which queue. One that is not named is nobody's.
    async fn queue_owners(&self) -> Result<Vec<(QueueKey, WorkerId)>>;

    /// Makes `worker` the one that looks at a queue if its owner is still `from` (none: nobody); whether it is now. The
    /// claim lasts until it is released or taken over: whether an owner is alive is for the callers to judge.
    async fn take_queue(&self, queue: &QueueKey, from: Option<WorkerId>, worker: WorkerId) -> Result<bool>;

    /// Makes a queue nobody's, if `worker` is its owner.
    async fn release_queue(&self, queue: &QueueKey, worker: WorkerId) -> Result<()>;

    /// The secret with which programs of this deployment sign what they post: `fresh`, if there was none before.
    async fn posting_secret(&self, fresh: &str) -> Result<String>;

    // --- executions ---

    /// Inserts new executions, unordered. When it returns, those named in either list survive any crash.
    async fn insert_executions(&self, executions: &[Execution]) -> Result<Inserted>;

    /// Writes changes, each only if its expectation holds; one answer per write, in order: whether the record stands
    /// as this write leaves it. A write that is repeated answers `true` again until another one has followed it.
    /// `false`: the expectation did not hold, or the record has moved on since; the writer has no claim any more.
    /// Each execution at most once in a call.
    async fn write_executions(&self, writes: &[ExecutionWrite]) -> Result<Vec<bool>>;

    /// Reads one execution.
    async fn execution(&self, scope: &Scope, id: ExecutionId) -> Result<Execution>;

    /// Lists executions.
    async fn executions(
        &self,
        scope: &Scope,
        filter: &ExecutionFilter,
        page: &PageRequest<ExecutionSort>,
    ) -> Result<Page<Execution>>;

    /// Parked executions that are due (queued, without owner, `not_before` reached), those that are due the longest
    /// first within a project and in turn over the projects, without those of the functions in `without`. A call begins
    /// with the project after the one where this process's last call ended, so that none waits behind many others.
    /// Nothing is claimed: the caller writes.
    async fn due_executions(&self, now: Timestamp, limit: usize, without: &[FunctionId]) -> Result<Vec<Execution>>;

    /// When the next parked execution becomes due, if any is parked.
    async fn next_due(&self) -> Result<Option<Timestamp>>;

    /// The workers that own executions which are not finished, known or not: what the dead among them own is lost
    /// unless it is taken over, and a worker that was too slow may have inserted after it was forgotten.
    async fn owners(&self) -> Result<Vec<WorkerId>>;

    /// Executions that `worker` owns and that are not finished, oldest first.
    async fn owned_executions(&self, worker: WorkerId, limit: usize) -> Result<Vec<Execution>>;

    /// Finished executions whose dead letter is not posted and that were finished before `before`, oldest first.
    async fn owing_dead_letters(&self, before: Timestamp, limit: usize) -> Result<Vec<Execution>>;

    /// Removes executions finished before `executions` and logs written before `logs`, where the database does not do
    /// that by itself; how many executions. One that owes a dead letter is kept.
    async fn expire(&self, executions: Timestamp, logs: Timestamp) -> Result<u64>;

    // --- logs ---

    /// Keeps parts of logs. A part that is there already (same execution, attempt and sequence) is replaced.
    async fn append_logs(&self, chunks: &[LogChunk]) -> Result<()>;

    /// Reads a log from behind `(attempt, sequence)`, at most `limit` parts, in order.
    async fn log(
        &self,
        scope: &Scope,
        execution: ExecutionId,
        after: Option<(u32, u32)>,
        limit: usize,
    ) -> Result<Vec<LogChunk>>;

    // --- workers ---

    /// Writes a worker's document and sets its heartbeat to the store's own time. Answers [`StoreError::Stale`] when
    /// the worker was declared dead: it must stop, its executions belong to others. A worker beats once before it owns
    /// anything.
    async fn heartbeat(&self, worker: &Worker) -> Result<()>;

    /// All workers that are known, each with the age of its heartbeat by the store's own clock.
    async fn workers(&self) -> Result<Vec<(Worker, Duration)>>;

    /// Declares a worker dead if its heartbeat is still at least `silent_for` old; whether it is dead now. One that is
    /// not known is declared dead too, so that a first heartbeat which comes late is refused.
    async fn declare_dead(&self, worker: WorkerId, silent_for: Duration) -> Result<bool>;

    /// Forgets a worker that is drained or dead; succeeds when it is not there. [`StoreError::Stale`] while it owns an
    /// execution. Its id stays refused for a day, should it beat again.
    async fn delete_worker(&self, worker: WorkerId) -> Result<()>;

    // --- instances ---

    /// Writes an instance's document, whether it is there or not.
    async fn put_instance(&self, instance: &Instance) -> Result<()>;

    /// All instances.
    async fn instances(&self, scope: &Scope) -> Result<Vec<Instance>>;

    /// Forgets an instance; succeeds when it is not there.
    async fn delete_instance(&self, id: InstanceId) -> Result<()>;
}

/// Opens the store that `[database] connection` names by its scheme, `mongodb` (or `mongodb+srv`) or `sqlite`. Nothing
/// is migrated yet, and MongoDB not asked yet.
///
/// # Errors
/// [`StoreError::Unexpected`] when the connection string is not valid (its text is not in the error, since it may hold
/// a password); with SQLite also when the file cannot be opened.
pub async fn open(options: &DatabaseOptions) -> Result<Arc<dyn Store>> {
    let timeout = Duration::from_secs(options.timeout.max(1));
    let retention = Retention {
        executions: Duration::from_secs(options.execution_retention),
        logs: Duration::from_secs(options.log_retention),
    };
    match options.connection.split_once("://") {
        Some(("sqlite", path)) => Ok(Arc::new(sqlite::SqliteStore::open(path.as_ref(), timeout).await?)),
        Some(("mongodb" | "mongodb+srv", _)) => {
            Ok(Arc::new(mongo::MongoStore::open(&options.connection, timeout, retention).await?))
        }
        Some(_) | None => Err(bad_connection("it must begin with mongodb:// or sqlite:///")),
    }
}

/// A connection string that cannot be used, and why; never its text.
#[derive(Debug, thiserror::Error)]
#[error("[database] connection is not valid: {0}")]
struct BadConnection(&'static str);

fn bad_connection(why: &'static str) -> StoreError {
    StoreError::Unexpected(Box::new(BadConnection(why)))
}

/// The database took longer than `[database] timeout`.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
struct TimedOut(Duration);

/// Carries out one call within the time that a call may take.
async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable(Box::new(TimedOut(timeout)))),
    }
}

/// How long the id of a forgotten worker is refused.
const FORGOTTEN_WORKER_REFUSED: Duration = Duration::from_secs(24 * 3600);

/// How long finished executions and their logs are kept; given to a store when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Executions, from the moment they finished.
    pub executions: Duration,
    /// Logs, from the moment they were written.
    pub logs: Duration,
}
