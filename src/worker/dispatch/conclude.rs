//! How an execution's stay in this worker ends: with an answer, with a failure that is tried again or given up, handed
//! back, or cancelled.

use std::time::Duration;

use bytes::Bytes;
use lambda_agent::wire::{
    AttemptMeasures, AttemptRef, FailureKind, HandlerOutcome, SandboxFailure, SandboxPhase, Stream,
};

use super::desk::{Desk, Running};
use super::log::LogBuffer;
use super::{Effect, Moment, Record, Work};
use crate::model::execution::{Change, Component, Failure, Measures, Phase, Reason, WaitingFor};
use crate::model::{InstanceId, Payload, Timestamp};
use crate::scheduler::fleet::{SandboxKey, SandboxState};
use crate::scheduler::retry::{Verdict, after_failure, survives_loss};
use crate::telemetry::metrics::SandboxEnd;
use crate::worker::outcome;

impl Desk {
    /// Keeps a piece of log: of the attempt that runs, or of the start of the sandbox.
    pub(super) fn keep_log(
        &mut self,
        key: SandboxKey,
        attempt: Option<AttemptRef>,
        stream: Stream,
        at_ms: i64,
        piece: &Bytes,
        effects: &mut Vec<Effect>,
    ) {
        let at = Timestamp::from_millis(at_ms);
        match (attempt, self.running.get_mut(&key)) {
            (Some(attempt), Some(running)) if is_of(&attempt, running) => {
                running.log.push(stream, at, piece);
                let execution = &running.work.execution;
                if running.log.is_large()
                    && let Some(chunk) = running.log.take(execution.id, &execution.project_id, execution.attempt, false)
                {
                    effects.push(Effect::Record(Box::new(Record::Log(chunk))));
                }
            }
            (Some(_), _) => {}
            (None, _) => {
                if self.fleet.sandbox(key).is_some() {
                    self.starts.entry(key).or_default().log.push(stream, at, piece);
                }
            }
        }
    }

    /// A handler has answered.
    #[expect(clippy::too_many_arguments, reason = "one for each part of the message")]
    pub(super) fn answered(
        &mut self,
        key: SandboxKey,
        attempt: &AttemptRef,
        handler: HandlerOutcome,
        measured: AttemptMeasures,
        body: Bytes,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(running) = self.running.get(&key) else { return };
        if !is_of(attempt, running) {
            return;
        }
        self.fleet.finished(key, now.instant);
        let Some(running) = self.running.remove(&key) else { return };
        let took = Duration::from_micros(measured.duration_us);
        self.foresight.took(running.work.execution.function_id, took);
        self.metrics.handler(took);
        let measures = outcome::measures(&measured, running.init);
        let request_id = running.work.execution.request_id();
        let failure = match handler {
            HandlerOutcome::Returned => match Payload::parse(body) {
                Ok(result) => {
                    self.succeed(running, result, measures, now, effects);
                    return;
                }
                Err(invalid) => outcome::result_not_json(request_id, &invalid.to_string()),
            },
            HandlerOutcome::Error => outcome::handler_error(request_id, &body),
            HandlerOutcome::TooLarge => outcome::result_too_large(request_id),
        };
        self.conclude_running(running, failure, measures, now, effects);
    }

