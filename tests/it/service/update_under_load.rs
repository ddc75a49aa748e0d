//! A function is changed while it is called without pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::Service;

/// Takes half a second to import, and tells which version it is.
fn version(name: &str) -> String {
    format!("import time\ntime.sleep(0.5)\ndef handler(event, context):\n    time.sleep(0.01)\n    return '{name}'\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_under_load_fails_nothing_and_the_old_code_serves_until_the_new_one_can() {
    let service = Arc::new(Service::start());
    service.function("busy", &version("old"), json!({})).await;
    service.ok("POST", "/v1/functions/busy/invocations", Some(&json!({}))).await;
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..6)
        .map(|_| {
            let (service, done) = (Arc::clone(&service), Arc::clone(&done));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    let asked = Instant::now();
                    let answer = service.ok("POST", "/v1/functions/busy/invocations", Some(&json!({}))).await;
                    answers.push((asked, answer));
                }
                answers
            })
        })
        .collect();
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
    done.store(true, Ordering::SeqCst);
    let mut answers: Vec<(Instant, Value)> = Vec::new();
    for caller in callers {
        answers.extend(caller.await.unwrap());
    }
    assert!(answers.iter().all(|(_, answer)| answer == "old" || answer == "new"), "no call has failed");
    let late = answers.iter().filter(|(asked, answer)| *asked > answered && answer == "old").count();
    assert_eq!(late, 0, "whoever called after the update was answered met the new code");
    let meanwhile =
        answers.iter().filter(|(asked, answer)| *asked > sent && *asked < answered && answer == "old").count();
    assert!(meanwhile > 0, "while the new one was imported, the old one went on");
    let failed = service.executions("function=busy&state=failed").await;
    assert_eq!(failed, Vec::<Value>::new());
}
