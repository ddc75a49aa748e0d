//! Events on their way to the queue.

use axum::body::Body;
use axum::http::Method;
use lambda_openstack::api::PostError;
use lambda_openstack::model::ProjectId;
use serde_json::{Value, json};

use super::harness::{Answer, Service, request};

async fn post(service: &Service, kind: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut asked = request(Method::POST, "/v1/events");
    if !kind.is_empty() {
        asked = asked.header("content-type", kind);
    }
    for (name, value) in headers {
        asked = asked.header(*name, *value);
    }
    service.send(asked.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn events_come_in_every_mode_and_get_the_callers_project() {
    let service = Service::new().await;
    let whole = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"a": 1}});
    let answer = post(&service, "application/cloudevents+json; charset=utf-8", &[], whole.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (202, json!({"events": [{"id": "1", "message_id": "m0"}]})));
    let short = post(&service, "application/json", &[], json!({"source": "s", "type": "t"}).to_string()).await;
    assert_eq!(short.status, 202);
    assert_eq!(short.json()["events"][0]["id"].as_str().unwrap().len(), 36);
    let batch = json!([{"id": "3", "source": "s", "type": "t"}, {"id": "4", "source": "s", "type": "t"}]);
    let batch = post(&service, "application/cloudevents-batch+json", &[], batch.to_string()).await;
    assert_eq!(batch.json()["events"], json!([{"id": "3", "message_id": "m2"}, {"id": "4", "message_id": "m3"}]));
    let head =
        [("ce-specversion", "1.0"), ("ce-id", "5"), ("ce-source", "s"), ("ce-type", "t"), ("ce-subject", "a%20b")];
    assert_eq!(post(&service, "application/json", &head, "{\"a\": 1}").await.json()["events"][0]["id"], "5");
    assert_eq!(post(&service, "text/plain", &head, "hello").await.status, 202);
    assert_eq!(post(&service, "application/octet-stream", &head, &b"\xff\x00"[..]).await.status, 202);
    assert_eq!(post(&service, "", &head, Body::empty()).await.status, 202);

    let events = service.queue.events.lock().unwrap();
    let demo = ProjectId::parse("demo").unwrap();
    assert!(events.len() == 8 && events.iter().all(|event| event.project() == Some(&demo)));
    assert_eq!(events[4].at("data.a"), Some(&json!(1)));
    assert_eq!(events[4].subject(), Some("a b"));
    assert_eq!(events[5].at("data"), Some(&json!("hello")));
    assert_eq!(events[6].at("data_base64"), Some(&json!("/wA=")));
    assert_eq!(events[7].at("data"), None);
}

#[tokio::test]
async fn what_is_no_event_is_refused_and_nothing_of_its_batch_is_posted() {
    let service = Service::new().await;
    let good = json!({"source": "s", "type": "t"});
    let single = "application/cloudevents+json";
    let batch = "application/cloudevents-batch+json";
    for (kind, body, status, code, says) in [
        (single, json!("x"), 400, "function.event.invalid", "event: must be a JSON object"),
        (single, json!([]), 400, "function.event.invalid", "event: "),
        (single, json!({"type": "t"}), 400, "function.event.invalid", "source: is required"),
        (single, json!({"source": "", "type": "t"}), 400, "function.event.invalid", "source: must be"),
        (single, json!({"source": 1, "type": "t"}), 400, "function.event.invalid", "source: must be a string"),
        (single, json!({"source": "s", "type": "t", "time": "x"}), 400, "function.event.invalid", "time: "),
        (
            single,
            json!({"source": "s", "type": "t", "specversion": "2.0"}),
            400,
            "function.event.invalid",
            "specversion: ",
        ),
        (single, json!({"source": "s", "type": "t", "Bad Name": 1}), 400, "function.event.invalid", "'Bad Name'"),
        (
            single,
            json!({"source": "s", "type": "t", "projectid": "other"}),
            403,
            "function.event.foreign_project",
            "'demo'",
        ),
        (
            single,
            json!({"source": "s", "type": "t", "data": "x".repeat(256 << 10)}),
            413,
            "function.event.too_large",
            "at most",
        ),
        (batch, json!({}), 400, "function.request.invalid_body", "expected a sequence"),
        (batch, json!([]), 400, "function.event.invalid", "1 to 100 events"),
        (batch, Value::Array(vec![good.clone(); 101]), 400, "function.event.invalid", "1 to 100 events"),
        (batch, json!([good, {"source": "s"}]), 400, "function.event.invalid", "[1].type: is required"),
        (batch, json!([good, 7]), 400, "function.event.invalid", "[1].event: "),
    ] {
        let answer = post(&service, kind, &[], body.to_string()).await;
        let shown: String = body.to_string().chars().take(100).collect();
        assert_eq!((answer.status.as_u16(), answer.error().0.as_str()), (status, code), "{shown}: {}", answer.text());
        assert!(answer.error().1.contains(says), "{shown}: {}", answer.text());
    }
    let answer = post(&service, "application/json", &[("ce-id", "1"), ("ce-source", "s")], "{}").await;
    answer.is_error(400, "function.event.invalid");
    let answer = post(&service, "application/json", &[("ce-source", "%zz"), ("ce-type", "t")], "{}").await;
    answer.is_error(400, "function.event.invalid");
    assert!(service.queue.events.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_queue_that_does_not_answer_is_a_503() {
    let service = Service::new().await;
    let body = json!({"source": "s", "type": "t"}).to_string();
    *service.queue.failure.lock().unwrap() = Some(PostError::Unavailable("hidden".into()));
    let answer = post(&service, "application/json", &[], body.clone()).await;
    answer.is_error(503, "function.event.queue_unavailable");
    assert!(answer.header("retry-after") == "2" && !answer.text().contains("hidden"));
    *service.queue.failure.lock().unwrap() = Some(PostError::Refused("hidden".into()));
    let answer = post(&service, "application/json", &[], body).await;
    answer.is_error(500, "function.service.internal");
    assert!(!answer.text().contains("hidden"));
}
