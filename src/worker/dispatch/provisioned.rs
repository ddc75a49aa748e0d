//! Sandboxes that are started before there is work for them: how many of those that a function is promised belong here, and
//! what happens when they do not start.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_agent::wire::SandboxFailure;

use super::desk::{Desk, Known, StartTrouble};
use super::{Effect, Moment};
use crate::model::{Function, FunctionId, Timestamp};
use crate::scheduler::fleet::{Sandbox, SandboxKey, SandboxState};
use crate::scheduler::share;

/// First and longest pause after a start that failed and that no event had asked for.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl Desk {
    /// Takes over which functions have provisioned concurrency.
    pub(super) fn provision(&mut self, functions: Vec<Arc<Function>>, now: Moment, effects: &mut Vec<Effect>) {
        let ids: HashSet<FunctionId> = functions.iter().map(|function| function.id).collect();
        // One that was taken off the list was deleted or has none any more.
        effects.extend(self.provisioned.difference(&ids).copied().map(Effect::LookUp));
        self.provisioned = ids;
        for function in functions {
            match self.functions.get_mut(&function.id) {
                Some(known) if known.function.revision < function.revision => self.revise(function, now),
                Some(_) => {}
                None => {
                    self.functions.insert(function.id, Known::new(function, now.instant));
                }
            }
        }
    }

    /// How many of a function's provisioned sandboxes this worker keeps. One without code has none.
    pub(super) fn provisioned_here(&self, function: &Function) -> u32 {
        let promised = function.package.and(function.provisioned_concurrency).map_or(0, NonZeroU32::get);
        share::of_limit(promised, function.id, self.me, &self.live)
    }

    /// What is wanted of a function ahead of its events: after starts that failed no more than there are, for a while.
    pub(super) fn ahead(&self, id: FunctionId, known: &Known, wanted: u32, now: Instant) -> u32 {
        match &known.trouble {
            Some(trouble) if trouble.revision == known.function.revision && now < trouble.until => {
                let counts = self.fleet.counts(id);
                wanted.min(counts.idle + counts.busy + counts.starting)
            }
            Some(_) | None => wanted,
        }
    }

    /// When an idle sandbox became so, by the records' clock.
    pub(super) fn ready_at(&self, key: SandboxKey, now: Moment) -> Option<Timestamp> {
        match self.fleet.sandbox(key)?.state {
            SandboxState::Idle { since, .. } => {
                let ago = i64::try_from(now.instant.saturating_duration_since(since).as_millis()).ok()?;
                Some(Timestamp::from_millis(now.wall.as_millis() - ago))
            }
            SandboxState::Starting { .. } | SandboxState::Busy { .. } | SandboxState::Stopping { .. } => None,
        }
    }

    /// A sandbox of the function came up.
    pub(super) fn start_went_well(&mut self, key: SandboxKey) {
        if let Some(sandbox) = self.fleet.sandbox(key)
            && let Some(known) = self.functions.get_mut(&sandbox.function)
        {
            known.trouble = None;
        }
    }

    /// A sandbox of the function's present revision did not come up. Events that wait pay for their starts; those that
    /// nobody waits for are paused, longer each time.
    pub(super) fn start_went_wrong(&mut self, sandbox: &Sandbox, failure: &SandboxFailure, now: Instant) {
        let Some(known) = self.functions.get_mut(&sandbox.function) else { return };
        let pause = match &known.trouble {
            Some(trouble) if trouble.revision == sandbox.revision => (trouble.pause * 2).min(PAUSE_MAX),
            Some(_) | None => PAUSE,
        };
        known.trouble = Some(StartTrouble { revision: sandbox.revision, until: now + pause, pause });
        let (id, why) = (sandbox.function, failure.message.as_str());
        tracing::info!(function.id = %id, why, "a sandbox of function {id} did not start: {why}");
    }
}
