//! One connection to one worker's gateway. Requests are told apart by their number; each waits for its own answer, may be
//! abandoned at any time, and learns whether it had been sent when the connection is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lambda_agent::tls::{self, Fingerprint, Stream};
use lambda_agent::wire::{self, Frame, Message, VERSION, WireError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::task::{Tasks, chain};

/// How long dialling and the hello may take, each.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);

/// Requests that wait for an answer on one connection.
const PENDING_MAX: usize = 2048;

/// Frames between those who ask and the connection.
const OUTGOING: usize = 64;

/// After so much silence the other side is asked whether it is there; after so much more it is not.
const SILENCE_ASK: Duration = Duration::from_secs(5);
const SILENCE_END: Duration = Duration::from_secs(20);

/// Why a connection is not there, or a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum ConnectionError {
    /// It was lost before the request was sent.
    #[error("the connection was lost before the request was sent")]
    NotSent,
    /// It was lost after the request, or a part of it, was sent.
    #[error("the connection was lost after the request was sent")]
    Lost,
    /// As many requests as it takes wait for an answer.
    #[error("too many requests wait on the connection")]
    Full,
    /// No answer came in time.
    #[error("no answer came in time")]
    Late,
    /// The gateway refused the hello.
    #[error("the gateway refused: {0}")]
    Refused(String),
    /// The network failed.
    #[error("the network failed")]
    Io(#[source] std::io::Error),
    /// What came is no message.
    #[error("the gateway sent what cannot be read")]
    Wire(#[source] WireError),
    /// What came is no answer to what was asked.
    #[error("the gateway answered something unexpected")]
    Unexpected,
}

/// An answer.
#[derive(Debug)]
pub(super) enum Reply {
    /// To a call.
    Done {
        /// The execution.
        execution: String,
        /// Why it failed, if it did.
        failure: Option<serde_json::Value>,
        /// What the handler returned.
        body: Bytes,
    },
    /// To a cancellation.
    Cancelled {
        /// Whether it was found and stopped.
        found: bool,
    },
    /// To the announcement of a change: it is in force.
    Served,
}

/// A connection that was welcomed.
pub(super) struct Connection {
    outgoing: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
}

struct Outgoing {
    /// The request it belongs to; none is waited for with the rest.
    call: Option<u64>,
    message: Message,
    body: Bytes,
}

struct Shared {
    next: AtomicU64,
    pending: Mutex<Pending>,
    end: CancellationToken,
}

#[derive(Default)]
struct Pending {
    closed: bool,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    sent: bool,
    answer: oneshot::Sender<Result<Reply, ConnectionError>>,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, call: u64, reply: Reply) {
        // Nobody waits for it any more: the caller has gone away, and the record has what came of it.
        if let Some(waiting) = self.pending().waiting.remove(&call) {
            let _ = waiting.answer.send(Ok(reply));
        }
    }

    fn close(&self) {
        self.end.cancel();
        let waiting = {
            let mut pending = self.pending();
            pending.closed = true;
            std::mem::take(&mut pending.waiting)
        };
        for waiting in waiting.into_values() {
            let error = if waiting.sent { ConnectionError::Lost } else { ConnectionError::NotSent };
            let _ = waiting.answer.send(Err(error));
        }
    }
}

/// Forgets a request that is abandoned.
struct Forget<'a> {
    shared: &'a Shared,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.pending().waiting.remove(&self.call);
    }
}

impl Connection {
    /// Dials a gateway, with TLS where a fingerprint is given, and shows it the secret. The connection ends with `end`, or
    /// when it is closed or lost.
    pub async fn dial(
        address: &str,
        fingerprint: Option<Fingerprint>,
        secret: &str,
        end: CancellationToken,
        tasks: &Tasks,
    ) -> Result<Self, ConnectionError> {
        let late = |_| ConnectionError::Io(std::io::ErrorKind::TimedOut.into());
        let mut stream = timeout(DIAL_PATIENCE, tls::dial(address, fingerprint))
            .await
            .map_err(late)?
            .map_err(ConnectionError::Io)?;
        let mut buffer = BytesMut::new();
        let hello = Message::HelloCaller { version: VERSION, secret: secret.to_owned() };
        timeout(DIAL_PATIENCE, greet(&mut stream, &mut buffer, hello)).await.map_err(late)??;
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let shared = Arc::new(Shared { next: AtomicU64::new(1), pending: Mutex::default(), end });
        let address = address.to_owned();
        let carried = Arc::clone(&shared);
        // As many of them as there are workers.
        tasks.run("gateway connection", async move {
            let (reading, writing) = tokio::io::split(stream);
            let (upkeep, upkeep_queue) = mpsc::channel(1);
            let result = tokio::select! {
                result = read(reading, buffer, &carried, &upkeep) => result,
                result = write(writing, queue, upkeep_queue, &carried) => result,
                () = carried.end.cancelled() => Ok(()),
            };
            carried.close();
            if let Err(error) = result {
                tracing::warn!(error = chain(&error), "the connection to {address} is lost: {}", chain(&error));
            }
        });
        Ok(Self { outgoing, shared })
    }

    /// Whether it cannot be used any more.
    pub fn is_closed(&self) -> bool {
        self.shared.pending().closed
    }

