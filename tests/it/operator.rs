//! What an operator has in hand: `lambda-manage`, the health checks, logs that are rotated, and names that must agree
//! wherever they stand.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lambda_openstack::model::SERVICE_TYPE;
use lambda_openstack::standalone::queue;
use lambda_openstack::task::Tasks;
use mongodb::bson::Document;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::service::signal;
use crate::support::databases::{Database, eventually, with_mongo, with_sqlite};

/// A queue service of its own.
struct Queue {
    url: String,
    tasks: Tasks,
    _directory: TempDir,
}

impl Queue {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let queue = queue::open(directory.path().join("queue.sqlite")).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        let (router, cancel) = (queue::router(queue), tasks.token());
        tasks.run("queue", async move {
            // It is dropped with whatever is connected, as a service that dies.
            tokio::select! {
                served = async { axum::serve(listener, router).await } => served.unwrap(),
                () = cancel.cancelled() => {}
            }
        });
        Self { url, tasks, _directory: directory }
    }

    async fn stop(&self) {
        assert!(self.tasks.stop(Duration::from_secs(10)).await);
    }
}

fn configuration(directory: &Path, database: &Database, queue: &str, more: &str) -> PathBuf {
    let file = directory.join("lambda.conf");
    let text = format!(
        "[database]\nconnection = {}\ntimeout = 5\n[zaqar]\nendpoint_override = {queue}\ntimeout = 5\n{more}",
        database.options.connection
    );
    std::fs::write(&file, text).unwrap();
    file
}

