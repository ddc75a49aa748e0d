//! From one revision of a function to the next: while events come, sandboxes of the new one are started beside those of the
//! old one, which go on until the new ones can take over. What runs is finished by who began it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Moment;
use super::desk::{Desk, Known};
use crate::model::{Function, FunctionId};
use crate::scheduler::fleet::{Fleet, SandboxKey, SandboxState};

/// How long the old revision goes on at most. Less than the API waits before it answers an update
/// (`api::gateway_client::announce`): once that is answered, the caller's next event runs the new code.
const TAKE_OVER_WITHIN: Duration = Duration::from_secs(4);
/// An idle sandbox that was used within this time stands for load.
const RECENT: Duration = Duration::from_secs(10);

/// The revision that serves until the next one can.
pub(super) struct Previous {
    function: Arc<Function>,
    until: Instant,
    /// Sandboxes of the new revision that take over.
    wanted: u32,
}

/// A change that was announced and that somebody waits for.
#[derive(Default)]
pub(super) struct Update {
    /// Whether the function was looked up since.
    is_known: bool,
    /// Told by being dropped.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Known {
    /// A function of which there is one revision here.
    pub fn new(function: Arc<Function>, now: Instant) -> Self {
        Self { function, previous: None, deleted: false, looked_up: now, trouble: None }
    }

    /// The ready sandbox that takes the next event: of the present revision if there is one.
    pub fn ready(&self, fleet: &Fleet) -> Option<SandboxKey> {
        let id = self.function.id;
        let present = fleet.idle(id, self.function.revision);
        present.or_else(|| fleet.idle(id, self.previous.as_ref()?.function.revision))
    }

    /// The function as it was when a sandbox of this revision was started.
    pub fn of(&self, revision: u64) -> &Arc<Function> {
        match &self.previous {
            Some(previous) if previous.function.revision == revision => &previous.function,
            Some(_) | None => &self.function,
        }
    }

    /// The revision beside the present one that still takes events.
    pub fn previous_revision(&self) -> Option<u64> {
        self.previous.as_ref().map(|previous| previous.function.revision)
    }

    /// Sandboxes of the present revision that are started to take over.
    pub fn to_take_over(&self) -> u32 {
        self.previous.as_ref().map_or(0, |previous| previous.wanted)
    }
}

impl Desk {
    /// Takes the new revision. Where the old one is under load, it goes on until the new one is ready.
    pub(super) fn revise(&mut self, function: Arc<Function>, now: Moment) {
        let Some(known) = self.functions.get_mut(&function.id) else { return };
        let old = std::mem::replace(&mut known.function, function);
        // Those that are kept started are in use though no event came: the next one must not meet a cold start.
        let kept = self.provisioned_here(&old).min(ready(&self.fleet, &old));
        let wanted = in_use(&self.fleet, &old, now.instant).max(kept);
        let Some(known) = self.functions.get_mut(&old.id) else { return };
        known.previous =
            (wanted > 0).then(|| Previous { function: old, until: now.instant + TAKE_OVER_WITHIN, wanted });
    }

    /// Somebody waits until the change of a function that was just announced is in force here.
    pub(super) fn tell_when_served(&mut self, id: FunctionId, served: oneshot::Sender<()>) {
        let update = self.updates.entry(id).or_default();
        update.is_known = false;
        update.waiting.push(served);
    }

    /// A function was looked up: a change of it is known here now.
    pub(super) fn update_is_known(&mut self, id: FunctionId) {
        if let Some(update) = self.updates.get_mut(&id) {
            update.is_known = true;
        }
    }

    /// The new revision could not be started: there is nothing to wait for.
    pub(super) fn take_over_failed(&mut self, id: FunctionId) {
        if let Some(known) = self.functions.get_mut(&id) {
            known.previous = None;
        }
        self.updates.remove(&id);
    }

    /// Ends the old revisions whose successors are ready, and tells who waits for that. What is not looked up yet waits on.
    pub(super) fn finish_updates(&mut self, now: Moment) {
        let Self { functions, fleet, updates, .. } = self;
        for known in functions.values_mut() {
            let Some(previous) = &known.previous else { continue };
            let is_ready = ready(fleet, &known.function) >= previous.wanted;
            let is_gone = in_any_state(fleet, &previous.function) == 0;
            if is_ready || is_gone || now.instant >= previous.until {
                known.previous = None;
            }
        }
        updates
            .retain(|id, update| functions.get(id).is_some_and(|known| !update.is_known || known.previous.is_some()));
    }
}

fn count(fleet: &Fleet, function: &Function, counts: impl Fn(SandboxState) -> bool) -> u32 {
    let all = fleet.instances().flat_map(|(_, host)| host.sandboxes.values());
    let counted = all.filter(|sandbox| {
        sandbox.function == function.id && sandbox.revision == function.revision && counts(sandbox.state)
    });
    u32::try_from(counted.count()).unwrap_or(u32::MAX)
}

/// Sandboxes of this revision that have work, or had some shortly before.
fn in_use(fleet: &Fleet, function: &Function, now: Instant) -> u32 {
    count(fleet, function, |state| match state {
        SandboxState::Busy { .. } => true,
        SandboxState::Idle { since, used } => used && now.saturating_duration_since(since) < RECENT,
        SandboxState::Starting { .. } | SandboxState::Stopping { .. } => false,
    })
}

/// Sandboxes of this revision that are ready or at work.
fn ready(fleet: &Fleet, function: &Function) -> u32 {
    count(fleet, function, |state| matches!(state, SandboxState::Idle { .. } | SandboxState::Busy { .. }))
}

fn in_any_state(fleet: &Fleet, function: &Function) -> u32 {
    count(fleet, function, |state| !matches!(state, SandboxState::Stopping { .. }))
}
