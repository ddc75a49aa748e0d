//! The store on SQLite: one file, for one machine. What was answered is on the disk, also when the power fails.

mod engine;
mod executions;
mod fleet;
mod functions;
mod inbox;
mod logs;
mod packages;
mod query;
mod queues;
mod schema;

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::engine::Engine;
use super::turns::Turns;
use super::{
    ExecutionFilter, ExecutionSort, ExecutionWrite, FunctionFilter, FunctionRef, FunctionSort, Inserted, Page,
    PageRequest, Result, Scope, Store, StoreError, TriggerFilter, TriggerSort, bad_connection,
};
use crate::clock;
use crate::model::execution::LogChunk;
use crate::model::instance::Instance;
use crate::model::package::PackageDigest;
use crate::model::trigger::queue::{QueueKey, QueueStatus};
use crate::model::worker::Worker;
use crate::model::{
    DeploymentId, Execution, ExecutionId, Function, FunctionId, InstanceId, ProjectId, Timestamp, Trigger, TriggerId,
    WorkerId,
};

/// Rows that one transaction of [`Store::expire`] removes at most, so that others come in between.
const EXPIRE_BATCH: usize = 500;

/// The store on SQLite.
pub struct SqliteStore {
    engine: Engine,
    turns: Arc<Turns>,
}

impl SqliteStore {
    /// Opens the file at an absolute path, making it if it is not there, readable for its owner only. `timeout` bounds
    /// each transaction.
    ///
    /// # Errors
    /// [`StoreError::Unexpected`] when the path is not absolute or the file is no database, [`StoreError::Unavailable`]
    /// when it cannot be opened.
    pub async fn open(path: &Path, timeout: Duration) -> Result<Self> {
        if !path.is_absolute() {
            return Err(bad_connection("sqlite:// must be followed by an absolute path"));
        }
        let path = path.to_owned();
        let opening = tokio::task::spawn_blocking(move || {
            make_private(&path)
                .map_err(|source| StoreError::Unavailable(Box::new(CannotOpen { path: path.clone(), source })))?;
            Engine::open(&path, timeout)
        });
        let engine = opening.await.map_err(|error| StoreError::Unavailable(Box::new(error)))??;
        Ok(Self { engine, turns: Arc::default() })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the database file {} cannot be opened", path.display())]
struct CannotOpen {
    path: PathBuf,
    source: std::io::Error,
}

// Payloads, environments and the workers' secrets are in it. SQLite gives its other files the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<()> {
        self.engine.write(schema::migrate).await
    }

    async fn missing(&self) -> Result<Vec<String>> {
        self.engine.read(schema::missing).await
    }

    async fn ping(&self) -> Result<()> {
        self.engine.read(|db| Ok(db.query_one("SELECT 1", (), |_| Ok(()))?)).await
    }

    async fn deployment(&self) -> Result<DeploymentId> {
        self.engine.write(fleet::deployment).await
    }

    async fn create_function(&self, function: &Function, triggers: &[Trigger]) -> Result<()> {
        let (function, triggers) = (function.clone(), triggers.to_vec());
        self.engine.write(move |db| functions::create(db, &function, &triggers)).await
    }

    async fn function(&self, scope: &Scope, function: &FunctionRef) -> Result<Function> {
        let (scope, function) = (scope.clone(), function.clone());
        self.engine.read(move |db| functions::get(db, &scope, &function)).await
    }

    async fn functions(
        &self,
        scope: &Scope,
        filter: &FunctionFilter,
        page: &PageRequest<FunctionSort>,
    ) -> Result<Page<Function>> {
        let (scope, filter, page) = (scope.clone(), filter.clone(), page.clone());
        self.engine.read(move |db| functions::list(db, &scope, &filter, &page)).await
    }

    async fn replace_function(&self, scope: &Scope, function: &Function, expected_revision: u64) -> Result<()> {
        let (scope, function) = (scope.clone(), function.clone());
        self.engine.write(move |db| functions::replace(db, &scope, &function, expected_revision)).await
    }

