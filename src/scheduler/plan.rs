//! What a worker should start and stop now: a pure function of what it sees.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::model::instance::Isolation;
use crate::model::{FunctionId, InstanceId, ProjectId};

use super::fleet::{Counts, Fleet, FleetInstance, InstancePhase, Purpose, SandboxKey, SandboxState};
use super::offer::{Offers, Sharing};

/// What one function needs. Given in the order in which functions are to be served.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The function.
    pub function: FunctionId,
    /// Its project.
    pub project: ProjectId,
    /// What separates its instances from others; one that is offered.
    pub isolation: Isolation,
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
}

/// What holds for the whole worker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most sandboxes being started at the same time.
    pub starting: u32,
    /// How long an idle sandbox is kept.
    pub keep_alive: Duration,
    /// How long an instance without sandboxes is kept.
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
    /// Boot an instance.
    Boot {
        /// What it is for.
        purpose: Purpose,
        /// The function that asked for it.
        function: FunctionId,
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
    /// Present revisions of all functions that have sandboxes; one that is missing is deleted.
    pub revisions: &'a HashMap<FunctionId, u64>,
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
    /// Instances that boot, and those that are to boot, with the memory that nobody counts on yet.
    coming: Vec<(Purpose, u32)>,
    instances: HashMap<Isolation, u32>,
    starting: u32,
}

/// Whether what was wanted for one more sandbox is under way, so that the next one can be looked at.
enum Room {
    Coming,
    Lacking,
}

