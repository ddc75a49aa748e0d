//! What each kind of answer looks like, word for word. `INSTA_UPDATE=always` writes the snapshots anew.

use lambda_openstack::clock;
use lambda_openstack::model::execution::{Change, Measures, Reason};
use lambda_openstack::model::function::QueueName;
use lambda_openstack::model::instance::{Instance, InstanceState};
use lambda_openstack::model::worker::WorkerState;
use lambda_openstack::model::{InstanceId, Payload, Timestamp, WorkerId};
use serde_json::json;
use std::time::Duration;

use super::executions::{apply, failure, start};
use super::harness::{Answer, Service, project};

fn matches(name: &str, answer: &Answer) {
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(name, answer.steady());
    });
}

#[tokio::test]
async fn bodies_look_as_they_did() {
    let service = Service::new().await;
    matches("versions", &service.get("/").await);
    matches("runtimes", &service.get("/v1/runtimes").await);
    matches("runtime", &service.get("/v1/runtimes/python3").await);
    let body = json!({"name": "f", "environment": {"A": "b"}, "description": "d", "code": {"source": "x = 1\n"},
                      "triggers": [{"source": "s", "type": "t", "filter": {"exact": {"data.a": "b"}}}]});
    matches("function", &service.post("/v1/functions", &body).await);
    matches("functions", &service.get("/v1/functions").await);
    matches("trigger", &service.post("/v1/triggers", &json!({"function": "f", "type": "u"})).await);
    matches("triggers", &service.get("/v1/triggers?limit=1&sort=created_at").await);
    matches("events", &service.post("/v1/events", &json!({"id": "1", "source": "s", "type": "t"})).await);
    matches("error", &service.get("/v1/functions/nobody").await);
}

#[tokio::test]
async fn records_look_as_they_did() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let queued = service.execution(&function, Timestamp::from_millis(1_795_000_000_000)).await;
    matches("execution_queued", &service.get(&format!("/v1/executions/{}", queued.id)).await);

    let measures = Measures {
        init_ms: Some(Duration::from_micros(81_250).into()),
        duration_ms: Some(Duration::from_micros(1_500).into()),
        peak_memory_bytes: Some(9_000_000),
        log_bytes: 120,
        log_truncated: false,
    };
    let mut done = service.execution(&function, Timestamp::from_millis(1_795_000_001_000)).await;
    start(&service, &mut done, WorkerId::generate()).await;
    let result = Payload::from_value(&json!({"words": 2}));
    apply(&service, &mut done, Change::Succeed { at: clock::now(), result, measures: measures.clone() }).await;
    matches("execution_succeeded", &service.get(&format!("/v1/executions/{}", done.id)).await);

    let mut failed = service.execution(&function, Timestamp::from_millis(1_795_000_002_000)).await;
    start(&service, &mut failed, WorkerId::generate()).await;
    let why = failure(&failed, Reason::HandlerError);
    let dead_letter = Some(QueueName::parse("dead").unwrap());
    apply(&service, &mut failed, Change::Fail { at: clock::now(), failure: why, measures, dead_letter }).await;
    matches("execution_failed", &service.get(&format!("/v1/executions/{}", failed.id)).await);
    matches("executions", &service.get("/v1/executions?limit=1").await);

    let worker = service.worker("10.0.0.1:9071", WorkerState::Active).await;
    let mut workers = service.get("/v1/workers").await;
    assert!(!workers.text().contains("secret"), "{}", workers.text());
    let mut body = workers.json();
    body["workers"][0]["silent_seconds"] = json!(0.0);
    workers.body = body.to_string().into();
    matches("workers", &workers);

    let instance = Instance {
        id: InstanceId::generate(),
        project_id: Some(project()),
        worker,
        function_id: None,
        driver: "local".to_owned(),
        state: InstanceState::Active,
        memory_mib: 1024,
        sandboxes: 2,
        created_at: clock::now(),
        ready_at: Some(clock::now()),
        error: None,
    };
    service.store.put_instance(&instance).await.unwrap();
    matches("instances", &service.get("/v1/instances").await);
}
