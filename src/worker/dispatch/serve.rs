//! Giving waiting work to ready sandboxes, and having sandboxes and instances made for what still waits.

use std::collections::HashSet;

use bytes::Bytes;
use lambda_agent::wire::{AttemptRef, Invocation, Message, RuntimeKind, SandboxSpec};

use super::desk::{Desk, Known, Running, StartNotes};
use super::log::LogBuffer;
use super::{Boot, Effect, Moment, Options, Record, Work};
use crate::model::execution::{Change, Start};
use crate::model::runtime::{Runtime, RuntimeKind as ModelRuntimeKind};
use crate::model::{Function, FunctionId, InstanceId, WorkerId};
use crate::scheduler::fleet::{Holder, SandboxKey};
use crate::scheduler::plan::{Action, Demand, Observed, Standing, plan};
use crate::scheduler::share;

impl Desk {
    /// Gives waiting work to ready sandboxes, in turn over projects and functions.
    pub(super) fn assign(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        while self.fleet.totals().busy < self.options.max_running {
            let Self { queue, fleet, functions, options, me, live, .. } = self;
            let next = queue.pop_if(
                |project| fleet.busy_of_project(project) < options.max_running_per_project,
                |id| {
                    functions.get(&id).is_some_and(|known| {
                        known.ready(fleet).is_some()
                            && fleet.counts(id).busy < limit(&known.function, *me, live, options)
                    })
                },
            );
            let Some(work) = next else { return };
            let id = work.execution.function_id;
            let ready = self.functions.get(&id).and_then(|known| known.ready(&self.fleet));
            match ready {
                Some(key) => self.give(work, key, now, effects),
                None => return,
            }
        }
    }

    /// Gives one event to one ready sandbox.
    fn give(&mut self, mut work: Work, key: SandboxKey, now: Moment, effects: &mut Vec<Effect>) {
        let id = work.execution.function_id;
        if let Some(known) = self.functions.get(&id)
            && let Some(sandbox) = self.fleet.sandbox(key)
        {
            work.function = std::sync::Arc::clone(known.of(sandbox.revision));
        }
        let ready_at = self.ready_at(key, now);
        let Some(used) = self.fleet.assign(key, work.execution.id) else { return };
        let StartNotes { log, init } = self.starts.remove(&key).unwrap_or_default();
        // A sandbox that was ready before the event came cost it no start, whether it has served before or not.
        let is_warm = used || ready_at.is_some_and(|ready_at| ready_at < work.execution.received_at);
        let start = if is_warm { Start::Warm } else { Start::Cold };
        let expected = work.execution.fence();
        let waiting_since = work.execution.received_at;
        let change = Change::Start { at: now.wall, revision: work.function.revision, start, instance: key.instance };
        if let Err(illegal) = work.execution.apply(change) {
            tracing::error!(execution.id = %work.execution.id, error = %illegal, "an execution cannot be started: {illegal}");
            self.stop(key, effects);
            return;
        }
        self.metrics.started(start, now.wall.since(waiting_since));
        effects.push(Effect::Record(Box::new(self.written(&mut work, expected))));
        let execution = AttemptRef { execution: work.execution.id.to_string(), attempt: work.execution.attempt };
        let timeout_ms = u64::from(work.function.timeout.get()) * 1000;
        let invocation = Invocation { execution, timeout_ms, content_type: None };
        let body = work.execution.payload.bytes().clone();
        let message = Box::new(Message::Invoke { sandbox: key.number, invocation });
        effects.push(Effect::Send(key.instance, message, body));
        let mut attempt_log = LogBuffer::default();
        attempt_log.prepend(log);
        let running = Running {
            work,
            log: attempt_log,
            log_flushed: now.instant,
            init: if is_warm { None } else { init },
            cancel: None,
            handed_back: false,
        };
        self.running.insert(key, running);
    }

    /// What the store is told of work as it is now: its first record, or a change of the one it has.
    pub(super) fn written(&self, work: &mut Work, expected: crate::model::execution::Fence) -> Record {
        let next = work.execution.clone();
        if std::mem::replace(&mut work.recorded, true) {
            Record::Change(crate::store::ExecutionWrite { expected, next })
        } else {
            Record::New(next)
        }
    }

    /// Has made what is missing, has stopped what is not needed.
    pub(super) fn carry_plan(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Self { boots, queue, .. } = self;
        boots.retain(|purpose, trouble| {
            // Kept for as long as the pause could still grow.
            now.instant < trouble.until + trouble.pause * 2
                || queue.functions().any(|(project, _, _)| Some(project) == purpose.holder.project())
        });
        let no_boot: HashSet<_> = self
            .boots
            .iter()
            .filter(|(_, trouble)| now.instant < trouble.until)
            .map(|(purpose, _)| purpose.clone())
            .collect();
        let demands = self.demands(now);
        let standings = self
            .functions
            .iter()
            .filter(|(_, known)| !known.deleted)
            .map(|(id, known)| {
                let keep_alive = self.foresight.keep_alive(*id);
                let previous = known.previous_revision();
                (*id, Standing { revision: known.function.revision, previous, keep_alive })
            })
            .collect();
        // A worker that may not start anything lets its pools go too.
        let pools = if self.is_open() { self.foresight.pools(now.instant) } else { Vec::new() };
        let observed = Observed {
            fleet: &self.fleet,
            demands: &demands,
            standings: &standings,
            pools: &pools,
            no_boot: &no_boot,
            limits: &self.options.limits,
        };
        for action in plan(&observed, now.instant) {
            match action {
                Action::Start { instance, function } => self.start(instance, function, now, effects),
                Action::Stop(key) => self.stop(key, effects),
                Action::Claim { instance, holder } => self.claim(instance, holder, now, effects),
                Action::Boot { purpose, runtime, memory_mib } => {
                    let id = InstanceId::generate();
                    if purpose.holder.project().is_some() {
                        self.foresight.instance_needed(purpose.isolation, &runtime, now.instant);
                    }
                    self.fleet.book(id, purpose.clone(), memory_mib, now.instant);
                    effects.push(Effect::Boot(Box::new(Boot { id, purpose, runtime, memory_mib })));
                }
                Action::Retire(id) => {
                    self.fleet.retire(id);
                    effects.push(Effect::Delete(id));
                }
            }
        }
    }

