//! The platform queue: looked at by every worker, several claims at a time while messages keep coming.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::Map;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::intake::{Claimed, Intake, IntakeError, Source};
use crate::openstack::OpenStackError;
use crate::openstack::zaqar;
use crate::scheduler::polls::Look;
use crate::scheduler::width::Width;
use crate::task::chain;

/// The pause after a look that found nothing though something was said to have come: Zaqar notifies of a message some
/// milliseconds before it can be claimed. It doubles like all others.
const SOON: Duration = Duration::from_millis(1);

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
    /// Claims and takes in until cancelled. While messages keep coming, several claims are under way, beside as many that the
    /// store is taking; an empty queue is looked at by one, less and less often.
    ///
    /// # Errors
    /// When the queues cannot be made ready. Later faults are logged and tried again.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), OpenStackError> {
        for name in [&self.source.queue, &self.intake.options.dead_letter_queue] {
            self.source.client.ensure_queue(name, &Map::new()).await?;
        }
        let mut looking = FuturesUnordered::new();
        let mut taking = FuturesUnordered::new();
        let mut width = Width::new(self.options.claims);
        let mut pause = self.options.poll_min;
        let mut rest = None;
        // Whether there is probably more than what was claimed last: then the next claim does not wait for the store.
        let mut is_ahead = true;
        loop {
            // What is claimed is finished; nothing new is claimed.
            let ended = cancel.is_cancelled();
            // What the store is slow to take is not piled up here.
            let most = if is_ahead { self.options.claims } else { 1 };
            while !ended && rest.is_none() && looking.len() < width.wanted() && taking.len() < most {
                looking.push(self.look(&cancel));
            }
            let look = tokio::select! {
                // The next claim is on its way before what the last one got is looked at.
                biased;
                () = cancel.cancelled(), if rest.is_some() => {
                    rest = None;
                    continue;
                }
                () = self.nudge.notified(), if rest.is_some() || !is_ahead => {
                    (rest, pause, is_ahead) = (None, SOON.min(self.options.poll_min), true);
                    continue;
                }
                () = sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => {
                    rest = None;
                    continue;
                }
                Some(look) = looking.next() => match look {
                    Some(Ok(Some(claimed))) => {
                        let look = if claimed.is_full { Look::Full } else { Look::Some };
                        taking.push(self.intake.take_in(&self.source, claimed.claim, &cancel));
                        look
                    }
                    Some(Ok(None)) => Look::Empty,
                    Some(Err(error)) => failed(&error),
                    None => continue,
                },
                Some(taken) = taking.next() => match taken {
                    Ok(()) => continue,
                    Err(error) => failed(&error),
                },
                else => return Ok(()),
            };
            is_ahead = look == Look::Full;
            width.came(look, looking.len(), Instant::now().into_std());
            match look {
                Look::Full | Look::Some => pause = self.options.poll_min,
                Look::Empty | Look::Failed => {
                    if looking.is_empty() {
                        rest = Some(Instant::now() + pause);
                        pause = (pause * 2).min(self.options.poll_max);
                    }
                }
            }
        }
    }

    /// One look; none: cancelled before it began.
    async fn look(&self, cancel: &CancellationToken) -> Option<Result<Option<Claimed>, IntakeError>> {
        let room = self.intake.room(cancel).await?;
        Some(self.intake.claim(&self.source, room.min(zaqar::PAGE_MAX)).await)
    }
}

fn failed(error: &IntakeError) -> Look {
    let error = chain(error);
    tracing::warn!(error, "the platform queue could not be looked at, it is tried again: {error}");
    Look::Failed
}
