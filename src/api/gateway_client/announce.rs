//! Telling every worker that a function has changed, so that the caller who changed it meets the change with his next
//! call. Best effort: a worker that is not reached sees the change within a second by itself.

use std::time::Duration;

use lambda_agent::wire::Message;

use super::Gateways;
use crate::model::FunctionId;

/// How long a change waits for the workers to be told.
const PATIENCE: Duration = Duration::from_millis(500);

impl Gateways {
    /// Tells all workers, and returns when they are told or the patience is over.
    pub async fn function_changed(&self, function: FunctionId) {
        let told = tokio::time::timeout(PATIENCE, async {
            let Ok(workers) = self.workers().await else { return };
            let all = workers.iter().map(|worker| async {
                let Ok(connection) = self.connection(worker).await else { return };
                let message = Message::FunctionChanged { function: function.to_string() };
                if connection.tell(message).await.is_err() {
                    tracing::debug!(worker.id = %worker.id, "worker {} is not told of a change", worker.id);
                }
            });
            futures::future::join_all(all).await;
        })
        .await;
        if told.is_err() {
            tracing::debug!(function.id = %function, "not every worker was told in time that {function} has changed");
        }
    }
}
