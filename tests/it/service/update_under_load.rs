//! A function is changed while it is called without pause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures::future::join_all;
use serde_json::{Value, json};

use super::Service;

/// Takes half a second to import, and tells which version it is.
fn version(name: &str) -> String {
    format!("import time\ntime.sleep(0.5)\ndef handler(event, context):\n    time.sleep(0.01)\n    return '{name}'\n")
}

/// Calls until it is done; when each call was made, and what came back.
async fn call_without_pause(service: &Service, done: &AtomicBool) -> Vec<(Instant, Value)> {
    let mut answers = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let answer = service.ok("POST", "/v1/functions/busy/invocations", Some(&json!({}))).await;
        answers.push((asked, answer));
    }
    answers
}

/// Changes the function when the load is on; when the change was sent, and when it was answered.
async fn change(service: &Service) -> (Instant, Instant) {
    service
        .until("the load is on", async || (service.executions("function=busy").await.len() >= 100).then_some(()))
        .await;
    // Events of the queue come in between.
    for n in 0..20 {
        service.event("busy", json!({"n": n})).await;
    }
    let sent = Instant::now();
    service.ok("PATCH", "/v1/functions/busy", Some(&json!({"code": {"source": version("new")}}))).await;
    let answered = Instant::now();
    for n in 20..40 {
        service.event("busy", json!({"n": n})).await;
    }
    service
        .until("the new one is called for a while", async || {
            let all = service.executions("function=busy").await;
            (all.iter().filter(|execution| execution["revision"] == 2).count() >= 100).then_some(())
        })
        .await;
    (sent, answered)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_under_load_fails_nothing_and_the_old_code_serves_until_the_new_one_can() {
    let service = Service::start();
    service.function("busy", &version("old"), json!({})).await;
    service.ok("POST", "/v1/functions/busy/invocations", Some(&json!({}))).await;
    let done = AtomicBool::new(false);
    let callers = join_all((0..6).map(|_| call_without_pause(&service, &done)));
    let (answers, (sent, answered)) = tokio::join!(callers, async {
        let times = change(&service).await;
        done.store(true, Ordering::SeqCst);
        times
    });
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    assert!(answers.iter().all(|(_, answer)| answer == "old" || answer == "new"), "no call has failed");
    let old_between = |from: Instant, until: Option<Instant>| {
        let within = |asked: Instant| asked > from && until.is_none_or(|until| asked < until);
        answers.iter().filter(|(asked, answer)| within(*asked) && answer == "old").count()
    };
    assert_eq!(old_between(answered, None), 0, "whoever called after the update was answered met the new code");
    assert!(old_between(sent, Some(answered)) > 0, "while the new one was imported, the old one went on");
    let failed = service.executions("function=busy&state=failed").await;
    assert_eq!(failed, Vec::<Value>::new());
}