    /// A sandbox is gone.
    pub(super) fn ended(
        &mut self,
        key: SandboxKey,
        failure: Option<SandboxFailure>,
        measured: AttemptMeasures,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(sandbox) = self.fleet.ended(key, now.instant) else { return };
        let notes = self.starts.remove(&key).unwrap_or_default();
        self.metrics.sandbox_ended(end_of(&sandbox.state, failure.as_ref()));
        if let Some(running) = self.running.remove(&key) {
            let unseen = failure.as_ref().is_some_and(|failure| failure.phase == SandboxPhase::Idle);
            let failure = match failure {
                Some(failure) if !unseen => failure,
                // Either it was gone before the event reached it, or its agent was told to end by somebody else. We stop
                // a sandbox that has an event only to cancel it or to hand it back.
                _ if running.cancel.is_none() && !running.handed_back => {
                    let why = if unseen { "the sandbox ended before it got the event" } else { "the agent was ended" };
                    let work = self.close_log(running, effects);
                    self.lost(work, Reason::InstanceLost, why, now, effects);
                    return;
                }
                other => other.unwrap_or_else(stopped),
            };
            let measures = outcome::measures(&measured, running.init);
            let failure = outcome::sandbox_failure(running.work.execution.request_id(), failure);
            self.conclude_running(running, failure, measures, now, effects);
            return;
        }
        // Only a start that failed is somebody's failure; an idle sandbox may go when it likes.
        if let (SandboxState::Starting { .. }, Some(failure)) = (sandbox.state, failure) {
            self.start_failed(&sandbox, failure, measured, notes.log, now, effects);
        }
    }

    /// A sandbox could not start: the oldest waiting event of its function pays with an attempt, and where trying again
    /// cannot help, all of them.
    fn start_failed(
        &mut self,
        sandbox: &crate::scheduler::fleet::Sandbox,
        failure: SandboxFailure,
        measured: AttemptMeasures,
        mut log: LogBuffer,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(known) = self.functions.get(&sandbox.function) else { return };
        if known.function.revision != sandbox.revision {
            return; // It was mended meanwhile.
        }
        let project = known.function.project_id.clone();
        self.take_over_failed(sandbox.function);
        self.start_went_wrong(sandbox, &failure, now.instant);
        let Some(work) = self.queue.pop_function(&project, sandbox.function) else { return };
        let failure = outcome::sandbox_failure(work.execution.request_id(), failure);
        let hopeless = !failure.reason.retryable();
        let mut measures = outcome::measures(&measured, None);
        measures.duration_ms = None;
        let attempt = work.execution.attempt + 1;
        if let Some(chunk) = log.take(work.execution.id, &work.execution.project_id, attempt, true) {
            effects.push(Effect::Record(Box::new(Record::Log(chunk))));
        }
        let mut others = if hopeless { self.queue.drain_function(&project, sandbox.function) } else { Vec::new() };
        self.fail(work, failure.clone(), measures.clone(), now, effects);
        for work in others.drain(..) {
            let failure = Failure { request_id: work.execution.request_id(), ..failure.clone() };
            self.fail(work, failure, measures.clone(), now, effects);
        }
    }

    fn succeed(
        &mut self,
        running: Running,
        result: Payload,
        measures: Measures,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let mut work = self.close_log(running, effects);
        let expected = work.execution.fence();
        self.change(&mut work, expected, Change::Succeed { at: now.wall, result, measures }, effects);
        self.metrics.outcome(work.execution.state, None);
        self.leave(work, effects);
    }

    /// A running attempt came to a bad end.
    fn conclude_running(
        &mut self,
        mut running: Running,
        failure: Failure,
        measures: Measures,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(reply) = running.cancel.take() {
            let log = std::mem::take(&mut running.log);
            self.cancelled(running.work, log, now, effects);
            // A caller that went away does not want its answer.
            let _ = reply.send(true);
            return;
        }
        if running.handed_back {
            let work = self.close_log(running, effects);
            self.lost(work, Reason::WorkerLost, "the worker was shut down", now, effects);
            return;
        }
        let work = self.close_log(running, effects);
        self.fail(work, failure, measures, now, effects);
    }

    /// Writes what is left of the log, which then stands before the record says that the attempt is over.
    fn close_log(&mut self, mut running: Running, effects: &mut Vec<Effect>) -> Work {
        let execution = &running.work.execution;
        if let Some(chunk) = running.log.take(execution.id, &execution.project_id, execution.attempt, true) {
            effects.push(Effect::Record(Box::new(Record::Log(chunk))));
        }
        running.work
    }

