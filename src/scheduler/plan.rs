//! What a worker should start and stop now: a pure function of what it sees. Here is what is needed; [`room`] finds
//! places for it, [`shrink`] takes away what is not.

mod room;
mod shrink;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::model::instance::Isolation;
use crate::model::runtime::RuntimeName;
use crate::model::{FunctionId, InstanceId, ProjectId};

use super::fleet::{Counts, Fleet, Holder, InstancePhase, Purpose, SandboxKey, SandboxState};
use super::history::KeepAlive;
use super::offer::Offers;
use super::pool::PoolTarget;
use room::Place;

/// What one function needs. Given in the order in which functions are to be served.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The function.
    pub function: FunctionId,
    /// Its project.
    pub project: ProjectId,
    /// What separates its instances from others; one that is offered.
    pub isolation: Isolation,
    /// Its runtime.
    pub runtime: RuntimeName,
    /// Its present revision; sandboxes of another one take no new event.
    pub revision: u64,
    /// Memory of one sandbox.
    pub memory_mib: u32,
    /// Events that wait for a sandbox.
    pub waiting: u32,
    /// Most events handled at the same time here.
    pub limit: u32,
    /// How long an event takes, as far as is known.
    pub service_time: Option<Duration>,
    /// Sandboxes that are kept started whether there is work or not: its provisioned concurrency, as far as it is here.
    pub floor: u32,
    /// Sandboxes that its past says it will soon need. What waits elsewhere goes before them.
    pub expected: u32,
}

/// How a function that has sandboxes stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its present revision.
    pub revision: u64,
    /// The one before, while it still takes events: until sandboxes of the present one are ready.
    pub previous: Option<u64>,
    /// How long its idle sandboxes are kept.
    pub keep_alive: Duration,
}

/// What holds for the whole worker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most sandboxes being started at the same time.
    pub starting: u32,
    /// How long an idle sandbox is kept.
    pub keep_alive: KeepAlive,
    /// How long an instance without sandboxes is kept, and one that could be emptied is left as it is.
    pub instance_keep_alive: Duration,
    /// Which instances there can be.
    pub offers: Offers,
    /// How long an event may wait for a busy sandbox before another one is worth its start.
    pub target_wait: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a sandbox of this function's present revision.
    Start {
        /// Where.
        instance: InstanceId,
        /// Of which function.
        function: FunctionId,
    },
    /// Stop an idle sandbox.
    Stop(SandboxKey),
    /// Give an instance of the pool to who needs it, for life.
    Claim {
        /// Which.
        instance: InstanceId,
        /// Who.
        holder: Holder,
    },
    /// Boot an instance.
    Boot {
        /// What it is for.
        purpose: Purpose,
        /// The runtime that it must be able to run.
        runtime: RuntimeName,
        /// Its memory for sandboxes, in MiB.
        memory_mib: u32,
    },
    /// Delete an instance that has nothing running.
    Retire(InstanceId),
}

/// What the plan is made from.
#[derive(Debug)]
pub struct Observed<'a> {
    /// Instances and sandboxes.
    pub fleet: &'a Fleet,
    /// What is needed, in turn.
    pub demands: &'a [Demand],
    /// How all functions stand that have sandboxes; one that is missing is deleted.
    pub standings: &'a HashMap<FunctionId, Standing>,
    /// The pools and how full they should be.
    pub pools: &'a [PoolTarget],
    /// What no instance is to be booted for now, because the last boot failed.
    pub no_boot: &'a HashSet<Purpose>,
    /// The bounds.
    pub limits: &'a Limits,
}

/// How many sandboxes of a function there should be: enough that what waits is served within the target wait, never
/// more than there are events, never more than its limit.
#[must_use]
pub fn desired(demand: &Demand, busy: u32, target_wait: Duration) -> u32 {
    let events = demand.waiting + busy;
    let enough = match demand.service_time {
        None => events,
        Some(service_time) => {
            let load = service_time.as_secs_f64() * f64::from(events) / target_wait.as_secs_f64().max(0.001);
            // Between 1 and the number of events, which is a u32: the cast cannot go wrong.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
            let sandboxes = load.ceil().clamp(1.0, f64::from(events.max(1))) as u32;
            sandboxes
        }
    };
    enough.min(events).min(demand.limit)
}

/// Decides what to start and stop. Busy sandboxes are never stopped.
#[must_use]
pub fn plan(observed: &Observed<'_>, now: Instant) -> Vec<Action> {
    let mut plan = Planner::new(observed, now);
    plan.stop_what_is_old();
    for demand in observed.demands {
        plan.serve(demand);
    }
    plan.refill_pools();
    plan.empty_what_can_be_emptied();
    plan.retire_what_is_empty();
    plan.actions
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    now: Instant,
    actions: Vec<Action>,
    /// Memory that is free in each active instance after the actions so far.
    free: HashMap<InstanceId, u32>,
    stopped: HashSet<SandboxKey>,
    used: HashSet<InstanceId>,
    retired: HashSet<InstanceId>,
    /// Instances of the pool that were given away by this plan.
    claimed: HashMap<InstanceId, Purpose>,
    /// How many sandboxes each function that needs any is to keep, whatever their age.
    kept: HashMap<FunctionId, u32>,
    /// Instances that boot, and those that are to boot, with the memory that nobody counts on yet.
    coming: Vec<(Purpose, u32)>,
    instances: HashMap<Isolation, u32>,
    starting: u32,
    /// Sandboxes of old revisions.
    stale: HashMap<FunctionId, Counts>,
    /// Sandboxes of present revisions that can take events, after the actions so far.
    remaining: HashMap<FunctionId, u32>,
}

