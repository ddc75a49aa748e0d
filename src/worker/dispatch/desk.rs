//! The dispatcher's mind: what waits, what runs, what the fleet looks like. Every event is handled by plain code that
//! leaves [`Effect`]s; nothing here waits for anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lambda_agent::wire::Message;
use tokio::sync::oneshot;

use super::foresight::Foresight;
use super::log::LogBuffer;
use super::update::{Previous, Update};
use super::{BootFailure, Effect, Event, Load, Moment, Options, Work};
use crate::model::execution::WaitingFor;
use crate::model::time::Millis;
use crate::model::{ExecutionId, Function, FunctionId, InstanceId, WorkerId};
use crate::scheduler::fair::FairQueue;
use crate::scheduler::fleet::{Fleet, Holder, InstancePhase, Purpose, SandboxKey};
use crate::telemetry::metrics::Metrics;

/// Longest pause after boots that failed.
const BOOT_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often functions with work or sandboxes are looked up again, in case that the announcement of a change was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// So many of them each time, those that were looked up longest ago.
const LOOK_AGAIN_AT: usize = 64;
/// How often the log of a running attempt is written.
const LOG_FLUSH: Duration = Duration::from_millis(500);

/// The state of the dispatcher.
pub struct Desk {
    pub(super) me: WorkerId,
    pub(super) options: Options,
    pub(super) queue: FairQueue<Work>,
    pub(super) fleet: Fleet,
    pub(super) running: HashMap<SandboxKey, Running>,
    pub(super) functions: HashMap<FunctionId, Known>,
    pub(super) starts: HashMap<SandboxKey, StartNotes>,
    pub(super) boots: HashMap<Purpose, BootTrouble>,
    pub(super) metrics: Metrics,
    pub(super) live: Vec<WorkerId>,
    pub(super) foresight: Foresight,
    /// Changes that somebody waits for.
    pub(super) updates: HashMap<FunctionId, Update>,
    /// Functions with provisioned concurrency: known here though they may have no work.
    pub(super) provisioned: HashSet<FunctionId>,
    may_start: bool,
    draining: bool,
    looked: Instant,
    /// Whether something has happened, or time has passed, that may ask for another plan though nothing waits.
    plan_is_due: bool,
}

/// An execution that a sandbox has.
pub(super) struct Running {
    pub work: Work,
    pub log: LogBuffer,
    pub log_flushed: Instant,
    pub init: Option<Millis>,
    pub cancel: Option<oneshot::Sender<bool>>,
    pub handed_back: bool,
}

/// A function that has work or sandboxes here.
pub(super) struct Known {
    /// As it is now.
    pub function: Arc<Function>,
    /// As it was before, while that still takes events.
    pub previous: Option<Previous>,
    pub deleted: bool,
    /// When it was last looked up, or met with work.
    pub looked_up: Instant,
    pub trouble: Option<StartTrouble>,
}

/// That sandboxes of one revision do not start.
pub(super) struct StartTrouble {
    pub revision: u64,
    pub until: Instant,
    pub pause: Duration,
}

/// What a sandbox said while it started.
#[derive(Default)]
pub(super) struct StartNotes {
    pub log: LogBuffer,
    pub init: Option<Millis>,
}

/// That boots for one purpose fail.
pub(super) struct BootTrouble {
    pub failure: BootFailure,
    pub until: Instant,
    pub pause: Duration,
}

impl Desk {
    /// A desk with nothing on it.
    #[must_use]
    pub fn new(me: WorkerId, options: Options, metrics: Metrics, now: Instant) -> Self {
        let foresight = Foresight::new(options.limits.keep_alive, options.pools.clone());
        Self {
            me,
            options,
            queue: FairQueue::default(),
            fleet: Fleet::default(),
            running: HashMap::new(),
            functions: HashMap::new(),
            starts: HashMap::new(),
            boots: HashMap::new(),
            metrics,
            live: vec![me],
            foresight,
            updates: HashMap::new(),
            provisioned: HashSet::new(),
            may_start: true,
            draining: false,
            looked: now,
            plan_is_due: true,
        }
    }

