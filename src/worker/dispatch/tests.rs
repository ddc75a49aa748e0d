//! The desk, driven event by event: what it has done is what it leaves as effects.

mod ahead;
mod boots;
mod provisioned;
mod update;

use std::collections::BTreeMap;

use lambda_agent::wire::{AttemptMeasures, AttemptRef, FailureKind, HandlerOutcome, SandboxFailure, SandboxPhase};

use super::*;
use crate::model::execution::{EventSummary, Origin, Reason, Start, WaitingFor};
use crate::model::function::{Environment, FunctionName, Handler, MaxAttempts, MemoryMib, RetryPolicy, TimeoutSeconds};
use crate::model::package::{PackageDigest, PackageRef};
use crate::model::runtime::RuntimeName;
use crate::model::{ExecutionState, Payload};
use crate::scheduler::history::KeepAlive;
use crate::scheduler::offer::{Offer, Offers, Sharing};
use crate::store::ExecutionWrite;

const START: Timestamp = Timestamp::from_millis(1_000_000);

/// A desk, its clock, and what it has left to do.
struct World {
    desk: Desk,
    now: Moment,
    sent: Vec<(InstanceId, Message)>,
    booted: Vec<InstanceId>,
    deleted: Vec<InstanceId>,
    claimed: Vec<(InstanceId, Holder)>,
    looked_up: Vec<FunctionId>,
    records: BTreeMap<ExecutionId, Execution>,
    me: WorkerId,
}

const OFFER: Offer = Offer {
    sharing: Sharing::Project,
    memory_mib: 1024,
    memory_max_mib: 1024,
    instances: 4,
    booting: 4,
    boot_timeout: Duration::from_secs(30),
};
const CONTAINERS: Offer = Offer { sharing: Sharing::Function, memory_mib: 128, ..OFFER };

fn options() -> Options {
    Options {
        limits: Limits {
            starting: 4,
            keep_alive: KeepAlive::fixed(Duration::from_secs(60)),
            instance_keep_alive: Duration::from_secs(60),
            offers: Offers::new([(Isolation::Process, OFFER), (Isolation::Container, CONTAINERS)]),
            target_wait: Duration::from_millis(50),
        },
        pools: Vec::new(),
        max_running: 8,
        max_running_per_project: 8,
        max_sandboxes_per_function: 8,
        init_timeout: Duration::from_secs(10),
        isolation: IsolationRules::default(),
        log_limit_bytes: 1 << 20,
        backoff: Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) },
        dead_letter_queue: QueueName::parse("dead").unwrap(),
    }
}

fn function() -> Function {
    Function {
        id: FunctionId::generate(),
        project_id: ProjectId::parse("demo").unwrap(),
        name: FunctionName::parse("f").unwrap(),
        description: String::new(),
        runtime: RuntimeName::parse("python3").unwrap(),
        handler: Handler::parse("main.handler").unwrap(),
        memory: MemoryMib::default(),
        timeout: TimeoutSeconds::default(),
        environment: Environment::default(),
        max_concurrency: None,
        provisioned_concurrency: None,
        isolation: None,
        retry: RetryPolicy::default(),
        dead_letter_queue: None,
        package: Some(PackageRef { sha256: PackageDigest::of(b"x"), size: 1 }),
        revision: 1,
        created_at: START,
        updated_at: START,
    }
}

impl World {
    fn new() -> Self {
        Self::with(options())
    }

    fn with(options: Options) -> Self {
        let now = Moment { instant: Instant::now(), wall: START };
        let me = WorkerId::generate();
        Self {
            desk: Desk::new(me, options, Metrics::new("test"), now.instant),
            now,
            sent: Vec::new(),
            booted: Vec::new(),
            deleted: Vec::new(),
            claimed: Vec::new(),
            looked_up: Vec::new(),
            records: BTreeMap::new(),
            me,
        }
    }

    fn happens(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.desk.handle(event, self.now, &mut effects);
        self.desk.advance(self.now, &mut effects);
        self.carry_out(effects);
    }

