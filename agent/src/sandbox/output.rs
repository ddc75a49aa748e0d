//! What a sandbox writes to standard output and standard error: read as it comes, sent to the gateway in order, counted
//! and cut for each attempt. The process never waits for us because of a cut, only when the gateway is so far behind
//! that memory would fill.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use tokio::net::unix::pipe::Receiver;

use crate::clock;
use crate::link::Link;
use crate::wire::{AttemptRef, Message, Stream};

/// Bytes read at once; what a pipe holds unless it was made larger.
const PIECE: usize = 64 << 10;
/// How long the end of a dead process's output is waited for.
const END: Duration = Duration::from_secs(2);

/// The output of one sandbox.
#[derive(Debug)]
pub struct Output {
    sandbox: u64,
    link: Arc<Link>,
    pipes: [Pipe; 2],
    limit: u64,
    execution: Option<AttemptRef>,
    count: Count,
}

/// What was written since the last attempt began or ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Bytes sent.
    pub bytes: u64,
    /// Whether there were more than the limit allows.
    pub is_truncated: bool,
}

#[derive(Debug)]
struct Pipe {
    stream: Stream,
    // None when every writer has closed it.
    end: Option<Receiver>,
    buffer: Vec<u8>,
}

impl Output {
    /// The output of a sandbox, and the ends for its process: standard output and standard error. It begins outside any
    /// attempt.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(sandbox: u64, link: Arc<Link>, limit: u64) -> io::Result<(Self, [OwnedFd; 2])> {
        let (stdout, one) = Pipe::new(Stream::Stdout)?;
        let (stderr, two) = Pipe::new(Stream::Stderr)?;
        let output = Self { sandbox, link, pipes: [stdout, stderr], limit, execution: None, count: Count::default() };
        Ok((output, [one, two]))
    }

    /// Reads a piece when there is one and room for it. Nothing is lost when this is dropped.
    pub async fn pump(&mut self) {
        self.link.room().await;
        let [stdout, stderr] = &mut self.pipes;
        let (which, read) = tokio::select! {
            read = stdout.read() => (0, read),
            read = stderr.read() => (1, read),
        };
        self.note(which, read);
    }

    /// Reads all that was written before this call; more at most as much as the pipes hold.
    pub fn drain(&mut self) {
        for which in 0..self.pipes.len() {
            let mut left = PIECE;
            while left > 0 {
                let Some(pipe) = self.pipes.get_mut(which) else { return };
                match pipe.read_now() {
                    Some(read) => {
                        left = left.saturating_sub(read.max(1));
                        self.note(which, read);
                        if read == 0 {
                            break;
                        }
                    }
                    None => break,
                }
            }
        }
    }

    /// Reads to the end, which comes when the last writer is dead.
    pub async fn finish(&mut self) {
        let all = async {
            while self.pipes.iter().any(|pipe| pipe.end.is_some()) {
                // Not `pump`: what is left is no more than the pipes hold.
                let [stdout, stderr] = &mut self.pipes;
                let (which, read) = tokio::select! {
                    read = stdout.read() => (0, read),
                    read = stderr.read() => (1, read),
                };
                self.note(which, read);
            }
        };
        if tokio::time::timeout(END, all).await.is_err() {
            tracing::warn!(sandbox = self.sandbox, "someone still holds the output of a sandbox that has ended");
        }
    }

    /// From here on output belongs to this attempt, or to none.
    pub fn begin(&mut self, execution: Option<AttemptRef>) {
        self.execution = execution;
        self.count = Count::default();
    }

    /// What was written since `begin`.
    #[must_use]
    pub const fn count(&self) -> Count {
        self.count
    }

    fn note(&mut self, which: usize, read: usize) {
        let Some(pipe) = self.pipes.get_mut(which) else { return };
        if read == 0 {
            pipe.end = None;
            return;
        }
        let left = usize::try_from(self.limit - self.count.bytes).unwrap_or(usize::MAX);
        let kept = read.min(left);
        let stream = pipe.stream;
        if kept > 0 {
            let piece = Bytes::copy_from_slice(pipe.buffer.get(..kept).unwrap_or_default());
            self.count.bytes += kept as u64;
            self.say(stream, piece);
        }
        if kept < read && !self.count.is_truncated {
            self.count.is_truncated = true;
            let note = format!("log cut: more than {} bytes were written, the rest is not kept\n", self.limit);
            self.say(Stream::Platform, Bytes::from(note));
        }
    }

    fn say(&self, stream: Stream, piece: Bytes) {
        let execution = self.execution.clone();
        self.link.say(Message::Log { sandbox: self.sandbox, execution, stream, at_ms: clock::epoch_ms() }, piece);
    }
}