    async fn delete_function(&self, scope: &Scope, id: FunctionId, expected_revision: Option<u64>) -> Result<()> {
        let scope = scope.clone();
        self.engine.write(move |db| functions::delete(db, &scope, id, expected_revision)).await
    }

    async fn put_package(&self, digest: PackageDigest, archive: Bytes) -> Result<()> {
        self.engine.write(move |db| packages::put(db, digest, &archive, clock::now())).await
    }

    async fn package(&self, digest: PackageDigest) -> Result<Bytes> {
        self.engine.read(move |db| packages::get(db, digest)).await.map(Bytes::from)
    }

    async fn delete_unused_packages(&self, older_than: Timestamp) -> Result<u64> {
        let mut deleted = 0;
        while self.engine.write(move |db| packages::delete_one_unused(db, older_than)).await? {
            deleted += 1;
        }
        Ok(deleted)
    }

    async fn create_trigger(&self, trigger: &Trigger) -> Result<()> {
        let trigger = trigger.clone();
        self.engine.write(move |db| functions::create_trigger(db, &trigger)).await
    }

    async fn trigger(&self, scope: &Scope, id: TriggerId) -> Result<Trigger> {
        let scope = scope.clone();
        self.engine.read(move |db| functions::trigger(db, &scope, id)).await
    }

    async fn triggers(
        &self,
        scope: &Scope,
        filter: &TriggerFilter,
        page: &PageRequest<TriggerSort>,
    ) -> Result<Page<Trigger>> {
        let (scope, filter, page) = (scope.clone(), filter.clone(), page.clone());
        self.engine.read(move |db| functions::triggers(db, &scope, &filter, &page)).await
    }

    async fn delete_trigger(&self, scope: &Scope, id: TriggerId) -> Result<()> {
        let scope = scope.clone();
        self.engine.write(move |db| functions::delete_trigger(db, &scope, id)).await
    }

    async fn project_triggers(&self, project: &ProjectId) -> Result<Vec<Trigger>> {
        let project = project.clone();
        self.engine.read(move |db| functions::project_triggers(db, &project)).await
    }

    async fn function_triggers(&self, functions: &[FunctionId]) -> Result<Vec<Trigger>> {
        let functions = functions.to_vec();
        self.engine.read(move |db| functions::triggers_of(db, &functions)).await
    }

    async fn provisioned_functions(&self, scope: &Scope) -> Result<Vec<Function>> {
        let scope = scope.clone();
        self.engine.read(move |db| functions::provisioned(db, &scope)).await
    }

    async fn queue_triggers(&self) -> Result<Vec<Trigger>> {
        self.engine.read(queues::triggers).await
    }

    async fn set_queue_status(&self, id: TriggerId, status: &QueueStatus) -> Result<()> {
        let status = status.clone();
        self.engine.write(move |db| queues::set_status(db, id, status)).await
    }

    async fn queue_owners(&self) -> Result<Vec<(QueueKey, WorkerId)>> {
        self.engine.read(queues::owners).await
    }

    async fn take_queue(&self, queue: &QueueKey, from: Option<WorkerId>, worker: WorkerId) -> Result<bool> {
        let queue = queue.clone();
        self.engine.write(move |db| queues::take(db, &queue, from, worker)).await
    }

    async fn release_queue(&self, queue: &QueueKey, worker: WorkerId) -> Result<()> {
        let queue = queue.clone();
        self.engine.write(move |db| queues::release(db, &queue, worker)).await
    }

    async fn posting_secret(&self, fresh: &str) -> Result<String> {
        let fresh = fresh.to_owned();
        self.engine.write(move |db| queues::keep_secret(db, &fresh)).await
    }

    async fn insert_executions(&self, executions: &[Execution]) -> Result<Inserted> {
        if executions.is_empty() {
            return Ok(Inserted::default());
        }
        let executions = executions.to_vec();
        self.engine.write(move |db| executions::insert(db, &executions)).await
    }

