//! An event posted to a queue runs a function and leaves a record.

use serde_json::{Value, json};

use super::{Service, is_over};

const ECHO: &str = "def handler(event, context):\n    return event\n";

/// The same on both stores.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&super::Service::start()).await;
            })*
        }

        mod on_mongodb {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                crate::support::databases::with_mongo(async |database| {
                    let connection = &database.options.connection;
                    let configuration = format!("[database]\nconnection = {connection}\n");
                    super::$name(&super::Service::start_with(&configuration)).await;
                })
                .await;
            })*
        }
    };
}

on_both_stores!(
    an_event_on_the_queue_runs_a_function_and_leaves_a_record,
    a_failure_is_tried_again_and_then_lies_on_the_dead_letter_queue_until_it_is_redriven,
    an_update_runs_new_code_at_once_and_old_events_finish,
    calls_wait_or_do_not,
);

async fn an_event_on_the_queue_runs_a_function_and_leaves_a_record(service: &Service) {
    let source = "def handler(event, context):\n    print('counting', event['data']['text'])\n    return len(event['data']['text'].split())\n";
    service.function("count", source, json!({})).await;
    let event = json!({"specversion": "1.0", "id": "e-1", "source": "test", "type": "count", "subject": "a.txt",
                       "data": {"text": "three small words"}});
    service.post(&[event]).await;
    let execution = service.finished("count", 1).await.remove(0);
    assert_eq!(execution["state"], "succeeded", "{execution}");
    assert_eq!(execution["result"], 3);
    assert_eq!(execution["attempts"], 1);
    assert_eq!(execution["start"], "cold");
    assert_eq!(execution["event"], json!({"id": "e-1", "source": "test", "type": "count", "subject": "a.txt"}));
    assert_eq!(execution["origin"]["queue"], "lambda-events");
    for measured in ["init_ms", "duration_ms", "peak_memory_bytes"] {
        assert!(execution[measured].as_f64().is_some_and(|value| value > 0.0), "{measured}: {execution}");
    }
    for time in ["received_at", "started_at", "finished_at"] {
        assert!(execution[time].as_str().is_some_and(|time| time.ends_with('Z')), "{time}: {execution}");
    }
    let id = execution["id"].as_str().unwrap();
    assert!(service.execution_log(id).await.contains("counting three small words"));
    // The prototype's shape; its user is the project, and only that project's triggers match.
    service
        .post(&[json!({"user_name": "demo", "event_source": "test", "event_data": {"type": "count", "text": "a b"}})])
        .await;
    let executions = service.finished("count", 2).await;
    assert_eq!(executions[0]["result"], 2, "the latest is first: {executions:?}");
    assert_eq!(executions[0]["start"], "warm");
    let stats = service.call("GET", "/v1/instances", None).await.1;
    assert_eq!(stats["instances"].as_array().unwrap().len(), 1, "{stats}");
}

