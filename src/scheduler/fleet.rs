//! What a worker knows of its instances and of the sandboxes in them. Every change of a sandbox's state is a method
//! here; a change that does not fit the state does nothing and says so.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::model::instance::Isolation;
use crate::model::runtime::RuntimeName;
use crate::model::{ExecutionId, FunctionId, InstanceId, ProjectId};

/// A sandbox, by the instance it is in and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxKey {
    /// The instance.
    pub instance: InstanceId,
    /// The number that the gateway gave it, never used twice in an instance.
    pub number: u64,
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The function it serves.
    pub function: FunctionId,
    /// The revision it serves.
    pub revision: u64,
    /// Its memory limit.
    pub memory_mib: u32,
    /// What it is doing.
    pub state: SandboxState,
}

/// What a sandbox is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// Fetching its package, starting its runtime.
    Starting {
        /// Since when.
        since: Instant,
    },
    /// Ready for an event.
    Idle {
        /// Since when.
        since: Instant,
        /// Whether it has handled an event before.
        used: bool,
    },
    /// Handling an event.
    Busy {
        /// Whose.
        execution: ExecutionId,
    },
    /// Told to end; what it had, if anything, is still to be heard of.
    Stopping {
        /// What it was handling.
        execution: Option<ExecutionId>,
    },
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstancePhase {
    /// Its agent has not called yet.
    Booting {
        /// Since when.
        since: Instant,
    },
    /// Its agent takes orders.
    Active,
    /// On its way out: no new sandboxes.
    Retiring,
}

/// What an instance is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Purpose {
    /// What separates it from the others.
    pub isolation: Isolation,
    /// Whose it is.
    pub holder: Holder,
}

/// Whose an instance is. One of a pool is given to a project once; after that nothing changes hands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Nobody's yet: it is ready for the first who needs one with this runtime.
    Pool(RuntimeName),
    /// A project's, for any of its functions.
    Project(ProjectId),
    /// One function's.
    Function(ProjectId, FunctionId),
}

impl Holder {
    /// The project it belongs to, if it belongs to one.
    #[must_use]
    pub const fn project(&self) -> Option<&ProjectId> {
        match self {
            Self::Pool(_) => None,
            Self::Project(project) | Self::Function(project, _) => Some(project),
        }
    }

    /// The one function that it serves; none: any of the project's, or nobody's yet.
    #[must_use]
    pub const fn function(&self) -> Option<FunctionId> {
        match self {
            Self::Pool(_) | Self::Project(_) => None,
            Self::Function(_, function) => Some(*function),
        }
    }
}

impl Purpose {
    /// Whether an instance for this may hold a sandbox of this function.
    #[must_use]
    pub fn covers(&self, isolation: Isolation, project: &ProjectId, function: FunctionId) -> bool {
        let is_theirs = match &self.holder {
            Holder::Pool(_) => false,
            Holder::Project(holder) => holder == project,
            Holder::Function(_, only) => *only == function,
        };
        self.isolation == isolation && is_theirs
    }
}

/// One instance.
#[derive(Clone, Debug)]
pub struct FleetInstance {
    /// What it is for.
    pub purpose: Purpose,
    /// Memory for sandboxes, in MiB.
    pub memory_mib: u32,
    /// Where it is in its life.
    pub phase: InstancePhase,
    /// Its sandboxes.
    pub sandboxes: BTreeMap<u64, Sandbox>,
    /// Since when it has been without any.
    pub empty_since: Instant,
    /// Its place in the order in which instances were asked for. Work goes to the earliest first, so that the latest
    /// become empty.
    pub rank: u64,
}

impl FleetInstance {
    /// Memory that no sandbox has been promised.
    #[must_use]
    pub fn free_mib(&self) -> u32 {
        self.memory_mib.saturating_sub(self.sandboxes.values().map(|sandbox| sandbox.memory_mib).sum())
    }
}

