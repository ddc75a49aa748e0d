//! The store on MongoDB, for deployments of any number of nodes.
//!
//! Every write waits for a majority and its journal, every read sees only what a majority has: nothing that is acted
//! upon can be rolled back by a failover, whatever the connection string says of it.

mod document;
mod error;
mod executions;
mod fleet;
mod functions;
mod inbox;
mod logs;
mod packages;
mod page;
mod queues;
mod schema;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mongodb::bson::{Document, doc};
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern};
use mongodb::{Client, Collection, Database};
use tokio::sync::OnceCell;

use super::turns::Turns;
use super::{
    ExecutionFilter, ExecutionSort, ExecutionWrite, FunctionFilter, FunctionRef, FunctionSort, Inserted, Page,
    PageRequest, Result, Retention, Scope, Store, TriggerFilter, TriggerSort, bad_connection, within,
};
use crate::model::execution::LogChunk;
use crate::model::instance::Instance;
use crate::model::package::PackageDigest;
use crate::model::trigger::queue::{QueueKey, QueueStatus};
use crate::model::worker::Worker;
use crate::model::{
    DeploymentId, Execution, ExecutionId, Function, FunctionId, InstanceId, ProjectId, Timestamp, Trigger, TriggerId,
    WorkerId,
};

/// Connections to each server, unless the connection string says otherwise: enough for all that asks at one time.
const POOL_SIZE: u32 = 50;

/// The index of a large collection is built for longer than an operation may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3600);

/// The store on MongoDB.
pub struct MongoStore {
    client: Client,
    database: Database,
    timeout: Duration,
    retention: Retention,
    /// Whether the deployment has transactions; asked when it is first needed.
    transactions: OnceCell<bool>,
    turns: Turns,
}

impl MongoStore {
    /// Makes a client. Nothing is asked of the server yet; `timeout` bounds each operation.
    ///
    /// # Errors
    /// [`super::StoreError::Unexpected`] when the connection string is not valid; the error does not show it.
    pub async fn open(connection: &str, timeout: Duration, retention: Retention) -> Result<Self> {
        // The driver's message may quote the connection string, and with it the password.
        let mut options = ClientOptions::parse(connection).await.map_err(|_| {
            bad_connection("it is not a connection string of MongoDB (not shown, it may hold a password)")
        })?;
        let name = options.default_database.clone().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| bad_connection("its path must name the database"))?;
        options.app_name.get_or_insert_with(|| "lambda".to_owned());
        options.connect_timeout.get_or_insert(timeout);
        // A little sooner than the operation's own end, so that the error says that no server was found.
        options.server_selection_timeout.get_or_insert(timeout.mul_f32(0.9));
        options.max_pool_size.get_or_insert(POOL_SIZE);
        options.write_concern = Some(durable(timeout));
        options.read_concern = Some(ReadConcern::majority());
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let client = Client::with_options(options).map_err(|_| bad_connection("its options do not go together"))?;
        let database = client.database(&name);
        let (transactions, turns) = (OnceCell::new(), Turns::default());
        Ok(Self { client, database, timeout, retention, transactions, turns })
    }

    /// Writes functions and their triggers without transactions, as with a mongod that is no replica set.
    #[must_use]
    pub fn without_transactions(mut self) -> Self {
        self.transactions = OnceCell::new_with(Some(false));
        self
    }

    fn collection(&self, name: &str) -> Collection<Document> {
        self.database.collection(name)
    }

    async fn has_transactions(&self) -> Result<bool> {
        let ask = || async {
            let hello = self.database.run_command(doc! { "hello": 1 }).await?;
            // A member of a replica set, or the router of a sharded cluster.
            Ok(hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid"))
        };
        self.transactions.get_or_try_init(ask).await.copied()
    }
}

/// What every write waits for.
fn durable(timeout: Duration) -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(timeout).build()
}

#[async_trait]
impl Store for MongoStore {
    async fn migrate(&self) -> Result<()> {
        within(MIGRATION_TIMEOUT, schema::migrate(&self.database)).await
    }

    async fn missing(&self) -> Result<Vec<String>> {
        within(self.timeout, schema::missing(&self.database)).await
    }

    async fn ping(&self) -> Result<()> {
        within(self.timeout, async { Ok(self.database.run_command(doc! { "ping": 1 }).await.map(|_| ())?) }).await
    }

    async fn deployment(&self) -> Result<DeploymentId> {
        within(self.timeout, self.name_deployment()).await
    }

    async fn create_function(&self, function: &Function, triggers: &[Trigger]) -> Result<()> {
        within(self.timeout, self.add_function(function, triggers)).await
    }

    async fn function(&self, scope: &Scope, function: &FunctionRef) -> Result<Function> {
        within(self.timeout, self.get_function(scope, function)).await
    }

    async fn functions(
        &self,
        scope: &Scope,
        filter: &FunctionFilter,
        page: &PageRequest<FunctionSort>,
    ) -> Result<Page<Function>> {
        within(self.timeout, self.list_functions(scope, filter, page)).await
    }

    async fn replace_function(&self, scope: &Scope, function: &Function, expected_revision: u64) -> Result<()> {
        within(self.timeout, self.put_function(scope, function, expected_revision)).await
    }

    async fn delete_function(&self, scope: &Scope, id: FunctionId, expected_revision: Option<u64>) -> Result<()> {
        within(self.timeout, self.remove_function(scope, id, expected_revision)).await
    }

    // Packages are large: what is bounded is each part of them.
    async fn put_package(&self, digest: PackageDigest, archive: Bytes) -> Result<()> {
        self.upload(digest, archive).await
    }