    fn passes(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall = self.now.wall + time;
        let mut effects = Vec::new();
        self.desk.tick(self.now, &mut effects);
        self.desk.advance(self.now, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(instance, message, _) => self.sent.push((instance, *message)),
                Effect::Boot(boot) => self.booted.push(boot.id),
                Effect::Delete(id) => self.deleted.push(id),
                Effect::Claim(id, holder) => self.claimed.push((id, holder)),
                Effect::Record(record) => match *record {
                    Record::New(execution) => {
                        assert!(self.records.insert(execution.id, execution).is_none());
                    }
                    Record::Change(ExecutionWrite { expected, next }) => {
                        let stored = self.records.get(&next.id).unwrap();
                        assert_eq!(stored.fence(), expected, "a write that the store would refuse");
                        self.records.insert(next.id, next);
                    }
                    Record::Log(_) => {}
                },
                Effect::Reply(reply, execution) => {
                    let _ = reply.send(*execution);
                }
                Effect::LookUp(id) => self.looked_up.push(id),
            }
        }
    }

    fn work(&mut self, function: &Arc<Function>) -> Work {
        let mut execution = Execution::receive(
            ExecutionId::generate(),
            function,
            Origin::AsyncInvocation,
            EventSummary::default(),
            Payload::from_value(&serde_json::json!({})),
            self.now.wall,
        );
        execution.apply(crate::model::execution::Change::Own { worker: self.me }).unwrap();
        Work { execution, function: Arc::clone(function), place: None, call: None, recorded: true }
    }

    /// An event arrives that is in the store already.
    fn arrives(&mut self, function: &Arc<Function>) -> ExecutionId {
        let work = self.work(function);
        let id = work.execution.id;
        self.records.insert(id, work.execution.clone());
        self.happens(Event::Work(vec![work]));
        id
    }

    fn calls(&mut self, function: &Arc<Function>, patience: Duration) -> oneshot::Receiver<Execution> {
        let (reply, answer) = oneshot::channel();
        let mut work = self.work(function);
        work.recorded = false;
        work.call = Some(Call { reply, patience_until: self.now.instant + patience });
        self.happens(Event::Work(vec![work]));
        answer
    }

    fn take_sent(&mut self) -> Vec<(InstanceId, Message)> {
        std::mem::take(&mut self.sent)
    }

    /// Boots what was asked for and readies every sandbox that was started.
    fn settle(&mut self) {
        for id in std::mem::take(&mut self.booted) {
            self.happens(Event::AgentReady(id));
        }
        let started: Vec<_> = self
            .sent
            .iter()
            .filter_map(|(instance, message)| {
                let Message::StartSandbox { sandbox, .. } = message else { return None };
                Some((*instance, *sandbox))
            })
            .collect();
        self.sent.retain(|(_, message)| !matches!(message, Message::StartSandbox { .. }));
        for (instance, sandbox) in started {
            let ready = Message::SandboxReady { sandbox, init_us: 5000, package_us: 0 };
            self.happens(Event::Agent(instance, ready, Bytes::new()));
        }
    }

    fn invoked(&mut self) -> Vec<(InstanceId, u64, AttemptRef)> {
        self.take_sent()
            .into_iter()
            .filter_map(|(instance, message)| {
                let Message::Invoke { sandbox, invocation } = message else { return None };
                Some((instance, sandbox, invocation.execution))
            })
            .collect()
    }

    fn answers(&mut self, (instance, sandbox, execution): (InstanceId, u64, AttemptRef), outcome: HandlerOutcome) {
        let measures = AttemptMeasures { duration_us: 1000, ..AttemptMeasures::default() };
        let body = match outcome {
            HandlerOutcome::Returned => Bytes::from_static(b"42"),
            HandlerOutcome::Error | HandlerOutcome::TooLarge => {
                Bytes::from_static(br#"{"errorType":"ValueError","errorMessage":"no"}"#)
            }
        };
        let result = Message::Result { sandbox, execution, outcome, measures };
        self.happens(Event::Agent(instance, result, body));
    }
}

fn ended(sandbox: u64, kind: FailureKind, phase: SandboxPhase, error_type: &str) -> Message {
    Message::SandboxEnded {
        sandbox,
        execution: None,
        failure: Some(SandboxFailure {
            kind,
            phase,
            error_type: error_type.to_owned(),
            message: "it ended".to_owned(),
            trace: Vec::new(),
        }),
        measures: AttemptMeasures::default(),
    }
}

#[test]
fn an_event_boots_starts_runs_and_is_recorded() {
    let mut world = World::new();
    let function = Arc::new(function());
    let id = world.arrives(&function);
    assert_eq!(world.booted.len(), 1);
    world.settle();
    let invoked = world.invoked();
    assert_eq!(world.records[&id].state, ExecutionState::Running);
    world.answers(invoked[0].clone(), HandlerOutcome::Returned);
    let record = &world.records[&id];
    assert_eq!((record.state, record.attempt, record.start), (ExecutionState::Succeeded, 1, Some(Start::Cold)));
    assert_eq!(record.result.as_ref().map(Payload::as_str), Some("42"));
    let second = world.arrives(&function);
    assert_eq!(world.invoked().len(), 1, "the sandbox is used again");
    assert_eq!(world.records[&second].start, Some(Start::Warm));
    assert_eq!(world.booted.len(), 0);
}

