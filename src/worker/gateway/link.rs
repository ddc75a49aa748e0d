//! The connection to one agent, over its interruptions. Orders and answers are numbered and kept until the other side
//! has them; an agent that comes back goes on where it was.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lambda_agent::wire::{Frame, Inbox, Message, Outbox, PACKAGE_PIECE};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::connection::Connection;
use super::{Event, Order, Shared};
use crate::model::InstanceId;
use crate::model::package::PackageDigest;
use crate::task::chain;

/// How long an agent may be away before it is lost.
const RETURN_WITHIN: Duration = Duration::from_secs(10);
/// After this silence the agent is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(3);
/// After this silence the connection is given up; the agent may make a new one.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often silence and acknowledgements are looked at.
const UPKEEP: Duration = Duration::from_millis(200);
/// Frames received after which an acknowledgement is sent at once.
const ACK_EVERY: u64 = 32;
/// Unwritten and unacknowledged bytes above which no further piece of a package is taken.
const BULK_MAX: usize = 4 << 20;
/// Time that an agent has for its last words.
const FAREWELL: Duration = Duration::from_secs(3);
/// Time for a package to be read from the store.
const PACKAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// An agent that has dialled and was found right.
pub struct Arrival {
    pub connection: Connection,
    pub session: String,
    /// Highest sequence that it has received from us.
    pub received: u64,
}

/// The way to one agent.
pub struct Link {
    instance: InstanceId,
    orders: mpsc::Receiver<Order>,
    pieces: mpsc::Receiver<(Message, Bytes)>,
    arrivals: mpsc::Receiver<Arrival>,
    piece_sender: mpsc::Sender<(Message, Bytes)>,
    shared: Arc<Shared>,
    outbox: Outbox,
    inbox: Inbox,
    acked: u64,
    /// Packages of functions that this instance was told to run; it may fetch no others.
    packages: HashSet<String>,
    seen: watch::Sender<bool>,
}

/// Why a connection is over.
enum End {
    /// It broke; the agent may come back.
    Broken(io::Error),
    /// The agent made a new one.
    Replaced(Box<Arrival>),
    /// The instance is not wanted any more.
    Closed(Connection),
}

