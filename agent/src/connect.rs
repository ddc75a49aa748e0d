//! The connection to the gateway: dials, shows who it is, writes what the link holds, hands in what comes, and dials
//! again when it breaks. Sandboxes do not notice.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::address::GatewayAddress;
use crate::link::Link;
use crate::tls::{self, Fingerprint, Stream};
use crate::wire::{self, Credential, Frame, Message, WireError};

/// Time for dialling, and again for hello and welcome.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Silence after which the gateway is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(5);
/// Silence after which the connection is taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// How long an acknowledgement waits for a frame that it can travel with.
const ACK_DELAY: Duration = Duration::from_millis(10);
/// Bytes written in one go.
const BATCH: usize = 256 << 10;
/// Pause before the second attempt to dial; it doubles, up to the second value, and half of it is chance.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Whom to dial and who we are.
#[derive(Debug)]
pub struct Dial {
    /// The gateway.
    pub gateway: GatewayAddress,
    /// The certificate that it must show; none: without TLS.
    pub fingerprint: Option<Fingerprint>,
    /// The instance's id.
    pub instance: String,
    /// The token of the driver at first, the gateway's session afterwards.
    pub credential: Credential,
    /// How long the gateway may be out of reach.
    pub patience: Duration,
}

/// Why there is no connection any more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The gateway does not want this agent.
    #[error("the gateway refused this agent: {0}")]
    Refused(String),
    /// Somebody else is where the gateway should be.
    #[error("the gateway has another certificate than this agent was told")]
    Stranger,
    /// The gateway could not be reached for too long.
    #[error("the gateway could not be reached for {} seconds", .0.as_secs())]
    Unreachable(Duration),
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the connection broke: {0}")]
    Io(std::io::Error),
    #[error("it has another certificate")]
    Stranger,
    #[error("the gateway closed the connection")]
    Closed,
    #[error("the gateway was silent for too long")]
    Silent,
    #[error("the gateway sent what is not a frame")]
    Wire(#[from] WireError),
    #[error("the gateway's first frame was not a welcome")]
    NoWelcome,
    #[error("refused: {0}")]
    Refused(String),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        if tls::is_stranger(&error) { Self::Stranger } else { Self::Io(error) }
    }
}

