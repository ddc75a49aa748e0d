//! Records, their logs, and what their owner may do.

use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use lambda_agent::wire::Message;
use lambda_openstack::clock;
use lambda_openstack::model::execution::{
    Change, Component, ErrorDetail, Failure, Measures, Phase, Reason, Start, WaitingFor,
};
use lambda_openstack::model::worker::WorkerState;
use lambda_openstack::model::{Execution, InstanceId, Payload, Timestamp, WorkerId};
use lambda_openstack::store::Scope;
use serde_json::{Value, json};

use super::gateway::Gateway;
use super::harness::{Pieces, Service, json_request, request};

pub fn failure(execution: &Execution, reason: Reason) -> Failure {
    Failure {
        request_id: execution.request_id(),
        component: Component::Function,
        phase: Phase::Invoke,
        reason,
        error: ErrorDetail {
            error_type: "ValueError".to_owned(),
            message: "no such thing".to_owned(),
            trace: vec!["main.py:2 in handler".to_owned()],
        },
    }
}

/// Lets a worker take an execution and begin it.
pub async fn start(service: &Service, execution: &mut Execution, worker: WorkerId) {
    for change in [
        Change::Own { worker },
        Change::Start {
            at: clock::now(),
            revision: execution.revision,
            start: Start::Cold,
            instance: InstanceId::generate(),
        },
    ] {
        apply(service, execution, change).await;
    }
}

pub async fn apply(service: &Service, execution: &mut Execution, change: Change) {
    let read = execution.clone();
    execution.apply(change).unwrap();
    service.rewrite(&read, execution).await;
}

pub async fn fail(service: &Service, execution: &mut Execution, worker: WorkerId) {
    start(service, execution, worker).await;
    let failure = failure(execution, Reason::HandlerError);
    let change = Change::Fail { at: clock::now(), failure, measures: Measures::default(), dead_letter: None };
    apply(service, execution, change).await;
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + seconds * 1000)
}

fn ids(list: &Value) -> Vec<String> {
    list["executions"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn executions_are_filtered_sorted_and_paged() {
    let service = Service::new().await;
    let (f, g) = (service.function("f").await, service.function("g").await);
    let mut rows = Vec::new();
    for n in 0..6 {
        rows.push(service.execution(if n % 2 == 0 { &f } else { &g }, at(n)).await);
    }
    fail(&service, &mut rows[0], WorkerId::generate()).await;
    let id = |n: usize| rows[n].id.to_string();
    for (query, wanted) in [
        (String::new(), vec![5, 4, 3, 2, 1, 0]),
        ("?sort=received_at:asc".to_owned(), vec![0, 1, 2, 3, 4, 5]),
        ("?function=f".to_owned(), vec![4, 2, 0]),
        (format!("?function={}", g.id), vec![5, 3, 1]),
        ("?state=failed".to_owned(), vec![0]),
        ("?state=failed&state=queued&function=f".to_owned(), vec![4, 2, 0]),
        ("?state=running,succeeded".to_owned(), vec![]),
        (format!("?since={}&until={}", at(2), at(4)), vec![3, 2]),
        (format!("?event_id=e-{}", at(3)), vec![3]),
        ("?event_id=none".to_owned(), vec![]),
    ] {
        let answer = service.get(&format!("/v1/executions{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        assert_eq!(ids(&answer.json()), wanted.into_iter().map(id).collect::<Vec<_>>(), "{query}");
    }
    let mut path = "/v1/executions?limit=4&state=queued".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = service.get(&path).await.json();
        seen.extend(ids(&page));
        let Some(link) = page["executions_links"].get(0) else { break };
        path = link["href"].as_str().unwrap().strip_prefix("http://api.test").unwrap().to_owned();
    }
    assert_eq!(seen, [5, 4, 3, 2, 1].map(id));
    // What was deleted is found by its id.
    assert_eq!(service.delete("/v1/functions/g").await.status, 204);
    service.get("/v1/executions?function=g").await.is_error(400, "function.request.invalid_query");
    assert_eq!(ids(&service.get(&format!("/v1/executions?function={}", g.id)).await.json()).len(), 3);
}

#[tokio::test]
async fn a_record_that_is_on_its_way_to_the_store_is_waited_for() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let execution = Service::unwritten(&function, clock::now());
    let path = format!("/v1/executions/{}", execution.id);
    let (answer, ()) = tokio::join!(service.get(&path), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        service.store.insert_executions(std::slice::from_ref(&execution)).await.unwrap();
    });
    assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (200, &json!(execution.id)));
    // One that never comes is not waited for for long, and an old one not at all.
    let missing = Service::unwritten(&function, clock::now());
    service.get(&format!("/v1/executions/{}", missing.id)).await.is_error(404, "function.execution.not_found");
    let path = "/v1/executions/018f0000-0000-7000-8000-000000000000";
    service.get(path).await.is_error(404, "function.execution.not_found");
}