impl Link {
    pub fn new(
        instance: InstanceId,
        orders: mpsc::Receiver<Order>,
        pieces: mpsc::Receiver<(Message, Bytes)>,
        arrivals: mpsc::Receiver<Arrival>,
        piece_sender: mpsc::Sender<(Message, Bytes)>,
        seen: watch::Sender<bool>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            instance,
            orders,
            pieces,
            arrivals,
            piece_sender,
            shared,
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            acked: 0,
            packages: HashSet::new(),
            seen,
        }
    }

    /// Lives as long as the instance is expected and its agent comes back in time.
    pub async fn run(mut self) {
        let mut next = None;
        loop {
            let arrival = match next.take() {
                Some(arrival) => arrival,
                None => match self.wait_for_agent().await {
                    Some(arrival) => arrival,
                    None => return,
                },
            };
            self.shared.agent_connected(*self.seen.borrow());
            let end = self.talk(arrival).await;
            self.shared.agent_disconnected();
            match end {
                Ok(never) => match never {},
                Err(End::Replaced(arrival)) => next = Some(*arrival),
                Err(End::Broken(error)) => {
                    tracing::info!(
                        instance.id = %self.instance, error = %error,
                        "the connection of agent {} broke, it may come back: {error}", self.instance
                    );
                }
                Err(End::Closed(mut connection)) => {
                    // Heard to the end: an agent that cannot say its last words waits for a connection that never comes.
                    let _ = tokio::time::timeout(FAREWELL, self.see_off(&mut connection)).await;
                    return;
                }
            }
        }
    }

    /// Waits for the agent's first call as long as it takes, for its return as long as is allowed. Orders are kept.
    async fn wait_for_agent(&mut self) -> Option<Arrival> {
        let give_up = if *self.seen.borrow() { Some(Instant::now() + RETURN_WITHIN) } else { None };
        loop {
            tokio::select! {
                arrival = self.arrivals.recv() => return arrival,
                order = self.orders.recv() => match order {
                    Some(Order::Say(message, body)) => {
                        self.note_package(&message);
                        self.outbox.push(*message, body);
                    }
                    Some(Order::Close) | None => return None,
                },
                () = async { tokio::time::sleep_until(give_up.unwrap_or_else(Instant::now)).await }, if give_up.is_some() => {
                    let why = format!("its agent was away for more than {} s", RETURN_WITHIN.as_secs());
                    self.shared.dispatch.tell(Event::InstanceLost(self.instance, why)).await;
                    return None;
                }
            }
        }
    }

    fn note_package(&mut self, message: &Message) {
        if let Message::StartSandbox { spec, .. } = message {
            self.packages.insert(spec.package_sha256.clone());
        }
    }

    async fn talk(&mut self, arrival: Arrival) -> Result<std::convert::Infallible, End> {
        let Arrival { mut connection, session, received } = arrival;
        let welcome = Message::Welcome { session: session.clone(), received: self.inbox.received() };
        connection.queue_message(welcome, Bytes::new(), self.inbox.received()).map_err(End::Broken)?;
        self.outbox.acknowledge(received);
        for frame in self.outbox.pending() {
            connection.queue(frame).map_err(End::Broken)?;
        }
        if !self.seen.send_replace(true) {
            self.shared.dispatch.tell(Event::AgentReady(self.instance)).await;
        }
        let mut unconfirmed = Some(session);
        let mut upkeep = tokio::time::interval(UPKEEP);
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let has_room = connection.unwritten() < BULK_MAX && self.outbox.bytes() < BULK_MAX;
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Say(message, body)) => self.say(&mut connection, *message, body).map_err(End::Broken)?,
                    Some(Order::Close) | None => return Err(End::Closed(connection)),
                },
                frame = connection.turn() => {
                    if let Some(frame) = frame.map_err(End::Broken)? {
                        if let Some(session) = unconfirmed.take() {
                            self.shared.confirm(self.instance, &session);
                        }
                        self.hear(&mut connection, frame).await.map_err(End::Broken)?;
                    }
                }
                Some((message, body)) = self.pieces.recv(), if has_room => {
                    self.say(&mut connection, message, body).map_err(End::Broken)?;
                }
                Some(arrival) = self.arrivals.recv() => return Err(End::Replaced(Box::new(arrival))),
                _ = upkeep.tick() => self.upkeep(&mut connection).map_err(End::Broken)?,
            }
        }
    }

    /// Has the agent end, and takes what it still says until it hangs up.
    async fn see_off(&mut self, connection: &mut Connection) -> io::Result<std::convert::Infallible> {
        let frame = self.outbox.push(Message::Shutdown, Bytes::new());
        connection.queue(&frame)?;
        loop {
            if let Some(frame) = connection.turn().await?
                && self.inbox.accept(frame.sequence)
            {
                self.acknowledge(connection)?;
            }
        }
    }

    fn say(&mut self, connection: &mut Connection, message: Message, body: Bytes) -> io::Result<()> {
        self.note_package(&message);
        let mut frame = self.outbox.push(message, body);
        frame.ack = self.inbox.received();
        self.acked = frame.ack;
        connection.queue(&frame)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not for the gateway is for the dispatcher to judge")]
    async fn hear(&mut self, connection: &mut Connection, frame: Frame) -> io::Result<()> {
        self.outbox.acknowledge(frame.ack);
        if !self.inbox.accept(frame.sequence) {
            return Ok(());
        }
        match frame.message {
            Message::Ack => {}
            Message::Ping => connection.queue_message(Message::Ack, Bytes::new(), self.inbox.received())?,
            Message::FetchPackage { sha256 } => self.send_package(sha256),
            message => self.shared.dispatch.tell(Event::Agent(self.instance, message, frame.body)).await,
        }
        if self.inbox.received() - self.acked >= ACK_EVERY {
            self.acknowledge(connection)?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.acked = self.inbox.received();
        connection.queue_message(Message::Ack, Bytes::new(), self.acked)
    }

    fn upkeep(&mut self, connection: &mut Connection) -> io::Result<()> {
        if connection.silence() > SILENCE_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was heard for too long"));
        }
        if self.inbox.received() > self.acked {
            self.acknowledge(connection)?;
        }
        if connection.silence() > PING_AFTER && connection.unwritten() == 0 {
            connection.queue_message(Message::Ping, Bytes::new(), self.inbox.received())?;
        }
        Ok(())
    }

    /// Reads a package and sends it in pieces, beside everything else.
    fn send_package(&self, sha256: String) {
        let allowed = self.packages.contains(&sha256);
        let (store, pieces, instance) = (Arc::clone(&self.shared.store), self.piece_sender.clone(), self.instance);
        self.shared.tasks.run("package transfer", async move {
            let archive = match (allowed, sha256.parse::<PackageDigest>()) {
                (true, Ok(digest)) => match tokio::time::timeout(PACKAGE_TIMEOUT, store.package(digest)).await {
                    Ok(Ok(archive)) => Ok(archive),
                    Ok(Err(error)) => Err(chain(&error)),
                    Err(_) => Err("the store did not answer in time".to_owned()),
                },
                _ => Err("no function that this instance runs has this package".to_owned()),
            };
            match archive {
                Ok(archive) => {
                    let mut offset = 0;
                    loop {
                        let end = (offset + PACKAGE_PIECE).min(archive.len());
                        let last = end == archive.len();
                        let message =
                            Message::PackagePiece { sha256: sha256.clone(), offset: offset as u64, last };
                        if pieces.send((message, archive.slice(offset..end))).await.is_err() || last {
                            return;
                        }
                        offset = end;
                    }
                }
                Err(reason) => {
                    tracing::error!(instance.id = %instance, reason, "a package cannot be sent to agent {instance}: {reason}");
                    let message = Message::PackageMissing { sha256, reason: "the package is not available".to_owned() };
                    // The link has ended: so has the need.
                    let _ = pieces.send((message, Bytes::new())).await;
                }
            }
        });
    }
}
