//! A store whose database does not answer.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lambda_openstack::model::execution::LogChunk;
use lambda_openstack::model::instance::Instance;
use lambda_openstack::model::package::PackageDigest;
use lambda_openstack::model::trigger::queue::{QueueKey, QueueStatus};
use lambda_openstack::model::worker::Worker;
use lambda_openstack::model::{
    DeploymentId, Execution, ExecutionId, Function, FunctionId, InstanceId, ProjectId, Timestamp, Trigger, TriggerId,
    WorkerId,
};
use lambda_openstack::store::{
    ExecutionFilter, ExecutionSort, ExecutionWrite, FunctionFilter, FunctionRef, FunctionSort, Inserted, Page,
    PageRequest, Result, Scope, Store, StoreError, TriggerFilter, TriggerSort,
};

pub struct BrokenStore;

fn broken<T>() -> Result<T> {
    Err(StoreError::Unavailable("a hidden address refused".into()))
}

#[async_trait]
impl Store for BrokenStore {
    async fn migrate(&self) -> Result<()> {
        broken()
    }
    async fn missing(&self) -> Result<Vec<String>> {
        broken()
    }
    async fn ping(&self) -> Result<()> {
        broken()
    }

    async fn deployment(&self) -> Result<DeploymentId> {
        broken()
    }
    async fn create_function(&self, _: &Function, _: &[Trigger]) -> Result<()> {
        broken()
    }
    async fn function(&self, _: &Scope, _: &FunctionRef) -> Result<Function> {
        broken()
    }
    async fn functions(&self, _: &Scope, _: &FunctionFilter, _: &PageRequest<FunctionSort>) -> Result<Page<Function>> {
        broken()
    }
    async fn replace_function(&self, _: &Scope, _: &Function, _: u64) -> Result<()> {
        broken()
    }
    async fn delete_function(&self, _: &Scope, _: FunctionId, _: Option<u64>) -> Result<()> {
        broken()
    }
    async fn put_package(&self, _: PackageDigest, _: Bytes) -> Result<()> {
        broken()
    }
    async fn package(&self, _: PackageDigest) -> Result<Bytes> {
        broken()
    }
    async fn delete_unused_packages(&self, _: Timestamp) -> Result<u64> {
        broken()
    }
    async fn create_trigger(&self, _: &Trigger) -> Result<()> {
        broken()
    }
    async fn trigger(&self, _: &Scope, _: TriggerId) -> Result<Trigger> {
        broken()
    }
    async fn triggers(&self, _: &Scope, _: &TriggerFilter, _: &PageRequest<TriggerSort>) -> Result<Page<Trigger>> {
        broken()
    }
    async fn delete_trigger(&self, _: &Scope, _: TriggerId) -> Result<()> {
        broken()
    }
    async fn project_triggers(&self, _: &ProjectId) -> Result<Vec<Trigger>> {
        broken()
    }
    async fn function_triggers(&self, _: &[FunctionId]) -> Result<Vec<Trigger>> {
        broken()
    }
    async fn provisioned_functions(&self, _: &Scope) -> Result<Vec<Function>> {
        broken()
    }
    async fn queue_triggers(&self) -> Result<Vec<Trigger>> {
        broken()
    }
    async fn set_queue_status(&self, _: TriggerId, _: &QueueStatus) -> Result<()> {
        broken()
    }
    async fn queue_owners(&self) -> Result<Vec<(QueueKey, WorkerId)>> {
        broken()
    }
    async fn take_queue(&self, _: &QueueKey, _: Option<WorkerId>, _: WorkerId) -> Result<bool> {
        broken()
    }
    async fn release_queue(&self, _: &QueueKey, _: WorkerId) -> Result<()> {
        broken()
    }
    async fn posting_secret(&self, _: &str) -> Result<String> {
        broken()
    }
    async fn insert_executions(&self, _: &[Execution]) -> Result<Inserted> {
        broken()
    }
    async fn write_executions(&self, _: &[ExecutionWrite]) -> Result<Vec<bool>> {
        broken()
    }
    async fn execution(&self, _: &Scope, _: ExecutionId) -> Result<Execution> {
        broken()
    }
    async fn executions(
        &self,
        _: &Scope,
        _: &ExecutionFilter,
        _: &PageRequest<ExecutionSort>,
    ) -> Result<Page<Execution>> {
        broken()
    }
    async fn due_executions(&self, _: Timestamp, _: usize, _: &[FunctionId]) -> Result<Vec<Execution>> {
        broken()
    }
    async fn next_due(&self) -> Result<Option<Timestamp>> {
        broken()
    }
    async fn owners(&self) -> Result<Vec<WorkerId>> {
        broken()
    }
    async fn owned_executions(&self, _: WorkerId, _: usize) -> Result<Vec<Execution>> {
        broken()
    }
    async fn owing_dead_letters(&self, _: Timestamp, _: usize) -> Result<Vec<Execution>> {
        broken()
    }
    async fn expire(&self, _: Timestamp, _: Timestamp) -> Result<u64> {
        broken()
    }
    async fn append_logs(&self, _: &[LogChunk]) -> Result<()> {
        broken()
    }
    async fn log(&self, _: &Scope, _: ExecutionId, _: Option<(u32, u32)>, _: usize) -> Result<Vec<LogChunk>> {
        broken()
    }
    async fn heartbeat(&self, _: &Worker) -> Result<()> {
        broken()
    }
    async fn workers(&self) -> Result<Vec<(Worker, Duration)>> {
        broken()
    }
    async fn declare_dead(&self, _: WorkerId, _: Duration) -> Result<bool> {
        broken()
    }
    async fn delete_worker(&self, _: WorkerId) -> Result<()> {
        broken()
    }
    async fn put_instance(&self, _: &Instance) -> Result<()> {
        broken()
    }
    async fn instances(&self, _: &Scope) -> Result<Vec<Instance>> {
        broken()
    }
    async fn delete_instance(&self, _: InstanceId) -> Result<()> {
        broken()
    }
}
