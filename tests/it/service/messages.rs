//! What lies on the queue and is no work for anybody: each message becomes a dead letter with its reason, none stops the
//! others.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Service;

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_become_dead_letters_and_good_ones_between_them_run() {
    let service = Service::start();
    service.function("good", "def handler(event, context):\n    return event['data']\n", json!({})).await;
    let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
    let bad: BTreeMap<&str, Value> = [
        ("a string", json!("not an event")),
        ("a number", json!(17)),
        ("an array", json!([1, 2])),
        ("deep", deep),
        ("empty", json!({})),
        ("null", Value::Null),
        ("no type", json!({"source": "test"})),
        ("wrong types", json!({"source": 1, "type": ["good"]})),
        ("control characters", json!({"source": "te\u{0}st", "type": "good"})),
        ("long source", json!({"source": "x".repeat(5000), "type": "good"})),
        ("bad project", json!({"source": "test", "type": "good", "projectid": "../etc"})),
        ("bad attribute", json!({"source": "test", "type": "good", "A/B": 1})),
        ("prototype without data", json!({"user_name": "demo", "event_source": "test"})),
        ("unknown source", json!({"source": "elsewhere", "type": "good", "data": 1})),
        ("unknown type", json!({"source": "test", "type": "better", "data": 1})),
        ("other project", json!({"source": "test", "type": "good", "projectid": "other", "data": 1})),
    ]
    .into();
    let mut bodies: Vec<_> = bad.values().cloned().collect();
    for n in 0..10 {
        bodies.insert(n * 2, json!({"source": "test", "type": "good", "data": n}));
    }
    for chunk in bodies.chunks(13) {
        service.post(chunk).await;
    }
    let executions = service.finished("good", 10).await;
    assert!(executions.iter().all(|execution| execution["state"] == "succeeded"), "{executions:?}");
    let letters = service
        .until("every bad message is a dead letter", async || {
            let letters = service.messages("lambda-dead-letters").await;
            (letters.len() == bad.len()).then_some(letters)
        })
        .await;
    for (name, body) in &bad {
        let letter = letters.iter().find(|letter| &letter["body"]["event"] == body);
        let letter = letter.unwrap_or_else(|| panic!("{name} is lost: {letters:?}"));
        let reason = letter["body"]["reason"].as_str().unwrap();
        let expected =
            if name.starts_with("unknown") || *name == "other project" { "no_trigger" } else { "invalid_event" };
        assert_eq!(reason, expected, "{name}");
        assert!(!letter["body"]["message"].as_str().unwrap().is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_the_largest_size_runs_and_a_larger_one_is_refused_where_it_is_posted() {
    let service = Service::start();
    service.function("big", "def handler(event, context):\n    return len(event['data'])\n", json!({})).await;
    let frame = json!({"messages": [{"ttl": 3600, "body": {"source": "test", "type": "big", "data": ""}}]}).to_string();
    let room = 262_144 - frame.len();
    service.event("big", json!("x".repeat(room))).await;
    let execution = service.finished("big", 1).await.remove(0);
    assert_eq!(execution["result"], room, "{execution}");
    let over = json!({"source": "test", "type": "big", "data": "x".repeat(262_144)});
    let (status, body) = service.call("POST", "/v1/events", Some(&over)).await;
    assert!(matches!(status, 400 | 413), "{status} {body}");
    assert!(body["errors"][0]["request_id"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_deleted_leaves_its_waiting_events_with_that_reason() {
    let service = Service::start();
    let source = "import time\ndef handler(event, context):\n    time.sleep(2)\n";
    service.function("doomed", source, json!({"max_concurrency": 1})).await;
    for n in 0..5 {
        service.event("doomed", json!(n)).await;
    }
    let id = service
        .until("one runs", async || {
            let running = service.executions("function=doomed&state=running").await;
            running.first().map(|execution| execution["function_id"].as_str().unwrap().to_owned())
        })
        .await;
    service
        .until("all are taken in", async || (service.executions("function=doomed").await.len() == 5).then_some(()))
        .await;
    service.ok("DELETE", "/v1/functions/doomed", None).await;
    let executions = service.finished(&id, 5).await;
    let deleted = executions.iter().filter(|e| e["failure"]["reason"] == "function_deleted").count();
    assert!(deleted >= 3, "{executions:?}");
    assert!(executions.iter().all(|e| e["state"] == "succeeded" || e["failure"]["reason"] == "function_deleted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_chooses_among_events_of_the_same_type() {
    let service = Service::start();
    let trigger = json!({"triggers": [{"source": "store/*", "type": "file.created",
                                      "filter": {"suffix": {"data.name": ".png"}, "not": {"prefix": {"subject": "tmp/"}}}}]});
    service.function("pictures", "def handler(event, context):\n    return event['data']['name']\n", trigger).await;
    service
        .function(
            "all",
            "def handler(event, context):\n    return 1\n",
            json!({"triggers": [{"source": "store/*", "type": "*"}]}),
        )
        .await;
    for (name, subject) in [("a.png", "x/a"), ("b.txt", "x/b"), ("c.png", "tmp/c")] {
        service
            .post(&[json!({"source": "store/one", "type": "file.created", "subject": subject, "data": {"name": name}})])
            .await;
    }
    service.finished("all", 3).await;
    let executions = service.finished("pictures", 1).await;
    assert_eq!(executions.len(), 1);
    assert_eq!(executions[0]["result"], "a.png");
}