async fn a_failure_is_tried_again_and_then_lies_on_the_dead_letter_queue_until_it_is_redriven(service: &Service) {
    let source = "def handler(event, context):\n    print('attempt')\n    raise ValueError('no such luck')\n";
    let more = json!({"retry": {"max_attempts": 2, "max_event_age": 600}, "dead_letter_queue": "lost"});
    service.function("fails", source, more).await;
    service.event("fails", json!({"n": 1})).await;
    let execution = service.finished("fails", 1).await.remove(0);
    assert_eq!(execution["state"], "failed");
    assert_eq!(execution["attempts"], 2);
    let failure = &execution["failure"];
    assert_eq!(
        (&failure["component"], &failure["phase"], &failure["reason"]),
        (&json!("function"), &json!("invoke"), &json!("handler_error"))
    );
    assert_eq!(failure["error"]["type"], "ValueError");
    assert_eq!(failure["error"]["message"], "no such luck");
    let trace = failure["error"]["trace"][0].as_str().unwrap();
    assert!(trace.contains("File \"main.py\", line 3, in handler"), "{trace}");
    let id = execution["id"].as_str().unwrap();
    assert_eq!(service.execution_log(id).await.matches("stdout attempt").count(), 2, "the log of both attempts");
    let letter =
        service.until("the dead letter is posted", async || service.messages("lost").await.into_iter().next()).await;
    assert_eq!(letter["body"]["execution_id"], id);
    assert_eq!(letter["body"]["reason"], "handler_error");
    assert_eq!(letter["body"]["event"]["data"]["n"], 1);
    service
        .until("the record says so", async || {
            let execution = service.ok("GET", &format!("/v1/executions/{id}"), None).await;
            execution["dead_letter"]["posted_at"].is_string().then_some(())
        })
        .await;

    service.ok("PATCH", "/v1/functions/fails", Some(&json!({"code": {"source": ECHO}}))).await;
    service.ok("POST", &format!("/v1/executions/{id}/redrive"), None).await;
    let execution = service.finished("fails", 1).await.remove(0);
    assert_eq!((&execution["state"], &execution["redrives"]), (&json!("succeeded"), &json!(1)));
    let (status, _) = service.call("POST", &format!("/v1/executions/{id}/redrive"), None).await;
    assert_eq!(status, 409, "what succeeded is not re-driven");
}

async fn an_update_runs_new_code_at_once_and_old_events_finish(service: &Service) {
    let slow = "import time\ndef handler(event, context):\n    time.sleep(1.5)\n    return 'old'\n";
    service.function("changing", slow, json!({})).await;
    service.event("changing", json!({})).await;
    service
        .until("it runs", async || {
            (!service.executions("function=changing&state=running").await.is_empty()).then_some(())
        })
        .await;
    let new = "def handler(event, context):\n    return 'new'\n";
    service.ok("PATCH", "/v1/functions/changing", Some(&json!({"code": {"source": new}}))).await;
    let answer = service.ok("POST", "/v1/functions/changing/invocations", Some(&json!({}))).await;
    assert_eq!(answer, "new");
    let executions = service.finished("changing", 2).await;
    let by_result = |result: &str| executions.iter().find(|e| e["result"] == result).cloned().unwrap_or_default();
    assert_eq!(by_result("old")["revision"], 1);
    assert_eq!(by_result("new")["revision"], 2);
}

