//! A store that counts: every call goes on to another store, and its time and outcome to the metrics.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    ExecutionFilter, ExecutionSort, ExecutionWrite, FunctionFilter, FunctionRef, FunctionSort, Inserted, Page,
    PageRequest, Result, Scope, Store, StoreError, TriggerFilter, TriggerSort,
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
use crate::telemetry::Metrics;
use crate::telemetry::metrics::StoreOutcome;

/// Another store, observed.
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    metrics: Metrics,
}

impl MeteredStore {
    /// Observes `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }

    async fn observe<T>(&self, operation: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        observe(&self.metrics, operation, call).await
    }
}

async fn observe<T>(
    metrics: &Metrics,
    operation: &'static str,
    call: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let mut watch = Watch { metrics, operation, outcome: StoreOutcome::Abandoned, begun: Instant::now() };
    let result = call.await;
    watch.outcome = match &result {
        Ok(_) => StoreOutcome::Ok,
        Err(error) => outcome(error),
    };
    result
}

/// Notes a call when it ends, also when its caller gives it up.
struct Watch<'a> {
    metrics: &'a Metrics,
    operation: &'static str,
    outcome: StoreOutcome,
    begun: Instant,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.metrics.store_call(self.operation, self.outcome, self.begun.elapsed());
    }
}

