//! Where one more sandbox goes: into an instance with memory to spare, into one of the pool, or into one that is booted;
//! and who makes room when there is none.

use std::collections::HashSet;

use super::{Action, Demand, Need, Planner};
use crate::model::InstanceId;
use crate::model::instance::Isolation;
use crate::scheduler::fleet::{FleetInstance, Holder, InstancePhase, Purpose, SandboxState};
use crate::scheduler::offer::{Offer, Sharing};

/// What was found for one more sandbox.
pub(super) enum Place {
    /// It can be started here.
    Here(InstanceId),
    /// An instance for it is under way, so that the next one can be looked at.
    Coming,
    /// There is nothing, or something must go first.
    Lacking,
}

impl Planner<'_> {
    /// Finds a place, in this order: the fullest instance with room, one of the pool, one that boots already, what idle
    /// sandboxes of others leave, a new one, and last what an idle instance of somebody else leaves.
    pub(super) fn place(&mut self, demand: &Demand, need: Need) -> Place {
        if let Some(instance) = self.room(demand) {
            return Place::Here(instance);
        }
        let Some(offer) = self.observed.limits.offers.terms(demand.isolation) else { return Place::Lacking };
        let holder = match offer.sharing {
            Sharing::Function => Holder::Function(demand.project.clone(), demand.function),
            Sharing::Project => Holder::Project(demand.project.clone()),
        };
        let purpose = Purpose { isolation: demand.isolation, holder };
        if need == Need::Waiting
            && let Some(instance) = self.claim(demand, &purpose)
        {
            return Place::Here(instance);
        }
        let reserved =
            self.coming.iter_mut().find(|(purpose, free)| demand.fits(purpose) && *free >= demand.memory_mib);
        if let Some((_, free)) = reserved {
            *free -= demand.memory_mib;
            return Place::Coming;
        }
        if need == Need::Waiting && self.evict_from_own(demand) {
            return Place::Lacking;
        }
        let Some(memory_mib) = offer.instance_mib(demand.memory_mib) else { return Place::Lacking };
        if self.may_boot(&purpose, offer) {
            self.instance_is_coming(purpose.clone(), memory_mib - demand.memory_mib);
            self.actions.push(Action::Boot { purpose, runtime: demand.runtime.clone(), memory_mib });
            return Place::Coming;
        }
        let is_full = self.count(demand.isolation) >= offer.instances;
        if need == Need::Waiting && is_full && !self.observed.no_boot.contains(&purpose) {
            self.retire_one_of_another(demand);
        }
        Place::Lacking
    }

    /// Whether the driver's terms and its troubles let another instance be booted.
    pub(super) fn may_boot(&self, purpose: &Purpose, offer: &Offer) -> bool {
        let booting = self.coming.iter().filter(|(other, _)| other.isolation == purpose.isolation).count();
        !self.observed.no_boot.contains(purpose)
            && booting < usize::try_from(offer.booting).unwrap_or(usize::MAX)
            && self.count(purpose.isolation) < offer.instances
    }

    /// Counts an instance that this plan boots, with the memory in it that nobody counts on yet.
    pub(super) fn instance_is_coming(&mut self, purpose: Purpose, free_mib: u32) {
        *self.instances.entry(purpose.isolation).or_default() += 1;
        self.coming.push((purpose, free_mib));
    }

    fn count(&self, isolation: Isolation) -> u32 {
        self.instances.get(&isolation).copied().unwrap_or(0)
    }

    /// The fullest instance for this that still has room, so that the others can become empty; of equally full ones the
    /// earliest.
    pub(super) fn room(&self, demand: &Demand) -> Option<InstanceId> {
        self.free
            .iter()
            .filter(|(id, free)| **free >= demand.memory_mib && !self.retired.contains(id))
            .filter_map(|(id, free)| {
                let host = self.observed.fleet.instance(*id)?;
                let purpose = self.claimed.get(id).unwrap_or(&host.purpose);
                demand.fits(purpose).then_some((*free, host.rank, *id))
            })
            .min()
            .map(|(_, _, id)| id)
    }

    /// Takes the smallest instance of the pool that this fits into.
    fn claim(&mut self, demand: &Demand, purpose: &Purpose) -> Option<InstanceId> {
        let (id, host) = self
            .observed
            .fleet
            .instances()
            .filter(|(id, host)| {
                matches!(&host.purpose.holder, Holder::Pool(runtime) if *runtime == demand.runtime)
                    && host.purpose.isolation == demand.isolation
                    && matches!(host.phase, InstancePhase::Active)
                    && host.memory_mib >= demand.memory_mib
                    && !self.claimed.contains_key(id)
                    && !self.retired.contains(id)
            })
            .min_by_key(|(_, host)| (host.memory_mib, host.rank))?;
        self.free.insert(id, host.memory_mib);
        self.claimed.insert(id, purpose.clone());
        self.actions.push(Action::Claim { instance: id, holder: purpose.holder.clone() });
        Some(id)
    }

    /// Stops idle sandboxes of other functions in one instance for this, oldest first, if that frees enough. What is
    /// provisioned stays.
    fn evict_from_own(&mut self, demand: &Demand) -> bool {
        let protected: HashSet<_> = self
            .observed
            .demands
            .iter()
            .filter(|other| {
                other.waiting > 0 || self.observed.fleet.counts(other.function).total() <= other.floor.min(other.limit)
            })
            .map(|other| other.function)
            .collect();
        for (id, host) in self.observed.fleet.instances() {
            if !demand.fits(&host.purpose) || !matches!(host.phase, InstancePhase::Active) || self.retired.contains(&id)
            {
                continue;
            }
            let mut idle: Vec<_> = self
                .idle()
                .filter(|(key, sandbox, _)| key.instance == id && !protected.contains(&sandbox.function))
                .map(|(key, sandbox, since)| (since, key, sandbox))
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
            idle.sort_unstable_by_key(|(since, key, _)| (*since, *key));
            let mut victims = Vec::new();
            for (_, key, sandbox) in idle {
                victims.push((key, sandbox));
                coming += sandbox.memory_mib;
                if coming >= demand.memory_mib {
                    for (victim, sandbox) in victims {
                        self.stop(victim, sandbox);
                    }
                    self.used.insert(id);
                    return true;
                }
            }
        }
        false
    }

    /// Gives up the instance of the same kind for something else that has been without work for longest. One of the pool
    /// goes before one that belongs to somebody: it has nothing warm in it.
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
                    && !self.claimed.contains_key(id)
                    && !self.retired.contains(id)
            })
            .filter_map(|(id, host)| Some((host.purpose.holder.project().is_some(), last_use(host)?, id)))
            .min();
        if let Some((_, _, id)) = victim {
            self.retired.insert(id);
            self.actions.push(Action::Retire(id));
        }
    }
}
