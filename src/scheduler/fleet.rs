//! What a worker knows of its instances and of the sandboxes in them. Every change of a sandbox's state is a method
//! here; a change that does not fit the state does nothing and says so.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::model::instance::Isolation;
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
    /// The project it belongs to for life.
    pub project: ProjectId,
    /// The one function that it serves; none: any of the project's.
    pub function: Option<FunctionId>,
}

impl Purpose {
    /// Whether an instance for this may hold a sandbox of this function.
    #[must_use]
    pub fn covers(&self, isolation: Isolation, project: &ProjectId, function: FunctionId) -> bool {
        self.isolation == isolation && self.project == *project && self.function.is_none_or(|only| only == function)
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

/// Everything that a worker has booted and started.
#[derive(Debug, Default)]
pub struct Fleet {
    instances: HashMap<InstanceId, FleetInstance>,
    counts: HashMap<FunctionId, Counts>,
    busy_of_project: HashMap<ProjectId, u32>,
    /// Ready sandboxes by function, the last used at the end: taking from there lets the others grow old and go.
    idle: HashMap<FunctionId, Vec<(u64, SandboxKey)>>,
    next_number: u64,
    all: Counts,
}

impl Fleet {
    /// Notes that an instance was asked for.
    pub fn book(&mut self, id: InstanceId, purpose: Purpose, memory_mib: u32, now: Instant) {
        let phase = InstancePhase::Booting { since: now };
        let instance = FleetInstance { purpose, memory_mib, phase, sandboxes: BTreeMap::new(), empty_since: now };
        self.instances.insert(id, instance);
    }

    /// Notes that an instance's agent has called; whether the instance is known and was booting.
    pub fn activate(&mut self, id: InstanceId, now: Instant) -> bool {
        match self.instances.get_mut(&id) {
            Some(instance) if matches!(instance.phase, InstancePhase::Booting { .. }) => {
                instance.phase = InstancePhase::Active;
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

    /// The ready sandbox of this function and revision that was used last.
    #[must_use]
    pub fn idle(&self, function: FunctionId, revision: u64) -> Option<SandboxKey> {
        let ready = self.idle.get(&function)?;
        ready.iter().rev().find(|(of, _)| *of == revision).map(|(_, key)| *key)
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
        let project = instance.purpose.project.clone();
        self.uncount(key, &project, &sandbox);
        if self.counts.get(&sandbox.function).is_some_and(|counts| counts.total() == 0) {
            self.counts.remove(&sandbox.function);
        }
        Some(sandbox)
    }

    fn set(&mut self, key: SandboxKey, state: SandboxState) -> bool {
        let Some(instance) = self.instances.get_mut(&key.instance) else { return false };
        let Some(sandbox) = instance.sandboxes.get_mut(&key.number) else { return false };
        let project = instance.purpose.project.clone();
        let before = sandbox.clone();
        sandbox.state = state;
        let after = sandbox.clone();
        self.uncount(key, &project, &before);
        *self.counts.entry(after.function).or_default().of(state) += 1;
        *self.all.of(state) += 1;
        match state {
            SandboxState::Idle { .. } => {
                self.idle.entry(after.function).or_default().push((after.revision, key));
            }
            SandboxState::Busy { .. } => *self.busy_of_project.entry(project).or_default() += 1,
            SandboxState::Starting { .. } | SandboxState::Stopping { .. } => {}
        }
        true
    }

    fn uncount(&mut self, key: SandboxKey, project: &ProjectId, sandbox: &Sandbox) {
        if let Some(counts) = self.counts.get_mut(&sandbox.function) {
            *counts.of(sandbox.state) -= 1;
        }
        *self.all.of(sandbox.state) -= 1;
        match sandbox.state {
            SandboxState::Idle { .. } => {
                if let Some(ready) = self.idle.get_mut(&sandbox.function) {
                    ready.retain(|(_, other)| *other != key);
                    if ready.is_empty() {
                        self.idle.remove(&sandbox.function);
                    }
                }
            }
            SandboxState::Busy { .. } => {
                if let Some(busy) = self.busy_of_project.get_mut(project) {
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
        Purpose { isolation: Isolation::Process, project: project(), function: None }
    }

    #[test]
    fn the_sandbox_that_was_used_last_is_used_next() {
        let now = Instant::now();
        let (mut fleet, instance, function) = (Fleet::default(), InstanceId::generate(), FunctionId::generate());
        fleet.book(instance, purpose(), 1024, now);
        assert!(fleet.activate(instance, now));
        let keys: Vec<_> = (0..3).map(|_| fleet.start(instance, function, 1, 128, now).unwrap()).collect();
        for key in &keys {
            assert!(fleet.ready(*key, now));
        }
        let execution = ExecutionId::generate();
        assert_eq!(fleet.assign(keys[0], execution), Some(false));
        assert!(fleet.finished(keys[0], now));
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
                let ready: usize = functions.iter().filter_map(|f| fleet.idle.get(f)).map(Vec::len).sum();
                prop_assert_eq!(ready, expected.idle as usize);
            }
            let left = fleet.instance(instance).unwrap().sandboxes.len();
            prop_assert_eq!(fleet.remove(instance, now).len(), left);
            prop_assert_eq!(fleet.totals(), Counts::default());
        }
    }
}