    /// What others may know.
    #[must_use]
    pub fn load(&self) -> Load {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Load {
            waiting: count(self.queue.len()),
            running: count(self.running.len()),
            sandboxes: self.fleet.totals().total(),
            instances: count(self.fleet.instances().count()),
        }
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event, now: Moment, effects: &mut Vec<Effect>) {
        // What agents say and what arrives asks for a plan only while something waits, which is looked at anyway; and of
        // the functions that are looked up, hardly one has changed.
        self.plan_is_due |= !matches!(event, Event::Work(_) | Event::Agent(..) | Event::Function(..));
        match event {
            Event::Work(works) => {
                for work in works {
                    self.take(work, now, effects);
                }
            }
            Event::AgentReady(instance) => self.instance_is_up(instance, now),
            Event::Agent(instance, message, body) => self.hear(instance, message, body, now, effects),
            Event::InstanceLost(instance, text) if self.is_booting(instance) => {
                tracing::error!(instance.id = %instance, text, "instance {instance} did not come up: {text}");
                self.boot_failed(instance, BootFailure { waiting_for: WaitingFor::Cloud, text }, now, effects);
            }
            Event::InstanceLost(instance, why) => {
                tracing::warn!(instance.id = %instance, why, "instance {instance} is lost: {why}");
                self.lose_instance(instance, &why, now, effects);
                effects.push(Effect::Delete(instance));
            }
            Event::BootFailed(instance, failure) => {
                let why = failure.text.as_str();
                tracing::error!(instance.id = %instance, why, "instance {instance} could not be booted: {why}");
                self.boot_failed(instance, failure, now, effects);
            }
            Event::InstanceGone(instance) => {
                self.lose_instance(instance, "it was deleted", now, effects);
            }
            Event::Cancel(execution, reply) => self.cancel(execution, reply, now, effects),
            Event::FunctionChanged(id, served) => {
                if self.functions.contains_key(&id) {
                    if let Some(served) = served {
                        self.tell_when_served(id, served);
                    }
                    effects.push(Effect::LookUp(id));
                }
            }
            Event::Function(id, function) => self.learn(id, function, now, effects),
            Event::Provisioned(functions) => self.provision(functions, now, effects),
            Event::LiveWorkers(live) => self.live = live,
            Event::MayStart(may) => {
                if self.may_start != may {
                    tracing::warn!(may, "starting executions is {}", if may { "allowed again" } else { "suspended" });
                }
                self.may_start = may;
            }
            Event::Drain => {
                self.draining = true;
                for work in self.queue.drain_where(|_| true) {
                    self.hand_back_waiting(work, now, effects);
                }
            }
            Event::HandBack => self.hand_back_running(effects),
            Event::Options(options) => {
                self.foresight.bound(options.limits.keep_alive);
                self.options = options;
            }
        }
    }

    fn instance_is_up(&mut self, instance: InstanceId, now: Moment) {
        let Some(took) = self.fleet.activate(instance, now.instant) else { return };
        let Some(host) = self.fleet.instance(instance) else { return };
        self.boots.remove(&host.purpose);
        if let Holder::Pool(runtime) = &host.purpose.holder {
            self.foresight.instance_booted(host.purpose.isolation, runtime, took);
        }
    }

    fn take(&mut self, work: Work, now: Moment, effects: &mut Vec<Effect>) {
        if self.draining {
            self.hand_back_waiting(work, now, effects);
            return;
        }
        let function = Arc::clone(&work.function);
        let work = match self.refuse_what_cannot_run(work, now, effects) {
            Some(work) => work,
            None => return,
        };
        match self.functions.get_mut(&function.id) {
            Some(known) if known.function.revision < function.revision => {
                // Whoever sent this event has met the change already: nothing runs the old code any more.
                known.function = Arc::clone(&function);
                known.previous = None;
            }
            Some(_) => {}
            None => {
                self.functions.insert(function.id, Known::new(Arc::clone(&function), now.instant));
            }
        }
        self.foresight.arrived(function.id, now.instant);
        self.queue.push(&function.project_id, function.id, work);
    }

