//! From waiting work to a sandbox and back: one task that owns the worker's queue and its picture of the fleet. Each turn
//! takes an event, lets the [`Desk`] decide, and carries out what it decided.

mod conclude;
mod desk;
mod foresight;
pub mod give_up;
mod log;
mod provisioned;
mod serve;
mod update;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lambda_agent::wire::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::admission::Place;
use super::fleet::FleetHandle;
use super::functions::Functions;
use super::gateway::Gateway;
use super::record::{Record, Recorder};
use crate::clock;
use crate::config::WorkerOptions;
use crate::model::execution::WaitingFor;
use crate::model::function::QueueName;
use crate::model::instance::Isolation;
use crate::model::runtime::RuntimeName;
use crate::model::{Execution, ExecutionId, Function, FunctionId, InstanceId, Invalid, ProjectId, Timestamp, WorkerId};
use crate::scheduler::fleet::{Holder, Purpose};
use crate::scheduler::history::KeepAlive;
use crate::scheduler::plan::Limits;
use crate::scheduler::pool::PoolTerms;
use crate::scheduler::retry::Backoff;
use crate::task::Tasks;
use crate::telemetry::metrics::Metrics;

pub use desk::Desk;

/// How often time itself is an event: idle sandboxes grow old, patience ends, logs are flushed.
const TICK: Duration = Duration::from_millis(100);

/// One execution that this worker has taken on.
#[derive(Debug)]
pub struct Work {
    /// Its record, owned by this worker.
    pub execution: Execution,
    /// The function as it was when the work was taken.
    pub function: Arc<Function>,
    /// Its place in the worker's room; given back when the work leaves.
    pub place: Option<Place>,
    /// For a synchronous call: who waits, and until when a sandbox may be waited for.
    pub call: Option<Call>,
    /// Whether the store has the record already.
    pub recorded: bool,
}

/// A caller that waits.
#[derive(Debug)]
pub struct Call {
    /// Gets the finished record.
    pub reply: oneshot::Sender<Execution>,
    /// When waiting for a sandbox is no use any more.
    pub patience_until: Instant,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Work was taken on.
    Work(Vec<Work>),
    /// An agent has called for the first time.
    AgentReady(InstanceId),
    /// An agent said something.
    Agent(InstanceId, Message, Bytes),
    /// An agent is not expected back: its connection was lost for too long, or its instance has ended.
    InstanceLost(InstanceId, String),
    /// An instance could not be booted.
    BootFailed(InstanceId, BootFailure),
    /// An instance is gone for good.
    InstanceGone(InstanceId),
    /// Somebody wants an execution stopped; answered with whether it was here.
    Cancel(ExecutionId, oneshot::Sender<bool>),
    /// A function may have changed; somebody may want to be told when the change is in force here. The teller is dropped
    /// when it is.
    FunctionChanged(FunctionId, Option<oneshot::Sender<()>>),
    /// A function was looked up; none: it is deleted.
    Function(FunctionId, Option<Arc<Function>>),
    /// All functions that have provisioned concurrency.
    Provisioned(Vec<Arc<Function>>),
    /// The workers that are alive, this one included.
    LiveWorkers(Vec<WorkerId>),
    /// Whether this worker may start anything: not while it cannot show that it is alive.
    MayStart(bool),
    /// Give back what waits, finish what runs.
    Drain,
    /// Give back what runs too.
    HandBack,
    /// Options were re-read.
    Options(Options),
}

/// What has to be done after an event.
#[derive(Debug)]
pub enum Effect {
    /// Say this to an agent.
    Send(InstanceId, Box<Message>, Bytes),
    /// Boot an instance.
    Boot(Box<Boot>),
    /// Delete an instance.
    Delete(InstanceId),
    /// Note whose an instance of the pool is from now on.
    Claim(InstanceId, Holder),
    /// Write this down.
    Record(Box<Record>),
    /// Answer a caller.
    Reply(oneshot::Sender<Execution>, Box<Execution>),
    /// Look a function up.
    LookUp(FunctionId),
}

/// An instance that is to be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Its id.
    pub id: InstanceId,
    /// What it is for.
    pub purpose: Purpose,
    /// The runtime that it must be able to run.
    pub runtime: RuntimeName,
    /// Memory for its sandboxes, in MiB.
    pub memory_mib: u32,
}

/// Why an instance did not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFailure {
    /// What everything that needs it has to wait for.
    pub waiting_for: WaitingFor,
    /// What happened, for operators.
    pub text: String,
}

/// What the dispatcher is told at its start and on SIGHUP.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bounds of the planner.
    pub limits: Limits,
    /// Instances that are kept ready.
    pub pools: Vec<PoolTerms>,
    /// Most executions running at the same time.
    pub max_running: u32,
    /// Most executions of one project running at the same time.
    pub max_running_per_project: u32,
    /// Most sandboxes of one function.
    pub max_sandboxes_per_function: u32,
    /// Time for start and import.
    pub init_timeout: Duration,
    /// The isolation that projects and runtimes must have at least.
    pub isolation: IsolationRules,
    /// Bytes of log kept of one attempt.
    pub log_limit_bytes: u64,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// Where events go whose function names no queue.
    pub dead_letter_queue: QueueName,
}

/// What operators say of isolation.
#[derive(Clone, Debug, Default)]
pub struct IsolationRules {
    /// Of projects.
    pub projects: HashMap<ProjectId, Isolation>,
    /// Of runtimes.
    pub runtimes: HashMap<RuntimeName, Isolation>,
}

