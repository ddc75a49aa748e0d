//! What is not needed goes: sandboxes that have been idle for their time, instances that are empty, and the sandboxes that
//! keep an instance from becoming so. And the pools are kept as full as they should be.

use std::collections::HashMap;

use super::{Action, Demand, Planner};
use crate::model::{FunctionId, InstanceId};
use crate::scheduler::fleet::{FleetInstance, Holder, InstancePhase, Purpose, Sandbox, SandboxKey, SandboxState};
use crate::scheduler::pool::PoolKey;

impl Planner<'_> {
    /// Idle sandboxes of old revisions go, and those that have outlived their time, the oldest first, down to what their
    /// function is to keep.
    pub(super) fn stop_what_is_old(&mut self) {
        let mut aged = Vec::new();
        for (key, sandbox, since) in self.idle() {
            match self.observed.standings.get(&sandbox.function) {
                Some(standing) if standing.revision == sandbox.revision => {
                    if self.now.saturating_duration_since(since) >= standing.keep_alive {
                        aged.push((since, key, sandbox));
                    }
                }
                Some(standing) if standing.previous == Some(sandbox.revision) => {}
                Some(_) | None => self.stop(key, sandbox),
            }
        }
        aged.sort_unstable_by_key(|(since, key, _)| (*since, *key));
        for (_, key, sandbox) in aged {
            if self.is_more_than_kept(sandbox.function) {
                self.stop(key, sandbox);
            }
        }
    }

    fn is_more_than_kept(&self, function: FunctionId) -> bool {
        let of = |counts: &HashMap<FunctionId, u32>| counts.get(&function).copied().unwrap_or(0);
        of(&self.remaining) > of(&self.kept)
    }

    fn sandboxes(&self) -> impl Iterator<Item = (SandboxKey, &Sandbox)> {
        self.observed.fleet.instances().flat_map(|(instance, host)| {
            host.sandboxes.iter().map(move |(number, sandbox)| (SandboxKey { instance, number: *number }, sandbox))
        })
    }

    /// Boots for the pools what they lack; what they have too many of goes after a while.
    pub(super) fn refill_pools(&mut self) {
        let mut ready: HashMap<PoolKey, Vec<(u64, InstanceId)>> = HashMap::new();
        let mut coming: HashMap<PoolKey, u32> = HashMap::new();
        for (id, host) in self.observed.fleet.instances() {
            let Holder::Pool(runtime) = &host.purpose.holder else { continue };
            let (isolation, runtime) = (host.purpose.isolation, runtime.clone());
            let key = PoolKey { isolation, runtime, memory_mib: host.memory_mib };
            match host.phase {
                InstancePhase::Active if !self.claimed.contains_key(&id) && !self.retired.contains(&id) => {
                    ready.entry(key).or_default().push((host.rank, id));
                }
                InstancePhase::Booting { .. } => *coming.entry(key).or_default() += 1,
                InstancePhase::Active | InstancePhase::Retiring => {}
            }
        }
        for pool in self.observed.pools {
            let ready = ready.remove(&pool.key).unwrap_or_default();
            let here = u32::try_from(ready.len()).unwrap_or(u32::MAX);
            self.boot_for_pool(
                &pool.key,
                pool.target.saturating_sub(here + coming.get(&pool.key).copied().unwrap_or(0)),
            );
            self.retire_from_pool(ready, here.saturating_sub(pool.target));
        }
        // What is left is of pools that are not wanted any more.
        for ready in ready.into_values() {
            let all = u32::try_from(ready.len()).unwrap_or(u32::MAX);
            self.retire_from_pool(ready, all);
        }
    }

    fn boot_for_pool(&mut self, key: &PoolKey, lacking: u32) {
        let Some(offer) = self.observed.limits.offers.terms(key.isolation) else { return };
        for _ in 0..lacking {
            let purpose = Purpose { isolation: key.isolation, holder: Holder::Pool(key.runtime.clone()) };
            if key.memory_mib > offer.memory_max_mib || !self.may_boot(&purpose, offer) {
                return;
            }
            self.instance_is_coming(purpose.clone(), key.memory_mib);
            let (runtime, memory_mib) = (key.runtime.clone(), key.memory_mib);
            self.actions.push(Action::Boot { purpose, runtime, memory_mib });
        }
    }

    fn retire_from_pool(&mut self, mut ready: Vec<(u64, InstanceId)>, too_many: u32) {
        ready.sort_unstable_by(|one, other| other.cmp(one));
        for (_, id) in ready.into_iter().take(usize::try_from(too_many).unwrap_or(usize::MAX)) {
            if self.observed.fleet.instance(id).is_some_and(|host| self.has_rested(host)) {
                self.retired.insert(id);
                self.actions.push(Action::Retire(id));
            }
        }
    }

    /// Whether nothing has happened in an instance for so long that it may be given up: all of its sandboxes are idle.
    fn has_rested(&self, host: &FleetInstance) -> bool {
        let long_ago = |since| self.now.saturating_duration_since(since) >= self.observed.limits.instance_keep_alive;
        host.sandboxes.values().all(|sandbox| match sandbox.state {
            SandboxState::Idle { since, .. } => long_ago(since),
            SandboxState::Starting { .. } | SandboxState::Busy { .. } | SandboxState::Stopping { .. } => false,
        }) && long_ago(host.empty_since)
    }

    /// Of the instances in which nothing happens, the emptiest is emptied if the others can take over what it keeps warm:
    /// first a sandbox is started elsewhere, and when that is ready, this one is stopped.
    pub(super) fn empty_what_can_be_emptied(&mut self) {
        let source = self
            .observed
            .fleet
            .instances()
            .filter(|(id, host)| {
                matches!(host.phase, InstancePhase::Active)
                    && !host.sandboxes.is_empty()
                    && !self.used.contains(id)
                    && !self.retired.contains(id)
                    && self.has_rested(host)
            })
            .max_by_key(|(_, host)| (host.free_mib(), host.rank));
        let Some((id, host)) = source else { return };
        for (number, sandbox) in &host.sandboxes {
            let key = SandboxKey { instance: id, number: *number };
            if !self.stopped.contains(&key)
                && self.is_more_than_kept(sandbox.function)
                && self.has_a_better_one(key, sandbox, host)
            {
                self.stop(key, sandbox);
            }
        }
        self.start_elsewhere(id, host);
    }

    /// Whether another sandbox serves the same in an instance that is fuller, or as full and earlier.
    fn has_a_better_one(&self, key: SandboxKey, sandbox: &Sandbox, host: &FleetInstance) -> bool {
        self.sandboxes().any(|(other, candidate)| {
            other.instance != key.instance
                && candidate.function == sandbox.function
                && candidate.revision == sandbox.revision
                && matches!(candidate.state, SandboxState::Idle { .. } | SandboxState::Busy { .. })
                && !self.stopped.contains(&other)
                && self.observed.fleet.instance(other.instance).is_some_and(|place| is_fuller(place, host))
        })
    }

    /// Starts in other instances what only this one still keeps and what would not go by itself soon, if all of it finds
    /// room.
    fn start_elsewhere(&mut self, id: InstanceId, host: &FleetInstance) {
        let mut moves = Vec::new();
        let mut free = self.free.clone();
        for (number, sandbox) in &host.sandboxes {
            if self.stopped.contains(&SandboxKey { instance: id, number: *number }) {
                continue;
            }
            let wanted = self.observed.demands.iter().find(|demand| {
                demand.function == sandbox.function && demand.revision == sandbox.revision && demand.ahead() > 0
            });
            // One that is only kept for its age goes with it; the instance waits for that.
            let Some(demand) = wanted else { return };
            let is_under_way = self.observed.fleet.counts(sandbox.function).starting > 0;
            let Some(to) = self.fuller_place(id, host, demand, &free) else { return };
            if is_under_way {
                return;
            }
            if let Some(free) = free.get_mut(&to) {
                *free -= demand.memory_mib;
            }
            moves.push((to, demand));
        }
        let starting = usize::try_from(self.observed.limits.starting.saturating_sub(self.starting)).unwrap_or(0);
        if moves.len() <= starting {
            for (to, demand) in moves {
                let total = self.observed.fleet.counts(demand.function).total();
                if total < demand.limit {
                    self.start(to, demand);
                }
            }
        }
    }

    fn fuller_place(
        &self,
        source: InstanceId,
        host: &FleetInstance,
        demand: &Demand,
        free: &HashMap<InstanceId, u32>,
    ) -> Option<InstanceId> {
        self.observed
            .fleet
            .instances()
            .filter(|(id, place)| {
                *id != source
                    && demand.fits(&place.purpose)
                    && matches!(place.phase, InstancePhase::Active)
                    && !self.retired.contains(id)
                    && is_fuller(place, host)
                    && free.get(id).is_some_and(|free| *free >= demand.memory_mib)
            })
            .min_by_key(|(_, place)| (place.free_mib(), place.rank))
            .map(|(id, _)| id)
    }

    pub(super) fn retire_what_is_empty(&mut self) {
        let empty: Vec<_> = self
            .observed
            .fleet
            .instances()
            .filter(|(id, host)| {
                matches!(host.phase, InstancePhase::Active)
                    && host.purpose.holder.project().is_some()
                    && host.sandboxes.is_empty()
                    && !self.used.contains(id)
                    && !self.retired.contains(id)
                    && self.has_rested(host)
            })
            .map(|(id, _)| id)
            .collect();
        self.actions.extend(empty.into_iter().map(Action::Retire));
    }
}

/// Whether work is better gathered in the first: it has more in it, or as much and came earlier.
fn is_fuller(place: &FleetInstance, than: &FleetInstance) -> bool {
    let used = |host: &FleetInstance| host.memory_mib - host.free_mib();
    (used(place), std::cmp::Reverse(place.rank)) > (used(than), std::cmp::Reverse(than.rank))
}
