//! The `lambda` program against the real REST service on a real store: that both mean the same by what they say. No
//! worker runs here; what a worker would write is written by the test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use lambda_openstack::api::{self, ApiDeps, EventPoster, PostError};
use lambda_openstack::config::{ApiOptions, DatabaseOptions};
use lambda_openstack::model::execution::{
    Change, Component, ErrorDetail, Failure, LogChunk, LogLine, LogStream, Measures, Phase, Reason, Start,
};
use lambda_openstack::model::{Event, ExecutionId, InstanceId, Payload, ProjectId, Timestamp, WorkerId};
use lambda_openstack::store::{self, ExecutionWrite, Scope, Store};
use lambda_openstack::task::Tasks;
use serde_json::{Value, json};

use super::{err, lambda, out};

/// Keeps what is posted.
#[derive(Default)]
struct Posted(Mutex<Vec<Value>>);

#[async_trait]
impl EventPoster for Posted {
    async fn post(&self, events: &[Event]) -> Result<Vec<String>, PostError> {
        let mut posted = self.0.lock().unwrap();
        posted.extend(events.iter().map(|event| Value::Object(event.object().clone())));
        Ok((0..events.len()).map(|n| format!("m{n}")).collect())
    }
}

struct Service {
    endpoint: String,
    store: Arc<dyn Store>,
    posted: Arc<Posted>,
    tasks: Tasks,
    directory: tempfile::TempDir,
}

impl Service {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let connection = format!("sqlite://{}", directory.path().join("lambda.sqlite").display());
        let store = store::open(&DatabaseOptions { connection, ..DatabaseOptions::default() }).await.unwrap();
        store.migrate().await.unwrap();
        let (posted, tasks) = (Arc::new(Posted::default()), Tasks::new());
        let router = api::router(ApiDeps {
            isolations: Vec::new(),
            options: ApiOptions { default_limit: 2, max_limit: 100, ..ApiOptions::default() },
            store: Arc::clone(&store),
            delegation: std::sync::Arc::new(lambda_openstack::api::NoDelegation),
            poster: Arc::clone(&posted) as Arc<dyn EventPoster>,
            keystone: None,
            policy: std::sync::Arc::new(
                lambda_openstack::policy::Enforcer::of_defaults(lambda_openstack::api::default_rules()).unwrap(),
            ),
            local: None,
            tasks: tasks.clone(),
            shutdown: tasks.token(),
            health: lambda_openstack::health::Health::new(Vec::new()),
            extra: None,
        })
        .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let cancel = tasks.token();
        tasks.run("api", async move {
            api::serve(listener, router, cancel, Duration::from_secs(1)).await.unwrap();
        });
        Self { endpoint, store, posted, tasks, directory }
    }

    /// Runs a command that must succeed; what it printed.
    async fn lambda(&self, arguments: &[&str]) -> String {
        let output = lambda(&self.endpoint, arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        out(&output)
    }

    /// The same, with its JSON.
    async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.lambda(&[arguments, &["-f", "json"]].concat()).await).unwrap()
    }

    /// Runs a command that must fail with exit code 1; what it said.
    async fn refused(&self, arguments: &[&str]) -> String {
        let output = lambda(&self.endpoint, arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", out(&output));
        err(&output)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A function, and an execution of it that waits.
    async fn queued(&self) -> ExecutionId {
        let code = self.file("main.py", "def handler(event, context): ...\n");
        self.lambda(&["function", "create", "f", "--code", &code]).await;
        self.lambda(&["function", "invoke", "f", "--async", "-f", "value"]).await.trim().parse().unwrap()
    }

    /// Does with an execution what a worker would.
    async fn apply(&self, id: ExecutionId, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let mut next = self.store.execution(&Scope::All, id).await.unwrap();
            let expected = next.fence();
            next.apply(change).unwrap();
            assert_eq!(self.store.write_executions(&[ExecutionWrite { expected, next }]).await.unwrap(), [true]);
        }
    }

    async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(10)).await);
    }
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + seconds * 1_000)
}