impl IsolationRules {
    /// Reads `[worker] project_isolation` and `runtime_isolation`.
    ///
    /// # Errors
    /// When a name or an isolation is none.
    pub fn read(options: &WorkerOptions) -> Result<Self, Invalid> {
        let named = |option: &'static str| move |invalid: Invalid| Invalid::new(option, invalid.to_string());
        let projects = options.project_isolation.iter();
        let projects = projects.map(|(name, isolation)| Ok((ProjectId::parse(name)?, Isolation::parse(isolation)?)));
        let runtimes = options.runtime_isolation.iter();
        let runtimes = runtimes.map(|(name, isolation)| Ok((RuntimeName::parse(name)?, Isolation::parse(isolation)?)));
        Ok(Self {
            projects: projects.collect::<Result<_, Invalid>>().map_err(named("[worker] project_isolation"))?,
            runtimes: runtimes.collect::<Result<_, Invalid>>().map_err(named("[worker] runtime_isolation"))?,
        })
    }
}

impl Options {
    /// What separates a function's instances from others: the strongest that the function, its project or its runtime
    /// asks for. None: it is not offered.
    #[must_use]
    pub fn isolation_of(&self, function: &Function) -> Option<Isolation> {
        let of_project = self.isolation.projects.get(&function.project_id).copied();
        let of_runtime = self.isolation.runtimes.get(&function.runtime).copied();
        self.limits.offers.isolation([function.isolation, of_project, of_runtime].into_iter().flatten())
    }
}

/// What `[worker] keep_alive`, `keep_alive_min` and `keep_alive_max` say.
#[must_use]
pub fn keep_alive(o: &WorkerOptions) -> KeepAlive {
    if o.keep_alive_max <= o.keep_alive {
        return KeepAlive::fixed(Duration::from_secs(o.keep_alive));
    }
    KeepAlive {
        unknown: Duration::from_secs(o.keep_alive),
        least: Duration::from_secs(o.keep_alive_min.min(o.keep_alive)),
        most: Duration::from_secs(o.keep_alive_max),
    }
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For intervals.
    pub instant: Instant,
    /// For records.
    pub wall: Timestamp,
}

impl Moment {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        Self { instant: Instant::now(), wall: clock::now() }
    }
}

/// What others see of the dispatcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Executions waiting here.
    pub waiting: u32,
    /// Executions running.
    pub running: u32,
    /// Sandboxes in any state.
    pub sandboxes: u32,
    /// Instances in any state.
    pub instances: u32,
}

/// Says things to the dispatcher.
#[derive(Clone, Debug)]
pub struct Dispatch {
    events: mpsc::Sender<Event>,
    load: watch::Receiver<Load>,
}

/// Events that may wait for the dispatcher.
const EVENTS: usize = 1024;

impl Dispatch {
    /// The handle, and what the dispatcher's task needs of it.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Event>, watch::Sender<Load>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let (load_sender, load) = watch::channel(Load::default());
        (Self { events, load }, receiver, load_sender)
    }

    /// Tells the dispatcher. When it has ended, what is told is lost: the inbox still has it.
    pub async fn tell(&self, event: Event) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("the dispatcher has ended, an event for it is dropped");
        }
    }

    /// What it has to do at this moment.
    #[must_use]
    pub fn load(&self) -> Load {
        *self.load.borrow()
    }

    /// Waits until nothing waits and nothing runs.
    pub async fn idle(&self) {
        let mut load = self.load.clone();
        // The sender is gone only when the dispatcher has ended: then nothing runs either.
        let _ = load.wait_for(|load| load.waiting == 0 && load.running == 0).await;
    }
}

/// What the dispatcher works with.
pub struct Hands {
    /// To agents.
    pub gateway: Gateway,
    /// To the driver.
    pub fleet: FleetHandle,
    /// To the store.
    pub recorder: Recorder,
    /// Looks functions up.
    pub functions: Functions,
    /// Runs the look-ups.
    pub tasks: Tasks,
    /// To itself, for what the look-ups find.
    pub dispatch: Dispatch,
    /// What is counted.
    pub metrics: Metrics,
}

/// Runs until `stopped`; the supervisor of the program says when.
pub async fn run(
    mut desk: Desk,
    hands: Hands,
    mut events: mpsc::Receiver<Event>,
    load: watch::Sender<Load>,
    stopped: CancellationToken,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    let mut effects = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = stopped.cancelled() => return,
            _ = tick.tick() => desk.tick(Moment::now(), &mut effects),
            received = events.recv_many(&mut batch, 256) => {
                if received == 0 {
                    return;
                }
                for event in batch.drain(..) {
                    desk.handle(event, Moment::now(), &mut effects);
                }
            }
        }
        desk.advance(Moment::now(), &mut effects);
        for effect in effects.drain(..) {
            hands.carry_out(effect).await;
        }
        load.send_if_modified(|load| std::mem::replace(load, desk.load()) != desk.load());
    }
}

impl Hands {
    async fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Send(instance, message, body) => self.gateway.send(instance, message, body),
            Effect::Boot(boot) => self.fleet.boot(*boot),
            Effect::Delete(instance) => self.fleet.delete(instance),
            Effect::Claim(instance, holder) => self.fleet.claim(instance, holder),
            Effect::Record(record) => self.recorder.write(*record).await,
            Effect::Reply(reply, execution) => {
                // A caller that went away does not want its answer.
                let _ = reply.send(*execution);
            }
            Effect::LookUp(id) => {
                let (functions, dispatch) = (self.functions.clone(), self.dispatch.clone());
                self.tasks.run("function look-up", async move {
                    match functions.get(id).await {
                        Ok(function) => dispatch.tell(Event::Function(id, function)).await,
                        Err(error) => {
                            let error = crate::task::chain(error.as_ref());
                            tracing::warn!(function.id = %id, error, "a function could not be looked up: {error}");
                        }
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