    /// What functions need, in the order in which they are served: those with waiting work in turn, then those that are to
    /// be ready ahead of it.
    fn demands(&self, now: Moment) -> Vec<Demand> {
        let mut demands: Vec<_> =
            self.queue.functions().filter_map(|(_, id, waiting)| self.demand(id, waiting, now)).collect();
        if self.is_open() {
            let waiting: HashSet<_> = demands.iter().map(|demand| demand.function).collect();
            let ahead = self.functions.iter().filter(|(id, known)| {
                !waiting.contains(id) && self.provisioned_here(&known.function).max(self.expected(known, now)) > 0
            });
            demands.extend(ahead.filter_map(|(id, _)| self.demand(*id, 0, now)));
        }
        demands
    }

    fn demand(&self, id: FunctionId, waiting: usize, now: Moment) -> Option<Demand> {
        let known = self.functions.get(&id).filter(|known| !known.deleted)?;
        Some(Demand {
            function: id,
            project: known.function.project_id.clone(),
            isolation: self.options.isolation_of(&known.function)?,
            runtime: known.function.runtime.clone(),
            revision: known.function.revision,
            memory_mib: known.function.memory.get(),
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            limit: limit(&known.function, self.me, &self.live, &self.options),
            service_time: self.foresight.service_time(id),
            floor: self.ahead(id, known, self.provisioned_here(&known.function), now.instant),
            expected: self.expected(known, now),
        })
    }

    /// Sandboxes of a function that will soon be needed: by the rate of its events, or to take over from an old revision.
    fn expected(&self, known: &Known, now: Moment) -> u32 {
        let id = known.function.id;
        let wanted = known.to_take_over().max(self.foresight.expected(id, now.instant));
        self.ahead(id, known, wanted, now.instant)
    }

    /// Gives an instance of the pool away.
    fn claim(&mut self, id: InstanceId, holder: Holder, now: Moment, effects: &mut Vec<Effect>) {
        let Some(host) = self.fleet.instance(id) else { return };
        if let Holder::Pool(runtime) = &host.purpose.holder {
            self.foresight.instance_needed(host.purpose.isolation, runtime, now.instant);
        }
        if self.fleet.claim(id, holder.clone(), now.instant) {
            effects.push(Effect::Claim(id, holder));
        }
    }

    fn start(&mut self, instance: InstanceId, id: FunctionId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(known) = self.functions.get(&id) else { return };
        let function = std::sync::Arc::clone(&known.function);
        let Some(spec) = self.sandbox_spec(&function) else { return };
        let memory_mib = function.memory.get();
        if let Some(key) = self.fleet.start(instance, id, function.revision, memory_mib, now.instant) {
            let message = Box::new(Message::StartSandbox { sandbox: key.number, spec });
            effects.push(Effect::Send(instance, message, Bytes::new()));
        }
    }

    /// What an agent is told of a function; none when it has no code or an unknown runtime, which work that is taken on
    /// never has.
    fn sandbox_spec(&self, function: &Function) -> Option<SandboxSpec> {
        let package = function.package?;
        let runtime = match runtime_kind(function)? {
            ModelRuntimeKind::Python => RuntimeKind::Python,
            ModelRuntimeKind::Provided => RuntimeKind::Provided,
        };
        Some(SandboxSpec {
            project: function.project_id.to_string(),
            function: function.id.to_string(),
            function_name: function.name.to_string(),
            revision: function.revision,
            runtime,
            handler: function.handler.to_string(),
            memory_mib: function.memory.get(),
            timeout_ms: u64::from(function.timeout.get()) * 1000,
            init_timeout_ms: u64::try_from(self.options.init_timeout.as_millis()).unwrap_or(u64::MAX),
            environment: function.environment.variables().clone(),
            package_sha256: package.sha256.to_string(),
            package_size: package.size,
            log_limit_bytes: self.options.log_limit_bytes,
        })
    }
}

/// How a function's runtime starts, if the service offers it.
pub(super) fn runtime_kind(function: &Function) -> Option<ModelRuntimeKind> {
    Runtime::built_in().into_iter().find(|runtime| runtime.name == function.runtime).map(|runtime| runtime.kind)
}

/// How many events of a function may run in the worker `me` at the same time.
fn limit(function: &Function, me: WorkerId, live: &[WorkerId], options: &Options) -> u32 {
    let share = function.max_concurrency.map_or(u32::MAX, |limit| share::of_limit(limit.get(), function.id, me, live));
    share.min(options.max_sandboxes_per_function).min(options.max_running)
}
