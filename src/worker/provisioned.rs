//! Which functions have provisioned concurrency: read from the store at every change that the API tells of, and every few
//! seconds for what it could not tell, and given to the dispatcher. It decides nothing and remembers nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::dispatch::{Dispatch, Event};
use crate::store::{Scope, Store};
use crate::task::chain;

/// How often the store is asked though nobody told of a change.
const INTERVAL: Duration = Duration::from_secs(5);

/// The feed.
pub struct Provisioned {
    /// Who knows.
    pub store: Arc<dyn Store>,
    /// Who wants to know.
    pub dispatch: Dispatch,
    /// Rung when the API says that a function has changed.
    pub changed: Arc<Notify>,
}

impl Provisioned {
    /// Feeds until cancelled. A list that cannot be had is asked for again in the next round.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), Infallible> {
        loop {
            match self.store.provisioned_functions(&Scope::All).await {
                Ok(functions) => {
                    let functions = functions.into_iter().map(Arc::new).collect();
                    self.dispatch.tell(Event::Provisioned(functions)).await;
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "functions with provisioned concurrency could not be listed: {error}");
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = self.changed.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}