    /// Ends it; what waits on it is lost.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Requests that wait for an answer.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.shared.pending().waiting.len()).unwrap_or(u32::MAX)
    }

    /// Sends a request and waits for its answer. Dropping the future abandons it.
    pub async fn request(
        &self,
        message: impl FnOnce(u64) -> Message,
        body: Bytes,
        patience: Duration,
    ) -> Result<Reply, ConnectionError> {
        let call = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut pending = self.shared.pending();
            if pending.closed {
                return Err(ConnectionError::NotSent);
            }
            if pending.waiting.len() >= PENDING_MAX {
                return Err(ConnectionError::Full);
            }
            pending.waiting.insert(call, Waiting { sent: false, answer });
        }
        let _forget = Forget { shared: &self.shared, call };
        let exchange = async {
            let frame = Outgoing { call: Some(call), message: message(call), body };
            if self.outgoing.send(frame).await.is_err() {
                return Err(ConnectionError::NotSent);
            }
            answered.await.unwrap_or(Err(ConnectionError::Lost))
        };
        timeout(patience, exchange).await.unwrap_or(Err(ConnectionError::Late))
    }

    /// Sends what is not answered.
    pub async fn tell(&self, message: Message) -> Result<(), ConnectionError> {
        let frame = Outgoing { call: None, message, body: Bytes::new() };
        self.outgoing.send(frame).await.map_err(|_| ConnectionError::NotSent)
    }
}

async fn greet(stream: &mut Stream, buffer: &mut BytesMut, hello: Message) -> Result<(), ConnectionError> {
    let mut bytes = BytesMut::new();
    wire::encode(&Frame { sequence: 0, ack: 0, message: hello, body: Bytes::new() }, &mut bytes)
        .map_err(ConnectionError::Wire)?;
    stream.write_all(&bytes).await.map_err(ConnectionError::Io)?;
    stream.flush().await.map_err(ConnectionError::Io)?;
    loop {
        if let Some(frame) = wire::decode(buffer).map_err(ConnectionError::Wire)? {
            #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is an answer to a hello")]
            return match frame.message {
                Message::Welcome { .. } => Ok(()),
                Message::Refused { reason } => Err(ConnectionError::Refused(reason)),
                _ => Err(ConnectionError::Unexpected),
            };
        }
        if stream.read_buf(buffer).await.map_err(ConnectionError::Io)? == 0 {
            return Err(ConnectionError::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Hands answers to those who wait for them; ends when the other side is gone.
async fn read(
    mut stream: ReadHalf<Stream>,
    mut buffer: BytesMut,
    shared: &Shared,
    upkeep: &mpsc::Sender<Message>,
) -> Result<(), ConnectionError> {
    let mut heard = Instant::now();
    loop {
        while let Some(frame) = wire::decode(&mut buffer).map_err(ConnectionError::Wire)? {
            #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is said to a caller")]
            match frame.message {
                Message::CallDone { call, execution, failure } => {
                    shared.answer(call, Reply::Done { execution, failure, body: frame.body });
                }
                Message::Cancelled { call, found } => shared.answer(call, Reply::Cancelled { found }),
                Message::FunctionServed { call } => shared.answer(call, Reply::Served),
                Message::Ping => {
                    // When one is on its way already, it says the same.
                    let _ = upkeep.try_send(Message::Ack);
                }
                Message::Ack => {}
                _ => return Err(ConnectionError::Unexpected),
            }
        }
        match timeout(SILENCE_ASK, stream.read_buf(&mut buffer)).await {
            Ok(Ok(0)) => return Err(ConnectionError::Io(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => heard = Instant::now(),
            Ok(Err(error)) => return Err(ConnectionError::Io(error)),
            Err(_) if heard.elapsed() >= SILENCE_END => {
                return Err(ConnectionError::Io(std::io::ErrorKind::TimedOut.into()));
            }
            Err(_) => {
                let _ = upkeep.try_send(Message::Ping);
            }
        }
    }
}

/// Writes what is to be sent; ends when nobody can send any more.
async fn write(
    mut stream: WriteHalf<Stream>,
    mut queue: mpsc::Receiver<Outgoing>,
    mut upkeep: mpsc::Receiver<Message>,
    shared: &Shared,
) -> Result<(), ConnectionError> {
    let mut bytes = BytesMut::new();
    loop {
        let outgoing = tokio::select! {
            biased;
            Some(message) = upkeep.recv() => Outgoing { call: None, message, body: Bytes::new() },
            outgoing = queue.recv() => match outgoing {
                Some(outgoing) => outgoing,
                None => return Ok(()),
            },
        };
        if let Some(call) = outgoing.call {
            match shared.pending().waiting.get_mut(&call) {
                Some(waiting) => waiting.sent = true,
                // Abandoned before it was sent: the worker need not know of it.
                None => continue,
            }
        }
        bytes.clear();
        let frame = Frame { sequence: 0, ack: 0, message: outgoing.message, body: outgoing.body };
        wire::encode(&frame, &mut bytes).map_err(ConnectionError::Wire)?;
        stream.write_all(&bytes).await.map_err(ConnectionError::Io)?;
        stream.flush().await.map_err(ConnectionError::Io)?;
    }
}
