//! What a gateway and an agent (or a caller) say to each other, and how it stands on the connection.
//!
//! A frame is `u32 length of all that follows | u32 length of the header | header | body`, both lengths big-endian. The
//! header is JSON, so that either side may be older than the other; the body is bytes that nobody has to look into: an
//! event, a result, a piece of a package or of a log.
//!
//! Frames that must not be lost carry a sequence number from 1. Each side keeps what it sent until the other's `ack`
//! covers it ([`Outbox`]), drops what it has seen before ([`Inbox`]), and after a reconnection sends the rest again, so
//! each such message is handled once and in order for as long as both processes live.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Version of the messages. An agent and a gateway of the same version understand each other; additions that an older
/// side may ignore do not change it.
pub const VERSION: u32 = 1;

/// Largest header, in bytes.
pub const HEADER_MAX: usize = 1 << 20;

/// Largest body, in bytes: a result of 6 MiB (AWS Lambda's limit) and some room.
pub const BODY_MAX: usize = 8 << 20;

/// Size of the pieces in which packages travel, in bytes: small enough not to delay an event behind them.
pub const PACKAGE_PIECE: usize = 256 << 10;

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Its place among the frames that must not be lost; 0 for those that may.
    pub sequence: u64,
    /// Highest sequence that the sender has received so far.
    pub ack: u64,
    /// What it says.
    pub message: Message,
    /// Bytes that belong to it.
    pub body: Bytes,
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    s: u64,
    a: u64,
    m: &'a Message,
}

#[derive(Deserialize)]
struct HeaderIn {
    s: u64,
    a: u64,
    m: Message,
}

/// A connection that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A length is over its limit.
    #[error("a frame of {0} bytes is over the limit")]
    TooLarge(usize),
    /// The lengths contradict each other.
    #[error("a frame's lengths contradict each other")]
    Malformed,
    /// The header is not a message that this version knows.
    #[error("a frame's header cannot be read")]
    Header(#[source] serde_json::Error),
}

/// Appends a frame to a buffer.
///
/// # Errors
/// When header or body are over their limits.
pub fn encode(frame: &Frame, into: &mut BytesMut) -> Result<(), WireError> {
    let header = serde_json::to_vec(&HeaderOut { s: frame.sequence, a: frame.ack, m: &frame.message })
        .map_err(WireError::Header)?;
    let length = 4 + header.len() + frame.body.len();
    if header.len() > HEADER_MAX || frame.body.len() > BODY_MAX {
        return Err(WireError::TooLarge(length));
    }
    let (Ok(whole), Ok(head)) = (u32::try_from(length), u32::try_from(header.len())) else {
        return Err(WireError::TooLarge(length));
    };
    into.reserve(4 + length);
    into.put_u32(whole);
    into.put_u32(head);
    into.put_slice(&header);
    into.put_slice(&frame.body);
    Ok(())
}

/// Takes the first whole frame out of a buffer; none when more bytes have to be read first.
///
/// # Errors
/// When what the buffer begins with cannot be a frame.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, WireError> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > 4 + HEADER_MAX + BODY_MAX {
        return Err(WireError::TooLarge(length));
    }
    if length < 4 {
        return Err(WireError::Malformed);
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    let mut frame = buffer.split_to(length).freeze();
    let head = frame.get_u32() as usize;
    if head > frame.len() {
        return Err(WireError::Malformed);
    }
    let header = frame.split_to(head);
    let HeaderIn { s, a, m } = serde_json::from_slice(&header).map_err(WireError::Header)?;
    Ok(Some(Frame { sequence: s, ack: a, message: m, body: frame }))
}