    /// An attempt failed: it is tried again later, or given up. A synchronous call is not tried again: its caller decides.
    pub(super) fn fail(
        &mut self,
        mut work: Work,
        failure: Failure,
        measures: Measures,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let queued = work.execution.state == crate::model::ExecutionState::Queued;
        let this_attempt = u32::from(queued && failure.phase != Phase::Queue);
        let verdict = if work.call.is_some() {
            Verdict::GiveUp
        } else {
            after_failure(
                work.execution.counted_attempts() + this_attempt,
                failure.reason,
                &work.function.retry,
                work.execution.deadline,
                now.wall,
                self.options.backoff,
                rand::random(),
            )
        };
        let expected = work.execution.fence();
        let reason = failure.reason;
        match verdict {
            Verdict::Retry { not_before } => {
                self.metrics.retried();
                self.change(&mut work, expected, Change::Retry { failure, measures, not_before }, effects);
            }
            Verdict::GiveUp => {
                let dead_letter = self.dead_letter_queue(&work);
                let change = Change::Fail { at: now.wall, failure, measures, dead_letter };
                self.change(&mut work, expected, change, effects);
                self.metrics.outcome(work.execution.state, Some(reason));
            }
        }
        self.leave(work, effects);
    }

    pub(super) fn dead_letter_queue(&self, work: &Work) -> Option<crate::model::function::QueueName> {
        // Whoever waits for the answer has the event himself.
        work.call
            .is_none()
            .then(|| work.function.dead_letter_queue.clone().unwrap_or_else(|| self.options.dead_letter_queue.clone()))
    }

    /// The worker or the instance was lost under an execution: not its own failure, up to a point.
    fn lost(&mut self, mut work: Work, reason: Reason, why: &str, now: Moment, effects: &mut Vec<Effect>) {
        if work.call.is_none() && survives_loss(&work.execution) {
            let expected = work.execution.fence();
            self.change(&mut work, expected, Change::Release, effects);
            self.leave(work, effects);
            return;
        }
        let component = if reason == Reason::InstanceLost { Component::Instance } else { Component::Worker };
        let request_id = work.execution.request_id();
        let failure = outcome::platform(request_id, component, Phase::Invoke, reason, why);
        let dead_letter = self.dead_letter_queue(&work);
        let expected = work.execution.fence();
        let change = Change::Fail { at: now.wall, failure, measures: Measures::default(), dead_letter };
        self.change(&mut work, expected, change, effects);
        self.metrics.outcome(work.execution.state, Some(reason));
        self.leave(work, effects);
    }

    /// An instance is gone with all that was in it.
    pub(super) fn lose_instance(&mut self, id: InstanceId, why: &str, now: Moment, effects: &mut Vec<Effect>) {
        for (key, _) in self.fleet.remove(id, now.instant) {
            self.metrics.sandbox_ended(SandboxEnd::InstanceLost);
            self.starts.remove(&key);
            let Some(mut running) = self.running.remove(&key) else { continue };
            if let Some(reply) = running.cancel.take() {
                let log = std::mem::take(&mut running.log);
                self.cancelled(running.work, log, now, effects);
                let _ = reply.send(true);
                continue;
            }
            let work = self.close_log(running, effects);
            self.lost(work, Reason::InstanceLost, &format!("the instance was lost: {why}"), now, effects);
        }
    }

    /// An execution is cancelled by its owner.
    pub(super) fn cancelled(&mut self, mut work: Work, mut log: LogBuffer, now: Moment, effects: &mut Vec<Effect>) {
        let execution = &work.execution;
        if let Some(chunk) = log.take(execution.id, &execution.project_id, execution.attempt, true) {
            effects.push(Effect::Record(Box::new(Record::Log(chunk))));
        }
        let request_id = work.execution.request_id();
        let message = "the execution was cancelled by request";
        let failure = outcome::platform(request_id, Component::Worker, Phase::Queue, Reason::Cancelled, message);
        let expected = work.execution.fence();
        self.change(&mut work, expected, Change::Cancel { at: now.wall, failure }, effects);
        self.metrics.outcome(work.execution.state, Some(Reason::Cancelled));
        self.leave(work, effects);
    }

