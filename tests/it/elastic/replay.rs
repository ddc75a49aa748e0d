//! Replays arrivals of events through the real dispatcher in virtual time: agents, sandboxes and clouds are played, every
//! decision is the service's own. Tests hold the planner to its promises with it, the benchmarks draw what it did.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lambda_agent::wire::{AttemptMeasures, AttemptRef, HandlerOutcome, Message};
use lambda_openstack::model::execution::{Change, EventSummary, Origin, Start};
use lambda_openstack::model::function::{Environment, FunctionName, Handler, MemoryMib, QueueName, RetryPolicy};
use lambda_openstack::model::instance::Isolation;
use lambda_openstack::model::package::{PackageDigest, PackageRef};
use lambda_openstack::model::runtime::RuntimeName;
use lambda_openstack::model::{
    Execution, ExecutionId, Function, FunctionId, InstanceId, Payload, ProjectId, Timestamp, WorkerId,
};
use lambda_openstack::scheduler::history::KeepAlive;
use lambda_openstack::scheduler::offer::{Offer, Offers, Sharing};
use lambda_openstack::scheduler::plan::Limits;
use lambda_openstack::scheduler::retry::Backoff;
use lambda_openstack::telemetry::metrics::Metrics;
use lambda_openstack::worker::dispatch::{Desk, Effect, Event, IsolationRules, Moment, Options, Work};
use lambda_openstack::worker::record::Record;

/// One function of a trace.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its project.
    pub project: String,
    /// How long one of its events takes.
    pub service_time: Duration,
    /// Memory of one sandbox, in MiB.
    pub memory_mib: u32,
}

/// What arrives: when, counted from the beginning, and for which function.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The functions.
    pub functions: Vec<Subject>,
    /// The arrivals, in order.
    pub arrivals: Vec<(Duration, usize)>,
    /// How long it is watched after the last arrival.
    pub rest: Duration,
}

/// How the played cloud behaves.
#[derive(Clone, Copy, Debug)]
pub struct Cloud {
    /// From the order of an instance to its agent's call.
    pub boot: Duration,
    /// From the order of a sandbox to its readiness.
    pub start: Duration,
    /// From the order to end until it is gone.
    pub end: Duration,
    /// How often the dispatcher is told that time has passed.
    pub tick: Duration,
    /// How often what there is gets noted down.
    pub sample: Duration,
}

impl Default for Cloud {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(2),
            start: Duration::from_millis(20),
            end: Duration::from_millis(5),
            tick: Duration::from_millis(100),
            sample: Duration::from_secs(1),
        }
    }
}

/// What there was at one moment, and what arrived since the one before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    /// Events that arrived.
    pub arrived: u32,
    /// Events that waited for a sandbox.
    pub waiting: u32,
    /// Events that were handled.
    pub running: u32,
    /// Sandboxes in any state.
    pub sandboxes: u32,
    /// Instances in any state.
    pub instances: u32,
}

/// What became of a trace.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What there was.
    pub samples: Vec<Sample>,
    /// Of each event that was started: its function and how long it had waited.
    pub waits: Vec<(usize, Duration)>,
    /// Events that were the first of their sandbox and had to wait for it.
    pub cold: usize,
    /// Events that were handled to the end.
    pub finished: usize,
    /// Sandboxes that were started.
    pub starts: usize,
    /// Sandboxes that were stopped.
    pub stops: usize,
    /// Instances that were booted.
    pub boots: usize,
    /// Seconds of all sandboxes together, times their memory, in GiB.
    pub sandbox_gib_seconds: f64,
    /// Most events of one function at the same time.
    pub most_of_one: u32,
    /// Most events at the same time.
    pub most: u32,
}