impl Pipe {
    fn new(stream: Stream) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        // Only our end becomes non-blocking: a program may not expect that of its standard output.
        Ok((Self { stream, end: Some(Receiver::from_owned_fd(ours)?), buffer: vec![0; PIECE] }, theirs))
    }

    /// Waits for something and reads it; 0 at the end. Never comes back after the end.
    async fn read(&mut self) -> usize {
        let Some(end) = &self.end else { return std::future::pending().await };
        loop {
            if end.readable().await.is_err() {
                return 0;
            }
            match end.try_read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.unwrap_or(0),
            }
        }
    }

    /// Reads what is there, whether the event loop has heard of it or not; none when nothing is.
    fn read_now(&mut self) -> Option<usize> {
        loop {
            return match nix::unistd::read(self.end.as_ref()?, &mut self.buffer) {
                Ok(read) => Some(read),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => None,
                Err(_) => Some(0),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;

    fn said(link: &Link) -> Vec<(Stream, Option<u32>, String)> {
        let text = |body: &Bytes| String::from_utf8(body.to_vec()).unwrap();
        let frames = link.take(0, usize::MAX).frames;
        let said = frames.iter().map(|frame| {
            let Message::Log { stream, execution, .. } = &frame.message else { panic!("{frame:?}") };
            (*stream, execution.as_ref().map(|attempt| attempt.attempt), text(&frame.body))
        });
        said.collect()
    }

    #[tokio::test]
    async fn what_was_written_before_a_drain_belongs_to_what_was_before_it() {
        let link = Arc::new(Link::default());
        let (mut output, [stdout, stderr]) = Output::new(1, Arc::clone(&link), 100).unwrap();
        let (mut stdout, mut stderr) = (File::from(stdout), File::from(stderr));
        stdout.write_all(b"importing\n").unwrap();
        output.drain();
        output.begin(Some(AttemptRef { execution: "e".into(), attempt: 7 }));
        stdout.write_all(b"one\n").unwrap();
        stderr.write_all(b"two\n").unwrap();
        output.drain();
        assert_eq!(output.count(), Count { bytes: 8, is_truncated: false });
        output.begin(None);
        stdout.write_all(b"late\n").unwrap();
        output.pump().await;
        drop((stdout, stderr));
        output.finish().await;
        let line = |stream, attempt, text: &str| (stream, attempt, text.to_owned());
        assert_eq!(
            said(&link),
            [
                line(Stream::Stdout, None, "importing\n"),
                line(Stream::Stdout, Some(7), "one\n"),
                line(Stream::Stderr, Some(7), "two\n"),
                line(Stream::Stdout, None, "late\n"),
            ]
        );
    }

    #[tokio::test]
    async fn a_log_is_cut_once_at_its_limit_and_reading_goes_on() {
        let link = Arc::new(Link::default());
        let (mut output, [stdout, _stderr]) = Output::new(1, Arc::clone(&link), 6).unwrap();
        let mut stdout = File::from(stdout);
        for _ in 0..100 {
            stdout.write_all(&[b'x'; PIECE]).unwrap();
            output.drain();
        }
        assert_eq!(output.count(), Count { bytes: 6, is_truncated: true });
        let said = said(&link);
        assert_eq!(said.len(), 2);
        assert_eq!(said[0].2, "xxxxxx");
        assert!(said[1].0 == Stream::Platform && said[1].2.contains("more than 6 bytes"));
        output.begin(None);
        stdout.write_all(b"again").unwrap();
        output.drain();
        assert_eq!(output.count(), Count { bytes: 5, is_truncated: false });
    }
}