/// Keeps the connection until it is of no more use. `inbound` gets each frame once, in order.
///
/// # Errors
/// Always: when the gateway refuses, or cannot be reached.
pub async fn run(mut dial: Dial, link: Arc<Link>, inbound: mpsc::Sender<Frame>) -> Result<(), ConnectError> {
    let mut pause = PAUSE.0;
    let mut reached = Instant::now();
    loop {
        let broken = match open(&dial, &link).await {
            Ok((stream, session, received)) => {
                tracing::info!(gateway = %dial.gateway, "connected to the gateway");
                dial.credential = Credential::Session(session);
                link.acknowledge(received);
                let broken = talk(stream, &link, received, &inbound).await;
                pause = PAUSE.0;
                reached = Instant::now();
                broken
            }
            Err(Broken::Stranger) => return Err(ConnectError::Stranger),
            Err(Broken::Refused(reason)) => return Err(ConnectError::Refused(reason)),
            Err(broken) => broken,
        };
        if inbound.is_closed() {
            return Ok(());
        }
        if reached.elapsed() > dial.patience {
            return Err(ConnectError::Unreachable(dial.patience));
        }
        tracing::warn!(gateway = %dial.gateway, error = %broken, "no connection to the gateway, dialling again: {broken}");
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn open(dial: &Dial, link: &Link) -> Result<(Stream, String, u64), Broken> {
    let handshake = async {
        let mut stream = Stream::to(&dial.gateway, dial.fingerprint).await?;
        let message = Message::Hello {
            version: wire::VERSION,
            instance: dial.instance.clone(),
            credential: dial.credential.clone(),
            received: link.received(),
        };
        let mut buffer = BytesMut::new();
        wire::encode(&Frame { sequence: 0, ack: 0, message, body: Bytes::new() }, &mut buffer)?;
        stream.write_all(&buffer).await?;
        stream.flush().await?;
        buffer.clear();
        // The gateway may follow its welcome with frames at once: read no further than the welcome.
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).await?;
        let length = u32::from_be_bytes(prefix) as usize;
        if length > wire::HEADER_MAX {
            return Err(WireError::TooLarge(length).into());
        }
        buffer.extend_from_slice(&prefix);
        buffer.resize(4 + length, 0);
        let Some(rest) = buffer.get_mut(4..) else { return Err(Broken::NoWelcome) };
        stream.read_exact(rest).await?;
        match wire::decode(&mut buffer)?.map(|frame| frame.message) {
            Some(Message::Welcome { session, received }) => {
                // So that the gateway knows that we know the session: from now on the token is of no use.
                let frame = Frame { sequence: 0, ack: link.received(), message: Message::Ack, body: Bytes::new() };
                wire::encode(&frame, &mut buffer)?;
                stream.write_all(&buffer).await?;
                stream.flush().await?;
                Ok((stream, session, received))
            }
            Some(Message::Refused { reason }) => Err(Broken::Refused(reason)),
            _ => Err(Broken::NoWelcome),
        }
    };
    timeout(HANDSHAKE, handshake).await.unwrap_or(Err(Broken::Silent))
}

async fn talk(stream: Stream, link: &Link, received: u64, inbound: &mpsc::Sender<Frame>) -> Broken {
    let (reader, writer) = tokio::io::split(stream);
    // Both at once: a gateway that waits for us to read must not wait for us to write.
    let ended = tokio::select! {
        ended = listen(reader, link, inbound) => ended,
        ended = speak(writer, link, received) => ended,
    };
    match ended {
        Ok(never) => match never {},
        Err(broken) => broken,
    }
}

async fn listen(
    mut reader: ReadHalf<Stream>,
    link: &Link,
    inbound: &mpsc::Sender<Frame>,
) -> Result<std::convert::Infallible, Broken> {
    let mut buffer = BytesMut::with_capacity(64 << 10);
    loop {
        while let Some(frame) = wire::decode(&mut buffer)? {
            if link.heard(&frame) && frame.sequence > 0 && inbound.send(frame).await.is_err() {
                return Err(Broken::Closed);
            }
        }
        buffer.reserve(64 << 10);
        let read = match timeout(PING_AFTER, reader.read_buf(&mut buffer)).await {
            Ok(read) => read?,
            Err(_) => {
                link.ping();
                timeout(DEAD_AFTER - PING_AFTER, reader.read_buf(&mut buffer)).await.map_err(|_| Broken::Silent)??
            }
        };
        if read == 0 {
            return Err(Broken::Closed);
        }
    }
}

async fn speak(mut writer: WriteHalf<Stream>, link: &Link, mut sent: u64) -> Result<std::convert::Infallible, Broken> {
    let mut buffer = BytesMut::new();
    loop {
        let batch = link.take(sent, BATCH);
        let ack = batch.received;
        for frame in batch.frames {
            sent = frame.sequence;
            wire::encode(&Frame { ack, ..frame }, &mut buffer)?;
        }
        let upkeep = if batch.ping {
            Some(Message::Ping)
        } else if batch.ack && buffer.is_empty() {
            Some(Message::Ack)
        } else {
            None
        };
        if let Some(message) = upkeep {
            wire::encode(&Frame { sequence: 0, ack, message, body: Bytes::new() }, &mut buffer)?;
        }
        if buffer.is_empty() {
            link.work().await;
            if !link.urgent(sent) && link.ack_owed() {
                // Most of what comes is answered soon; the acknowledgement travels with the answer.
                let _ = timeout(ACK_DELAY, async {
                    while !link.urgent(sent) {
                        link.work().await;
                    }
                })
                .await;
            }
            continue;
        }
        let write = async {
            writer.write_all(&buffer).await?;
            writer.flush().await
        };
        timeout(DEAD_AFTER, write).await.map_err(|_| Broken::Silent)??;
        buffer.clear();
        if buffer.capacity() > 2 * BATCH {
            buffer = BytesMut::new();
        }
    }
}
