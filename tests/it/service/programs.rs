//! How the standalone program starts, refuses to start, reloads and stops.

use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Service, signal};

fn refused(arguments: &[&str]) -> Output {
    let output =
        Command::new(env!("CARGO_BIN_EXE_lambda-standalone")).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    output
}

/// The last line of standard error; what is before it are logs.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn what_keeps_it_from_starting_is_said_in_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    for (arguments, expected) in [
        (vec!["--data-dir", data, "--api-bind", &address, "--queue-bind", "127.0.0.1:0"], address.as_str()),
        (vec!["--data-dir", data, "--api-bind", "127.0.0.1:0", "--queue-bind", &address], address.as_str()),
        (
            vec!["--data-dir", "/proc/nowhere", "--api-bind", "127.0.0.1:0", "--queue-bind", "127.0.0.1:0"],
            "/proc/nowhere",
        ),
        (vec!["--data-dir", data, "--api-bind", "nonsense"], "nonsense"),
        (vec!["--banana"], "--banana"),
        (vec!["--config-file", "/nonexistent.conf"], "/nonexistent.conf"),
    ] {
        let output = refused(&arguments);
        let line = said(&output);
        assert!(line.starts_with("lambda-standalone: ") && line.contains(expected), "{arguments:?}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_belongs_to_one_process() {
    let service = Service::start();
    let data = service.data_dir();
    let arguments = ["--data-dir", data.to_str().unwrap(), "--api-bind", "127.0.0.1:0", "--queue-bind", "127.0.0.1:0"];
    let line = said(&refused(&arguments));
    assert!(line.contains("is used by another process"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_what_runs_finish_hands_the_rest_back_and_a_restart_goes_on() {
    let mut service = Service::start();
    let source = "import time\ndef handler(event, context):\n    time.sleep(1)\n    return 'done'\n";
    service.function("slow", source, json!({"max_concurrency": 1})).await;
    for n in 0..3 {
        service.event("slow", json!(n)).await;
    }
    service
        .until("one runs", async || (!service.executions("function=slow&state=running").await.is_empty()).then_some(()))
        .await;
    assert_eq!(service.terminate(), Some(0), "{}", service.log());
    service.run();
    let executions = service.finished("slow", 3).await;
    assert!(executions.iter().all(|e| e["state"] == "succeeded" && e["attempts"] == 1), "{executions:?}");
    assert!(executions.iter().all(|e| e["interruptions"].as_u64().unwrap_or(0) == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_within_the_grace_is_handed_back_and_run_again() {
    let mut service = Service::start_with("[DEFAULT]\ngraceful_shutdown_timeout = 1\n");
    let source = "import os, time\ndef handler(event, context):\n    time.sleep(event['data'])\n    return 'done'\n";
    service.function("long", source, json!({})).await;
    service.event("long", json!(4)).await;
    service
        .until("it runs", async || (!service.executions("function=long&state=running").await.is_empty()).then_some(()))
        .await;
    assert_eq!(service.terminate(), Some(0), "{}", service.log());
    service.run();
    let execution = service.finished("long", 1).await.remove(0);
    assert_eq!((&execution["state"], &execution["attempts"]), (&json!("succeeded"), &json!(2)), "{execution}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_somebody_else_ends_costs_no_attempt() {
    let mut service = Service::start();
    let source = "import time\ndef handler(event, context):\n    time.sleep(1.5)\n    return 'done'\n";
    let more = json!({"retry": {"max_attempts": 1, "max_event_age": 600}});
    service.function("slow", source, more).await;
    service.event("slow", json!({})).await;
    service
        .until("it runs", async || (!service.executions("function=slow&state=running").await.is_empty()).then_some(()))
        .await;
    for agent in super::nothing_lost::agents(service.process().id()) {
        let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(agent))).unwrap();
        assert_eq!(group.as_raw(), agent, "what is typed at the service's terminal does not reach it");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent), Signal::SIGTERM).unwrap();
    }
    let execution = service.finished("slow", 1).await.remove(0);
    assert_eq!((&execution["state"], &execution["result"]), (&json!("succeeded"), &json!("done")), "{execution}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_takes_over_what_may_change_and_stops_nothing() {
    let mut service = Service::start_with("[DEFAULT]\ndebug = false\n");
    std::fs::write(service.directory.path().join("lambda.conf"), "[DEFAULT]\ndebug = true\n[worker]\nkeep_alive = 2\n")
        .unwrap();
    signal(service.process(), Signal::SIGHUP);
    service
        .until("the options are taken over", async || service.log().contains("worker.keep_alive").then_some(()))
        .await;
    let (status, _) = service.call("GET", "/v1/functions", None).await;
    assert_eq!(status, 200);
}