/// Options of a worker as it is installed, for one driver on these terms.
pub fn options(offer: Offer, isolation: Isolation, max_running: u32, keep_alive: KeepAlive) -> Options {
    Options {
        limits: Limits {
            starting: 4,
            keep_alive,
            instance_keep_alive: Duration::from_secs(60),
            offers: Offers::new([(isolation, offer)]),
            target_wait: Duration::from_millis(50),
        },
        pools: Vec::new(),
        max_running,
        max_running_per_project: max_running,
        max_sandboxes_per_function: max_running,
        init_timeout: Duration::from_secs(10),
        isolation: IsolationRules::default(),
        log_limit_bytes: 1 << 20,
        backoff: Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) },
        dead_letter_queue: QueueName::parse("dead").unwrap(),
    }
}

/// Containers of one project each, as many as there is memory for.
pub const CONTAINERS: Offer = Offer {
    sharing: Sharing::Project,
    memory_mib: 1024,
    memory_max_mib: 8192,
    instances: 64,
    booting: 8,
    boot_timeout: Duration::from_secs(90),
};

/// What is due.
enum Due {
    Arrival(usize),
    Up(InstanceId),
    Gone(InstanceId),
    Ready(InstanceId, u64),
    Ended(InstanceId, u64),
    Answer(InstanceId, u64, AttemptRef),
    Tick,
    Sample,
}

struct Player {
    desk: Desk,
    cloud: Cloud,
    began: Moment,
    now: Duration,
    /// What is due when; the second number keeps the order of what is due at the same moment.
    due: BinaryHeap<Reverse<(Duration, u64)>>,
    acts: HashMap<u64, Due>,
    next: u64,
    functions: Vec<Arc<Function>>,
    subjects: HashMap<FunctionId, (usize, Duration)>,
    arrived_at: HashMap<ExecutionId, Duration>,
    subject_of: HashMap<ExecutionId, usize>,
    sandboxes: BTreeMap<(InstanceId, u64), (u32, Duration)>,
    running_of: HashMap<usize, u32>,
    executing: HashMap<(InstanceId, u64), usize>,
    arrived: u32,
    me: WorkerId,
    outcome: Outcome,
}

/// Replays a trace until its end.
pub fn replay(trace: &Trace, options: Options, cloud: Cloud) -> Outcome {
    let me = WorkerId::generate();
    let began = Moment { instant: Instant::now(), wall: Timestamp::from_millis(1_700_000_000_000) };
    let functions: Vec<_> =
        trace.functions.iter().enumerate().map(|(n, subject)| function(n, subject, began)).collect();
    let subjects = functions.iter().enumerate().map(|(n, f)| (f.id, (n, trace.functions[n].service_time))).collect();
    let mut player = Player {
        desk: Desk::new(me, options, Metrics::new("replay"), began.instant),
        cloud,
        began,
        now: Duration::ZERO,
        due: BinaryHeap::new(),
        acts: HashMap::new(),
        next: 0,
        functions,
        subjects,
        arrived_at: HashMap::new(),
        subject_of: HashMap::new(),
        sandboxes: BTreeMap::new(),
        running_of: HashMap::new(),
        executing: HashMap::new(),
        arrived: 0,
        me,
        outcome: Outcome::default(),
    };
    for (at, subject) in &trace.arrivals {
        player.at(*at, Due::Arrival(*subject));
    }
    let end = trace.arrivals.last().map_or(Duration::ZERO, |(at, _)| *at) + trace.rest;
    player.at(cloud.tick, Due::Tick);
    player.at(Duration::ZERO, Due::Sample);
    player.run(end);
    player.outcome
}

fn function(n: usize, subject: &Subject, now: Moment) -> Arc<Function> {
    Arc::new(Function {
        id: FunctionId::generate(),
        project_id: ProjectId::parse(&subject.project).unwrap(),
        name: FunctionName::parse(&format!("f{n}")).unwrap(),
        description: String::new(),
        runtime: RuntimeName::parse("python3").unwrap(),
        handler: Handler::parse("main.handler").unwrap(),
        memory: MemoryMib::new(subject.memory_mib).unwrap(),
        timeout: Default::default(),
        environment: Environment::default(),
        max_concurrency: None,
        provisioned_concurrency: None,
        isolation: None,
        retry: RetryPolicy::default(),
        dead_letter_queue: None,
        package: Some(PackageRef { sha256: PackageDigest::of(b"x"), size: 1 }),
        revision: 1,
        created_at: now.wall,
        updated_at: now.wall,
    })
}