#[test]
fn a_failure_is_tried_again_later_and_then_given_up_with_a_dead_letter() {
    let mut world = World::new();
    let mut function = function();
    function.retry.max_attempts = MaxAttempts::new(2).unwrap();
    let function = Arc::new(function);
    let id = world.arrives(&function);
    world.settle();
    let invoked = world.invoked();
    world.answers(invoked[0].clone(), HandlerOutcome::Error);
    let parked = world.records[&id].clone();
    assert_eq!((parked.state, parked.worker), (ExecutionState::Queued, None));
    assert_eq!(parked.waiting_for, Some(WaitingFor::Retry));
    assert!(parked.not_before.unwrap() > world.now.wall);
    // The inbox gives it back when it is due.
    let mut execution = parked;
    execution.apply(crate::model::execution::Change::Own { worker: world.me }).unwrap();
    world.records.insert(id, execution.clone());
    world.happens(Event::Work(vec![Work {
        execution,
        function: Arc::clone(&function),
        place: None,
        call: None,
        recorded: true,
    }]));
    let invoked = world.invoked();
    assert_eq!(invoked[0].2.attempt, 2);
    world.answers(invoked[0].clone(), HandlerOutcome::Error);
    let record = &world.records[&id];
    assert_eq!((record.state, record.attempt), (ExecutionState::Failed, 2));
    assert!(record.owes_dead_letter());
    assert_eq!(record.failure.as_ref().unwrap().reason, Reason::HandlerError);
}

#[test]
fn an_answer_of_an_attempt_that_is_over_changes_nothing() {
    let mut world = World::new();
    let function = Arc::new(function());
    let id = world.arrives(&function);
    world.settle();
    let (instance, sandbox, mut execution) = world.invoked().remove(0);
    execution.attempt += 1;
    world.answers((instance, sandbox, execution), HandlerOutcome::Returned);
    assert_eq!(world.records[&id].state, ExecutionState::Running);
}

#[test]
fn code_that_can_never_start_fails_everything_that_waits_for_it() {
    let mut world = World::new();
    let function = Arc::new(function());
    let ids: Vec<_> = (0..3).map(|_| world.arrives(&function)).collect();
    let instance = world.booted.remove(0);
    world.happens(Event::AgentReady(instance));
    let (_, Message::StartSandbox { sandbox, .. }) = world.take_sent().remove(0) else { panic!("no start") };
    let message = ended(sandbox, FailureKind::InitError, SandboxPhase::Init, "Runtime.UserCodeSyntaxError");
    world.happens(Event::Agent(instance, message, Bytes::new()));
    for id in ids {
        let record = &world.records[&id];
        assert_eq!((record.state, record.attempt), (ExecutionState::Failed, 1));
        assert_eq!(record.failure.as_ref().unwrap().reason, Reason::SyntaxError);
    }
}

#[test]
fn a_start_that_may_succeed_next_time_costs_one_event_an_attempt() {
    let mut world = World::new();
    let function = Arc::new(function());
    let ids: Vec<_> = (0..2).map(|_| world.arrives(&function)).collect();
    let instance = world.booted.remove(0);
    world.happens(Event::AgentReady(instance));
    let (_, Message::StartSandbox { sandbox, .. }) = world.take_sent().remove(0) else { panic!("no start") };
    let message = ended(sandbox, FailureKind::TimedOut, SandboxPhase::Init, "Sandbox.Timeout");
    world.happens(Event::Agent(instance, message, Bytes::new()));
    assert_eq!(world.records[&ids[0]].waiting_for, Some(WaitingFor::Retry));
    assert_eq!(world.records[&ids[0]].attempt, 1);
    assert_eq!(world.records[&ids[1]].attempt, 0);
}

#[test]
fn what_ran_in_a_lost_instance_goes_back_to_the_inbox() {
    let mut world = World::new();
    let function = Arc::new(function());
    let id = world.arrives(&function);
    world.settle();
    let (instance, _, _) = world.invoked().remove(0);
    world.happens(Event::InstanceLost(instance, "the agent was killed".to_owned()));
    let record = &world.records[&id];
    assert_eq!((record.state, record.worker, record.interruptions), (ExecutionState::Queued, None, 1));
    assert_eq!(record.counted_attempts(), 0, "it is not the handler's fault");
    assert_eq!(world.deleted, [instance]);
}

