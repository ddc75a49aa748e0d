//! Telling every worker that a function has changed, and waiting until the change is in force there, so that the caller who
//! made it meets it with his next call. Where the old revision is under load it goes on until the new one is ready. Best
//! effort: a worker that is not reached sees the change within seconds by itself.

use std::time::Duration;

use super::Gateways;
use crate::model::FunctionId;

/// How long a change waits for the workers. More than a worker lets the old revision go on
/// (`worker::dispatch::update`).
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for the way to a worker.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);

impl Gateways {
    /// Tells all workers, and returns when the change is in force everywhere or the patience is over.
    pub async fn function_changed(&self, function: FunctionId) {
        let told = tokio::time::timeout(PATIENCE, async {
            let Ok(workers) = self.workers().await else { return };
            let all = workers.iter().map(|worker| async {
                let connected = tokio::time::timeout(CONNECT_PATIENCE, self.way(worker)).await;
                let Ok(Ok(way)) = connected else { return };
                if let Err(error) = way.function_changed(function, PATIENCE).await {
                    let id = worker.id;
                    tracing::debug!(worker.id = %id, %error, "worker {id} does not say that a change is in force");
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