async fn calls_wait_or_do_not(service: &Service) {
    service.function("echo", ECHO, json!({})).await;
    let answer = service.ok("POST", "/v1/functions/echo/invocations", Some(&json!({"n": [1, 2.5, "é"]}))).await;
    assert_eq!(answer, json!({"n": [1, 2.5, "é"]}));
    let response = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("{}/v1/functions/echo/invocations", service.api))
        .header("Prefer", "respond-async")
        .json(&json!("later"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 202);
    let location = response.headers()["Location"].to_str().unwrap().replace(&service.api, "");
    let execution = service
        .until("it is done", async || {
            let execution = service.ok("GET", &location, None).await;
            is_over(&execution).then_some(execution)
        })
        .await;
    assert_eq!((&execution["state"], &execution["result"]), (&json!("succeeded"), &json!("later")));
    service.finished("echo", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_while_it_is_written_and_ends_with_the_execution() {
    let service = Service::start();
    let source = "import time\ndef handler(event, context):\n    for n in range(4):\n        print('line', n, flush=True)\n        time.sleep(0.5)\n";
    service.function("talks", source, json!({})).await;
    service.event("talks", json!({})).await;
    let id = service
        .until("it runs", async || {
            let running = service.executions("function=talks&state=running").await;
            running.first().map(|execution| execution["id"].as_str().unwrap().to_owned())
        })
        .await;
    let url = format!("{}/v1/executions/{id}/log?follow=true", service.api);
    let mut response = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
    let mut first = None;
    let mut text = String::new();
    while let Some(piece) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&piece).unwrap());
        if first.is_none() && text.contains("line 0") {
            first = Some(is_over(&service.ok("GET", &format!("/v1/executions/{id}"), None).await));
        }
    }
    assert_eq!(first, Some(false), "the first line came while it ran");
    let lines: Vec<_> = text.lines().filter_map(|line| line.rsplit_once("line ").map(|(_, n)| n.to_owned())).collect();
    assert_eq!(lines, ["0", "1", "2", "3"], "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_or_waits_can_be_cancelled() {
    let service = Service::start();
    let source = "import time\ndef handler(event, context):\n    time.sleep(60)\n";
    service.function("sleeps", source, json!({"timeout": 120, "max_concurrency": 1})).await;
    service.event("sleeps", json!({"n": 1})).await;
    service.event("sleeps", json!({"n": 2})).await;
    let (running, queued) = service
        .until("one runs and one waits", async || {
            let running = service.executions("function=sleeps&state=running").await.into_iter().next()?;
            let queued = service.executions("function=sleeps&state=queued").await.into_iter().next()?;
            Some((running, queued))
        })
        .await;
    for execution in [queued, running] {
        let id = execution["id"].as_str().unwrap();
        service.ok("POST", &format!("/v1/executions/{id}/cancel"), None).await;
    }
    let executions = service.finished("sleeps", 2).await;
    assert!(executions.iter().all(|execution| execution["state"] == "cancelled"), "{executions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_never_runs_more_often_at_once_than_it_allows() {
    let service = Service::start();
    let source = "import time\ndef handler(event, context):\n    time.sleep(0.1)\n    return time.time()\n";
    service.function("narrow", source, json!({"max_concurrency": 2})).await;
    let events: Vec<_> = (0..30).map(|n| json!({"source": "test", "type": "narrow", "data": n})).collect();
    service.post(&events).await;
    let executions = service.finished("narrow", 30).await;
    let mut ends: Vec<f64> = executions.iter().map(|execution| execution["result"].as_f64().unwrap()).collect();
    ends.sort_by(f64::total_cmp);
    // Of any three that end one after the other, the third began after the first had ended.
    for three in ends.windows(3) {
        assert!(three[2] - three[0] > 0.09, "three at once: {three:?}");
    }
    assert!(executions.iter().all(|execution| execution["state"] == "succeeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projects_flood_does_not_delay_anothers_single_event() {
    let service = Service::start_with("[worker]\nmax_running = 4\nmax_waiting = 8\n");
    let source = "import time\ndef handler(event, context):\n    time.sleep(0.2)\n";
    service.function("flood", source, json!({})).await;
    let events: Vec<_> = (0..200).map(|n| json!({"source": "test", "type": "flood", "data": n})).collect();
    service.post(&events).await;
    service
        .until("the flood runs", async || {
            (!service.executions("function=flood&state=running").await.is_empty()).then_some(())
        })
        .await;
    let single = reqwest::Client::builder().no_proxy().build().unwrap();
    let function = json!({"name": "single", "runtime": "python3", "handler": "main.handler", "code": {"source": ECHO},
                          "triggers": [{"source": "test", "type": "single"}]});
    let made = single.post(format!("{}/v1/functions", service.api)).header("X-Project-Id", "other").json(&function);
    assert_eq!(made.send().await.unwrap().status().as_u16(), 201);
    service.post(&[json!({"source": "test", "type": "single", "projectid": "other", "data": 1})]).await;
    service
        .until("the single event is done", async || {
            let url = format!("{}/v1/executions?state=succeeded", service.api);
            let page: Value =
                single.get(url).header("X-Project-Id", "other").send().await.unwrap().json().await.unwrap();
            (!page["executions"].as_array().unwrap().is_empty()).then_some(())
        })
        .await;
    let left = service.executions("function=flood&state=queued").await.len();
    assert!(left > 50, "the flood was over first: {left} left");
}