    /// Work that waits goes back to the inbox, where other workers find it; a caller is told to come again.
    pub(super) fn hand_back_waiting(&mut self, mut work: Work, now: Moment, effects: &mut Vec<Effect>) {
        if work.call.is_some() {
            let message = "the worker is being shut down; try again";
            self.refuse(work, Component::Worker, Reason::ShuttingDown, message, now, effects);
            return;
        }
        let expected = work.execution.fence();
        let change = Change::Park { not_before: work.execution.received_at, waiting_for: WaitingFor::Worker };
        self.change(&mut work, expected, change, effects);
        self.leave(work, effects);
    }

    /// Work whose function was deleted is given up.
    pub(super) fn function_deleted(&mut self, work: Work, now: Moment, effects: &mut Vec<Effect>) {
        let message = "the function was deleted while the event was waiting";
        self.refuse(work, Component::Function, Reason::FunctionDeleted, message, now, effects);
    }

    pub(super) fn refuse(
        &mut self,
        work: Work,
        component: Component,
        reason: Reason,
        message: &str,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let failure = outcome::platform(work.execution.request_id(), component, Phase::Queue, reason, message);
        self.fail(work, failure, Measures::default(), now, effects);
    }

    /// Goes through a change and has it written.
    pub(super) fn change(
        &mut self,
        work: &mut Work,
        expected: crate::model::execution::Fence,
        change: Change,
        effects: &mut Vec<Effect>,
    ) {
        match work.execution.apply(change) {
            Ok(()) => {
                let record = self.written(work, expected);
                effects.push(Effect::Record(Box::new(record)));
            }
            Err(illegal) => {
                tracing::error!(execution.id = %work.execution.id, error = %illegal, "a record is not changed: {illegal}");
            }
        }
    }

    /// The work's stay here is over: a caller is answered, its place is free.
    pub(super) fn leave(&mut self, work: Work, effects: &mut Vec<Effect>) {
        if let Some(call) = work.call {
            effects.push(Effect::Reply(call.reply, Box::new(work.execution)));
        }
        drop(work.place);
    }
}

/// The failure of a sandbox that was stopped on our word.
fn stopped() -> SandboxFailure {
    SandboxFailure {
        kind: FailureKind::Platform,
        phase: SandboxPhase::Invoke,
        error_type: "Sandbox.Failure".to_owned(),
        message: "the sandbox was stopped while it had the event".to_owned(),
        trace: Vec::new(),
    }
}

/// How the metrics call the end of a sandbox.
const fn end_of(state: &SandboxState, failure: Option<&SandboxFailure>) -> SandboxEnd {
    match (state, failure) {
        (SandboxState::Starting { .. }, Some(_)) => SandboxEnd::InitFailed,
        (SandboxState::Stopping { execution: None }, _) => SandboxEnd::Idle,
        (_, None) => SandboxEnd::Stopped,
        (_, Some(failure)) => match failure.kind {
            FailureKind::OutOfMemory => SandboxEnd::OutOfMemory,
            FailureKind::TimedOut => SandboxEnd::Stopped,
            FailureKind::Platform => SandboxEnd::Platform,
            FailureKind::InitError
            | FailureKind::Exited
            | FailureKind::PackageInvalid
            | FailureKind::PackageUnavailable
            | FailureKind::EntrypointMissing => SandboxEnd::Exited,
        },
    }
}

fn is_of(attempt: &AttemptRef, running: &Running) -> bool {
    attempt.attempt == running.work.execution.attempt && attempt.execution == running.work.execution.id.to_string()
}