impl Player {
    fn at(&mut self, at: Duration, act: Due) {
        self.next += 1;
        self.acts.insert(self.next, act);
        self.due.push(Reverse((at, self.next)));
    }

    fn after(&mut self, time: Duration, act: Due) {
        self.at(self.now + time, act);
    }

    fn moment(&self) -> Moment {
        Moment { instant: self.began.instant + self.now, wall: self.began.wall + self.now }
    }

    fn run(&mut self, end: Duration) {
        while let Some(Reverse((at, id))) = self.due.pop() {
            if at > end {
                break;
            }
            self.now = at;
            if let Some(act) = self.acts.remove(&id) {
                self.act(act);
            }
        }
        for (memory_mib, since) in std::mem::take(&mut self.sandboxes).into_values() {
            self.used(memory_mib, since);
        }
    }

    fn used(&mut self, memory_mib: u32, since: Duration) {
        self.outcome.sandbox_gib_seconds += (self.now - since).as_secs_f64() * f64::from(memory_mib) / 1024.0;
    }

    fn act(&mut self, act: Due) {
        match act {
            Due::Arrival(subject) => {
                self.arrived += 1;
                let work = self.work(subject);
                self.tell(Event::Work(vec![work]));
            }
            Due::Up(id) => self.tell(Event::AgentReady(id)),
            Due::Gone(id) => {
                let gone: Vec<_> = self.sandboxes.keys().filter(|(instance, _)| *instance == id).copied().collect();
                for key in gone {
                    self.ended(key);
                }
                self.tell(Event::InstanceGone(id));
            }
            Due::Ready(instance, sandbox) => {
                if self.sandboxes.contains_key(&(instance, sandbox)) {
                    let ready = Message::SandboxReady { sandbox, init_us: 1000, package_us: 0 };
                    self.tell(Event::Agent(instance, ready, Bytes::new()));
                }
            }
            Due::Ended(instance, sandbox) => {
                self.ended((instance, sandbox));
                let measures = AttemptMeasures::default();
                let ended = Message::SandboxEnded { sandbox, execution: None, failure: None, measures };
                self.tell(Event::Agent(instance, ended, Bytes::new()));
            }
            Due::Answer(instance, sandbox, execution) => self.answer(instance, sandbox, execution),
            Due::Tick => {
                let (mut effects, now) = (Vec::new(), self.moment());
                self.desk.tick(now, &mut effects);
                self.desk.advance(now, &mut effects);
                self.carry_out(effects);
                self.after(self.cloud.tick, Due::Tick);
            }
            Due::Sample => {
                let load = self.desk.load();
                self.outcome.samples.push(Sample {
                    at: self.now,
                    arrived: std::mem::take(&mut self.arrived),
                    waiting: load.waiting,
                    running: load.running,
                    sandboxes: load.sandboxes,
                    instances: load.instances,
                });
                self.after(self.cloud.sample, Due::Sample);
            }
        }
    }

    fn work(&mut self, subject: usize) -> Work {
        let function = Arc::clone(&self.functions[subject]);
        let id = ExecutionId::generate();
        let (payload, event) = (Payload::from_value(&serde_json::Value::Null), EventSummary::default());
        let mut execution =
            Execution::receive(id, &function, Origin::AsyncInvocation, event, payload, self.moment().wall);
        execution.apply(Change::Own { worker: self.me }).unwrap();
        self.arrived_at.insert(id, self.now);
        self.subject_of.insert(id, subject);
        Work { execution, function, place: None, call: None, recorded: true }
    }

