//! One event handled by one function: its record, and every change that the record may go through.
//!
//! The only way from one state to another is [`Execution::apply`]. The store writes the outcome with a compare-and-set
//! on the [`Fence`] that was read, so a writer that has lost its claim changes nothing.

use serde::{Deserialize, Serialize};

use super::function::{FunctionName, QueueName};
use super::ids::{ExecutionId, FunctionId, InstanceId, ProjectId, RequestId, TriggerId, WorkerId};
use super::time::Millis;
use super::{Event, Function, Payload, Timestamp};

/// Where an execution is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionState {
    /// In the inbox: waiting in a worker, or parked without an owner until it is due.
    Queued,
    /// A sandbox has it.
    Running,
    /// The handler returned.
    Succeeded,
    /// Given up after a failure.
    Failed,
    /// Given up after the handler ran into its timeout.
    TimedOut,
    /// Given up because the event grew too old before it could run.
    Expired,
    /// Stopped by its owner.
    Cancelled,
}

impl ExecutionState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::TimedOut, Self::Expired, Self::Cancelled];

    /// Whether nothing more happens to it by itself.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::TimedOut | Self::Expired | Self::Cancelled => true,
        }
    }

    /// The state as it is written in records and queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// How the execution came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Origin {
    /// A message of a Zaqar queue.
    Queue {
        /// The queue.
        queue: String,
        /// The message.
        message_id: String,
        /// The trigger, where the queue is the project's own; none: it is the platform's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trigger_id: Option<TriggerId>,
    },
    /// A REST call that waits for the answer.
    Invocation,
    /// A REST call that does not wait.
    AsyncInvocation,
}

/// What identifies the event in lists; the whole of it is the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSummary {
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// CloudEvents `subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

impl From<&Event> for EventSummary {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id().to_owned(),
            source: event.source().to_owned(),
            event_type: event.event_type().to_owned(),
            subject: event.subject().map(str::to_owned),
        }
    }
}

impl EventSummary {
    /// What identifies a payload that came by a REST call: its own attributes if it is a CloudEvent; nothing otherwise.
    #[must_use]
    pub fn of_payload(payload: &Payload) -> Self {
        #[derive(Deserialize)]
        struct Looks {
            specversion: Option<String>,
        }
        // Most payloads are no CloudEvents; they are skipped over without being built in memory.
        let is_event = serde_json::from_slice::<Looks>(payload.bytes()).is_ok_and(|looks| looks.specversion.is_some());
        if !is_event {
            return Self::default();
        }
        serde_json::from_slice(payload.bytes())
            .ok()
            .and_then(|value| Event::from_value(value, "").ok())
            .map(|event| Self::from(&event))
            .unwrap_or_default()
    }
}

/// Whether the sandbox had to be made for this attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The sandbox was made for it.
    Cold,
    /// The sandbox had served before, or was ready and waiting.
    Warm,
}

/// Who failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The user's code.
    Function,
    /// The runtime around it: start, limits, the Runtime API.
    Sandbox,
    /// What carries sandboxes: a container, a server, an agent, a driver.
    Instance,
    /// The service itself.
    Worker,
}

/// When it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before any place was found for it.
    Queue,
    /// While an instance was booted.
    Boot,
    /// While the package was fetched and unpacked.
    Package,
    /// While the runtime started and the handler was imported.
    Init,
    /// While the handler ran.
    Invoke,
}