/// Everything that can be said. Which side says it stands with each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum Message {
    // --- opening; not sequenced ---
    /// Agent: the first frame of a connection.
    Hello {
        /// [`VERSION`] of the agent.
        version: u32,
        /// The instance, as the driver named it.
        instance: String,
        /// What proves it: the one-time token at first, the session of the welcome afterwards.
        credential: Credential,
        /// Highest sequence received from the gateway.
        received: u64,
    },
    /// Caller (the API service): the first frame of a connection.
    HelloCaller {
        /// [`VERSION`] of the caller.
        version: u32,
        /// The worker's caller secret, from the store.
        secret: String,
    },
    /// Gateway: the hello is accepted.
    Welcome {
        /// What proves the agent from now on, whenever it has to dial again.
        session: String,
        /// Highest sequence received from the agent.
        received: u64,
    },
    /// Gateway: the hello is refused; trying again is of no use, the agent ends.
    Refused {
        /// Why, for the agent's log.
        reason: String,
    },

    // --- upkeep; not sequenced ---
    /// Both: nothing new, but this is what I have received; answers a `Ping`.
    Ack,
    /// Both: are you there? After a silence.
    Ping,

    // --- gateway to agent; sequenced ---
    /// Make a sandbox. Answered by `SandboxReady` or `SandboxEnded`.
    StartSandbox {
        /// Named by the gateway, never used twice in an instance.
        sandbox: u64,
        /// What it runs.
        spec: SandboxSpec,
    },
    /// Give a ready sandbox an event; the body is the event. Answered by `Result`, or by `SandboxEnded` with this
    /// execution in it.
    Invoke {
        /// The sandbox, which is ready and has no event.
        sandbox: u64,
        /// What is run.
        invocation: Invocation,
    },
    /// End a sandbox with everything in it, also while it handles an event. Answered by `SandboxEnded`.
    StopSandbox {
        /// The sandbox; unknown ones are answered all the same.
        sandbox: u64,
    },
    /// A piece of a package; the body are its bytes. Answers `FetchPackage`.
    PackagePiece {
        /// The package.
        sha256: String,
        /// Where the piece begins.
        offset: u64,
        /// Whether it is the last one.
        last: bool,
    },
    /// The package is not to be had. Answers `FetchPackage`.
    PackageMissing {
        /// The package.
        sha256: String,
        /// Why.
        reason: String,
    },
    /// End everything, then end.
    Shutdown,

    // --- agent to gateway; sequenced ---
    /// Send me this package.
    FetchPackage {
        /// The package.
        sha256: String,
    },
    /// A sandbox has asked for its first event.
    SandboxReady {
        /// The sandbox.
        sandbox: u64,
        /// Microseconds from the start of its process (or its fork) to here.
        init_us: u64,
        /// Microseconds that fetching and unpacking the package took; 0 when it was there.
        package_us: u64,
    },
    /// A sandbox and everything in it is gone.
    SandboxEnded {
        /// The sandbox.
        sandbox: u64,
        /// The event it had, if it had one.
        execution: Option<AttemptRef>,
        /// Why, unless it was asked to.
        failure: Option<SandboxFailure>,
        /// What was measured of the attempt; of an end during init, only the memory.
        measures: AttemptMeasures,
    },
    /// A piece of a log; the body is the text as the process wrote it. Of an attempt, or (execution none) of the start
    /// of a sandbox.
    Log {
        /// The sandbox that wrote it.
        sandbox: u64,
        /// The attempt it belongs to.
        execution: Option<AttemptRef>,
        /// Where it was written.
        stream: Stream,
        /// When it was read, in milliseconds since the epoch.
        at_ms: i64,
    },
    /// The handler has answered; the body is what it returned, or its error object. The log of the attempt is
    /// complete: every piece of it was sent before.
    Result {
        /// The sandbox, which is ready again.
        sandbox: u64,
        /// The attempt.
        execution: AttemptRef,
        /// Whether it returned, or reported an error.
        outcome: HandlerOutcome,
        /// What was measured.
        measures: AttemptMeasures,
    },

    // --- caller to gateway and back; not sequenced, a lost connection is the caller's error ---
    /// Caller: run this function now; the body is the event.
    Call {
        /// Chosen by the caller, unique on its connection.
        call: u64,
        /// The project whose function it is.
        project: String,
        /// The function's id.
        function: String,
        /// Milliseconds the caller waits at most.
        patience_ms: u64,
    },
    /// Gateway: the call is done; the body is what the handler returned, or its error object.
    CallDone {
        /// The call.
        call: u64,
        /// The execution that was recorded.
        execution: String,
        /// Whether the handler returned; else the whole failure as it stands in the record, as JSON.
        failure: Option<serde_json::Value>,
    },
    /// Caller: stop this execution, which you own.
    Cancel {
        /// Chosen by the caller, unique on its connection.
        call: u64,
        /// The execution.
        execution: String,
    },
    /// Gateway: it is cancelled, or it is not mine (any more).
    Cancelled {
        /// The call.
        call: u64,
        /// Whether it was found and stopped.
        found: bool,
    },
    /// Caller: something was put into the inbox or posted to the queue; look there now. Not answered.
    Nudge,
    /// Caller: a function was changed or deleted; forget what you remember of it. What the same caller says afterwards is
    /// handled after it.
    FunctionChanged {
        /// The function's id.
        function: String,
        /// Chosen by the caller, unique on its connection; none: nobody waits for the answer.
        #[serde(default)]
        call: Option<u64>,
    },
    /// Gateway: the change that was announced is in force here: the function's events run its present revision.
    FunctionServed {
        /// The call.
        call: u64,
    },
}