    fn answer(&mut self, instance: InstanceId, sandbox: u64, execution: AttemptRef) {
        let Some(subject) = self.executing.remove(&(instance, sandbox)) else { return };
        *self.running_of.entry(subject).or_default() -= 1;
        self.outcome.finished += 1;
        self.subject_of.remove(&execution.execution.parse().unwrap());
        let took = self.subjects[&self.functions[subject].id].1;
        let duration_us = u64::try_from(took.as_micros()).unwrap();
        let measures = AttemptMeasures { duration_us, ..AttemptMeasures::default() };
        let result = Message::Result { sandbox, execution, outcome: HandlerOutcome::Returned, measures };
        self.tell(Event::Agent(instance, result, Bytes::from_static(b"null")));
    }

    fn ended(&mut self, key: (InstanceId, u64)) {
        if let Some((memory_mib, since)) = self.sandboxes.remove(&key) {
            self.outcome.stops += 1;
            self.used(memory_mib, since);
        }
        if let Some(subject) = self.executing.remove(&key) {
            *self.running_of.entry(subject).or_default() -= 1;
        }
    }

    fn tell(&mut self, event: Event) {
        let (mut effects, now) = (Vec::new(), self.moment());
        self.desk.handle(event, now, &mut effects);
        self.desk.advance(now, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(instance, message, _) => self.sent(instance, *message),
                Effect::Boot(boot) => {
                    self.outcome.boots += 1;
                    self.after(self.cloud.boot, Due::Up(boot.id));
                }
                Effect::Delete(id) => self.after(self.cloud.end, Due::Gone(id)),
                Effect::Record(record) => {
                    if let Record::Change(write) = *record {
                        self.noted(&write.next);
                    }
                }
                Effect::LookUp(id) => {
                    let found = self.subjects.get(&id).map(|(n, _)| Arc::clone(&self.functions[*n]));
                    self.tell(Event::Function(id, found));
                }
                Effect::Claim(..) | Effect::Reply(..) => {}
            }
        }
    }

    /// The record of an execution changed: the first change that has a start is the start.
    fn noted(&mut self, execution: &Execution) {
        let Some(arrived) = self.arrived_at.remove(&execution.id) else { return };
        let Some(start) = execution.start else {
            self.arrived_at.insert(execution.id, arrived);
            return;
        };
        let waited = self.now - arrived;
        self.outcome.waits.push((self.subjects[&execution.function_id].0, waited));
        self.outcome.cold += usize::from(start == Start::Cold && waited >= self.cloud.start);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there may be, the dispatcher does not say it")]
    fn sent(&mut self, instance: InstanceId, message: Message) {
        match message {
            Message::StartSandbox { sandbox, spec } => {
                self.outcome.starts += 1;
                self.sandboxes.insert((instance, sandbox), (spec.memory_mib, self.now));
                self.after(self.cloud.start, Due::Ready(instance, sandbox));
            }
            Message::StopSandbox { sandbox } => self.after(self.cloud.end, Due::Ended(instance, sandbox)),
            Message::Invoke { sandbox, invocation } => {
                let id: ExecutionId = invocation.execution.execution.parse().unwrap();
                let subject = self.subject_of[&id];
                self.runs(subject, instance, sandbox);
                let took = self.subjects[&self.functions[subject].id].1;
                self.after(took, Due::Answer(instance, sandbox, invocation.execution));
            }
            other => panic!("the dispatcher says {other:?} to an agent"),
        }
    }

    fn runs(&mut self, subject: usize, instance: InstanceId, sandbox: u64) {
        self.executing.insert((instance, sandbox), subject);
        let running = self.running_of.entry(subject).or_default();
        *running += 1;
        self.outcome.most_of_one = self.outcome.most_of_one.max(*running);
        let all = u32::try_from(self.executing.len()).unwrap();
        self.outcome.most = self.outcome.most.max(all);
    }
}
