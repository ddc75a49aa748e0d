//! Functions, executions and the rest as tests need them: legal, with every attribute set where that is possible.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use lambda_openstack::clock;
use lambda_openstack::model::execution::{
    Change, Component, ErrorDetail, EventSummary, Failure, LogChunk, LogLine, LogStream, Measures, Origin, Phase,
    Reason, Start,
};
use lambda_openstack::model::function::{Environment, FunctionName, Handler, QueueName, RetryPolicy};
use lambda_openstack::model::instance::{Instance, InstanceState, Isolation};
use lambda_openstack::model::package::{PackageDigest, PackageRef};
use lambda_openstack::model::runtime::RuntimeName;
use lambda_openstack::model::trigger::{Filter, Pattern};
use lambda_openstack::model::worker::{Worker, WorkerState};
use lambda_openstack::model::{
    Execution, ExecutionId, Function, FunctionId, InstanceId, Payload, ProjectId, Timestamp, Trigger, TriggerId,
    WorkerId,
};

/// A project.
pub fn project(name: &str) -> ProjectId {
    ProjectId::parse(name).unwrap()
}

/// A function of that project with that name.
pub fn function(project_id: &str, name: &str) -> Function {
    let now = clock::now();
    Function {
        id: FunctionId::generate(),
        project_id: project(project_id),
        name: FunctionName::parse(name).unwrap(),
        description: "makes a thumbnail: größer, 小さい".to_owned(),
        runtime: RuntimeName::parse("python3").unwrap(),
        handler: Handler::parse("main.handler").unwrap(),
        memory: Default::default(),
        timeout: Default::default(),
        environment: Environment::parse([("A.B$C".replace(['.', '$'], "_"), "$x.y".to_owned())].into()).unwrap(),
        max_concurrency: NonZeroU32::new(7),
        provisioned_concurrency: NonZeroU32::new(2),
        isolation: Some(Isolation::Vm),
        retry: RetryPolicy::default(),
        dead_letter_queue: Some(QueueName::parse("dead").unwrap()),
        package: Some(PackageRef { sha256: PackageDigest::of(b"code"), size: 4 }),
        revision: 1,
        created_at: now,
        updated_at: now,
    }
}

/// A trigger of that function.
pub fn trigger(function: &Function) -> Trigger {
    Trigger {
        id: TriggerId::generate(),
        project_id: function.project_id.clone(),
        function_id: function.id,
        source: Pattern::parse("source", "store").unwrap(),
        event_type: Pattern::parse("type", "file.*").unwrap(),
        // A key with a dot and one with a dollar sign: databases have had trouble with both.
        filter: Filter {
            suffix: [("data.name".to_owned(), ".png".to_owned())].into(),
            exact: [("$where".to_owned(), "1".to_owned())].into(),
            ..Filter::default()
        },
        queue: None,
        created_at: clock::now(),
    }
}

/// An execution of that function that was just received, parked and due.
pub fn execution(function: &Function) -> Execution {
    execution_at(function, clock::now())
}

/// An execution that was received at that time.
pub fn execution_at(function: &Function, received_at: Timestamp) -> Execution {
    let id = ExecutionId::generate();
    let origin = Origin::Queue { queue: "lambda-events".to_owned(), message_id: id.to_string(), trigger_id: None };
    let event = EventSummary {
        id: format!("event-{id}"),
        source: "store".to_owned(),
        event_type: "file.created".to_owned(),
        subject: Some("photos/cat.png".to_owned()),
    };
    let payload = Payload::parse(Bytes::from_static(br#"{"$set": {"a.b": 1},  "x": "\u0000"}"#)).unwrap();
    Execution::receive(id, function, origin, event, payload, received_at)
}

/// The record after a change.
pub fn after(execution: &Execution, change: Change) -> Execution {
    let mut next = execution.clone();
    next.apply(change).unwrap();
    next
}

/// The record once that worker owns it.
pub fn owned(execution: &Execution, worker: WorkerId) -> Execution {
    after(execution, Change::Own { worker })
}

/// The record once its code has the event.
pub fn running(execution: &Execution) -> Execution {
    let instance = InstanceId::generate();
    after(execution, Change::Start { at: clock::now(), revision: 3, start: Start::Cold, instance })
}

/// The record once the handler has returned.
pub fn succeeded(execution: &Execution, at: Timestamp) -> Execution {
    let measures = Measures {
        init_ms: Some(Duration::from_micros(12_345).into()),
        duration_ms: Some(Duration::from_millis(7).into()),
        peak_memory_bytes: Some(5 << 32),
        log_bytes: 17,
        log_truncated: true,
    };
    after(execution, Change::Succeed { at, result: Payload::from_value(&serde_json::json!({"ok": [1.5]})), measures })
}

/// The record once it is given up, owing a dead letter if there is a queue.
pub fn failed(execution: &Execution, at: Timestamp, dead_letter: Option<&str>) -> Execution {
    let dead_letter = dead_letter.map(|queue| QueueName::parse(queue).unwrap());
    after(execution, Change::Fail { at, failure: failure(execution), measures: Measures::default(), dead_letter })
}

/// A failure of the user's code.
pub fn failure(execution: &Execution) -> Failure {
    Failure {
        request_id: execution.request_id(),
        component: Component::Function,
        phase: Phase::Invoke,
        reason: Reason::HandlerError,
        error: ErrorDetail {
            error_type: "ValueError".to_owned(),
            message: "$no.\0good".to_owned(),
            trace: vec!["main.py:1".to_owned(), "main.py:2".to_owned()],
        },
    }
}

/// A part of an execution's log.
pub fn log_chunk(execution: &Execution, attempt: u32, sequence: u32, text: &str) -> LogChunk {
    let line = |stream| LogLine { at: clock::now(), stream, text: text.to_owned() };
    LogChunk {
        execution_id: execution.id,
        project_id: execution.project_id.clone(),
        attempt,
        sequence,
        lines: vec![line(LogStream::Stdout), line(LogStream::Stderr), line(LogStream::Platform)],
    }
}

/// A worker that takes work.
pub fn worker() -> Worker {
    let now = clock::now();
    Worker {
        id: WorkerId::generate(),
        host: "$host".to_owned(),
        gateway: "127.0.0.1:1".to_owned(),
        gateway_fingerprint: Some("$fingerprint".to_owned()),
        caller_secret: "$secret".to_owned(),
        state: WorkerState::Active,
        capacity: 8,
        executions: 1,
        sandboxes: 2,
        version: "0.1.0".to_owned(),
        started_at: now,
        heartbeat_at: now,
    }
}

/// An instance of that project.
pub fn instance(project_id: &str) -> Instance {
    Instance {
        id: InstanceId::generate(),
        project_id: Some(project(project_id)),
        worker: WorkerId::generate(),
        function_id: None,
        driver: "local".to_owned(),
        state: InstanceState::Active,
        memory_mib: 512,
        sandboxes: 3,
        created_at: clock::now(),
        ready_at: Some(clock::now()),
        error: Some("none".to_owned()),
    }
}
