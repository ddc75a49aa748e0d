//! Frames on a TCP connection. Reading and writing go on together, so that two sides with full buffers do not wait for
//! each other for ever.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use lambda_agent::wire::{self, Frame, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time for a refusal to be written.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes read at once.
const READ: usize = 64 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    heard: Instant,
}

impl Connection {
    /// Takes a new connection and reads its first frame.
    pub async fn accept(stream: TcpStream) -> io::Result<(Self, Message)> {
        stream.set_nodelay(true)?;
        let mut connection =
            Self { stream, input: BytesMut::with_capacity(READ), output: BytesMut::new(), heard: Instant::now() };
        loop {
            if let Some(frame) = connection.turn().await? {
                return Ok((connection, frame.message));
            }
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
        let (mut reader, mut writer) = self.stream.split();
        tokio::select! {
            read = reader.read_buf(&mut self.input) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.heard = Instant::now();
            }
            written = writer.write_buf(&mut self.output), if !self.output.is_empty() => {
                if written? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
        }
        wire::decode(&mut self.input).map_err(io::Error::other)
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