async fn manage(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambda-manage"));
    command.arg("--config-file").arg(file).args(arguments).env_clear();
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The result and the details of one check in the table.
fn finding(table: &str, check: &str) -> (String, String) {
    let lines: Vec<_> = table.lines().map(|line| line.trim_matches(['|', ' '])).collect();
    let at = lines.iter().position(|line| *line == format!("Check: {check}")).unwrap_or_else(|| panic!("{table}"));
    let result = lines[at + 1].strip_prefix("Result: ").unwrap().to_owned();
    let details =
        lines[at + 2..].iter().take_while(|line| !line.starts_with('+')).copied().collect::<Vec<_>>().join(" ");
    (result, details.strip_prefix("Details: ").unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upgrade_check_says_what_is_missing_and_db_sync_adds_it_on_mongodb() {
    with_mongo(|database| async move {
        let (queue, directory) = (Queue::start().await, tempfile::tempdir().unwrap());
        let file = configuration(directory.path(), &database, &queue.url, "");
        let check = ["status", "upgrade-check"];
        database.mongo().await.collection::<Document>("executions").drop_index("owner").await.unwrap();
        let output = manage(&file, &check).await;
        let (result, details) = finding(&text(&output), "Store");
        assert_eq!((output.status.code(), result.as_str()), (Some(1), "Warning"), "{}", text(&output));
        assert!(details.contains("it lacks executions.owner; run lambda-manage db-sync"), "{details}");
        for _ in 0..2 {
            let output = manage(&file, &["db-sync"]).await;
            assert!(output.status.success(), "{}", text(&output));
        }
        let output = manage(&file, &check).await;
        // Without Keystone everybody is believed, which is worth a warning.
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert_eq!(finding(&text(&output), "Keystone").0, "Warning");
        for check in ["Configuration", "Policy", "Store", "Queue"] {
            assert_eq!(finding(&text(&output), check).0, "Success");
        }
        queue.stop().await;
        let output = manage(&file, &check).await;
        assert_eq!((output.status.code(), finding(&text(&output), "Queue").0.as_str()), (Some(2), "Failure"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_gets_its_shape_by_db_sync() {
    with_sqlite(|mut database| async move {
        let (queue, directory) = (Queue::start().await, tempfile::tempdir().unwrap());
        let path = directory.path().join("new.sqlite");
        database.options.connection = format!("sqlite://{}", path.display());
        let file = configuration(directory.path(), &database, &queue.url, "");
        let output = manage(&file, &["status", "upgrade-check"]).await;
        assert!(finding(&text(&output), "Store").1.contains("it lacks step 1"), "{}", text(&output));
        assert!(manage(&file, &["db-sync"]).await.status.success());
        let output = manage(&file, &["status", "upgrade-check"]).await;
        assert_eq!(finding(&text(&output), "Store").0, "Success", "{}", text(&output));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_a_finding_without_its_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lambda.conf");
    std::fs::write(&file, "[api]\nbind = x\n").unwrap();
    let output = manage(&file, &["status", "upgrade-check"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(finding(&text(&output), "Configuration").1.contains("api.bind is \"x\""), "{}", text(&output));

    // Nobody listens there: the port was free a moment ago and is below those that are handed out.
    std::fs::write(&file, "[database]\nconnection = mongodb://u:hunter2@127.0.0.1:9/d\ntimeout = 1\n").unwrap();
    for arguments in [&["status", "upgrade-check"] as &[_], &["db-sync"]] {
        let output = manage(&file, arguments).await;
        assert!(!output.status.success() && !text(&output).contains("hunter2"), "{}", text(&output));
    }
}

/// A worker's process.
struct Worker {
    process: Child,
    operator: String,
    log: PathBuf,
    directory: TempDir,
}

impl Worker {
    fn start(database: &Database, queue: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let operator = free.local_addr().unwrap().to_string();
        drop(free);
        let log = directory.path().join("worker.log");
        let more = format!(
            "[worker]\ngateway_bind = 127.0.0.1:0\nmetrics_bind = {operator}\nstate_dir = {}\n[DEFAULT]\nlog_file = {}\n",
            directory.path().join("state").display(),
            log.display()
        );
        let file = configuration(directory.path(), database, queue, &more);
        let process = Command::new(env!("CARGO_BIN_EXE_lambda-worker"))
            .arg("--config-file")
            .arg(&file)
            .env_clear()
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, operator, log, directory }
    }

    async fn health(&self) -> Option<(u16, Value)> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build().unwrap();
        let url = format!("http://{}/healthcheck?detailed=true", self.operator);
        let answer = http.get(url).header("accept", "application/json").send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.unwrap()))
    }

    async fn is(&self, status: u16, ill: &[&str]) -> bool {
        let Some((found, body)) = self.health().await else { return false };
        let checks = body["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found_ill: Vec<_> =
            checks.iter().filter(|check| check["healthy"] == false).map(|check| check["class"].clone()).collect();
        found == status && found_ill == ill
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_says_which_part_is_ill_and_opens_its_log_anew() {
    with_mongo(|database| async move {
        let queue = Queue::start().await;
        let mut worker = Worker::start(&database, &queue.url);
        eventually("the worker is well", || worker.is(200, &[])).await;
        let (_, body) = worker.health().await.unwrap();
        let checks = body["checks"].as_array().unwrap().iter();
        let classes: Vec<_> = checks.map(|check| check["class"].as_str().unwrap().to_owned()).collect();
        assert!(
            ["store", "queue", "gateway", "local"].iter().all(|part| classes.iter().any(|class| class == part)),
            "{body}"
        );

        // As logrotate does it.
        let rotated = worker.directory.path().join("worker.log.1");
        std::fs::rename(&worker.log, &rotated).unwrap();
        signal(&worker.process, Signal::SIGHUP);
        eventually("the log is opened anew", || async { worker.log.exists() }).await;

        queue.stop().await;
        eventually("the worker says that the queue is ill", || worker.is(503, &["queue"])).await;
        eventually("what comes later is in the new file", || async {
            std::fs::read_to_string(&worker.log).unwrap().contains("queue fails its health check")
        })
        .await;
        assert!(!std::fs::read_to_string(&rotated).unwrap().contains("fails its health check"));
        signal(&worker.process, Signal::SIGTERM);
        let ended = tokio::task::spawn_blocking(move || worker.process.wait().unwrap().code()).await.unwrap();
        assert_eq!(ended, Some(0));
    })
    .await;
}

fn tree(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_service_type_is_one_word_everywhere() {
    let plugin = tree("devstack/lib/lambda");
    assert!(plugin.lines().any(|line| line == format!("LAMBDA_SERVICE_TYPE={SERVICE_TYPE}")));
    // A service of that name made by hand would be a second place to change.
    for directory in ["src/cli", "src/openstack", "src/worker", "src/bin", "src/service.rs", "src/cli.rs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        for file in files(&path) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains(&format!("Service(&[\"{SERVICE_TYPE}\"")), "{}: use SERVICE_TYPE", file.display());
        }
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|entry| files(&entry)).filter(|file| file.extension().is_some_and(|end| end == "rs")).collect()
}