#[test]
fn a_running_execution_is_cancelled_by_ending_its_sandbox() {
    let mut world = World::new();
    let function = Arc::new(function());
    let id = world.arrives(&function);
    world.settle();
    let (instance, sandbox, _) = world.invoked().remove(0);
    let (reply, mut answer) = oneshot::channel();
    world.happens(Event::Cancel(id, reply));
    assert!(matches!(world.take_sent()[..], [(_, Message::StopSandbox { .. })]));
    assert!(answer.try_recv().is_err(), "not before it is gone");
    let message =
        Message::SandboxEnded { sandbox, execution: None, failure: None, measures: AttemptMeasures::default() };
    world.happens(Event::Agent(instance, message, Bytes::new()));
    assert_eq!(answer.try_recv(), Ok(true));
    assert_eq!(world.records[&id].state, ExecutionState::Cancelled);
}

#[test]
fn draining_gives_back_what_waits_and_lets_finish_what_runs() {
    let mut world = World::new();
    let mut function = function();
    function.max_concurrency = std::num::NonZeroU32::new(1);
    let function = Arc::new(function);
    let first = world.arrives(&function);
    let second = world.arrives(&function);
    world.settle();
    let invoked = world.invoked();
    assert_eq!(invoked.len(), 1, "the function's limit holds");
    world.happens(Event::Drain);
    assert_eq!(world.records[&second].worker, None);
    world.answers(invoked[0].clone(), HandlerOutcome::Returned);
    assert_eq!(world.records[&first].state, ExecutionState::Succeeded);
    assert_eq!(world.desk.load().running + world.desk.load().waiting, 0);
}

#[test]
fn a_call_is_answered_and_recorded_and_never_tried_again() {
    let mut world = World::new();
    let function = Arc::new(function());
    let mut answer = world.calls(&function, Duration::from_secs(5));
    world.settle();
    let invoked = world.invoked();
    world.answers(invoked[0].clone(), HandlerOutcome::Error);
    let execution = answer.try_recv().unwrap();
    assert_eq!((execution.state, execution.attempt), (ExecutionState::Failed, 1));
    assert!(execution.dead_letter.is_none());
    assert_eq!(world.records[&execution.id], execution);
}

#[test]
fn a_caller_without_a_sandbox_in_time_is_told_to_come_again() {
    let mut world = World::new();
    let function = Arc::new(function());
    let mut answer = world.calls(&function, Duration::from_secs(5));
    world.passes(Duration::from_secs(4));
    assert!(answer.try_recv().is_err());
    world.passes(Duration::from_secs(2));
    let execution = answer.try_recv().unwrap();
    assert_eq!(execution.failure.unwrap().reason, Reason::Overloaded);
}

#[test]
fn a_new_revision_runs_in_new_sandboxes_and_the_old_ones_go() {
    let mut world = World::new();
    let old = Arc::new(function());
    world.arrives(&old);
    world.settle();
    let invoked = world.invoked();
    world.answers(invoked[0].clone(), HandlerOutcome::Returned);
    let new = Arc::new(Function { revision: 2, ..(*old).clone() });
    let id = world.arrives(&new);
    let sent = world.take_sent();
    assert!(sent.iter().any(|(_, m)| matches!(m, Message::StopSandbox { sandbox } if *sandbox == invoked[0].1)));
    assert!(sent.iter().any(|(_, m)| matches!(m, Message::StartSandbox { spec, .. } if spec.revision == 2)));
    world.sent = sent;
    world.settle();
    assert_eq!(world.records[&id].revision, 2);
}

#[test]
fn a_deleted_function_leaves_its_waiting_events_with_that_reason() {
    let mut world = World::new();
    let function = Arc::new(function());
    let id = world.arrives(&function);
    world.happens(Event::FunctionChanged(function.id, None));
    assert_eq!(world.looked_up, [function.id]);
    world.happens(Event::Function(function.id, None));
    let record = &world.records[&id];
    assert_eq!(record.state, ExecutionState::Failed);
    assert_eq!(record.failure.as_ref().unwrap().reason, Reason::FunctionDeleted);
    assert_eq!(record.attempt, 0);
}

#[test]
fn an_event_that_grows_too_old_expires() {
    let mut world = World::new();
    let function = Arc::new(function());
    let id = world.arrives(&function);
    world.passes(function.retry.max_age() + Duration::from_secs(1));
    assert_eq!(world.records[&id].state, ExecutionState::Expired);
    assert!(world.records[&id].owes_dead_letter());
}

#[test]
fn nothing_is_started_while_the_worker_cannot_show_that_it_is_alive() {
    let mut world = World::new();
    let function = Arc::new(function());
    world.happens(Event::MayStart(false));
    let id = world.arrives(&function);
    world.settle();
    assert!(world.invoked().is_empty());
    world.happens(Event::MayStart(true));
    assert_eq!(world.invoked().len(), 1);
    assert_eq!(world.records[&id].state, ExecutionState::Running);
}