    fn learn(&mut self, id: FunctionId, function: Option<Arc<Function>>, now: Moment, effects: &mut Vec<Effect>) {
        let Some(known) = self.functions.get_mut(&id) else {
            // It has nothing here yet, but its next event is expected.
            if let Some(function) = function
                && self.foresight.expected(id, now.instant) > 0
                && function.package.is_some()
            {
                self.functions.insert(id, Known::new(function, now.instant));
                self.plan_is_due = true;
            }
            return;
        };
        known.looked_up = now.instant;
        match function {
            Some(function) => {
                known.deleted = false;
                if known.function.revision < function.revision {
                    self.revise(function, now);
                    self.plan_is_due = true;
                }
                self.update_is_known(id);
            }
            None => {
                known.deleted = true;
                known.previous = None;
                self.plan_is_due = true;
                self.updates.remove(&id);
                let project = known.function.project_id.clone();
                for work in self.queue.drain_function(&project, id) {
                    self.function_deleted(work, now, effects);
                }
            }
        }
    }

    /// What time brings by itself.
    pub fn tick(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.give_up_what_waited_too_long(now, effects);
        self.boots_that_take_too_long(now, effects);
        for (key, running) in &mut self.running {
            let due = now.instant.saturating_duration_since(running.log_flushed) >= LOG_FLUSH;
            if due && running.work.recorded {
                running.log_flushed = now.instant;
                let execution = &running.work.execution;
                if let Some(chunk) = running.log.take(execution.id, &execution.project_id, execution.attempt, false) {
                    tracing::trace!(sandbox = key.number, "a part of a running attempt's log is written");
                    effects.push(Effect::Record(Box::new(super::Record::Log(chunk))));
                }
            }
        }
        if now.instant.saturating_duration_since(self.looked) >= LOOK_AGAIN {
            self.looked = now.instant;
            let waiting = self.queue.functions().map(|(_, function, _)| function);
            let due = self.foresight.due(now.instant);
            let with_work: HashSet<FunctionId> =
                waiting.chain(self.fleet.functions()).chain(due).chain(self.provisioned.iter().copied()).collect();
            self.functions.retain(|id, _| with_work.contains(id));
            let looked_up = |id: &FunctionId| self.functions.get(id).map(|known| known.looked_up);
            let mut again: Vec<_> = with_work.into_iter().map(|id| (looked_up(&id), id)).collect();
            again.sort_unstable();
            effects.extend(again.into_iter().take(LOOK_AGAIN_AT).map(|(_, id)| Effect::LookUp(id)));
        }
        self.plan_is_due = true;
        self.observe();
    }

    fn observe(&self) {
        let load = self.load();
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        self.metrics.set_executions(count(load.running), count(load.waiting));
        self.metrics.set_fleet(count(load.instances), count(load.sandboxes));
    }

    /// Moves everything on that can be moved on now.
    pub fn advance(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.finish_updates(now);
        if self.is_open() {
            self.assign(now, effects);
        }
        if std::mem::take(&mut self.plan_is_due) || !self.queue.is_empty() {
            self.carry_plan(now, effects);
        }
    }

    /// Whether anything may be started here.
    pub(super) fn is_open(&self) -> bool {
        self.may_start && !self.draining
    }

    fn hear(&mut self, instance: InstanceId, message: Message, body: Bytes, now: Moment, effects: &mut Vec<Effect>) {
        match message {
            Message::SandboxReady { sandbox, init_us, package_us } => {
                let key = SandboxKey { instance, number: sandbox };
                if self.fleet.ready(key, now.instant) {
                    let init = Duration::from_micros(init_us + package_us);
                    self.metrics.init(init);
                    self.starts.entry(key).or_default().init = Some(init.into());
                    self.start_went_well(key);
                }
            }
            Message::Log { sandbox, execution, stream, at_ms } => {
                let key = SandboxKey { instance, number: sandbox };
                self.keep_log(key, execution, stream, at_ms, &body, effects);
            }
            Message::Result { sandbox, execution, outcome, measures } => {
                let key = SandboxKey { instance, number: sandbox };
                self.answered(key, &execution, outcome, measures, body, now, effects);
            }
            Message::SandboxEnded { sandbox, execution: _, failure, measures } => {
                let key = SandboxKey { instance, number: sandbox };
                self.ended(key, failure, measures, now, effects);
            }
            Message::Hello { .. }
            | Message::HelloCaller { .. }
            | Message::Welcome { .. }
            | Message::Refused { .. }
            | Message::Ack
            | Message::Ping
            | Message::StartSandbox { .. }
            | Message::Invoke { .. }
            | Message::StopSandbox { .. }
            | Message::PackagePiece { .. }
            | Message::PackageMissing { .. }
            | Message::Shutdown
            | Message::FetchPackage { .. }
            | Message::Call { .. }
            | Message::CallDone { .. }
            | Message::Cancel { .. }
            | Message::Cancelled { .. }
            | Message::FunctionChanged { .. }
            | Message::FunctionServed { .. }
            | Message::Nudge => {
                tracing::warn!(instance.id = %instance, "agent {instance} said something that is not its to say");
            }
        }
    }

