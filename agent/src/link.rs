//! What the agent has to say to the gateway, and how far each has heard the other. Sandboxes put messages in, the
//! connection takes them out; a lost connection loses none, because what is not acknowledged is sent again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::wire::{Frame, Inbox, Message, Outbox};

/// Bodies waiting to be acknowledged, in bytes, above which no more log is read. Results are sent all the same: there
/// is at most one per sandbox.
const LOG_BOUND: usize = 4 << 20;

/// Shared by everything that speaks to the gateway.
#[derive(Debug, Default)]
pub struct Link {
    state: Mutex<State>,
    work: Notify,
    acknowledged: Notify,
}

#[derive(Debug, Default)]
struct State {
    outbox: Outbox,
    inbox: Inbox,
    ack_owed: bool,
    ping_owed: bool,
}

/// What the connection should write next.
#[derive(Debug, Default)]
pub struct Batch {
    /// Sequenced frames, in order.
    pub frames: Vec<Frame>,
    /// Whether at least an acknowledgement has to go out.
    pub ack: bool,
    /// Whether the other side is to be asked for a sign of life.
    pub ping: bool,
    /// What to acknowledge.
    pub received: u64,
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something that must not be lost.
    pub fn say(&self, message: Message, body: Bytes) {
        self.state().outbox.push(message, body);
        self.work.notify_one();
    }

    /// Waits until there is room for log.
    pub async fn room(&self) {
        loop {
            let acknowledged = self.acknowledged.notified();
            if self.state().outbox.bytes() < LOG_BOUND {
                return;
            }
            acknowledged.await;
        }
    }

    /// Waits until everything that was said is acknowledged.
    pub async fn flushed(&self) {
        loop {
            let acknowledged = self.acknowledged.notified();
            if self.state().outbox.is_empty() {
                return;
            }
            acknowledged.await;
        }
    }

    /// Waits until there may be something to write.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    /// Asks the connection to write a ping.
    pub fn ping(&self) {
        self.state().ping_owed = true;
        self.work.notify_one();
    }

    /// Notes a frame that came in; whether it is new.
    pub fn heard(&self, frame: &Frame) -> bool {
        let mut state = self.state();
        let fresh = state.inbox.accept(frame.sequence);
        if frame.sequence > 0 || frame.message == Message::Ping {
            state.ack_owed = true;
            self.work.notify_one();
        }
        drop(state);
        self.acknowledge(frame.ack);
        fresh
    }

    /// Notes what the gateway has received.
    pub fn acknowledge(&self, upto: u64) {
        self.state().outbox.acknowledge(upto);
        self.acknowledged.notify_waiters();
    }

    /// Highest sequence received.
    pub fn received(&self) -> u64 {
        self.state().inbox.received()
    }

    /// What comes after `sent`, up to about `bytes` of bodies. Owed acknowledgements are taken with it.
    pub fn take(&self, sent: u64, bytes: usize) -> Batch {
        let mut state = self.state();
        let seen = state.outbox.pending().next().map_or(0, |first| (sent + 1).saturating_sub(first.sequence));
        let mut frames = Vec::new();
        let mut taken = 0;
        for frame in state.outbox.pending().skip(usize::try_from(seen).unwrap_or(usize::MAX)) {
            taken += frame.body.len();
            frames.push(frame.clone());
            if taken >= bytes || frames.len() >= 1024 {
                break;
            }
        }
        let batch = Batch { frames, ack: state.ack_owed, ping: state.ping_owed, received: state.inbox.received() };
        state.ack_owed = false;
        state.ping_owed = false;
        batch
    }

    /// Whether something other than an acknowledgement waits after `sent`.
    pub fn urgent(&self, sent: u64) -> bool {
        let state = self.state();
        let last = state.outbox.pending().next().map(|first| first.sequence - 1 + state.outbox.len() as u64);
        state.ping_owed || last.is_some_and(|last| last > sent)
    }

    /// Whether an acknowledgement is owed.
    pub fn ack_owed(&self) -> bool {
        self.state().ack_owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(link: &Link, count: u64) {
        for sandbox in 0..count {
            link.say(Message::SandboxReady { sandbox, init_us: 0, package_us: 0 }, Bytes::from_static(b"12345678"));
        }
    }

    #[test]
    fn the_connection_takes_what_it_has_not_sent_in_order_and_in_bounded_pieces() {
        let link = Link::default();
        said(&link, 5);
        let sequences = |batch: Batch| batch.frames.iter().map(|frame| frame.sequence).collect::<Vec<_>>();
        assert_eq!(sequences(link.take(0, 16)), [1, 2]);
        assert_eq!(sequences(link.take(2, 1 << 20)), [3, 4, 5]);
        link.acknowledge(3);
        assert_eq!(sequences(link.take(3, 1 << 20)), [4, 5]);
        assert!(!link.urgent(5) && link.urgent(4));
    }

    #[tokio::test]
    async fn log_waits_while_too_much_is_not_acknowledged() {
        let link = Link::default();
        link.room().await;
        link.say(Message::Ack, Bytes::from(vec![0; LOG_BOUND]));
        assert!(tokio::time::timeout(std::time::Duration::ZERO, link.room()).await.is_err());
        link.acknowledge(1);
        link.room().await;
        link.flushed().await;
    }
}