/// What proves an agent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// The token that the driver handed over at boot. Works once.
    Token(String),
    /// The session of an earlier welcome.
    Session(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(…)",
            Self::Session(_) => "Session(…)",
        })
    }
}

/// What a sandbox runs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The project, for the environment.
    pub project: String,
    /// The function's id.
    pub function: String,
    /// The function's name.
    pub function_name: String,
    /// The function's revision.
    pub revision: u64,
    /// How the runtime starts.
    pub runtime: RuntimeKind,
    /// What the runtime calls.
    pub handler: String,
    /// Memory limit, in MiB.
    pub memory_mib: u32,
    /// Time for one event, in milliseconds; for the environment and the context, each `Invoke` has its own.
    pub timeout_ms: u64,
    /// Time for start and import, in milliseconds; fetching the package is not counted.
    pub init_timeout_ms: u64,
    /// The function's variables.
    pub environment: BTreeMap<String, String>,
    /// SHA-256 of the package, 64 lower-case hexadecimal digits.
    pub package_sha256: String,
    /// Size of the package, in bytes.
    pub package_size: u64,
    /// Bytes of log kept of one attempt.
    pub log_limit_bytes: u64,
}

impl std::fmt::Debug for SandboxSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the environment: its values are secrets.
        f.debug_struct("SandboxSpec")
            .field("function", &self.function)
            .field("revision", &self.revision)
            .field("runtime", &self.runtime)
            .field("handler", &self.handler)
            .field("memory_mib", &self.memory_mib)
            .finish_non_exhaustive()
    }
}

/// How a runtime starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// Forked from the Python zygote.
    Python,
    /// The program `bootstrap` of the package.
    Provided,
}

/// One attempt of an execution.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttemptRef {
    /// The execution's id, which is also the runtime's request id.
    pub execution: String,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// One event for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// The attempt.
    pub execution: AttemptRef,
    /// Time for it, in milliseconds, from the moment the code gets it.
    pub timeout_ms: u64,
    /// `Content-Type` of the event; JSON when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// What the handler did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandlerOutcome {
    /// It returned; the body is the result.
    Returned,
    /// It reported an error; the body is the Runtime API's error object.
    Error,
    /// It returned more than the limit.
    TooLarge,
}

/// Why a sandbox ended by itself. The agent's word for it; what becomes of the execution is decided by the gateway's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFailure {
    /// What happened.
    pub kind: FailureKind,
    /// When in the sandbox's life.
    pub phase: SandboxPhase,
    /// The Lambda error type, such as `Runtime.ExitError`, `Sandbox.Timeout` or the exception's class.
    pub error_type: String,
    /// A sentence for the user.
    pub message: String,
    /// The stack that the runtime reported, outermost call first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
}

/// What happened to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The runtime reported that it could not initialise (`/init/error`): import error, handler missing, …
    InitError,
    /// The process ended, or was killed by a signal that we did not send.
    Exited,
    /// It was killed at its timeout.
    TimedOut,
    /// It reached its memory limit.
    OutOfMemory,
    /// The package is damaged, unsafe, or larger than allowed when unpacked.
    PackageInvalid,
    /// The package could not be had.
    PackageUnavailable,
    /// The program to start is not in the package.
    EntrypointMissing,
    /// The agent could not make the sandbox.
    Platform,
}

/// When in a sandbox's life something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxPhase {
    /// While the package was fetched and unpacked.
    Package,
    /// From the start of the process to its first request for an event.
    Init,
    /// While it had an event.
    Invoke,
    /// Between events.
    Idle,
}

/// What was measured of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptMeasures {
    /// Microseconds from handing the event to the code to its answer (or end).
    pub duration_us: u64,
    /// Highest memory of the sandbox so far, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes of log that were sent.
    pub log_bytes: u64,
    /// Whether the log was cut at its limit.
    pub log_truncated: bool,
}