#[tokio::test]
async fn a_page_of_large_records_ends_early_and_leads_on() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let payload = Payload::from_value(&json!("x".repeat(200 << 10)));
    let executions: Vec<_> = (0..120)
        .map(|n| {
            Execution::receive(
                lambda_openstack::model::ExecutionId::generate(),
                &function,
                lambda_openstack::model::execution::Origin::AsyncInvocation,
                lambda_openstack::model::execution::EventSummary::default(),
                payload.clone(),
                at(n),
            )
        })
        .collect();
    service.store.insert_executions(&executions).await.unwrap();
    let page = service.get("/v1/executions?limit=1000").await;
    assert!(page.body.len() < 32 << 20);
    let page = page.json();
    let first = ids(&page);
    assert!(first.len() < 120);
    let next =
        page["executions_links"][0]["href"].as_str().unwrap().strip_prefix("http://api.test").unwrap().to_owned();
    let rest = ids(&service.get(&next).await.json());
    assert_eq!(first.len() + rest.len(), 120);
}

#[tokio::test]
async fn a_log_is_read_as_lines_or_as_json() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let execution = service.execution(&function, at(0)).await;
    let path = format!("/v1/executions/{}/log", execution.id);
    let read = |query: &str, accept: &str| {
        request(Method::GET, &format!("{path}{query}")).header("accept", accept).body(Body::empty()).unwrap()
    };
    assert_eq!(service.send(read("", "*/*")).await.text(), "");
    assert_eq!(service.send(read("", "application/json")).await.json(), json!({"log": []}));
    service.log(&execution, 1, 0, &["one", "two"]).await;
    service.log(&execution, 1, 1, &["three"]).await;
    service.log(&execution, 2, 0, &["say \"four\""]).await;
    let text = service.send(read("", "*/*")).await;
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    let lines: Vec<_> =
        ["one", "two", "three", "say \"four\""].iter().map(|text| format!("{} stdout {text}\n", at(0))).collect();
    let mark = format!("{} platform attempt 2\n", at(0));
    assert_eq!(text.text(), [lines[..3].concat(), mark, lines[3].clone()].concat());
    let as_json = service.send(read("", "application/json")).await.json();
    assert_eq!(
        as_json["log"][3],
        json!({"attempt": 2, "at": at(0).to_string(), "stream": "stdout", "text": "say \"four\""})
    );
    assert_eq!(as_json["log"].as_array().unwrap().len(), 4);
    assert_eq!(service.send(read("?attempt=1", "*/*")).await.text(), lines[..3].concat());
    assert_eq!(service.send(read("?attempt=2", "application/json")).await.json()["log"].as_array().unwrap().len(), 1);
    assert_eq!(service.send(read("?attempt=3", "*/*")).await.text(), "");
    service.send(read("", "image/png")).await.is_error(406, "function.request.not_acceptable");
}

#[tokio::test]
async fn a_long_log_comes_whole_and_in_order() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let execution = service.execution(&function, at(0)).await;
    for sequence in 0..200 {
        service.log(&execution, 1, sequence, &[&format!("line {sequence}")]).await;
    }
    let text = service.get(&format!("/v1/executions/{}/log?attempt=1", execution.id)).await.text();
    let numbers: Vec<u32> = text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_followed_log_goes_on_until_the_execution_is_finished() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let mut execution = service.execution(&function, at(0)).await;
    service.log(&execution, 1, 0, &["first"]).await;
    let path = format!("/v1/executions/{}/log?follow=true", execution.id);
    let (status, mut pieces) =
        Pieces::of(&service.router, request(Method::GET, &path).body(Body::empty()).unwrap()).await;
    assert_eq!(status, 200);
    assert!(pieces.next().await.unwrap().ends_with("stdout first\n"));
    start(&service, &mut execution, WorkerId::generate()).await;
    service.log(&execution, 1, 1, &["second"]).await;
    assert!(pieces.next().await.unwrap().ends_with("stdout second\n"));
    service.log(&execution, 1, 2, &["last"]).await;
    let change =
        Change::Succeed { at: clock::now(), result: Payload::from_value(&Value::Null), measures: Measures::default() };
    apply(&service, &mut execution, change).await;
    assert!(pieces.next().await.unwrap().ends_with("stdout last\n"));
    assert_eq!(pieces.next().await, None);
    // What is finished needs no following.
    let asked = request(Method::GET, &path).header("accept", "application/json").body(Body::empty()).unwrap();
    let finished = service.send(asked).await;
    assert_eq!(finished.header("content-type"), "application/x-ndjson");
    assert_eq!(finished.text().lines().count(), 3);
}