fn taken() -> [Change; 2] {
    let start = Change::Start { at: moment(1), revision: 1, start: Start::Cold, instance: InstanceId::generate() };
    [Change::Own { worker: WorkerId::generate() }, start]
}

fn failed(id: ExecutionId) -> Change {
    let error = ErrorDetail {
        error_type: "ValueError".to_owned(),
        message: "no picture".to_owned(),
        trace: vec!["File \"main.py\", line 2, in handler".to_owned()],
    };
    let failure = Failure {
        request_id: lambda_openstack::model::RequestId::of_execution(id),
        component: Component::Function,
        phase: Phase::Invoke,
        reason: Reason::HandlerError,
        error,
    };
    Change::Fail { at: moment(2), failure, measures: Measures::default(), dead_letter: None }
}

#[tokio::test]
async fn a_function_lives_from_its_making_to_its_removal() {
    let service = Service::start().await;
    let source = "def handler(event, context):\n    return event\n";
    let code = service.file("thumb.py", source);
    #[rustfmt::skip]
    let made = service.json(&["function", "create", "thumb", "--code", &code, "--memory", "256", "--timeout", "5",
        "--env", "A=1", "--env", "B=2", "--description", "d", "--max-concurrency", "3", "--max-attempts", "2",
        "--max-event-age", "60", "--dead-letter-queue", "dead", "--source", "store", "--type", "file.*",
        "--filter", r#"{"suffix": {"data.name": ".png"}}"#]).await;
    assert_eq!(
        (&made["handler"], &made["memory"], &made["retry"]["max_attempts"]),
        (&json!("thumb.handler"), &json!(256), &json!(2))
    );
    assert_eq!(made["triggers"][0]["filter"], json!({"suffix": {"data.name": ".png"}}));
    assert_eq!(made["project_id"], "p1");

    let archive = service.directory.path().join("code.zip");
    service.lambda(&["function", "code", "save", "thumb", "--file", archive.to_str().unwrap()]).await;
    let archive = std::fs::read(archive).unwrap();
    assert_eq!(made["code"]["size"], archive.len());

    let changed =
        service.json(&["function", "set", "thumb", "--env", "C=3", "--unset-env", "A", "--no-max-concurrency"]).await;
    assert_eq!(changed["environment"], json!({"B": "2", "C": "3"}));
    assert_eq!(
        (&changed["max_concurrency"], &changed["memory"], &changed["revision"]),
        (&Value::Null, &json!(256), &json!(2))
    );
    let other = service.file("other.py", source);
    let changed = service.json(&["function", "set", "thumb", "--code", &other, "--name", "small"]).await;
    assert_eq!((&changed["handler"], &changed["name"]), (&json!("other.handler"), &json!("small")));
    assert_ne!(changed["code"]["sha256"], made["code"]["sha256"]);

    for name in ["a", "b", "c"] {
        service.lambda(&["function", "create", name]).await;
    }
    assert_eq!(
        service.lambda(&["function", "list", "-f", "value", "-c", "name"]).await,
        "small\na\nb\nc\n",
        "over two pages"
    );
    assert_eq!(
        service.lambda(&["function", "list", "--limit", "3", "-f", "value", "-c", "name"]).await,
        "small\na\nb\n"
    );
    assert_eq!(service.json(&["function", "list", "--name", "small"]).await[0]["id"], made["id"]);
    let table = service.lambda(&["function", "show", "small"]).await;
    let environment = table.lines().find(|line| line.starts_with("| environment ")).unwrap_or_default();
    assert!(environment.contains("| B='2', C='3' "), "{table}");

    let said = service.refused(&["function", "create", "small"]).await;
    assert!(said.contains("has a function 'small' already (HTTP 409, function.function.name_taken)"), "{said}");
    let said = service.refused(&["function", "create", "big", "--memory", "1"]).await;
    assert!(said.contains("memory: must be 64 to 10240 MiB (HTTP 400"), "{said}");
    service.lambda(&["function", "delete", "small", "a", "b", "c"]).await;
    let said = service.refused(&["function", "show", "small"]).await;
    assert!(
        said.contains("there is no function 'small' in this project (HTTP 404") && said.contains("request id: req-"),
        "{said}"
    );
    service.stop().await;
}

#[tokio::test]
async fn triggers_are_made_shown_and_removed() {
    let service = Service::start().await;
    service.lambda(&["function", "create", "f"]).await;
    let made = service.json(&["trigger", "create", "f", "--type", "file.*"]).await;
    assert_eq!((&made["source"], &made["type"]), (&json!("*"), &json!("file.*")));
    let id = made["id"].as_str().unwrap();
    assert_eq!(service.json(&["trigger", "show", id]).await, made);
    assert_eq!(service.lambda(&["trigger", "list", "--function", "f", "-f", "value", "-c", "id"]).await.trim(), id);
    service.lambda(&["trigger", "delete", id]).await;
    assert_eq!(service.json(&["trigger", "list"]).await, json!([]));
    service.stop().await;
}

#[tokio::test]
async fn events_reach_the_queue_as_they_were_given() {
    let service = Service::start().await;
    let post = ["event", "post", "--source", "s", "--type", "t", "--subject", "x", "--id", "e1", "--data", "[1, {}]"];
    assert_eq!(service.lambda(&[&post[..], &["-f", "value"]].concat()).await, "e1 m0\n");
    let file =
        service.file("events.json", r#"[{"source": "s", "type": "a"}, {"source": "s", "type": "b", "id": "e2"}]"#);
    let posted = service.json(&["event", "post", "--file", &file]).await;
    assert_eq!((posted.as_array().unwrap().len(), &posted[1]["id"]), (2, &json!("e2")));
    let queue = service.posted.0.lock().unwrap().clone();
    let expected = json!({"specversion": "1.0", "id": "e1", "source": "s", "type": "t", "subject": "x", "data": [1, {}], "projectid": "p1"});
    assert_eq!((queue.len(), &queue[0]), (3, &expected));
    let said = service.refused(&["event", "post", "--source", "s", "--type", ""]).await;
    assert!(said.contains("type: must be 1 to 1024 bytes"), "{said}");
    service.stop().await;
}

#[tokio::test]
async fn an_execution_is_found_shown_and_waited_for() {
    let service = Service::start().await;
    let id = service.queued().await;
    let name = id.to_string();
    assert_eq!(
        service
            .lambda(&["execution", "list", "--state", "queued", "--function", "f", "-f", "value", "-c", "id"])
            .await
            .trim(),
        name
    );
    assert_eq!(
        service.json(&["execution", "list", "--state", "failed", "--state", "timed_out", "--since", "1h"]).await,
        json!([])
    );
    let said = service.refused(&["execution", "wait", &name, "--timeout", "0"]).await;
    assert!(said.contains("has not ended in 0 s"), "{said}");

    service.apply(id, taken()).await;
    let measures = Measures {
        duration_ms: Some(Duration::from_micros(12_500).into()),
        peak_memory_bytes: Some(1 << 20),
        ..Measures::default()
    };
    let result = Payload::from_value(&json!({"ok": true}));
    service.apply(id, [Change::Succeed { at: moment(2), result, measures }]).await;
    let shown = service
        .lambda(&[
            "execution",
            "wait",
            &name,
            "-f",
            "value",
            "-c",
            "state",
            "-c",
            "attempts",
            "-c",
            "start",
            "-c",
            "duration_ms",
        ])
        .await;
    assert_eq!(shown, "succeeded 1 cold 12.5\n");
    assert_eq!(service.json(&["execution", "show", &name, "-c", "result"]).await, json!({"result": {"ok": true}}));
    assert!(service.refused(&["execution", "cancel", &name]).await.contains("HTTP 409"));
    assert!(service.refused(&["execution", "redrive", &name]).await.contains("HTTP 409"));
    service.stop().await;
}

#[tokio::test]
async fn a_failed_execution_is_explained_and_redriven() {
    let service = Service::start().await;
    let id = service.queued().await;
    let name = id.to_string();
    service.apply(id, taken()).await;
    service.apply(id, [failed(id)]).await;
    let output =
        lambda(&service.endpoint, &["execution", "wait", &name, "-f", "value", "-c", "reason", "-c", "error_type"])
            .output()
            .await
            .unwrap();
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (Some(1), "handler_error ValueError\n"),
        "{}",
        err(&output)
    );
    assert!(err(&output).contains(&format!("lambda execution log {name}")), "{}", err(&output));
    let shown = service.lambda(&["execution", "show", &name]).await;
    for part in ["| error_message     | no picture", "| request_id        | req-", "| component         | function"] {
        assert!(shown.contains(part), "{shown}");
    }
    service.lambda(&["execution", "redrive", &name]).await;
    assert_eq!(
        service.lambda(&["execution", "show", &name, "-f", "value", "-c", "state", "-c", "redrives"]).await,
        "queued\n1\n"
    );
    service.lambda(&["execution", "cancel", &name]).await;
    assert_eq!(service.lambda(&["execution", "show", &name, "-f", "value", "-c", "state"]).await, "cancelled\n");
    service.stop().await;
}

#[tokio::test]
async fn a_log_is_followed_to_the_end_of_its_execution() {
    let service = Service::start().await;
    let id = service.queued().await;
    service.apply(id, taken()).await;
    let chunk = |sequence, text: &str| LogChunk {
        execution_id: id,
        project_id: ProjectId::parse("p1").unwrap(),
        attempt: 1,
        sequence,
        lines: vec![LogLine { at: moment(1), stream: LogStream::Stdout, text: text.to_owned() }],
    };
    service.store.append_logs(&[chunk(0, "one")]).await.unwrap();
    let name = id.to_string();
    let line = |text: &str| format!("{} stdout {text}\n", moment(1));
    assert_eq!(service.lambda(&["execution", "log", &name]).await, line("one"));
    let mut child = lambda(&service.endpoint, &["execution", "log", &name, "--follow"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut read = vec![0; line("one").len()];
    // What there is comes at once, before the end.
    tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut read).await.unwrap();
    service.store.append_logs(&[chunk(1, "two")]).await.unwrap();
    service.apply(id, [failed(id)]).await;
    tokio::io::AsyncReadExt::read_to_end(&mut stdout, &mut read).await.unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), line("one") + &line("two"));
    assert!(child.wait().await.unwrap().success());
    assert_eq!(service.lambda(&["execution", "log", &name, "--attempt", "2"]).await, "");
    service.stop().await;
}

#[tokio::test]
async fn what_there_is_for_operators_is_listed() {
    let service = Service::start().await;
    assert!(
        service
            .lambda(&["runtime", "list", "-f", "value", "-c", "name", "-c", "default_handler"])
            .await
            .contains("python3 main.handler\n")
    );
    assert_eq!(service.lambda(&["runtime", "show", "provided", "-f", "value", "-c", "kind"]).await, "provided\n");
    for resource in ["worker", "instance"] {
        assert_eq!(service.json(&[resource, "list"]).await, json!([]));
    }
    // noauth calls everybody an administrator; if it does not, the refusal says which role is missing.
    service.lambda(&["instance", "list", "--all-projects"]).await;
    let code = service.file("main.py", "def handler(event, context): ...\n");
    service.lambda(&["function", "create", "f", "--code", &code]).await;
    let said = service.refused(&["function", "invoke", "f"]).await;
    assert!(said.contains("no worker is running; try again (HTTP 503, function.invocation.unavailable)"), "{said}");
    service.stop().await;
}