/// Sandboxes of one function, counted by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Being started.
    pub starting: u32,
    /// Ready.
    pub idle: u32,
    /// Handling an event.
    pub busy: u32,
    /// Ending.
    pub stopping: u32,
}

impl Counts {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.starting + self.idle + self.busy + self.stopping
    }

    /// Counts one more that does this.
    pub fn add(&mut self, state: SandboxState) {
        *self.of(state) += 1;
    }

    fn of(&mut self, state: SandboxState) -> &mut u32 {
        match state {
            SandboxState::Starting { .. } => &mut self.starting,
            SandboxState::Idle { .. } => &mut self.idle,
            SandboxState::Busy { .. } => &mut self.busy,
            SandboxState::Stopping { .. } => &mut self.stopping,
        }
    }
}

/// A ready sandbox, ordered by when it is used: those in the earliest instance first, so that later instances become
/// empty, and there the one that was used last, so that the others grow old and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ready {
    rank: u64,
    since: Reverse<Instant>,
    key: SandboxKey,
    revision: u64,
}

/// What of an instance decides where its sandboxes are counted.
struct Place {
    project: Option<ProjectId>,
    rank: u64,
}

impl Place {
    fn of(instance: &FleetInstance) -> Self {
        Self { project: instance.purpose.holder.project().cloned(), rank: instance.rank }
    }
}

/// Everything that a worker has booted and started.
#[derive(Debug, Default)]
pub struct Fleet {
    instances: HashMap<InstanceId, FleetInstance>,
    counts: HashMap<FunctionId, Counts>,
    busy_of_project: HashMap<ProjectId, u32>,
    /// Ready sandboxes by function, in the order in which they are used.
    idle: HashMap<FunctionId, BTreeSet<Ready>>,
    next_number: u64,
    next_rank: u64,
    all: Counts,
}

impl Fleet {
    /// Notes that an instance was asked for.
    pub fn book(&mut self, id: InstanceId, purpose: Purpose, memory_mib: u32, now: Instant) {
        let phase = InstancePhase::Booting { since: now };
        self.next_rank += 1;
        let (sandboxes, rank) = (BTreeMap::new(), self.next_rank);
        let instance = FleetInstance { purpose, memory_mib, phase, sandboxes, empty_since: now, rank };
        self.instances.insert(id, instance);
    }

    /// Notes that an instance's agent has called; how long that took, none if the instance is unknown or was not booting.
    pub fn activate(&mut self, id: InstanceId, now: Instant) -> Option<Duration> {
        let instance = self.instances.get_mut(&id)?;
        match instance.phase {
            InstancePhase::Booting { since } => {
                instance.phase = InstancePhase::Active;
                instance.empty_since = now;
                Some(now.saturating_duration_since(since))
            }
            InstancePhase::Active | InstancePhase::Retiring => None,
        }
    }

