//! The way to one worker: the connection to its gateway, or, where it runs in this process, a call of a function.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lambda_agent::wire::Message;

use super::Called;
use super::connection::{Connection, ConnectionError, Reply};
use crate::model::execution::{Execution, Failure};
use crate::model::{ExecutionId, FunctionId, ProjectId, WorkerId};

/// How much longer than its own patience a call waits for the worker to say that it ran out.
const MARGIN: Duration = Duration::from_secs(5);

/// How long a cancellation may take to be answered.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// A worker in the process of the API.
#[async_trait]
pub trait LocalWorker: Send + Sync {
    /// Which of the workers it is.
    fn id(&self) -> WorkerId;

    /// Runs a function and waits for at most `patience`. When the future is dropped, the function goes on.
    ///
    /// # Errors
    /// Why there is no execution.
    async fn call(&self, function: FunctionId, event: Bytes, patience: Duration) -> Result<Execution, Box<Failure>>;

    /// Stops an execution of this worker; whether it did.
    async fn cancel(&self, execution: ExecutionId) -> bool;

    /// There is something in the inbox or on the queue.
    fn nudge(&self);

    /// A function has changed. Returns when the change is in force.
    async fn function_changed(&self, function: FunctionId);
}

/// How a worker is reached.
pub(super) enum Way {
    Here(Arc<dyn LocalWorker>),
    There(Arc<Connection>),
}

impl Way {
    pub async fn call(
        &self,
        project: &ProjectId,
        function: FunctionId,
        event: Bytes,
        patience: Duration,
    ) -> Result<Called, ConnectionError> {
        match self {
            Self::Here(worker) => Ok(match worker.call(function, event, patience).await {
                Ok(execution) => Called::from(execution),
                Err(failure) => Called { execution: None, result: Err(failure) },
            }),
            Self::There(connection) => {
                let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
                let (project, function) = (project.to_string(), function.to_string());
                let message = |call| Message::Call { call, project, function, patience_ms };
                read(connection.request(message, event, patience + MARGIN).await?)
            }
        }
    }

    pub async fn cancel(&self, execution: ExecutionId) -> Result<bool, ConnectionError> {
        match self {
            Self::Here(worker) => Ok(worker.cancel(execution).await),
            Self::There(connection) => {
                let message = |call| Message::Cancel { call, execution: execution.to_string() };
                match connection.request(message, Bytes::new(), CANCEL_PATIENCE).await? {
                    Reply::Cancelled { found } => Ok(found),
                    Reply::Done { .. } | Reply::Served => Err(ConnectionError::Unexpected),
                }
            }
        }
    }

    pub async fn nudge(&self) -> Result<(), ConnectionError> {
        match self {
            Self::Here(worker) => {
                worker.nudge();
                Ok(())
            }
            Self::There(connection) => connection.tell(Message::Nudge).await,
        }
    }

    /// Returns when the change is in force there, at the latest after `patience`.
    pub async fn function_changed(&self, function: FunctionId, patience: Duration) -> Result<(), ConnectionError> {
        match self {
            Self::Here(worker) => {
                let in_force = tokio::time::timeout(patience, worker.function_changed(function));
                in_force.await.map_err(|_| ConnectionError::Late)
            }
            Self::There(connection) => {
                let message = |call| Message::FunctionChanged { function: function.to_string(), call: Some(call) };
                connection.request(message, Bytes::new(), patience).await.map(|_| ())
            }
        }
    }
}

impl From<Execution> for Called {
    fn from(execution: Execution) -> Self {
        let result = match execution.failure {
            None => Ok(execution.result.map(|result| result.bytes().clone()).unwrap_or_default()),
            Some(failure) => Err(Box::new(failure)),
        };
        Self { execution: Some(execution.id), result }
    }
}

fn read(reply: Reply) -> Result<Called, ConnectionError> {
    let Reply::Done { execution, failure, body } = reply else { return Err(ConnectionError::Unexpected) };
    let execution = match execution.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|_| ConnectionError::Unexpected)?),
    };
    let result = match failure {
        None => Ok(body),
        Some(failure) => Err(serde_json::from_value(failure).map_err(|_| ConnectionError::Unexpected)?),
    };
    Ok(Called { execution, result })
}
