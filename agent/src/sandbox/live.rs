//! A sandbox whose process runs: what it asks for, what it is given, and when its time is over. `run` waits for something
//! to happen, `handle`-like methods decide without waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::process::{End, Process};
use super::{Invoked, Started, environment, micros};
use crate::cgroup::Group;
use crate::link::Link;
use crate::runtime_api::{Asked, Call, Event, Payload, RESPONSE_MAX, Reply, RuntimeApi};
use crate::runtime_error::RuntimeError;
use crate::runtime_state::{RuntimeState, Step, Verdict};
use crate::wire::{
    AttemptMeasures, AttemptRef, FailureKind, HandlerOutcome, Invocation, Message, SandboxFailure, SandboxPhase,
    SandboxSpec,
};
use crate::{clock, procfs};

/// How long a runtime that has reported that it cannot initialise may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(1);
/// Clients that may wait for an event at the same time.
const WAITERS_MAX: usize = 16;

/// The running part of a sandbox's life.
pub struct Live<'a> {
    link: &'a Link,
    number: u64,
    spec: SandboxSpec,
    arn: String,
    package_us: u64,
    api: RuntimeApi,
    process: Process,
    output: Output,
    group: Option<Arc<Group>>,
    // Memory kills that were there before the event at hand.
    oom_kills: u64,
    state: RuntimeState,
    turn: Turn,
    waiters: VecDeque<oneshot::Sender<Reply>>,
}

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    /// The event that it had.
    pub execution: Option<AttemptRef>,
    /// Why, unless it was asked to.
    pub failure: Option<SandboxFailure>,
    /// How long it had the event, in microseconds.
    pub duration_us: u64,
}

/// What is at hand.
enum Turn {
    /// The runtime starts, and has until then to ask for an event.
    Starting { deadline: Instant },
    /// It has said that it cannot start.
    Failed { failure: SandboxFailure, deadline: Instant },
    /// No event.
    Idle,
    /// An event that the runtime has not asked for yet.
    Waiting { invocation: Invocation, body: Bytes, deadline: Instant },
    /// The runtime has the event.
    Running { execution: AttemptRef, event: Box<Event>, begun: Instant, timeout: Duration },
}

/// Whether the sandbox goes on.
type Flow = std::ops::ControlFlow<Outcome>;
const GO_ON: Flow = Flow::Continue(());

impl<'a> Live<'a> {
    /// Begins with a process that has just been started.
    pub fn new(
        link: &'a Link,
        number: u64,
        spec: SandboxSpec,
        started: Started,
        package_us: u64,
        group: Option<Arc<Group>>,
    ) -> Self {
        let Started { api, output, process } = started;
        let deadline = process.begun + Duration::from_millis(spec.init_timeout_ms);
        Self {
            arn: environment::arn(&spec),
            turn: Turn::Starting { deadline },
            state: RuntimeState::Started,
            waiters: VecDeque::new(),
            oom_kills: 0,
            link,
            number,
            spec,
            package_us,
            api,
            process,
            output,
            group,
        }
    }

    /// Serves until the sandbox is to end. Its processes may still run then.
    pub async fn run(&mut self, invocations: &mut mpsc::Receiver<Invoked>, stop: &CancellationToken) -> Outcome {
        loop {
            let deadline = self.deadline();
            let over = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            // In this order: nobody who keeps us busy holds up an end, and an answer that was given before the process
            // ended counts.
            let flow = tokio::select! {
                biased;
                () = stop.cancelled() => Flow::Break(self.end(None)),
                () = over => Flow::Break(self.timed_out()),
                Some(asked) = self.api.calls.recv() => self.answer(asked),
                end = &mut self.process.end => Flow::Break(self.exited(end)),
                Some(invoked) = invocations.recv() => self.invoke(invoked),
                () = self.output.pump() => GO_ON,
            };
            if let Flow::Break(outcome) = flow {
                return outcome;
            }
        }
    }