/// Why another sandbox is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// An event waits for it: others make room.
    Waiting,
    /// It is to be ready ahead of need: it takes what is free, or what can be booted.
    Ahead,
}

impl Demand {
    fn fits(&self, purpose: &Purpose) -> bool {
        purpose.covers(self.isolation, &self.project, self.function)
    }

    /// Sandboxes that are started and kept without an event that waits for them.
    fn ahead(&self) -> u32 {
        self.floor.max(self.expected).min(self.limit)
    }
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Observed<'a>, now: Instant) -> Self {
        let mut free = HashMap::new();
        let mut coming = Vec::new();
        let mut instances: HashMap<Isolation, u32> = HashMap::new();
        let mut stale: HashMap<FunctionId, Counts> = HashMap::new();
        let mut remaining: HashMap<FunctionId, u32> = HashMap::new();
        for (id, instance) in observed.fleet.instances() {
            *instances.entry(instance.purpose.isolation).or_default() += 1;
            for sandbox in instance.sandboxes.values() {
                let standing = observed.standings.get(&sandbox.function);
                if standing.is_none_or(|standing| standing.revision != sandbox.revision) {
                    stale.entry(sandbox.function).or_default().add(sandbox.state);
                } else if !matches!(sandbox.state, SandboxState::Stopping { .. }) {
                    *remaining.entry(sandbox.function).or_default() += 1;
                }
            }
            match instance.phase {
                InstancePhase::Active => {
                    free.insert(id, instance.free_mib());
                }
                InstancePhase::Booting { .. } => coming.push((instance.purpose.clone(), instance.memory_mib)),
                InstancePhase::Retiring => {}
            }
        }
        Self {
            observed,
            now,
            actions: Vec::new(),
            free,
            stopped: HashSet::new(),
            used: HashSet::new(),
            retired: HashSet::new(),
            claimed: HashMap::new(),
            kept: observed.demands.iter().map(|demand| (demand.function, demand.ahead())).collect(),
            coming,
            instances,
            starting: observed.fleet.totals().starting,
            stale,
            remaining,
        }
    }

    fn serve(&mut self, demand: &Demand) {
        let counts = self.observed.fleet.counts(demand.function);
        let stale = self.stale.get(&demand.function).copied().unwrap_or_default();
        let desired = desired(demand, counts.busy, self.observed.limits.target_wait);
        let coming = counts.starting + counts.idle - stale.starting - stale.idle;
        let uncovered = demand.waiting.saturating_sub(coming);
        let wanted_now = desired.saturating_sub(coming + counts.busy).min(uncovered);
        let wanted_ahead = demand.ahead().saturating_sub(coming + counts.busy - stale.busy);
        // A sandbox that is ending still holds its place: a limit is a limit. An idle one of an old revision never runs
        // again, so the new revision need not wait for it.
        let allowed = demand.limit.saturating_sub(counts.total() - stale.idle);
        for n in 0..wanted_now.max(wanted_ahead).min(allowed) {
            if self.starting >= self.observed.limits.starting {
                return;
            }
            let need = if n < wanted_now { Need::Waiting } else { Need::Ahead };
            match self.place(demand, need) {
                Place::Here(instance) => self.start(instance, demand),
                Place::Coming => {}
                Place::Lacking => return,
            }
        }
    }

    fn start(&mut self, instance: InstanceId, demand: &Demand) {
        self.starting += 1;
        self.used.insert(instance);
        if let Some(free) = self.free.get_mut(&instance) {
            *free -= demand.memory_mib;
        }
        self.actions.push(Action::Start { instance, function: demand.function });
    }

    fn stop(&mut self, key: SandboxKey, sandbox: &super::fleet::Sandbox) {
        if self.stopped.insert(key) {
            let is_present = |standing: &Standing| standing.revision == sandbox.revision;
            if self.observed.standings.get(&sandbox.function).is_some_and(is_present)
                && let Some(remaining) = self.remaining.get_mut(&sandbox.function)
            {
                *remaining -= 1;
            }
            // Its memory is free only when it is gone: the next plan sees it.
            self.actions.push(Action::Stop(key));
        }
    }

    fn idle(&self) -> impl Iterator<Item = (SandboxKey, &'a super::fleet::Sandbox, Instant)> + use<'a> {
        self.observed.fleet.instances().flat_map(|(instance, host)| {
            host.sandboxes.iter().filter_map(move |(number, sandbox)| match sandbox.state {
                SandboxState::Idle { since, .. } => Some((SandboxKey { instance, number: *number }, sandbox, since)),
                SandboxState::Starting { .. } | SandboxState::Busy { .. } | SandboxState::Stopping { .. } => None,
            })
        })
    }
}

#[cfg(test)]
mod tests;