    async fn package(&self, digest: PackageDigest) -> Result<Bytes> {
        self.download(digest).await
    }

    async fn delete_unused_packages(&self, older_than: Timestamp) -> Result<u64> {
        self.remove_unused_packages(older_than).await
    }

    async fn create_trigger(&self, trigger: &Trigger) -> Result<()> {
        within(self.timeout, self.add_trigger(trigger)).await
    }

    async fn trigger(&self, scope: &Scope, id: TriggerId) -> Result<Trigger> {
        within(self.timeout, self.get_trigger(scope, id)).await
    }

    async fn triggers(
        &self,
        scope: &Scope,
        filter: &TriggerFilter,
        page: &PageRequest<TriggerSort>,
    ) -> Result<Page<Trigger>> {
        within(self.timeout, self.list_triggers(scope, filter, page)).await
    }

    async fn delete_trigger(&self, scope: &Scope, id: TriggerId) -> Result<()> {
        within(self.timeout, self.remove_trigger(scope, id)).await
    }

    async fn project_triggers(&self, project: &ProjectId) -> Result<Vec<Trigger>> {
        let filter = doc! { "project_id": project.as_str() };
        within(self.timeout, self.all_triggers(filter)).await
    }

    async fn function_triggers(&self, functions: &[FunctionId]) -> Result<Vec<Trigger>> {
        let ids: Vec<_> = functions.iter().map(ToString::to_string).collect();
        within(self.timeout, self.all_triggers(doc! { "function_id": { "$in": ids } })).await
    }

    async fn provisioned_functions(&self, scope: &Scope) -> Result<Vec<Function>> {
        within(self.timeout, self.find_provisioned(scope)).await
    }

    async fn queue_triggers(&self) -> Result<Vec<Trigger>> {
        within(self.timeout, self.find_queue_triggers()).await
    }

    async fn set_queue_status(&self, id: TriggerId, status: &QueueStatus) -> Result<()> {
        within(self.timeout, self.write_queue_status(id, status)).await
    }

    async fn queue_owners(&self) -> Result<Vec<(QueueKey, WorkerId)>> {
        within(self.timeout, self.list_queue_owners()).await
    }

    async fn take_queue(&self, queue: &QueueKey, from: Option<WorkerId>, worker: WorkerId) -> Result<bool> {
        within(self.timeout, self.claim_queue(queue, from, worker)).await
    }

    async fn release_queue(&self, queue: &QueueKey, worker: WorkerId) -> Result<()> {
        within(self.timeout, self.give_up_queue(queue, worker)).await
    }

    async fn posting_secret(&self, fresh: &str) -> Result<String> {
        within(self.timeout, self.keep_secret(fresh)).await
    }

    async fn insert_executions(&self, executions: &[Execution]) -> Result<Inserted> {
        within(self.timeout, self.add_executions(executions)).await
    }

    async fn write_executions(&self, writes: &[ExecutionWrite]) -> Result<Vec<bool>> {
        within(self.timeout, self.change_executions(writes)).await
    }

    async fn execution(&self, scope: &Scope, id: ExecutionId) -> Result<Execution> {
        within(self.timeout, self.get_execution(scope, id)).await
    }

    async fn executions(
        &self,
        scope: &Scope,
        filter: &ExecutionFilter,
        page: &PageRequest<ExecutionSort>,
    ) -> Result<Page<Execution>> {
        within(self.timeout, self.list_executions(scope, filter, page)).await
    }

    async fn due_executions(&self, now: Timestamp, limit: usize, without: &[FunctionId]) -> Result<Vec<Execution>> {
        within(self.timeout, self.find_due(now, limit, without)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>> {
        within(self.timeout, self.find_next_due()).await
    }

    async fn owners(&self) -> Result<Vec<WorkerId>> {
        within(self.timeout, self.find_owners()).await
    }

    async fn owned_executions(&self, worker: WorkerId, limit: usize) -> Result<Vec<Execution>> {
        within(self.timeout, self.find_owned(worker, limit)).await
    }

    async fn owing_dead_letters(&self, before: Timestamp, limit: usize) -> Result<Vec<Execution>> {
        within(self.timeout, self.find_owing(before, limit)).await
    }

    async fn expire(&self, _executions: Timestamp, _logs: Timestamp) -> Result<u64> {
        // The TTL indexes do it.
        Ok(0)
    }

    async fn append_logs(&self, chunks: &[LogChunk]) -> Result<()> {
        within(self.timeout, self.put_logs(chunks)).await
    }

    async fn log(
        &self,
        scope: &Scope,
        execution: ExecutionId,
        after: Option<(u32, u32)>,
        limit: usize,
    ) -> Result<Vec<LogChunk>> {
        within(self.timeout, self.read_log(scope, execution, after, limit)).await
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<()> {
        within(self.timeout, self.beat(worker)).await
    }

    async fn workers(&self) -> Result<Vec<(Worker, Duration)>> {
        within(self.timeout, self.list_workers()).await
    }

    async fn declare_dead(&self, worker: WorkerId, silent_for: Duration) -> Result<bool> {
        within(self.timeout, self.bury(worker, silent_for)).await
    }

    async fn delete_worker(&self, worker: WorkerId) -> Result<()> {
        within(self.timeout, self.forget_worker(worker)).await
    }

    async fn put_instance(&self, instance: &Instance) -> Result<()> {
        within(self.timeout, self.write_instance(instance)).await
    }

    async fn instances(&self, scope: &Scope) -> Result<Vec<Instance>> {
        within(self.timeout, self.list_instances(scope)).await
    }

    async fn delete_instance(&self, id: InstanceId) -> Result<()> {
        within(self.timeout, self.forget_instance(id)).await
    }
}