/// Why it failed, as a word that never changes its meaning. Each has its entry in docs/errors.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The handler raised an exception or reported an error.
    HandlerError,
    /// The module could not be imported.
    ImportError,
    /// The module has a syntax error.
    SyntaxError,
    /// The module, function or `bootstrap` program that was named is not there.
    HandlerNotFound,
    /// What the handler returned cannot be written as JSON.
    ResultNotJson,
    /// What the handler returned is larger than the limit.
    ResultTooLarge,
    /// The process ended before it answered.
    ProcessExited,
    /// The handler ran longer than the function's timeout.
    TimedOut,
    /// Start and import took longer than allowed.
    InitTimedOut,
    /// The memory limit was reached.
    OutOfMemory,
    /// The package is damaged, unsafe or too large when unpacked.
    PackageInvalid,
    /// The package could not be fetched.
    PackageUnavailable,
    /// The sandbox could not be started, for a reason that is not the user's.
    SandboxFailed,
    /// The instance or its agent was lost while the event ran.
    InstanceLost,
    /// No instance could be booted.
    InstanceUnavailable,
    /// The worker that ran it was lost too often.
    WorkerLost,
    /// The function was deleted before the event could run.
    FunctionDeleted,
    /// The function has no code yet.
    FunctionWithoutCode,
    /// The function names a runtime that the service does not offer.
    RuntimeUnknown,
    /// The function asks for an isolation or for memory that no driver of the service gives.
    InstanceImpossible,
    /// The event grew older than the function allows.
    EventExpired,
    /// Its owner cancelled it.
    Cancelled,
    /// The worker shut down before a synchronous call was done.
    ShuttingDown,
    /// No room for a synchronous call within its patience.
    Overloaded,
}

impl Reason {
    /// All of them; documents and tests go through this list.
    pub const ALL: [Self; 24] = [
        Self::HandlerError,
        Self::ImportError,
        Self::SyntaxError,
        Self::HandlerNotFound,
        Self::ResultNotJson,
        Self::ResultTooLarge,
        Self::ProcessExited,
        Self::TimedOut,
        Self::InitTimedOut,
        Self::OutOfMemory,
        Self::PackageInvalid,
        Self::PackageUnavailable,
        Self::SandboxFailed,
        Self::InstanceLost,
        Self::InstanceUnavailable,
        Self::WorkerLost,
        Self::FunctionDeleted,
        Self::FunctionWithoutCode,
        Self::RuntimeUnknown,
        Self::InstanceImpossible,
        Self::EventExpired,
        Self::Cancelled,
        Self::ShuttingDown,
        Self::Overloaded,
    ];

    /// Whether trying again can help. What can only be mended by a change of the function is not tried again; the
    /// user's own exceptions are, because many come from what the handler calls.
    #[must_use]
    pub const fn retryable(self) -> bool {
        match self {
            Self::HandlerError
            | Self::ImportError
            | Self::ResultNotJson
            | Self::ResultTooLarge
            | Self::ProcessExited
            | Self::TimedOut
            | Self::InitTimedOut
            | Self::OutOfMemory
            | Self::PackageUnavailable
            | Self::SandboxFailed
            | Self::InstanceLost
            | Self::InstanceUnavailable
            | Self::ShuttingDown
            | Self::Overloaded => true,
            Self::SyntaxError
            | Self::HandlerNotFound
            | Self::PackageInvalid
            | Self::WorkerLost
            | Self::FunctionDeleted
            | Self::FunctionWithoutCode
            | Self::RuntimeUnknown
            | Self::InstanceImpossible
            | Self::EventExpired
            | Self::Cancelled => false,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The serialized word is the name; there is one place that spells it.
        self.serialize(f)
    }
}

/// What the runtime said about the failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// The exception's class or the platform's error type, such as `ValueError` or `Sandbox.Timeout`.
    #[serde(rename = "type")]
    pub error_type: String,
    /// Its message, shortened to a bound.
    pub message: String,
    /// The stack, outermost call first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
}

/// Why an execution, or one attempt of it, failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What to search for in every log.
    pub request_id: RequestId,
    /// Who failed.
    pub component: Component,
    /// When.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// The details.
    pub error: ErrorDetail,
}

/// What was measured of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// Milliseconds that start and import took; only of a cold start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_ms: Option<Millis>,
    /// Milliseconds from handing the event to the code to its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<Millis>,
    /// Highest resident memory of the sandbox so far, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Bytes of log that were kept.
    #[serde(default)]
    pub log_bytes: u64,
    /// Whether the log was cut at its limit.
    #[serde(default)]
    pub log_truncated: bool,
}

/// Where an event went that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The queue.
    pub queue: QueueName,
    /// When it was posted there; none: not yet.
    pub posted_at: Option<Timestamp>,
}

