//! Functions called over REST, against gateways that answer as the test says.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use lambda_agent::wire::Message;
use lambda_openstack::model::worker::WorkerState;
use lambda_openstack::model::{ExecutionId, ExecutionState};
use lambda_openstack::store::Scope;
use serde_json::{Value, json};

use super::gateway::{Gateway, Said};
use super::harness::{Service, request, send};

const PATH: &str = "/v1/functions/f/invocations";

fn call(body: &'static str) -> Request<Body> {
    request(Method::POST, PATH).body(Body::from(body)).unwrap()
}

async fn service_and_gateway() -> (Service, Gateway) {
    let service = Service::new().await;
    service.function("f").await;
    let gateway = Gateway::open(&service.tasks).await;
    service.worker(&gateway.address, WorkerState::Active).await;
    (service, gateway)
}

fn failure(reason: &str, component: &str, phase: &str) -> Value {
    json!({"request_id": "req-0f0e0d0c-0b0a-4900-8807-060504030201", "component": component, "phase": phase,
           "reason": reason, "error": {"type": "ValueError", "message": "no", "trace": ["main.py:1"]}})
}

#[tokio::test]
async fn a_call_answers_what_the_handler_returned() {
    let (service, mut gateway) = service_and_gateway().await;
    let execution = ExecutionId::generate().to_string();
    for (sent, arrives, returned, answered) in [
        ("{\"a\": 1}", "{\"a\": 1}", &b"{\"sum\":2}"[..], "{\"sum\":2}"),
        ("", "null", b"", "null"),
        ("  \n", "null", b"\"text\"", "\"text\""),
        ("[1,2]", "[1,2]", b"null", "null"),
    ] {
        let (answer, ()) = tokio::join!(service.send(call(sent)), async {
            let said = gateway.next().await;
            let Message::Call { project, patience_ms, .. } = &said.message else { panic!("{:?}", said.message) };
            assert_eq!((project.as_str(), &said.body[..]), ("demo", arrives.as_bytes()));
            assert!((80_000..=90_000).contains(patience_ms), "the function's timeout and the configured patience");
            said.done(&execution, None, returned).await;
        });
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, answered));
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-execution-id"), execution);
    }
    assert_eq!(gateway.connections.load(Ordering::SeqCst), 1, "one connection carries all calls");
}

#[tokio::test]
async fn failures_of_the_function_are_told_apart_from_those_of_the_service() {
    let (service, mut gateway) = service_and_gateway().await;
    let execution = ExecutionId::generate().to_string();
    for (reason, component, phase, status, code) in [
        ("handler_error", "function", "invoke", 502, "function.invocation.failed"),
        ("import_error", "function", "init", 502, "function.invocation.failed"),
        ("out_of_memory", "sandbox", "invoke", 502, "function.invocation.failed"),
        ("timed_out", "function", "invoke", 504, "function.invocation.timed_out"),
        ("overloaded", "worker", "queue", 503, "function.invocation.overloaded"),
        ("instance_unavailable", "instance", "boot", 503, "function.invocation.unavailable"),
        ("instance_lost", "instance", "invoke", 502, "function.invocation.interrupted"),
        ("cancelled", "worker", "invoke", 409, "function.invocation.cancelled"),
        ("function_deleted", "worker", "queue", 404, "function.function.not_found"),
    ] {
        let failure = failure(reason, component, phase);
        let (answer, ()) = tokio::join!(service.send(call("1")), async {
            gateway.next().await.done(&execution, Some(failure.clone()), b"").await;
        });
        answer.is_error(status, code);
        let error = &answer.json()["errors"][0];
        assert_eq!((&error["execution_id"], &error["failure"]), (&json!(execution), &failure), "{reason}");
        assert_eq!(answer.header("x-execution-id"), execution);
        assert_eq!(answer.header("retry-after").is_empty(), status != 503, "{reason}");
    }
}