impl Demand {
    fn fits(&self, purpose: &Purpose) -> bool {
        purpose.covers(self.isolation, &self.project, self.function)
    }
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Observed<'a>, now: Instant) -> Self {
        let mut free = HashMap::new();
        let mut coming = Vec::new();
        let mut instances: HashMap<Isolation, u32> = HashMap::new();
        for (id, instance) in observed.fleet.instances() {
            *instances.entry(instance.purpose.isolation).or_default() += 1;
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
            coming,
            instances,
            starting: observed.fleet.totals().starting,
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

    /// Sandboxes of the function that serve another revision than the present one.
    fn stale(&self, demand: &Demand) -> Counts {
        let mut counts = Counts::default();
        for (_, host) in self.observed.fleet.instances() {
            for sandbox in host.sandboxes.values() {
                if sandbox.function == demand.function && sandbox.revision != demand.revision {
                    counts.add(sandbox.state);
                }
            }
        }
        counts
    }

    fn stop(&mut self, key: SandboxKey) {
        if self.stopped.insert(key) {
            // Its memory is free only when it is gone: the next plan sees it.
            self.actions.push(Action::Stop(key));
        }
    }

    fn stop_what_is_old(&mut self) {
        let old: Vec<_> = self
            .idle()
            .filter(|(_, sandbox, since)| {
                self.observed.revisions.get(&sandbox.function) != Some(&sandbox.revision)
                    || self.now.saturating_duration_since(*since) >= self.observed.limits.keep_alive
            })
            .map(|(key, _, _)| key)
            .collect();
        for key in old {
            self.stop(key);
        }
    }

    fn serve(&mut self, demand: &Demand) {
        let counts = self.observed.fleet.counts(demand.function);
        let stale = self.stale(demand);
        let desired = desired(demand, counts.busy, self.observed.limits.target_wait);
        let coming = counts.starting + counts.idle - stale.starting - stale.idle;
        let uncovered = demand.waiting.saturating_sub(coming);
        let missing = desired.saturating_sub(coming + counts.busy).min(uncovered);
        // A sandbox that is ending still holds its place: a limit is a limit. An idle one of an old revision never runs
        // again, so the new revision need not wait for it.
        let allowed = demand.limit.saturating_sub(counts.total() - stale.idle);
        for _ in 0..missing.min(allowed) {
            if self.starting >= self.observed.limits.starting {
                return;
            }
            match self.room(demand) {
                Some(instance) => {
                    self.starting += 1;
                    self.used.insert(instance);
                    if let Some(free) = self.free.get_mut(&instance) {
                        *free -= demand.memory_mib;
                    }
                    self.actions.push(Action::Start { instance, function: demand.function });
                }
                None => match self.make_room(demand) {
                    Room::Coming => {}
                    Room::Lacking => return,
                },
            }
        }
    }

    /// The fullest instance for this that still has room, so that the others can become empty.
    fn room(&self, demand: &Demand) -> Option<InstanceId> {
        self.free
            .iter()
            .filter(|(id, free)| **free >= demand.memory_mib && !self.retired.contains(id))
            .filter(|(id, _)| self.observed.fleet.instance(**id).is_some_and(|host| demand.fits(&host.purpose)))
            .min_by_key(|(id, free)| (**free, **id))
            .map(|(id, _)| *id)
    }

    /// Nothing is free: wait for what is coming, take from what lies idle, boot another instance, or have one of others
    /// go, in this order.
    fn make_room(&mut self, demand: &Demand) -> Room {
        let reserved =
            self.coming.iter_mut().find(|(purpose, free)| demand.fits(purpose) && *free >= demand.memory_mib);
        if let Some((_, free)) = reserved {
            *free -= demand.memory_mib;
            return Room::Coming;
        }
        if self.evict_from_own(demand) {
            return Room::Lacking;
        }
        let Some(offer) = self.observed.limits.offers.terms(demand.isolation) else { return Room::Lacking };
        let function = match offer.sharing {
            Sharing::Function => Some(demand.function),
            Sharing::Project => None,
        };
        let purpose = Purpose { isolation: demand.isolation, project: demand.project.clone(), function };
        let Some(memory_mib) = offer.instance_mib(demand.memory_mib) else { return Room::Lacking };
        if self.observed.no_boot.contains(&purpose) {
            return Room::Lacking;
        }
        let booting = self.coming.iter().filter(|(other, _)| other.isolation == demand.isolation).count();
        if booting >= usize::try_from(offer.booting).unwrap_or(usize::MAX) {
            return Room::Lacking;
        }
        let instances = self.instances.entry(demand.isolation).or_default();
        if *instances >= offer.instances {
            self.retire_one_of_another(demand);
            return Room::Lacking;
        }
        *instances += 1;
        self.coming.push((purpose.clone(), memory_mib - demand.memory_mib));
        self.actions.push(Action::Boot { purpose, function: demand.function, memory_mib });
        Room::Coming
    }

    /// Stops idle sandboxes of other functions in one instance for this, oldest first, if that frees enough.
    fn evict_from_own(&mut self, demand: &Demand) -> bool {
        let wanted: HashSet<_> =
            self.observed.demands.iter().filter(|other| other.waiting > 0).map(|other| other.function).collect();
        for (id, host) in self.observed.fleet.instances() {
            if !demand.fits(&host.purpose) || !matches!(host.phase, InstancePhase::Active) || self.retired.contains(&id)
            {
                continue;
            }
            let mut idle: Vec<_> = self
                .idle()
                .filter(|(key, sandbox, _)| key.instance == id && !wanted.contains(&sandbox.function))
                .map(|(key, sandbox, since)| (since, key, sandbox.memory_mib))
                .collect();
            // What is ending already counts: it was asked to go for somebody.
            let ending: u32 = host
                .sandboxes
                .values()
                .filter(|sandbox| matches!(sandbox.state, SandboxState::Stopping { .. }))
                .map(|sandbox| sandbox.memory_mib)
                .sum();
            let mut coming = self.free.get(&id).copied().unwrap_or(0) + ending;
            if coming >= demand.memory_mib {
                return true;
            }
            idle.sort_unstable();
            let mut victims = Vec::new();
            for (_, key, memory_mib) in idle {
                victims.push(key);
                coming += memory_mib;
                if coming >= demand.memory_mib {
                    for victim in victims {
                        self.stop(victim);
                    }
                    self.used.insert(id);
                    return true;
                }
            }
        }
        false
    }

    /// Gives up the instance of the same kind for something else that has been without work for longest.
    fn retire_one_of_another(&mut self, demand: &Demand) {
        let last_use = |host: &FleetInstance| {
            host.sandboxes.values().try_fold(host.empty_since, |latest, sandbox| match sandbox.state {
                SandboxState::Idle { since, .. } => Some(latest.max(since)),
                SandboxState::Starting { .. } | SandboxState::Busy { .. } | SandboxState::Stopping { .. } => None,
            })
        };
        let victim = self
            .observed
            .fleet
            .instances()
            .filter(|(id, host)| {
                host.purpose.isolation == demand.isolation
                    && !demand.fits(&host.purpose)
                    && matches!(host.phase, InstancePhase::Active)
                    && !self.used.contains(id)
                    && !self.retired.contains(id)
            })
            .filter_map(|(id, host)| Some((last_use(host)?, id)))
            .min();
        if let Some((_, id)) = victim {
            self.retired.insert(id);
            self.actions.push(Action::Retire(id));
        }
    }

    fn retire_what_is_empty(&mut self) {
        let empty: Vec<_> = self
            .observed
            .fleet
            .instances()
            .filter(|(id, host)| {
                matches!(host.phase, InstancePhase::Active)
                    && host.sandboxes.is_empty()
                    && !self.used.contains(id)
                    && !self.retired.contains(id)
                    && self.now.saturating_duration_since(host.empty_since) >= self.observed.limits.instance_keep_alive
            })
            .map(|(id, _)| id)
            .collect();
        self.actions.extend(empty.into_iter().map(Action::Retire));
    }
}

#[cfg(test)]
mod tests;
