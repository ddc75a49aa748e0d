//! Frames on a connection. Reading and writing go on together, so that two sides with full buffers do not wait for each
//! other for ever.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use lambda_agent::tls::Stream;
use lambda_agent::wire::{self, Frame, Message};
use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::identity::Identity;

/// Time for a refusal to be written.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes read at once.
const READ: usize = 64 * 1024;

/// A connection that nothing was said on.
#[derive(Debug)]
pub enum Arrived {
    /// From there.
    Network(TcpStream, SocketAddr),
    /// By the socket in the file system.
    Local(UnixStream),
}

impl Arrived {
    /// Where it comes from.
    pub const fn from(&self) -> Peer {
        match self {
            Self::Network(_, from) => Peer::Network(*from),
            Self::Local(_) => Peer::Local,
        }
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// An address.
    Network(SocketAddr),
    /// A process of this host that may write to the socket's file.
    Local,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(from) => write!(f, "{from}"),
            Self::Local => f.write_str("this host"),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    from: Peer,
    input: BytesMut,
    output: BytesMut,
    is_flushed: bool,
    heard: Instant,
}

impl Connection {
    /// Takes a new connection and reads its first frame.
    pub async fn accept(arrived: Arrived, identity: &Identity) -> io::Result<(Self, Message)> {
        let from = arrived.from();
        let stream = match arrived {
            Arrived::Network(stream, _) => {
                stream.set_nodelay(true)?;
                identity.accept(stream).await?
            }
            Arrived::Local(stream) => Stream::Local(stream),
        };
        let mut connection = Self {
            stream,
            from,
            input: BytesMut::with_capacity(READ),
            output: BytesMut::new(),
            is_flushed: true,
            heard: Instant::now(),
        };
        loop {
            if let Some(frame) = connection.turn().await? {
                return Ok((connection, frame.message));
            }
        }
    }

    /// Where it comes from.
    pub const fn from(&self) -> Peer {
        self.from
    }

    /// Whether nobody between the two ends can listen: it is in TLS, or does not leave this host.
    pub fn is_private(&self) -> bool {
        let is_encrypted = matches!(self.stream, Stream::Tls(_));
        is_encrypted
            || match self.from {
                Peer::Network(from) => from.ip().to_canonical().is_loopback(),
                Peer::Local => true,
            }
    }

    /// Puts a frame behind what is to be written. It goes out with the next [`Self::turn`]s.
    pub fn queue(&mut self, frame: &Frame) -> io::Result<()> {
        wire::encode(frame, &mut self.output).map_err(io::Error::other)
    }

    /// Queues a message that is not sequenced.
    pub fn queue_message(&mut self, message: Message, body: Bytes, ack: u64) -> io::Result<()> {
        self.queue(&Frame { sequence: 0, ack, message, body })
    }

    /// Reads or writes a little; a frame, if one is whole. Can be dropped at any time without losing anything.
    pub async fn turn(&mut self) -> io::Result<Option<Frame>> {
        if let Some(frame) = wire::decode(&mut self.input).map_err(io::Error::other)? {
            return Ok(Some(frame));
        }
        self.input.reserve(READ);
        poll_fn(|cx| self.poll(cx)).await?;
        wire::decode(&mut self.input).map_err(io::Error::other)
    }

    /// Ready when something was read or written.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(&mut self.stream);
        let mut is_done = false;
        if !self.output.is_empty()
            && let Poll::Ready(written) = poll_write_buf(stream.as_mut(), cx, &mut self.output)
        {
            if written? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_flushed = false;
            is_done = true;
        }
        // What TLS has taken is not on its way yet.
        if !self.is_flushed
            && let Poll::Ready(flushed) = stream.as_mut().poll_flush(cx)
        {
            flushed?;
            self.is_flushed = true;
        }
        if let Poll::Ready(read) = poll_read_buf(stream, cx, &mut self.input) {
            if read? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.heard = Instant::now();
            is_done = true;
        }
        if is_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Bytes that are not written yet.
    pub fn unwritten(&self) -> usize {
        self.output.len()
    }

    /// How long the other side has been silent.
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Says why the connection is not wanted, and ends it.
    pub async fn refuse(mut self, reason: &str) {
        let refusal = Message::Refused { reason: reason.to_owned() };
        if self.queue_message(refusal, Bytes::new(), 0).is_ok() {
            self.finish(REFUSAL_TIMEOUT).await;
        }
    }

    /// Writes what is queued, as far as it goes within the time, and ends the connection.
    pub async fn finish(mut self, within: Duration) {
        let Self { stream, output, .. } = &mut self;
        // Whoever does not read his last words does not get them.
        let _ = tokio::time::timeout(within, async {
            stream.write_all(output).await?;
            stream.shutdown().await
        })
        .await;
    }
}