    fn is_booting(&self, instance: InstanceId) -> bool {
        self.fleet.instance(instance).is_some_and(|host| matches!(host.phase, InstancePhase::Booting { .. }))
    }

    fn boot_failed(&mut self, instance: InstanceId, failure: BootFailure, now: Moment, effects: &mut Vec<Effect>) {
        // Of several that fail together, only the first makes the pause longer.
        if let Some(host) = self.fleet.instance(instance)
            && self.boots.get(&host.purpose).is_none_or(|trouble| trouble.until <= now.instant)
        {
            let purpose = host.purpose.clone();
            self.metrics.boot_failed(purpose.isolation, failure.waiting_for);
            let pause = self.boots.get(&purpose).map_or(Duration::from_secs(1), |trouble| trouble.pause * 2);
            let pause = pause.min(BOOT_PAUSE_MAX);
            self.boots.insert(purpose, BootTrouble { failure, until: now.instant + pause, pause });
        }
        self.lose_instance(instance, "it could not be booted", now, effects);
        effects.push(Effect::Delete(instance));
    }

    fn boots_that_take_too_long(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let offers = &self.options.limits.offers;
        let late: Vec<_> = self
            .fleet
            .instances()
            .filter(|(_, host)| match host.phase {
                InstancePhase::Booting { since } => {
                    let patience =
                        offers.terms(host.purpose.isolation).map_or(Duration::ZERO, |offer| offer.boot_timeout);
                    now.instant.saturating_duration_since(since) >= patience
                }
                InstancePhase::Active | InstancePhase::Retiring => false,
            })
            .map(|(id, _)| id)
            .collect();
        for id in late {
            let text = "its agent has not called in time".to_owned();
            tracing::error!(instance.id = %id, "instance {id} was booted, but {text}");
            self.boot_failed(id, BootFailure { waiting_for: WaitingFor::Cloud, text }, now, effects);
        }
    }

    fn cancel(&mut self, execution: ExecutionId, reply: oneshot::Sender<bool>, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(work) = self.queue.drain_where(|work| work.execution.id == execution).pop() {
            self.cancelled(work, LogBuffer::default(), now, effects);
            // A caller that went away does not want its answer.
            let _ = reply.send(true);
            return;
        }
        let key = self.running.iter().find(|(_, running)| running.work.execution.id == execution).map(|(key, _)| *key);
        match key.and_then(|key| Some((key, self.running.get_mut(&key)?))) {
            Some((key, running)) => {
                running.cancel = Some(reply);
                self.stop(key, effects);
            }
            None => {
                let _ = reply.send(false);
            }
        }
    }

    pub(super) fn stop(&mut self, key: SandboxKey, effects: &mut Vec<Effect>) {
        if self.fleet.stop(key) {
            effects.push(Effect::Send(
                key.instance,
                Box::new(Message::StopSandbox { sandbox: key.number }),
                Bytes::new(),
            ));
        }
    }

    fn hand_back_running(&mut self, effects: &mut Vec<Effect>) {
        let keys: Vec<_> = self.running.keys().copied().collect();
        for key in keys {
            if let Some(running) = self.running.get_mut(&key) {
                running.handed_back = true;
            }
            self.stop(key, effects);
        }
    }
}