/// Where a process wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The agent itself, about the attempt.
    Platform,
}

/// What was sent and not yet acknowledged.
#[derive(Debug, Default)]
pub struct Outbox {
    last: u64,
    unacknowledged: VecDeque<Frame>,
    bytes: usize,
}

impl Outbox {
    /// Gives a message its sequence number and keeps it until it is acknowledged. The caller writes the frame.
    pub fn push(&mut self, message: Message, body: Bytes) -> Frame {
        self.last += 1;
        let frame = Frame { sequence: self.last, ack: 0, message, body };
        self.bytes += frame.body.len();
        self.unacknowledged.push_back(frame.clone());
        frame
    }

    /// Forgets what the other side has received.
    pub fn acknowledge(&mut self, upto: u64) {
        while let Some(frame) = self.unacknowledged.front() {
            if frame.sequence > upto {
                break;
            }
            self.bytes -= frame.body.len();
            self.unacknowledged.pop_front();
        }
    }

    /// What has to be sent again on a new connection, in order.
    pub fn pending(&self) -> impl Iterator<Item = &Frame> {
        self.unacknowledged.iter()
    }

    /// Bodies kept, in bytes; a sender waits when this grows over its bound.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Whether everything was acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unacknowledged.is_empty()
    }
}

/// What was received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inbox {
    received: u64,
}

impl Inbox {
    /// Whether the frame is new and must be handled; false for one that was seen before a reconnection.
    pub const fn accept(&mut self, sequence: u64) -> bool {
        if sequence == 0 {
            return true;
        }
        if sequence <= self.received {
            return false;
        }
        self.received = sequence;
        true
    }

    /// Highest sequence received: the `ack` of what is sent, the `received` of a hello.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64, body: &'static [u8]) -> Frame {
        Frame { sequence, ack: 3, message: Message::StopSandbox { sandbox: 7 }, body: Bytes::from_static(body) }
    }

    #[test]
    fn frames_survive_the_connection_in_whatever_pieces() {
        let mut whole = BytesMut::new();
        for n in 1..4 {
            encode(&frame(n, b"body"), &mut whole).unwrap();
        }
        for piece in 1..whole.len() {
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for bytes in whole.chunks(piece) {
                buffer.extend_from_slice(bytes);
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, [frame(1, b"body"), frame(2, b"body"), frame(3, b"body")]);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn lengths_that_lie_end_the_connection() {
        for bytes in [
            &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0][..],
            &[0, 0, 0, 2, 0, 0][..],
            &[0, 0, 0, 6, 0, 0, 0, 9, b'{', b'}'][..],
            &[0, 0, 0, 6, 0, 0, 0, 2, b'{', b'}'][..],
        ] {
            assert!(decode(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_field_that_is_not_known_is_ignored_and_a_message_that_is_not_is_refused() {
        let decode_header = |header: &str| {
            let mut buffer = BytesMut::new();
            buffer.put_u32(4 + u32::try_from(header.len()).unwrap());
            buffer.put_u32(u32::try_from(header.len()).unwrap());
            buffer.put_slice(header.as_bytes());
            decode(&mut buffer)
        };
        assert!(decode_header(r#"{"s":1,"a":0,"m":{"t":"stop_sandbox","sandbox":1,"later":true}}"#).unwrap().is_some());
        assert!(matches!(decode_header(r#"{"s":1,"a":0,"m":{"t":"teleport"}}"#), Err(WireError::Header(_))));
    }

    #[test]
    fn after_a_reconnection_each_message_is_handled_once() {
        let mut outbox = Outbox::default();
        let mut inbox = Inbox::default();
        let sent: Vec<_> =
            (0..5).map(|sandbox| outbox.push(Message::StopSandbox { sandbox }, Bytes::new()).sequence).collect();
        assert!(inbox.accept(sent[0]) && inbox.accept(sent[1]));
        outbox.acknowledge(1); // The acknowledgement of the second was lost with the connection.
        let again: Vec<_> = outbox.pending().map(|frame| frame.sequence).collect();
        assert_eq!(again, [2, 3, 4, 5]);
        let handled: Vec<_> = again.into_iter().filter(|sequence| inbox.accept(*sequence)).collect();
        assert_eq!(handled, [3, 4, 5]);
        outbox.acknowledge(inbox.received());
        assert!(outbox.is_empty());
    }
}