/// What a waiting execution waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingFor {
    /// A worker to take it.
    Worker,
    /// The time of its next attempt.
    Retry,
    /// The function's own limit of concurrent executions.
    FunctionLimit,
    /// A sandbox that is being made.
    Sandbox,
    /// Memory or an instance: the cloud has no room now.
    Capacity,
    /// An instance: the service has used up its quota in the cloud.
    Quota,
    /// An instance: the cloud does not answer, or instances do not come up.
    Cloud,
    /// An instance: something is configured wrongly, and the operator has to mend it.
    Operator,
}

impl WaitingFor {
    /// As a word in records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Retry => "retry",
            Self::FunctionLimit => "function_limit",
            Self::Sandbox => "sandbox",
            Self::Capacity => "capacity",
            Self::Quota => "quota",
            Self::Cloud => "cloud",
            Self::Operator => "operator",
        }
    }
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// The owner.
    pub project_id: ProjectId,
    /// The function.
    pub function_id: FunctionId,
    /// The function's name when the event was received.
    pub function_name: FunctionName,
    /// The function's revision that the last attempt ran; before the first: that of the moment of receipt.
    pub revision: u64,
    /// How it came to be.
    pub origin: Origin,
    /// The event, in short.
    pub event: EventSummary,
    /// What the handler gets.
    pub payload: Payload,
    /// Where it is in its life.
    pub state: ExecutionState,
    /// How often the code was given the event.
    pub attempt: u32,
    /// The number of attempts that do not count any more, because the execution was re-driven after them.
    #[serde(default)]
    pub attempts_forgiven: u32,
    /// How often its worker was lost while it ran.
    #[serde(default)]
    pub interruptions: u32,
    /// The worker that owns it.
    pub worker: Option<WorkerId>,
    /// When it may be taken, while it is parked.
    pub not_before: Option<Timestamp>,
    /// What it waits for, while it is queued.
    pub waiting_for: Option<WaitingFor>,
    /// When the service took it.
    pub received_at: Timestamp,
    /// When it is given up if it has not run.
    pub deadline: Timestamp,
    /// When the last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal state.
    pub finished_at: Option<Timestamp>,
    /// Whether the last attempt needed a new sandbox.
    pub start: Option<Start>,
    /// Where the last attempt ran.
    pub instance: Option<InstanceId>,
    /// What was measured of the last attempt.
    #[serde(default)]
    pub measures: Measures,
    /// What the handler returned.
    pub result: Option<Payload>,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
    /// Where the event went when it was given up.
    pub dead_letter: Option<DeadLetter>,
    /// How often it was re-driven.
    #[serde(default)]
    pub redrives: u32,
}

/// How often a worker may be lost under an execution before the execution is suspected of killing workers.
pub const MAX_INTERRUPTIONS: u32 = 5;

/// What a write of an execution expects to find: anything else means that another worker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The owner that was read.
    pub worker: Option<WorkerId>,
    /// The attempt that was read.
    pub attempt: u32,
    /// The state that was read.
    pub state: ExecutionState,
}

/// Something that happens to an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A worker takes it out of the inbox.
    Own {
        /// The new owner.
        worker: WorkerId,
    },
    /// It cannot run now and gives its room back.
    Park {
        /// When it may be taken again.
        not_before: Timestamp,
        /// Why it waits.
        waiting_for: WaitingFor,
    },
    /// The code gets the event.
    Start {
        /// When.
        at: Timestamp,
        /// The revision that runs.
        revision: u64,
        /// Whether the sandbox is new.
        start: Start,
        /// Where it runs.
        instance: InstanceId,
    },
    /// The handler returned.
    Succeed {
        /// When.
        at: Timestamp,
        /// What it returned.
        result: Payload,
        /// What was measured.
        measures: Measures,
    },
    /// The attempt failed and another one is allowed.
    Retry {
        /// Why.
        failure: Failure,
        /// What was measured.
        measures: Measures,
        /// When the next attempt may begin.
        not_before: Timestamp,
    },
    /// It failed and is given up.
    Fail {
        /// When.
        at: Timestamp,
        /// Why.
        failure: Failure,
        /// What was measured.
        measures: Measures,
        /// Where the event goes.
        dead_letter: Option<QueueName>,
    },
    /// The event grew too old.
    Expire {
        /// When.
        at: Timestamp,
        /// Why.
        failure: Failure,
        /// Where the event goes.
        dead_letter: Option<QueueName>,
    },
    /// Its owner stops it.
    Cancel {
        /// When.
        at: Timestamp,
        /// The reason, for the record.
        failure: Failure,
    },
    /// The worker that had it was found dead.
    Release,
    /// The dead letter was posted.
    DeadLetterPosted {
        /// When.
        at: Timestamp,
    },
    /// Its owner wants it tried again.
    Redrive {
        /// When.
        at: Timestamp,
        /// When it is given up this time.
        deadline: Timestamp,
    },
}