    /// Gives an instance of the pool to whoever is named, for life; whether it was there to be given.
    pub fn claim(&mut self, id: InstanceId, holder: Holder, now: Instant) -> bool {
        match self.instances.get_mut(&id) {
            Some(instance)
                if matches!(instance.phase, InstancePhase::Active)
                    && matches!(instance.purpose.holder, Holder::Pool(_)) =>
            {
                instance.purpose.holder = holder;
                instance.empty_since = now;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Notes that an instance takes no new sandboxes.
    pub fn retire(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.phase = InstancePhase::Retiring;
        }
    }

    /// Forgets an instance; what was in it.
    pub fn remove(&mut self, id: InstanceId, now: Instant) -> Vec<(SandboxKey, Sandbox)> {
        let Some(instance) = self.instances.get(&id) else { return Vec::new() };
        let numbers: Vec<_> = instance.sandboxes.keys().copied().collect();
        let gone = numbers
            .into_iter()
            .filter_map(|number| {
                let key = SandboxKey { instance: id, number };
                Some((key, self.ended(key, now)?))
            })
            .collect();
        self.instances.remove(&id);
        gone
    }

    /// Books a new sandbox; its number.
    pub fn start(
        &mut self,
        instance: InstanceId,
        function: FunctionId,
        revision: u64,
        memory_mib: u32,
        now: Instant,
    ) -> Option<SandboxKey> {
        let host = self.instances.get_mut(&instance)?;
        self.next_number += 1;
        let number = self.next_number;
        let state = SandboxState::Starting { since: now };
        host.sandboxes.insert(number, Sandbox { function, revision, memory_mib, state });
        self.counts.entry(function).or_default().starting += 1;
        self.all.starting += 1;
        Some(SandboxKey { instance, number })
    }

    /// A sandbox is ready for its first event.
    pub fn ready(&mut self, key: SandboxKey, now: Instant) -> bool {
        matches!(self.state(key), Some(SandboxState::Starting { .. }))
            && self.set(key, SandboxState::Idle { since: now, used: false })
    }

    /// The ready sandbox of this function and revision that is to be used next.
    #[must_use]
    pub fn idle(&self, function: FunctionId, revision: u64) -> Option<SandboxKey> {
        let ready = self.idle.get(&function)?;
        ready.iter().find(|ready| ready.revision == revision).map(|ready| ready.key)
    }

    /// Gives a ready sandbox an event; whether it had handled one before, none if it was not ready.
    pub fn assign(&mut self, key: SandboxKey, execution: ExecutionId) -> Option<bool> {
        match self.state(key) {
            Some(SandboxState::Idle { used, .. }) => {
                self.set(key, SandboxState::Busy { execution });
                Some(used)
            }
            Some(SandboxState::Starting { .. } | SandboxState::Busy { .. } | SandboxState::Stopping { .. }) | None => {
                None
            }
        }
    }

    /// A sandbox has answered and is ready again.
    pub fn finished(&mut self, key: SandboxKey, now: Instant) -> bool {
        match self.state(key) {
            Some(SandboxState::Busy { .. }) => self.set(key, SandboxState::Idle { since: now, used: true }),
            Some(SandboxState::Stopping { .. }) => self.set(key, SandboxState::Stopping { execution: None }),
            Some(SandboxState::Starting { .. } | SandboxState::Idle { .. }) | None => false,
        }
    }

    /// A sandbox is told to end.
    pub fn stop(&mut self, key: SandboxKey) -> bool {
        let execution = match self.state(key) {
            Some(SandboxState::Busy { execution }) => Some(execution),
            Some(SandboxState::Starting { .. } | SandboxState::Idle { .. }) => None,
            Some(SandboxState::Stopping { .. }) | None => return false,
        };
        self.set(key, SandboxState::Stopping { execution })
    }

    /// A sandbox is gone; what it was.
    pub fn ended(&mut self, key: SandboxKey, now: Instant) -> Option<Sandbox> {
        let instance = self.instances.get_mut(&key.instance)?;
        let sandbox = instance.sandboxes.remove(&key.number)?;
        if instance.sandboxes.is_empty() {
            instance.empty_since = now;
        }
        let place = Place::of(instance);
        self.uncount(key, &place, &sandbox);
        if self.counts.get(&sandbox.function).is_some_and(|counts| counts.total() == 0) {
            self.counts.remove(&sandbox.function);
        }
        Some(sandbox)
    }

    fn set(&mut self, key: SandboxKey, state: SandboxState) -> bool {
        let Some(instance) = self.instances.get_mut(&key.instance) else { return false };
        let Some(sandbox) = instance.sandboxes.get_mut(&key.number) else { return false };
        let before = sandbox.clone();
        sandbox.state = state;
        let after = sandbox.clone();
        let place = Place::of(instance);
        self.uncount(key, &place, &before);
        *self.counts.entry(after.function).or_default().of(state) += 1;
        *self.all.of(state) += 1;
        match state {
            SandboxState::Idle { since, .. } => {
                let ready = Ready { rank: place.rank, since: Reverse(since), key, revision: after.revision };
                self.idle.entry(after.function).or_default().insert(ready);
            }
            SandboxState::Busy { .. } => {
                if let Some(project) = place.project {
                    *self.busy_of_project.entry(project).or_default() += 1;
                }
            }
            SandboxState::Starting { .. } | SandboxState::Stopping { .. } => {}
        }
        true
    }

    fn uncount(&mut self, key: SandboxKey, place: &Place, sandbox: &Sandbox) {
        if let Some(counts) = self.counts.get_mut(&sandbox.function) {
            *counts.of(sandbox.state) -= 1;
        }
        *self.all.of(sandbox.state) -= 1;
        match sandbox.state {
            SandboxState::Idle { since, .. } => {
                if let Some(ready) = self.idle.get_mut(&sandbox.function) {
                    let (rank, since) = (place.rank, Reverse(since));
                    ready.remove(&Ready { rank, since, key, revision: sandbox.revision });
                    if ready.is_empty() {
                        self.idle.remove(&sandbox.function);
                    }
                }
            }
            SandboxState::Busy { .. } => {
                if let Some(project) = &place.project
                    && let Some(busy) = self.busy_of_project.get_mut(project)
                {
                    *busy -= 1;
                    if *busy == 0 {
                        self.busy_of_project.remove(project);
                    }
                }
            }
            SandboxState::Starting { .. } | SandboxState::Stopping { .. } => {}
        }
    }

    fn state(&self, key: SandboxKey) -> Option<SandboxState> {
        Some(self.sandbox(key)?.state)
    }

    /// One sandbox.
    #[must_use]
    pub fn sandbox(&self, key: SandboxKey) -> Option<&Sandbox> {
        self.instances.get(&key.instance)?.sandboxes.get(&key.number)
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, id: InstanceId) -> Option<&FleetInstance> {
        self.instances.get(&id)
    }

    /// All instances.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, &FleetInstance)> {
        self.instances.iter().map(|(id, instance)| (*id, instance))
    }

    /// Sandboxes of a function.
    #[must_use]
    pub fn counts(&self, function: FunctionId) -> Counts {
        self.counts.get(&function).copied().unwrap_or_default()
    }

    /// Functions that have sandboxes.
    pub fn functions(&self) -> impl Iterator<Item = FunctionId> {
        self.counts.keys().copied()
    }

    /// All sandboxes, counted.
    #[must_use]
    pub const fn totals(&self) -> Counts {
        self.all
    }

    /// Executions of a project that run.
    #[must_use]
    pub fn busy_of_project(&self, project: &ProjectId) -> u32 {
        self.busy_of_project.get(project).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn project() -> ProjectId {
        ProjectId::parse("demo").unwrap()
    }

    fn purpose() -> Purpose {
        Purpose { isolation: Isolation::Process, holder: Holder::Project(project()) }
    }

    #[test]
    fn work_gathers_in_the_earliest_instance_so_that_later_ones_become_empty() {
        let now = Instant::now();
        let (mut fleet, function) = (Fleet::default(), FunctionId::generate());
        let instances: Vec<_> = (0..2).map(|_| InstanceId::generate()).collect();
        for id in &instances {
            fleet.book(*id, purpose(), 1024, now);
            fleet.activate(*id, now);
        }
        // The later instance's is the one that was ready last.
        for id in &instances {
            let key = fleet.start(*id, function, 1, 128, now).unwrap();
            fleet.ready(key, now + Duration::from_secs(key.number));
        }
        assert_eq!(fleet.idle(function, 1).unwrap().instance, instances[0]);
    }

    #[test]
    fn an_instance_of_the_pool_is_given_away_once() {
        let now = Instant::now();
        let (mut fleet, id) = (Fleet::default(), InstanceId::generate());
        let holder = Holder::Pool(RuntimeName::parse("python3").unwrap());
        fleet.book(id, Purpose { isolation: Isolation::Vm, holder }, 1024, now);
        let mine = || Holder::Project(project());
        assert!(!fleet.claim(id, mine(), now), "it does not run yet");
        fleet.activate(id, now);
        assert!(fleet.claim(id, mine(), now));
        assert!(!fleet.claim(id, Holder::Project(ProjectId::parse("other").unwrap()), now));
        assert_eq!(fleet.instance(id).unwrap().purpose.holder, mine());
    }

    #[test]
    fn the_sandbox_that_was_used_last_is_used_next() {
        let now = Instant::now();
        let (mut fleet, instance, function) = (Fleet::default(), InstanceId::generate(), FunctionId::generate());
        fleet.book(instance, purpose(), 1024, now);
        assert!(fleet.activate(instance, now).is_some());
        let keys: Vec<_> = (0..3).map(|_| fleet.start(instance, function, 1, 128, now).unwrap()).collect();
        for key in &keys {
            assert!(fleet.ready(*key, now));
        }
        let execution = ExecutionId::generate();
        assert_eq!(fleet.assign(keys[0], execution), Some(false));
        assert!(fleet.finished(keys[0], now + Duration::from_millis(1)));
        assert_eq!(fleet.idle(function, 1), Some(keys[0]));
        assert_eq!(fleet.idle(function, 2), None);
        assert_eq!(fleet.assign(keys[0], execution), Some(true));
        assert_eq!(fleet.busy_of_project(&project()), 1);
    }

    #[test]
    fn a_change_that_does_not_fit_does_nothing() {
        let now = Instant::now();
        let (mut fleet, instance) = (Fleet::default(), InstanceId::generate());
        fleet.book(instance, purpose(), 1024, now);
        let key = fleet.start(instance, FunctionId::generate(), 1, 128, now).unwrap();
        assert!(!fleet.finished(key, now));
        assert_eq!(fleet.assign(key, ExecutionId::generate()), None);
        assert!(fleet.stop(key));
        assert!(!fleet.ready(key, now));
        assert!(!fleet.stop(key));
        assert!(fleet.ended(key, now).is_some());
        assert!(fleet.ended(key, now).is_none());
        assert_eq!(fleet.totals(), Counts::default());
    }

    proptest! {
        #[test]
        fn counts_agree_with_what_is_there(steps in prop::collection::vec((0usize..6, 0usize..8), 0..200)) {
            let now = Instant::now();
            let mut fleet = Fleet::default();
            let instance = InstanceId::generate();
            let functions = [FunctionId::generate(), FunctionId::generate()];
            fleet.book(instance, purpose(), 1 << 20, now);
            let mut keys = Vec::new();
            for (step, which) in steps {
                if step == 0 || keys.is_empty() {
                    keys.extend(fleet.start(instance, functions[which % 2], 1, 64, now));
                    continue;
                }
                let key = keys[which % keys.len()];
                match step {
                    1 => { fleet.ready(key, now); }
                    2 => { fleet.assign(key, ExecutionId::generate()); }
                    3 => { fleet.finished(key, now); }
                    4 => { fleet.stop(key); }
                    _ => { fleet.ended(key, now); }
                }
                let mut expected = Counts::default();
                for sandbox in fleet.instance(instance).unwrap().sandboxes.values() {
                    *expected.of(sandbox.state) += 1;
                }
                prop_assert_eq!(fleet.totals(), expected);
                prop_assert_eq!(fleet.busy_of_project(&project()), expected.busy);
                let ready: usize = functions.iter().filter_map(|f| fleet.idle.get(f)).map(BTreeSet::len).sum();
                prop_assert_eq!(ready, expected.idle as usize);
            }
            let left = fleet.instance(instance).unwrap().sandboxes.len();
            prop_assert_eq!(fleet.remove(instance, now).len(), left);
            prop_assert_eq!(fleet.totals(), Counts::default());
        }
    }
}