    async fn write_executions(&self, writes: &[ExecutionWrite]) -> Result<Vec<bool>> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let writes = writes.to_vec();
        self.engine.write(move |db| executions::write(db, &writes)).await
    }

    async fn execution(&self, scope: &Scope, id: ExecutionId) -> Result<Execution> {
        let scope = scope.clone();
        self.engine.read(move |db| executions::get(db, &scope, id)).await
    }

    async fn executions(
        &self,
        scope: &Scope,
        filter: &ExecutionFilter,
        page: &PageRequest<ExecutionSort>,
    ) -> Result<Page<Execution>> {
        let (scope, filter, page) = (scope.clone(), filter.clone(), page.clone());
        self.engine.read(move |db| executions::list(db, &scope, &filter, &page)).await
    }

    async fn due_executions(&self, now: Timestamp, limit: usize, without: &[FunctionId]) -> Result<Vec<Execution>> {
        let (turns, without) = (Arc::clone(&self.turns), without.to_vec());
        self.engine.read(move |db| inbox::due(db, &turns, now, limit, &without)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>> {
        self.engine.read(inbox::next_due).await
    }

    async fn owners(&self) -> Result<Vec<WorkerId>> {
        self.engine.read(inbox::owners).await
    }

    async fn owned_executions(&self, worker: WorkerId, limit: usize) -> Result<Vec<Execution>> {
        self.engine.read(move |db| inbox::owned(db, worker, limit)).await
    }

    async fn owing_dead_letters(&self, before: Timestamp, limit: usize) -> Result<Vec<Execution>> {
        self.engine.read(move |db| inbox::owing(db, before, limit)).await
    }

    async fn expire(&self, executions: Timestamp, logs: Timestamp) -> Result<u64> {
        let mut expired = 0;
        loop {
            let gone = self.engine.write(move |db| inbox::expire_executions(db, executions, EXPIRE_BATCH)).await?;
            expired += u64::try_from(gone).unwrap_or(u64::MAX);
            if gone < EXPIRE_BATCH {
                break;
            }
        }
        while self.engine.write(move |db| inbox::expire_logs(db, logs, EXPIRE_BATCH)).await? == EXPIRE_BATCH {}
        Ok(expired)
    }

    async fn append_logs(&self, chunks: &[LogChunk]) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let chunks = chunks.to_vec();
        self.engine.write(move |db| logs::append(db, &chunks, clock::now())).await
    }

    async fn log(
        &self,
        scope: &Scope,
        execution: ExecutionId,
        after: Option<(u32, u32)>,
        limit: usize,
    ) -> Result<Vec<LogChunk>> {
        let scope = scope.clone();
        self.engine.read(move |db| logs::read(db, &scope, execution, after, limit)).await
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<()> {
        let worker = worker.clone();
        self.engine.write(move |db| fleet::heartbeat(db, &worker, clock::now())).await
    }

    async fn workers(&self) -> Result<Vec<(Worker, Duration)>> {
        self.engine.read(|db| fleet::workers(db, clock::now())).await
    }

    async fn declare_dead(&self, worker: WorkerId, silent_for: Duration) -> Result<bool> {
        self.engine.write(move |db| fleet::declare_dead(db, worker, silent_for, clock::now())).await
    }

    async fn delete_worker(&self, worker: WorkerId) -> Result<()> {
        self.engine.write(move |db| fleet::delete_worker(db, worker, clock::now())).await
    }

    async fn put_instance(&self, instance: &Instance) -> Result<()> {
        let instance = instance.clone();
        self.engine.write(move |db| fleet::put_instance(db, &instance)).await
    }

    async fn instances(&self, scope: &Scope) -> Result<Vec<Instance>> {
        let scope = scope.clone();
        self.engine.read(move |db| fleet::instances(db, &scope)).await
    }

    async fn delete_instance(&self, id: InstanceId) -> Result<()> {
        self.engine.write(move |db| fleet::delete_instance(db, id)).await
    }
}