/// A change that does not fit the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an execution that is {} cannot take the change '{change}'", state.as_str())]
pub struct IllegalChange {
    /// The state it is in.
    pub state: ExecutionState,
    /// The change, by name.
    pub change: &'static str,
}

impl Execution {
    /// A new record in the inbox, for an event that was just received.
    #[must_use]
    pub fn receive(
        id: ExecutionId,
        function: &Function,
        origin: Origin,
        event: EventSummary,
        payload: Payload,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            project_id: function.project_id.clone(),
            function_id: function.id,
            function_name: function.name.clone(),
            revision: function.revision,
            origin,
            event,
            payload,
            state: ExecutionState::Queued,
            attempt: 0,
            attempts_forgiven: 0,
            interruptions: 0,
            worker: None,
            not_before: Some(now),
            waiting_for: Some(WaitingFor::Worker),
            received_at: now,
            deadline: now + function.retry.max_age(),
            started_at: None,
            finished_at: None,
            start: None,
            instance: None,
            measures: Measures::default(),
            result: None,
            failure: None,
            dead_letter: None,
            redrives: 0,
        }
    }

    /// What a write based on this reading expects to find.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        Fence { worker: self.worker, attempt: self.attempt, state: self.state }
    }

    /// Attempts that count against the function's retry policy.
    #[must_use]
    pub const fn counted_attempts(&self) -> u32 {
        self.attempt.saturating_sub(self.attempts_forgiven)
    }

    /// The request id that its log lines, its failure and its answers carry.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        RequestId::of_execution(self.id)
    }

    /// Whether its dead letter still has to be posted.
    #[must_use]
    pub fn owes_dead_letter(&self) -> bool {
        self.dead_letter.as_ref().is_some_and(|letter| letter.posted_at.is_none())
    }

    /// Goes through one change.
    ///
    /// # Errors
    /// When the change does not fit the state; the record is then as it was.
    pub fn apply(&mut self, change: Change) -> Result<(), IllegalChange> {
        use ExecutionState as S;
        let illegal = |change| Err(IllegalChange { state: self.state, change });
        match (self.state, change) {
            (S::Queued, Change::Own { worker }) if self.worker.is_none() => {
                self.worker = Some(worker);
                self.not_before = None;
                self.waiting_for = Some(WaitingFor::Sandbox);
            }
            (S::Queued, Change::Park { not_before, waiting_for }) => {
                self.park(not_before, waiting_for);
            }
            (S::Queued, Change::Start { at, revision, start, instance }) if self.worker.is_some() => {
                self.state = S::Running;
                self.attempt += 1;
                self.revision = revision;
                self.started_at = Some(at);
                self.start = Some(start);
                self.instance = Some(instance);
                self.waiting_for = None;
                self.measures = Measures::default();
            }
            (S::Running, Change::Succeed { at, result, measures }) => {
                self.finish(S::Succeeded, at);
                self.result = Some(result);
                self.failure = None;
                self.measures = measures;
            }
            (S::Running | S::Queued, Change::Retry { failure, measures, not_before }) => {
                if self.state == S::Queued {
                    // The sandbox failed before the code got the event: that is an attempt too, else it would go on for ever.
                    self.attempt += 1;
                }
                self.state = S::Queued;
                self.failure = Some(failure);
                self.measures = measures;
                self.park(not_before, WaitingFor::Retry);
            }
            (S::Running | S::Queued, Change::Fail { at, failure, measures, dead_letter }) => {
                if self.state == S::Queued && failure.phase != Phase::Queue {
                    self.attempt += 1;
                }
                let state = if failure.reason == Reason::TimedOut { S::TimedOut } else { S::Failed };
                self.finish(state, at);
                self.failure = Some(failure);
                self.measures = measures;
                self.dead_letter = dead_letter.map(|queue| DeadLetter { queue, posted_at: None });
            }
            (S::Queued, Change::Expire { at, failure, dead_letter }) => {
                self.finish(S::Expired, at);
                self.failure = Some(failure);
                self.dead_letter = dead_letter.map(|queue| DeadLetter { queue, posted_at: None });
            }
            (S::Queued | S::Running, Change::Cancel { at, failure }) => {
                self.finish(S::Cancelled, at);
                self.failure = Some(failure);
            }
            (S::Queued | S::Running, Change::Release) if self.worker.is_some() => {
                if self.state == S::Running {
                    self.interruptions += 1;
                    // The code had the event, but nobody can say how far it came: not the handler's fault.
                    self.attempts_forgiven += 1;
                }
                self.state = S::Queued;
                self.worker = None;
                self.not_before = Some(self.started_at.unwrap_or(self.received_at));
                self.waiting_for = Some(WaitingFor::Worker);
            }
            (S::Succeeded | S::Failed | S::TimedOut | S::Expired | S::Cancelled, Change::DeadLetterPosted { at }) => {
                if let Some(letter) = &mut self.dead_letter {
                    letter.posted_at = Some(at);
                }
            }
            (S::Failed | S::TimedOut | S::Expired | S::Cancelled, Change::Redrive { at, deadline }) => {
                self.state = S::Queued;
                self.attempts_forgiven = self.attempt;
                self.interruptions = 0;
                self.finished_at = None;
                self.result = None;
                self.dead_letter = None;
                self.deadline = deadline;
                self.redrives += 1;
                self.park(at, WaitingFor::Worker);
            }
            (_, Change::Own { .. }) => return illegal("own"),
            (_, Change::Park { .. }) => return illegal("park"),
            (_, Change::Start { .. }) => return illegal("start"),
            (_, Change::Succeed { .. }) => return illegal("succeed"),
            (_, Change::Retry { .. }) => return illegal("retry"),
            (_, Change::Fail { .. }) => return illegal("fail"),
            (_, Change::Expire { .. }) => return illegal("expire"),
            (_, Change::Cancel { .. }) => return illegal("cancel"),
            (_, Change::Release) => return illegal("release"),
            (_, Change::DeadLetterPosted { .. }) => return illegal("dead_letter_posted"),
            (_, Change::Redrive { .. }) => return illegal("redrive"),
        }
        Ok(())
    }

    fn park(&mut self, not_before: Timestamp, waiting_for: WaitingFor) {
        self.worker = None;
        self.not_before = Some(not_before);
        self.waiting_for = Some(waiting_for);
    }

    fn finish(&mut self, state: ExecutionState, at: Timestamp) {
        self.state = state;
        self.finished_at = Some(at);
        self.not_before = None;
        self.waiting_for = None;
    }
}

/// One line of a log, or a piece of one where the handler wrote without line ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was read from the process.
    pub at: Timestamp,
    /// Where it was written.
    pub stream: LogStream,
    /// The text, without its line end. Bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Where a log line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The service: that the log was cut, that the process was killed.
    Platform,
}

/// A part of an execution's log, in the order of `(attempt, sequence)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// Whose log.
    pub execution_id: ExecutionId,
    /// Who may read it.
    pub project_id: ProjectId,
    /// The attempt that wrote it.
    pub attempt: u32,
    /// Its place within the attempt, from 0.
    pub sequence: u32,
    /// The lines.
    pub lines: Vec<LogLine>,
}