    /// Highest memory so far, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let of_group = self.group.as_ref().and_then(|group| group.peak_memory());
        of_group.or_else(|| procfs::peak_memory(self.process.pid)).unwrap_or(0)
    }

    /// Closes the Runtime API; what is left is the output.
    #[must_use]
    pub fn into_output(self) -> Output {
        self.output
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.turn {
            Turn::Starting { deadline } | Turn::Failed { deadline, .. } | Turn::Waiting { deadline, .. } => {
                Some(*deadline)
            }
            Turn::Idle => None,
            Turn::Running { begun, timeout, .. } => Some(*begun + *timeout),
        }
    }

    /// An event from the gateway.
    fn invoke(&mut self, (invocation, body): Invoked) -> Flow {
        if !matches!(self.turn, Turn::Idle) {
            tracing::error!(sandbox = self.number, "the gateway gave an event to a sandbox that was not free");
            // Both events are answered: this one here, the other by the end of the sandbox.
            super::not_there(self.link, self.number, Some(invocation));
            let failure = self.failure(FailureKind::Platform, "Sandbox.Failure", "two events at once".to_owned());
            return Flow::Break(self.end(Some(failure)));
        }
        let deadline = Instant::now() + Duration::from_millis(invocation.timeout_ms);
        self.turn = Turn::Waiting { invocation, body, deadline };
        self.deliver();
        GO_ON
    }

    /// A request of the runtime.
    fn answer(&mut self, Asked { call, reply }: Asked) -> Flow {
        match call {
            Call::Next => self.next(reply),
            Call::Respond { id, payload } => self.take(&id, Step::Respond(&id), payload, None, reply),
            Call::Fail { id, error, error_type } => self.take(&id, Step::Fail(&id), error, error_type, reply),
            Call::FailInit { error, error_type } => self.fail_init(&error, error_type.as_deref(), reply),
        }
    }

    fn next(&mut self, reply: oneshot::Sender<Reply>) -> Flow {
        match self.step(Step::Next) {
            Ok(Verdict::Again) => {
                if let Turn::Running { event, .. } = &self.turn {
                    respond(reply, Reply::Event(event.clone()));
                }
                return GO_ON;
            }
            Ok(_) => {}
            Err(refusal) => {
                respond(reply, refusal);
                return GO_ON;
            }
        }
        // A client that went away no longer waits.
        self.waiters.retain(|waiter| !waiter.is_closed());
        if self.waiters.len() < WAITERS_MAX {
            self.waiters.push_back(reply);
        }
        if matches!(self.turn, Turn::Starting { .. }) {
            self.output.drain();
            self.turn = Turn::Idle;
            let ready = Message::SandboxReady {
                sandbox: self.number,
                init_us: micros(self.process.begun),
                package_us: self.package_us,
            };
            self.link.say(ready, Bytes::new());
        }
        self.deliver();
        GO_ON
    }

    /// Hands the waiting event to a waiting client. From here the event's time runs.
    fn deliver(&mut self) {
        if !matches!(self.turn, Turn::Waiting { .. }) || !matches!(self.state, RuntimeState::Ready) {
            return;
        }
        let Some(reply) = std::iter::from_fn(|| self.waiters.pop_front()).find(|waiter| !waiter.is_closed()) else {
            return;
        };
        let Turn::Waiting { invocation, body, .. } = std::mem::replace(&mut self.turn, Turn::Idle) else { return };
        // What was written until now is not this event's.
        self.output.drain();
        self.output.begin(Some(invocation.execution.clone()));
        let Invocation { execution, timeout_ms, content_type } = invocation;
        let timeout = i64::try_from(timeout_ms).unwrap_or(i64::MAX);
        let event = Box::new(Event {
            id: execution.execution.clone(),
            deadline_ms: clock::epoch_ms().saturating_add(timeout),
            arn: self.arn.clone(),
            trace_id: trace_id(),
            content_type: content_type.unwrap_or_else(|| "application/json".to_owned()),
            body,
        });
        // The state is `Ready`, where this cannot be refused.
        let _ = self.step(Step::Deliver(&event.id));
        respond(reply, Reply::Event(event.clone()));
        let timeout = Duration::from_millis(timeout_ms);
        self.turn = Turn::Running { execution, event, begun: Instant::now(), timeout };
    }

    /// A response or an error to an event.
    fn take(
        &mut self,
        id: &str,
        step: Step<'_>,
        payload: Payload,
        error_type: Option<String>,
        reply: oneshot::Sender<Reply>,
    ) -> Flow {
        let before = self.state.clone();
        if let Err(refusal) = self.step(step) {
            respond(reply, refusal);
            return GO_ON;
        }
        let is_error = matches!(step, Step::Fail(_));
        let error_type = error_type.as_deref();
        let (outcome, body, answer) = match payload {
            Payload::UnknownMode => {
                // Nothing was answered: the client may try again.
                self.state = before;
                respond(reply, Reply::InvalidResponseMode);
                return GO_ON;
            }
            Payload::Whole(body) if is_error => {
                (HandlerOutcome::Error, RuntimeError::parse(&body, error_type).into_body(), Reply::Accepted)
            }
            Payload::Whole(body) => (HandlerOutcome::Returned, body, Reply::Accepted),
            Payload::Failed { error_type, body } => {
                let body = RuntimeError::parse(&body, Some(&error_type)).into_body();
                (HandlerOutcome::Error, body, Reply::Accepted)
            }
            Payload::TooLarge if is_error => {
                let error = RuntimeError::new(error_type, "the error that the function reported is too large");
                (HandlerOutcome::Error, error.into_body(), Reply::TooLarge)
            }
            Payload::TooLarge => {
                let message = format!("the response is larger than the limit of {RESPONSE_MAX} bytes");
                let error = RuntimeError::new(Some("Function.ResponseSizeTooLarge"), &message);
                (HandlerOutcome::TooLarge, error.into_body(), Reply::TooLarge)
            }
            Payload::Truncated => {
                let message = "the runtime broke off while it sent its answer";
                let error = RuntimeError::new(Some("Runtime.TruncatedResponse"), message);
                (HandlerOutcome::Error, error.into_body(), Reply::Truncated)
            }
        };
        let oom_kills = self.group.as_ref().map_or(0, |group| group.oom_kills());
        if outcome == HandlerOutcome::Error && oom_kills > self.oom_kills {
            // The error is what the handler made of a process of its own that was killed.
            let failure = self.out_of_memory();
            return Flow::Break(self.end(Some(failure)));
        }
        self.oom_kills = oom_kills;
        let Turn::Running { execution, begun, .. } = std::mem::replace(&mut self.turn, Turn::Idle) else {
            tracing::error!(sandbox = self.number, id, "an answer was accepted without an event");
            return GO_ON;
        };
        let duration_us = micros(begun);
        // The runtime wrote what it wrote before it answered.
        self.output.drain();
        let count = self.output.count();
        let measures = AttemptMeasures {
            duration_us,
            peak_memory_bytes: self.peak_memory(),
            log_bytes: count.bytes,
            log_truncated: count.is_truncated,
        };
        self.link.say(Message::Result { sandbox: self.number, execution, outcome, measures }, body);
        self.output.begin(None);
        respond(reply, answer);
        GO_ON
    }

    fn fail_init(&mut self, error: &Payload, error_type: Option<&str>, reply: oneshot::Sender<Reply>) -> Flow {
        if let Err(refusal) = self.step(Step::FailInit) {
            respond(reply, refusal);
            return GO_ON;
        }
        let error = match error {
            Payload::Whole(body) => RuntimeError::parse(body, error_type),
            Payload::TooLarge | Payload::Truncated | Payload::Failed { .. } | Payload::UnknownMode => {
                RuntimeError::new(error_type, "the runtime could not initialise")
            }
        };
        let kind =
            if error.error_type == "Runtime.OutOfMemory" { FailureKind::OutOfMemory } else { FailureKind::InitError };
        let RuntimeError { error_type, message, trace, .. } = error;
        let failure = SandboxFailure { kind, phase: SandboxPhase::Init, error_type, message, trace };
        self.turn = Turn::Failed { failure, deadline: Instant::now() + FAREWELL };
        respond(reply, Reply::Accepted);
        GO_ON
    }

    /// Takes a step of the Runtime API, or says how it is refused.
    fn step(&mut self, step: Step<'_>) -> Result<Verdict, Reply> {
        let state = std::mem::replace(&mut self.state, RuntimeState::Started);
        let (state, verdict) = state.apply(step);
        self.state = state;
        match verdict {
            Verdict::Accepted | Verdict::Wait | Verdict::Again => Ok(verdict),
            Verdict::InvalidRequestId => Err(Reply::InvalidRequestId),
            Verdict::InvalidTransition { from, to } => Err(Reply::InvalidTransition(from, to)),
        }
    }

    /// The deadline has passed.
    fn timed_out(&mut self) -> Outcome {
        let seconds = |timeout: Duration| timeout.as_secs_f64();
        let message = match &self.turn {
            Turn::Failed { failure, .. } => {
                let failure = failure.clone();
                return self.end(Some(failure));
            }
            Turn::Starting { .. } => {
                let limit = Duration::from_millis(self.spec.init_timeout_ms);
                format!("the function did not finish its initialisation within {:.2} seconds", seconds(limit))
            }
            Turn::Waiting { invocation, .. } => {
                let limit = Duration::from_millis(invocation.timeout_ms);
                format!("the runtime did not ask for the event within {:.2} seconds", seconds(limit))
            }
            Turn::Running { timeout, .. } => format!("Task timed out after {:.2} seconds", seconds(*timeout)),
            Turn::Idle => "there was nothing to wait for".to_owned(),
        };
        let failure = self.failure(FailureKind::TimedOut, "Sandbox.Timeout", message);
        self.end(Some(failure))
    }

    /// The process has ended.
    fn exited(&mut self, end: End) -> Outcome {
        let failure = match (end, &self.turn) {
            (_, Turn::Failed { failure, .. }) => failure.clone(),
            _ if self.group.as_ref().is_some_and(|group| group.oom_kills() > self.oom_kills) => self.out_of_memory(),
            (End::Platform(message), _) => self.failure(FailureKind::Platform, "Sandbox.Failure", message),
            (End::Exit { exit, .. }, turn) => {
                let when = match turn {
                    Turn::Starting { .. } | Turn::Failed { .. } => "before it was ready for events",
                    Turn::Idle | Turn::Waiting { .. } => "between two events",
                    Turn::Running { .. } => "while it handled the event",
                };
                let message = format!("the runtime ended with {exit} {when}");
                self.failure(FailureKind::Exited, "Runtime.ExitError", message)
            }
        };
        self.end(Some(failure))
    }

    fn out_of_memory(&self) -> SandboxFailure {
        let message = format!("the function reached its memory limit of {} MiB", self.spec.memory_mib);
        self.failure(FailureKind::OutOfMemory, "Runtime.OutOfMemory", message)
    }

    fn failure(&self, kind: FailureKind, error_type: &str, message: String) -> SandboxFailure {
        let phase = match self.turn {
            Turn::Starting { .. } | Turn::Failed { .. } => SandboxPhase::Init,
            Turn::Idle | Turn::Waiting { .. } => SandboxPhase::Idle,
            Turn::Running { .. } => SandboxPhase::Invoke,
        };
        SandboxFailure { kind, phase, error_type: error_type.to_owned(), message, trace: Vec::new() }
    }

    fn end(&mut self, failure: Option<SandboxFailure>) -> Outcome {
        match &self.turn {
            Turn::Starting { .. } | Turn::Failed { .. } | Turn::Idle => {
                Outcome { execution: None, failure, duration_us: 0 }
            }
            Turn::Waiting { invocation, .. } => {
                Outcome { execution: Some(invocation.execution.clone()), failure, duration_us: 0 }
            }
            Turn::Running { execution, begun, .. } => {
                Outcome { execution: Some(execution.clone()), failure, duration_us: micros(*begun) }
            }
        }
    }
}

/// Answers a client. One that has gone away is no longer interested.
fn respond(reply: oneshot::Sender<Reply>, answer: Reply) {
    let _ = reply.send(answer);
}

/// A trace of our own for each event: nobody traces yet, but clients expect the form.
fn trace_id() -> String {
    let seconds = clock::epoch_ms() / 1000;
    let (high, low): (u32, u64) = (rand::random(), rand::random());
    format!("Root=1-{seconds:08x}-{high:08x}{low:016x};Parent={:016x};Sampled=0", rand::random::<u64>())
}
