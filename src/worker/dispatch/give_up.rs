//! What does not get to run: what cannot at all, what has waited too long, and what waits for an instance that cannot be
//! had.

use std::time::Duration;

use super::desk::Desk;
use super::serve::runtime_kind;
use super::{Effect, Moment, Work};
use crate::model::execution::{Change, Component, Phase, Reason, WaitingFor};
use crate::model::{Function, Timestamp};
use crate::worker::outcome;

impl Desk {
    /// Work whose function has no code or names a runtime that is not offered is given up; other work is handed on.
    pub(super) fn refuse_what_cannot_run(
        &mut self,
        work: Work,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> Option<Work> {
        if work.function.package.is_none() {
            let message = "the function has no code; upload some with PUT /v1/functions/{name}/code";
            self.refuse(work, Component::Function, Reason::FunctionWithoutCode, message, now, effects);
            return None;
        }
        if let Some(message) = self.impossible(&work.function) {
            self.refuse(work, Component::Function, Reason::InstanceImpossible, &message, now, effects);
            return None;
        }
        if runtime_kind(&work.function).is_none() {
            let message = format!("the runtime '{}' is not offered here", work.function.runtime);
            self.refuse(work, Component::Worker, Reason::RuntimeUnknown, &message, now, effects);
            return None;
        }
        Some(work)
    }

    /// Why no instance can be made for a function, if that is so.
    fn impossible(&self, function: &Function) -> Option<String> {
        let Some(isolation) = self.options.isolation_of(function) else {
            return Some(
                "no driver of the service isolates as strongly as the function or its project asks for".to_owned(),
            );
        };
        let memory_mib = function.memory.get();
        let offer = self.options.limits.offers.terms(isolation)?;
        offer.instance_mib(memory_mib).is_none().then(|| {
            format!(
                "the service gives a {isolation} at most {} MiB; the function asks for {memory_mib}",
                offer.memory_max_mib
            )
        })
    }

    /// Callers lose patience, events grow too old, and what a failing boot keeps waiting gives its room back.
    pub(super) fn give_up_what_waited_too_long(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let impatient =
            self.queue.drain_where(|work| work.call.as_ref().is_some_and(|call| call.patience_until <= now.instant));
        for work in impatient {
            let message = "no sandbox became free in time; try again later";
            self.refuse(work, Component::Worker, Reason::Overloaded, message, now, effects);
        }
        let expired = self.queue.drain_where(|work| work.call.is_none() && work.execution.deadline <= now.wall);
        for mut work in expired {
            let expected = work.execution.fence();
            let change = expiry(&work.execution, self.dead_letter_queue(&work), now.wall);
            self.change(&mut work, expected, change, effects);
            self.metrics.outcome(work.execution.state, Some(Reason::EventExpired));
            self.leave(work, effects);
        }
        self.give_up_what_failing_boots_keep_waiting(now, effects);
    }

    /// What waits for an instance that cannot be had gives its room back until the next boot is tried, and says what it
    /// waits for. A caller that waits is told at once. Where the function has a sandbox all the same, work goes on there.
    fn give_up_what_failing_boots_keep_waiting(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Self { queue, boots, options, fleet, .. } = self;
        if boots.is_empty() {
            return;
        }
        let trouble_of = |function: &Function| {
            let isolation = options.isolation_of(function)?;
            let is_served = fleet.counts(function.id).total() > 0;
            boots
                .iter()
                .find(|(purpose, trouble)| {
                    now.instant < trouble.until && purpose.covers(isolation, &function.project_id, function.id)
                })
                .filter(|_| !is_served)
                .map(|(_, trouble)| (trouble.failure.waiting_for, trouble.pause))
        };
        let mut stuck = Vec::new();
        for work in queue.drain_where(|work| trouble_of(&work.function).is_some()) {
            let (waiting_for, pause) = trouble_of(&work.function).unwrap_or((WaitingFor::Cloud, Duration::ZERO));
            stuck.push((work, waiting_for, pause));
        }
        for (mut work, waiting_for, pause) in stuck {
            if work.call.is_some() {
                let message = outcome::no_instance(waiting_for);
                self.refuse(work, Component::Instance, Reason::InstanceUnavailable, message, now, effects);
                continue;
            }
            let expected = work.execution.fence();
            self.change(&mut work, expected, Change::Park { not_before: now.wall + pause, waiting_for }, effects);
            self.leave(work, effects);
        }
    }
}

/// The change of an event that grew too old.
#[must_use]
pub fn expiry(
    execution: &crate::model::Execution,
    dead_letter: Option<crate::model::function::QueueName>,
    at: Timestamp,
) -> Change {
    let message = "the event grew older than the function's max_event_age before it could run";
    let failure =
        outcome::platform(execution.request_id(), Component::Worker, Phase::Queue, Reason::EventExpired, message);
    Change::Expire { at, failure, dead_letter }
}