#[tokio::test]
async fn many_calls_share_a_connection_and_each_gets_its_own_answer() {
    let (service, mut gateway) = service_and_gateway().await;
    let router = service.router.clone();
    let bodies = ["10", "11", "12", "13", "14", "15", "16", "17"];
    let calls = futures::future::join_all(bodies.iter().map(|body| send(&router, call(body))));
    let answering = async {
        let mut all: Vec<Said> = Vec::new();
        while all.len() < bodies.len() {
            all.push(gateway.next().await);
        }
        // In another order than they came.
        for said in all.iter().rev() {
            let Message::Call { call, .. } = said.message else { panic!("{:?}", said.message) };
            let execution = ExecutionId::generate().to_string();
            let echo: &'static [u8] = said.body.to_vec().leak();
            said.answer(Message::CallDone { call, execution, failure: None }, echo).await;
        }
    };
    let (answers, ()) = tokio::join!(calls, answering);
    for (answer, body) in answers.iter().zip(bodies) {
        assert_eq!(answer.text(), body);
    }
    assert_eq!(gateway.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_that_was_sent_is_not_sent_again_when_its_worker_is_lost() {
    let service = Service::new().await;
    service.function("f").await;
    let (mut one, mut two) = (Gateway::open(&service.tasks).await, Gateway::open(&service.tasks).await);
    service.worker(&one.address, WorkerState::Active).await;
    service.worker(&two.address, WorkerState::Active).await;
    let (answer, ()) = tokio::join!(service.send(call("1")), async {
        tokio::select! {
            said = one.next() => said.hang_up().await,
            said = two.next() => said.hang_up().await,
        }
    });
    answer.is_error(502, "function.invocation.interrupted");
    // The connection is made anew for the next call.
    let (answer, ()) = tokio::join!(service.send(call("2")), async {
        let execution = ExecutionId::generate().to_string();
        tokio::select! {
            said = one.next() => said.done(&execution, None, b"2").await,
            said = two.next() => said.done(&execution, None, b"2").await,
        }
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_worker_that_cannot_be_reached_or_is_leaving_is_passed_over() {
    let service = Service::new().await;
    service.function("f").await;
    let mut gateway = Gateway::open(&service.tasks).await;
    service.worker("127.0.0.1:1", WorkerState::Active).await;
    service.worker(&gateway.address, WorkerState::Active).await;
    service.worker("127.0.0.1:2", WorkerState::Draining).await;
    let execution = ExecutionId::generate().to_string();
    for _ in 0..4 {
        let (answer, ()) = tokio::join!(service.send(call("1")), async {
            gateway.next().await.done(&execution, None, b"1").await;
        });
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // It refuses before it begins: another one is asked, and when there is none the answer says that nothing ran.
    let (answer, ()) = tokio::join!(service.send(call("1")), async {
        gateway.next().await.done(&execution, Some(failure("shutting_down", "worker", "queue")), b"").await;
    });
    assert!(matches!(answer.status.as_u16(), 502 | 503), "{}", answer.text());
}

#[tokio::test]
async fn without_a_worker_nothing_is_run_and_the_caller_is_told() {
    let service = Service::new().await;
    service.function("f").await;
    let answer = service.send(call("1")).await;
    answer.is_error(503, "function.invocation.unavailable");
    assert!(!answer.header("retry-after").is_empty());
    let code = service.post("/v1/functions", &json!({"name": "empty"})).await;
    assert_eq!(code.status, 201);
    let answer =
        service.send(request(Method::POST, "/v1/functions/empty/invocations").body(Body::empty()).unwrap()).await;
    answer.is_error(409, "function.invocation.without_code");
}

#[tokio::test]
async fn a_caller_that_leaves_disturbs_nobody() {
    let (service, mut gateway) = service_and_gateway().await;
    let leaving = send(&service.router, call("1"));
    let left = tokio::select! {
        answer = leaving => panic!("{}", answer.text()),
        said = gateway.next() => said,
    };
    let execution = ExecutionId::generate().to_string();
    left.done(&execution, None, b"1").await;
    let (answer, ()) = tokio::join!(service.send(call("2")), async {
        gateway.next().await.done(&execution, None, b"2").await;
    });
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "2"));
    assert_eq!(gateway.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_that_does_not_wait_is_kept_and_a_worker_is_told() {
    let (service, mut gateway) = service_and_gateway().await;
    let mut asked = call("{\"specversion\":\"1.0\",\"id\":\"e1\",\"source\":\"s\",\"type\":\"t\"}");
    asked.headers_mut().insert("prefer", "respond-async".parse().unwrap());
    let answer = service.send(asked).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.header("preference-applied"), "respond-async");
    let id = answer.header("x-execution-id").to_owned();
    assert_eq!(answer.header("location"), format!("http://api.test/v1/executions/{id}"));
    let row = answer.json();
    assert_eq!(
        (&row["id"], &row["state"], &row["origin"]["kind"]),
        (&json!(id), &json!("queued"), &json!("async_invocation"))
    );
    assert_eq!(row["event"], json!({"id": "e1", "source": "s", "type": "t", "subject": null}));
    let stored = service.store.execution(&Scope::All, id.parse().unwrap()).await.unwrap();
    assert_eq!((stored.state, stored.worker), (ExecutionState::Queued, None));
    assert!(matches!(gateway.next().await.message, Message::Nudge));
}

#[tokio::test]
async fn the_connections_end_with_the_service() {
    let (service, mut gateway) = service_and_gateway().await;
    let execution = ExecutionId::generate().to_string();
    let (answer, ()) = tokio::join!(service.send(call("1")), async {
        gateway.next().await.done(&execution, None, b"1").await;
    });
    assert_eq!(answer.status, 200);
    let Service { router, tasks, store, .. } = service;
    drop((router, store, gateway));
    // The fake gateway's own listener runs in other tasks of the same set; what must end is what waits for cancellation.
    tasks.token().cancel();
    tokio::time::timeout(Duration::from_secs(5), tasks.stop(Duration::from_secs(1))).await.unwrap();
}

/// The worker hears of the change and says that it is in force.
async fn takes_the_change(gateway: &mut Gateway) -> String {
    let said = gateway.next().await;
    let Message::FunctionChanged { function, call: Some(call) } = said.message.clone() else { panic!("no change") };
    said.answer(Message::FunctionServed { call }, b"").await;
    function
}

#[tokio::test]
async fn a_change_is_answered_when_the_workers_have_it_and_before_the_next_call() {
    let (service, mut gateway) = service_and_gateway().await;
    let id = service.get("/v1/functions/f").await.json()["id"].as_str().unwrap().to_owned();
    let timeout = json!({"timeout": 5});
    let (answer, function) = tokio::join!(service.patch("/v1/functions/f", &timeout), takes_the_change(&mut gateway));
    assert_eq!((answer.status, function), (StatusCode::OK, id.clone()));
    let execution = ExecutionId::generate().to_string();
    let (answer, ()) = tokio::join!(service.send(call("1")), async {
        gateway.next().await.done(&execution, None, b"1").await;
    });
    assert_eq!(answer.status, 200);
    let (answer, function) = tokio::join!(service.delete("/v1/functions/f"), takes_the_change(&mut gateway));
    assert_eq!((answer.status, function), (StatusCode::NO_CONTENT, id));
}

#[tokio::test]
async fn a_worker_that_refuses_before_it_has_an_execution_names_none() {
    let (service, mut gateway) = service_and_gateway().await;
    let (answer, ()) = tokio::join!(service.send(call("1")), async {
        gateway.next().await.done("", Some(failure("overloaded", "worker", "queue")), b"").await;
    });
    answer.is_error(503, "function.invocation.overloaded");
    assert!(answer.json()["errors"][0].get("execution_id").is_none());
    assert_eq!(answer.header("x-execution-id"), "");
}
