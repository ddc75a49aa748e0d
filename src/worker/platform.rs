//! The platform queue: looked at by every worker, several claims at a time while messages keep coming.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::Map;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::intake::{Intake, Source};
use crate::openstack::OpenStackError;
use crate::openstack::zaqar;
use crate::scheduler::polls::Look;
use crate::task::chain;

/// What looks at the platform queue.
pub struct Platform {
    /// What takes messages in.
    pub intake: Arc<Intake>,
    /// The queue.
    pub source: Source,
    /// Notified when something was posted, as far as anybody can tell.
    pub nudge: Arc<Notify>,
    /// How it behaves.
    pub options: Options,
}

/// How the platform queue is looked at.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most claims under way at once.
    pub claims: usize,
    /// Pauses between looks at an empty queue: shortly after something was there, and after long.
    pub poll_min: Duration,
    /// See `poll_min`.
    pub poll_max: Duration,
}

impl Platform {
    /// Claims and takes in until cancelled. While messages keep coming, several claims are under way; an empty queue is
    /// looked at by one, less and less often.
    ///
    /// # Errors
    /// When the queues cannot be made ready. Later faults are logged and tried again.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), OpenStackError> {
        for name in [&self.source.queue, &self.intake.options.dead_letter_queue] {
            self.source.client.ensure_queue(name, &Map::new()).await?;
        }
        let mut under_way = FuturesUnordered::new();
        let mut wanted = 1;
        let mut pause = self.options.poll_min;
        let mut ended = false;
        loop {
            while !ended && under_way.len() < wanted {
                let platform = Arc::clone(&self);
                let cancel = cancel.clone();
                under_way.push(async move { platform.look(&cancel).await });
            }
            let Some(look) = under_way.next().await else { return Ok(()) };
            match look {
                Some(Look::Full) => {
                    wanted = (wanted + 1).min(self.options.claims);
                    pause = self.options.poll_min;
                }
                Some(Look::Some) => pause = self.options.poll_min,
                Some(Look::Empty | Look::Failed) => {
                    wanted = 1;
                    if under_way.is_empty() {
                        tokio::select! {
                            () = cancel.cancelled() => {}
                            () = self.nudge.notified() => pause = self.options.poll_min,
                            () = tokio::time::sleep(pause) => pause = (pause * 2).min(self.options.poll_max),
                        }
                    }
                }
                None => {}
            }
            // What is claimed is finished; nothing new is claimed.
            ended = cancel.is_cancelled();
        }
    }

    /// One look; none: cancelled before it began.
    async fn look(&self, cancel: &CancellationToken) -> Option<Look> {
        let room = self.intake.room(cancel).await?;
        match self.intake.claim(&self.source, room.min(zaqar::PAGE_MAX), cancel).await {
            Ok(look) => Some(look),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "the platform queue could not be looked at, it is tried again: {error}");
                Some(Look::Failed)
            }
        }
    }
}