#[tokio::test]
async fn followed_logs_end_when_the_service_stops_and_are_bounded() {
    let options = lambda_openstack::config::ApiOptions { max_followers: 1, ..Default::default() };
    let service = Service::with(options, None).await;
    let function = service.function("f").await;
    let execution = service.execution(&function, at(0)).await;
    service.log(&execution, 1, 0, &["first"]).await;
    let path = format!("/v1/executions/{}/log?follow=true", execution.id);
    let follow = || request(Method::GET, &path).body(Body::empty()).unwrap();
    let (_, mut pieces) = Pieces::of(&service.router, follow()).await;
    assert!(pieces.next().await.is_some());
    service.send(follow()).await.is_error(503, "function.service.busy");
    service.shutdown.cancel();
    assert_eq!(pieces.next().await, None);
    drop(pieces);
    // Its place is free again.
    assert_eq!(Pieces::of(&service.router, follow()).await.0, 200);
}

#[tokio::test]
async fn what_waits_without_owner_is_cancelled_in_the_store() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let execution = service.execution(&function, at(0)).await;
    let path = format!("/v1/executions/{}/cancel", execution.id);
    let cancel = || request(Method::POST, &path).body(Body::empty()).unwrap();
    let answer = service.send(cancel()).await;
    assert_eq!(answer.status, 200);
    let row = answer.json();
    assert_eq!((&row["state"], &row["failure"]["reason"]), (&json!("cancelled"), &json!("cancelled")));
    assert_eq!(service.get(&format!("/v1/executions/{}", execution.id)).await.json(), row);
    assert_eq!(service.send(cancel()).await.status, 200, "what is cancelled stays so");
}

#[tokio::test]
async fn what_a_worker_runs_is_cancelled_through_its_gateway() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let mut gateway = Gateway::open(&service.tasks).await;
    let worker = service.worker(&gateway.address, WorkerState::Active).await;
    let mut execution = service.execution(&function, at(0)).await;
    start(&service, &mut execution, worker).await;
    let path = format!("/v1/executions/{}/cancel", execution.id);
    let (answer, ()) = tokio::join!(service.send(json_request(Method::POST, &path, &Value::Null)), async {
        let said = gateway.next().await;
        let Message::Cancel { call, execution: named } = said.message.clone() else { panic!("{:?}", said.message) };
        assert_eq!(named, execution.id.to_string());
        said.answer(Message::Cancelled { call, found: true }, b"").await;
    });
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (202, &json!("running")));

    // It finishes while the worker is asked: it cannot be cancelled any more.
    let (answer, ()) = tokio::join!(service.send(json_request(Method::POST, &path, &Value::Null)), async {
        let said = gateway.next().await;
        let Message::Cancel { call, .. } = said.message else { panic!("{:?}", said.message) };
        let change = Change::Succeed {
            at: clock::now(),
            result: Payload::from_value(&Value::Null),
            measures: Measures::default(),
        };
        apply(&service, &mut execution, change).await;
        said.answer(Message::Cancelled { call, found: false }, b"").await;
    });
    answer.is_error(409, "function.execution.finished");
}

#[tokio::test]
async fn what_a_dead_worker_had_is_cancelled_in_the_store_and_what_an_unreachable_one_has_is_not() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let mut execution = service.execution(&function, at(0)).await;
    // Nobody listens there.
    let lost = service.worker("127.0.0.1:1", WorkerState::Active).await;
    start(&service, &mut execution, lost).await;
    let path = format!("/v1/executions/{}/cancel", execution.id);
    let answer = service.send(json_request(Method::POST, &path, &Value::Null)).await;
    answer.is_error(503, "function.execution.owner_unreachable");
    assert!(service.store.declare_dead(lost, Duration::ZERO).await.unwrap());
    let answer = service.send(json_request(Method::POST, &path, &Value::Null)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("cancelled")));
}

#[tokio::test]
async fn only_what_was_given_up_is_redriven() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let mut gateway = Gateway::open(&service.tasks).await;
    let worker = service.worker(&gateway.address, WorkerState::Active).await;
    let mut execution = service.execution(&function, at(0)).await;
    let path = format!("/v1/executions/{}/redrive", execution.id);
    let redrive = || request(Method::POST, &path).body(Body::empty()).unwrap();
    service.send(redrive()).await.is_error(409, "function.execution.not_dead");
    fail(&service, &mut execution, worker).await;
    let answer = service.send(redrive()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let row = answer.json();
    assert_eq!((&row["state"], &row["redrives"], &row["attempts"]), (&json!("queued"), &json!(1), &json!(1)));
    assert!(matches!(gateway.next().await.message, Message::Nudge), "a worker is told at once");
    let stored = service.store.execution(&Scope::All, execution.id).await.unwrap();
    assert_eq!((stored.worker, stored.waiting_for), (None, Some(WaitingFor::Worker)));
    assert!(stored.deadline > clock::now());
    service.send(redrive()).await.is_error(409, "function.execution.not_dead");

    let mut second = service.execution(&function, at(1)).await;
    fail(&service, &mut second, worker).await;
    assert_eq!(service.delete("/v1/functions/f").await.status, 204);
    let path = format!("/v1/executions/{}/redrive", second.id);
    service
        .send(json_request(Method::POST, &path, &Value::Null))
        .await
        .is_error(409, "function.execution.function_gone");
}
