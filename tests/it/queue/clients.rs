//! python-zaqarclient and openstacksdk, as they are published, against our server.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Service, repository};

/// Making the environment downloads some tens of packages on its first run.
const ENVIRONMENT_TIMEOUT: Duration = Duration::from_secs(600);
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);

/// The Python with the clients; made once and kept in the cache directory.
pub async fn python() -> String {
    let script = repository().join("tests/clients/venv.sh");
    let output = output(Command::new("bash").arg(&script), ENVIRONMENT_TIMEOUT).await;
    output.trim().to_owned()
}

async fn output(command: &mut Command, within: Duration) -> String {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(within, command.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

async fn run(script: &str) {
    let service = Service::start().await;
    let path = repository().join("tests/clients").join(script);
    let said = output(Command::new(python().await).arg(&path).arg(&service.url), SCRIPT_TIMEOUT).await;
    assert!(said.trim_end().ends_with("ok"), "{said}");
    let left = service.send("GET", "/v2/queues?with_count=true", "").await.body;
    assert_eq!(left["queues"], serde_json::json!([]), "it has left something behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_zaqarclient_works_unchanged() {
    run("zaqarclient_check.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openstacksdk_works_unchanged() {
    run("openstacksdk_check.py").await;
}