const fn outcome(error: &StoreError) -> StoreOutcome {
    match error {
        StoreError::NotFound(_) => StoreOutcome::NotFound,
        StoreError::Taken(_) => StoreOutcome::Taken,
        StoreError::Stale => StoreOutcome::Stale,
        StoreError::BadMarker => StoreOutcome::BadMarker,
        StoreError::Unavailable(_) => StoreOutcome::Unavailable,
        StoreError::Unexpected(_) => StoreOutcome::Unexpected,
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn migrate(&self) -> Result<()> {
        self.observe("migrate", self.inner.migrate()).await
    }

    async fn missing(&self) -> Result<Vec<String>> {
        self.observe("missing", self.inner.missing()).await
    }

    async fn ping(&self) -> Result<()> {
        self.observe("ping", self.inner.ping()).await
    }

    async fn deployment(&self) -> Result<DeploymentId> {
        self.observe("deployment", self.inner.deployment()).await
    }

    async fn create_function(&self, function: &Function, triggers: &[Trigger]) -> Result<()> {
        self.observe("create_function", self.inner.create_function(function, triggers)).await
    }

    async fn function(&self, scope: &Scope, function: &FunctionRef) -> Result<Function> {
        self.observe("function", self.inner.function(scope, function)).await
    }

    async fn functions(
        &self,
        scope: &Scope,
        filter: &FunctionFilter,
        page: &PageRequest<FunctionSort>,
    ) -> Result<Page<Function>> {
        self.observe("functions", self.inner.functions(scope, filter, page)).await
    }

    async fn replace_function(&self, scope: &Scope, function: &Function, expected_revision: u64) -> Result<()> {
        self.observe("replace_function", self.inner.replace_function(scope, function, expected_revision)).await
    }

    async fn delete_function(&self, scope: &Scope, id: FunctionId, expected_revision: Option<u64>) -> Result<()> {
        self.observe("delete_function", self.inner.delete_function(scope, id, expected_revision)).await
    }

    async fn put_package(&self, digest: PackageDigest, archive: Bytes) -> Result<()> {
        self.observe("put_package", self.inner.put_package(digest, archive)).await
    }

    async fn package(&self, digest: PackageDigest) -> Result<Bytes> {
        self.observe("package", self.inner.package(digest)).await
    }

    async fn delete_unused_packages(&self, older_than: Timestamp) -> Result<u64> {
        self.observe("delete_unused_packages", self.inner.delete_unused_packages(older_than)).await
    }

    async fn create_trigger(&self, trigger: &Trigger) -> Result<()> {
        self.observe("create_trigger", self.inner.create_trigger(trigger)).await
    }

    async fn trigger(&self, scope: &Scope, id: TriggerId) -> Result<Trigger> {
        self.observe("trigger", self.inner.trigger(scope, id)).await
    }

    async fn triggers(
        &self,
        scope: &Scope,
        filter: &TriggerFilter,
        page: &PageRequest<TriggerSort>,
    ) -> Result<Page<Trigger>> {
        self.observe("triggers", self.inner.triggers(scope, filter, page)).await
    }

    async fn delete_trigger(&self, scope: &Scope, id: TriggerId) -> Result<()> {
        self.observe("delete_trigger", self.inner.delete_trigger(scope, id)).await
    }

    async fn project_triggers(&self, project: &ProjectId) -> Result<Vec<Trigger>> {
        self.observe("project_triggers", self.inner.project_triggers(project)).await
    }

    async fn function_triggers(&self, functions: &[FunctionId]) -> Result<Vec<Trigger>> {
        self.observe("function_triggers", self.inner.function_triggers(functions)).await
    }

    async fn provisioned_functions(&self, scope: &Scope) -> Result<Vec<Function>> {
        self.observe("provisioned_functions", self.inner.provisioned_functions(scope)).await
    }

    async fn queue_triggers(&self) -> Result<Vec<Trigger>> {
        self.observe("queue_triggers", self.inner.queue_triggers()).await
    }

    async fn set_queue_status(&self, id: TriggerId, status: &QueueStatus) -> Result<()> {
        self.observe("set_queue_status", self.inner.set_queue_status(id, status)).await
    }

    async fn queue_owners(&self) -> Result<Vec<(QueueKey, WorkerId)>> {
        self.observe("queue_owners", self.inner.queue_owners()).await
    }

    async fn take_queue(&self, queue: &QueueKey, from: Option<WorkerId>, worker: WorkerId) -> Result<bool> {
        self.observe("take_queue", self.inner.take_queue(queue, from, worker)).await
    }

    async fn release_queue(&self, queue: &QueueKey, worker: WorkerId) -> Result<()> {
        self.observe("release_queue", self.inner.release_queue(queue, worker)).await
    }

    async fn posting_secret(&self, fresh: &str) -> Result<String> {
        self.observe("posting_secret", self.inner.posting_secret(fresh)).await
    }

    async fn insert_executions(&self, executions: &[Execution]) -> Result<Inserted> {
        self.observe("insert_executions", self.inner.insert_executions(executions)).await
    }

    async fn write_executions(&self, writes: &[ExecutionWrite]) -> Result<Vec<bool>> {
        self.observe("write_executions", self.inner.write_executions(writes)).await
    }

    async fn execution(&self, scope: &Scope, id: ExecutionId) -> Result<Execution> {
        self.observe("execution", self.inner.execution(scope, id)).await
    }

    async fn executions(
        &self,
        scope: &Scope,
        filter: &ExecutionFilter,
        page: &PageRequest<ExecutionSort>,
    ) -> Result<Page<Execution>> {
        self.observe("executions", self.inner.executions(scope, filter, page)).await
    }

    async fn due_executions(&self, now: Timestamp, limit: usize, without: &[FunctionId]) -> Result<Vec<Execution>> {
        self.observe("due_executions", self.inner.due_executions(now, limit, without)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>> {
        self.observe("next_due", self.inner.next_due()).await
    }

    async fn owners(&self) -> Result<Vec<WorkerId>> {
        self.observe("owners", self.inner.owners()).await
    }

    async fn owned_executions(&self, worker: WorkerId, limit: usize) -> Result<Vec<Execution>> {
        self.observe("owned_executions", self.inner.owned_executions(worker, limit)).await
    }

    async fn owing_dead_letters(&self, before: Timestamp, limit: usize) -> Result<Vec<Execution>> {
        self.observe("owing_dead_letters", self.inner.owing_dead_letters(before, limit)).await
    }

    async fn expire(&self, executions: Timestamp, logs: Timestamp) -> Result<u64> {
        self.observe("expire", self.inner.expire(executions, logs)).await
    }

    async fn append_logs(&self, chunks: &[LogChunk]) -> Result<()> {
        self.observe("append_logs", self.inner.append_logs(chunks)).await
    }

    async fn log(
        &self,
        scope: &Scope,
        execution: ExecutionId,
        after: Option<(u32, u32)>,
        limit: usize,
    ) -> Result<Vec<LogChunk>> {
        self.observe("log", self.inner.log(scope, execution, after, limit)).await
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<()> {
        self.observe("heartbeat", self.inner.heartbeat(worker)).await
    }

    async fn workers(&self) -> Result<Vec<(Worker, Duration)>> {
        self.observe("workers", self.inner.workers()).await
    }

    async fn declare_dead(&self, worker: WorkerId, silent_for: Duration) -> Result<bool> {
        self.observe("declare_dead", self.inner.declare_dead(worker, silent_for)).await
    }

    async fn delete_worker(&self, worker: WorkerId) -> Result<()> {
        self.observe("delete_worker", self.inner.delete_worker(worker)).await
    }

    async fn put_instance(&self, instance: &Instance) -> Result<()> {
        self.observe("put_instance", self.inner.put_instance(instance)).await
    }

    async fn instances(&self, scope: &Scope) -> Result<Vec<Instance>> {
        self.observe("instances", self.inner.instances(scope)).await
    }

    async fn delete_instance(&self, id: InstanceId) -> Result<()> {
        self.observe("delete_instance", self.inner.delete_instance(id)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(metrics: &Metrics, outcome: &str) -> bool {
        let line = format!("lambda_store_call_seconds_count{{operation=\"ping\",outcome=\"{outcome}\"}} 1");
        metrics.encode().lines().any(|known| known == line)
    }

    #[tokio::test]
    async fn a_call_is_counted_with_what_the_store_said() {
        let metrics = Metrics::new("test");
        observe(&metrics, "ping", async { Ok(()) }).await.unwrap();
        assert!(counted(&metrics, "ok"));
        let refused = observe(&metrics, "ping", async { Err::<(), _>(StoreError::Stale) }).await;
        assert!(matches!(refused, Err(StoreError::Stale)));
        assert!(counted(&metrics, "stale"));
    }

    #[tokio::test]
    async fn a_call_that_its_caller_gives_up_is_counted_too() {
        let metrics = Metrics::new("test");
        let call = observe(&metrics, "ping", std::future::pending::<Result<()>>());
        assert!(tokio::time::timeout(Duration::from_millis(1), call).await.is_err());
        assert!(counted(&metrics, "abandoned"));
    }
}
