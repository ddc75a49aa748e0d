//! The log of one attempt while it is being written: pieces of text from the agent become lines with their times.

use bytes::Bytes;
use lambda_agent::wire::Stream;

use crate::model::execution::{LogChunk, LogLine, LogStream};
use crate::model::{ExecutionId, ProjectId, Timestamp};

/// A line longer than this is kept in pieces.
const LINE_MAX: usize = 64 * 1024;
/// As much as this is written to the store without waiting for more.
const CHUNK_BYTES: usize = 256 * 1024;

/// Lines that are not yet written to the store.
#[derive(Debug, Default)]
pub struct LogBuffer {
    lines: Vec<LogLine>,
    bytes: usize,
    sequence: u32,
    stdout: Partial,
    stderr: Partial,
}

/// The beginning of a line whose end has not come yet.
#[derive(Debug, Default)]
struct Partial {
    text: Vec<u8>,
    at: Option<Timestamp>,
}

impl LogBuffer {
    /// Takes a piece as the agent sent it.
    pub fn push(&mut self, stream: Stream, at: Timestamp, piece: &Bytes) {
        let (partial, stream) = match stream {
            Stream::Stdout => (&mut self.stdout, LogStream::Stdout),
            Stream::Stderr => (&mut self.stderr, LogStream::Stderr),
            Stream::Platform => {
                // What the agent says of the attempt it says after what the process wrote.
                self.end_lines();
                self.add(LogStream::Platform, at, piece);
                return;
            }
        };
        let mut lines = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            partial.text.extend_from_slice(part);
            let begun = *partial.at.get_or_insert(at);
            if part.ends_with(b"\n") || partial.text.len() >= LINE_MAX {
                lines.push((begun, std::mem::take(&mut partial.text)));
                partial.at = None;
            }
        }
        for (begun, text) in lines {
            self.add(stream, begun, &text);
        }
    }

    fn add(&mut self, stream: LogStream, at: Timestamp, text: &[u8]) {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        self.bytes += text.len() + 64;
        self.lines.push(LogLine { at, stream, text: String::from_utf8_lossy(text).into_owned() });
    }

    /// Puts what was written before in front: the log of a sandbox's start belongs to its first event.
    pub fn prepend(&mut self, mut before: Self) {
        before.end_lines();
        before.lines.append(&mut self.lines);
        self.lines = before.lines;
        self.bytes += before.bytes;
    }

    fn end_lines(&mut self) {
        for (stream, is_stdout) in [(LogStream::Stdout, true), (LogStream::Stderr, false)] {
            let partial = std::mem::take(if is_stdout { &mut self.stdout } else { &mut self.stderr });
            if let Some(at) = partial.at {
                self.add(stream, at, &partial.text);
            }
        }
    }

    /// Whether so much waits that it should be written now.
    #[must_use]
    pub const fn is_large(&self) -> bool {
        self.bytes >= CHUNK_BYTES
    }

    /// What is to be written now; the beginnings of lines stay unless the attempt is at its end.
    pub fn take(
        &mut self,
        execution_id: ExecutionId,
        project_id: &ProjectId,
        attempt: u32,
        at_end: bool,
    ) -> Option<LogChunk> {
        if at_end {
            self.end_lines();
        }
        if self.lines.is_empty() {
            return None;
        }
        let sequence = self.sequence;
        self.sequence += 1;
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        Some(LogChunk { execution_id, project_id: project_id.clone(), attempt, sequence, lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn take(buffer: &mut LogBuffer, at_end: bool) -> Vec<(i64, LogStream, String)> {
        let project = ProjectId::parse("demo").unwrap();
        let chunk = buffer.take(ExecutionId::generate(), &project, 1, at_end);
        chunk.into_iter().flat_map(|c| c.lines).map(|l| (l.at.as_millis(), l.stream, l.text)).collect()
    }

    #[test]
    fn a_line_has_the_time_of_its_beginning_and_may_come_in_pieces() {
        let mut buffer = LogBuffer::default();
        buffer.push(Stream::Stdout, at(1), &Bytes::from_static(b"one\ntw"));
        buffer.push(Stream::Stderr, at(2), &Bytes::from_static(b"err\n"));
        buffer.push(Stream::Stdout, at(3), &Bytes::from_static(b"o\nthree"));
        let lines = take(&mut buffer, false);
        assert_eq!(
            lines,
            [
                (1, LogStream::Stdout, "one".to_owned()),
                (2, LogStream::Stderr, "err".to_owned()),
                (1, LogStream::Stdout, "two".to_owned())
            ]
        );
        assert_eq!(take(&mut buffer, false), []);
        assert_eq!(take(&mut buffer, true), [(3, LogStream::Stdout, "three".to_owned())]);
    }

    #[test]
    fn what_has_no_line_ends_does_not_grow_for_ever() {
        let mut buffer = LogBuffer::default();
        for _ in 0..5 {
            buffer.push(Stream::Stdout, at(1), &Bytes::from(vec![b'x'; LINE_MAX / 2]));
        }
        assert_eq!(take(&mut buffer, false).len(), 2);
    }

    #[test]
    fn the_log_of_the_start_comes_first() {
        let mut start = LogBuffer::default();
        start.push(Stream::Stdout, at(1), &Bytes::from_static(b"importing"));
        let mut buffer = LogBuffer::default();
        buffer.push(Stream::Stdout, at(2), &Bytes::from_static(b"handling\n"));
        buffer.prepend(start);
        let texts: Vec<_> = take(&mut buffer, true).into_iter().map(|line| line.2).collect();
        assert_eq!(texts, ["importing", "handling"]);
    }
}
