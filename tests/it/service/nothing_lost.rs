//! Nothing lost: whatever is killed while 2,000 events run, each event has exactly one record in a terminal state
//! afterwards, and the code saw an event twice only if it was in flight at a kill.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambda_openstack::config::DatabaseOptions;
use lambda_openstack::store;
use rand::Rng as _;
use serde_json::{Value, json};

use super::{QUEUE, Service, is_over, open};

const EVENTS: usize = 2000;

/// What the handlers say that they have seen. They say it over a connection, because a sandbox sees no file of ours.
pub struct Counter {
    port: u16,
    seen: Arc<Mutex<HashMap<String, usize>>>,
}

impl Counter {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let counting = Arc::clone(&seen);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut id = String::new();
                // Killed in the middle of a word: not seen.
                if BufReader::new(&connection).read_line(&mut id).is_ok() && id.ends_with('\n') {
                    *counting.lock().unwrap().entry(id.trim_end().to_owned()).or_default() += 1;
                    let _ = connection.write_all(b"!");
                }
            }
        });
        Self { port, seen }
    }

    /// A handler that tells the counter of each event before it works a little.
    pub fn handler(&self) -> String {
        format!(
            "import socket, time\ndef handler(event, context):\n    with socket.create_connection(('127.0.0.1', {})) as counter:\n        counter.sendall(event['id'].encode() + b'\\n')\n        assert counter.recv(1) == b'!'\n    time.sleep(0.005)\n    return event['id']\n",
            self.port
        )
    }

    /// Every event was seen, and not more were seen again than had been in flight when something was killed.
    pub fn assert_repeats(&self, events: usize, in_flight: usize) {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), events, "the code has not seen every event");
        let repeats: usize = seen.values().map(|count| count - 1).sum();
        eprintln!("{repeats} repeats, {in_flight} executions were in flight at the kills");
        assert!(repeats <= in_flight, "{repeats} repeats, but only {in_flight} were in flight at the kills");
    }
}

fn events() -> Vec<Value> {
    (0..EVENTS)
        .map(|n| json!({"specversion": "1.0", "id": format!("event-{n}"), "source": "test", "type": "counts"}))
        .collect()
}

/// A moment somewhere in the middle of things.
async fn a_moment() {
    let wait = Duration::from_millis(rand::rng().random_range(200..1200));
    tokio::time::sleep(wait).await;
}

/// Executions that somebody owned and that were not over, as the store has it.
pub async fn in_flight(connection: &str) -> usize {
    let options = DatabaseOptions { connection: connection.to_owned(), timeout: 30, ..DatabaseOptions::default() };
    let store = store::open(&options).await.unwrap();
    let mut count = 0;
    for owner in store.owners().await.unwrap() {
        count += store.owned_executions(owner, 100_000).await.unwrap().len();
    }
    count
}

pub fn assert_each_once(executions: &[Value], events: usize) {
    assert_eq!(executions.len(), events);
    let mut ids: Vec<_> = executions.iter().map(|e| e["event"]["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events, "an event has two records");
    for execution in executions {
        assert!(is_over(execution), "{execution}");
        assert_eq!(execution["state"], "succeeded", "{execution}");
    }
}

/// Waits until all events have a record that is over. What was claimed and not yet taken in when the process was killed
/// comes back when its claim ends, after a minute.
async fn all_over(service: &Service) -> Vec<Value> {
    service
        .until("every event has its record", async || {
            let over = service.executions("function=counts").await;
            (over.len() >= EVENTS && over.iter().all(is_over)).then_some(over)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_whole_process_is_killed_again_and_again() {
    let mut service = Service::start_with("[worker]\nmax_running = 8\nmax_waiting = 16\n");
    let counter = Counter::start();
    service.function("counts", &counter.handler(), json!({"retry": {"max_attempts": 10, "max_event_age": 3600}})).await;
    for chunk in events().chunks(100) {
        service.post(chunk).await;
    }
    let connection = format!("sqlite://{}", service.data_dir().join("lambda.db").display());
    let mut lost_sight_of = 0;
    for _ in 0..4 {
        a_moment().await;
        service.kill();
        lost_sight_of += in_flight(&connection).await;
        service.run();
    }
    let executions = all_over(&service).await;
    assert_each_once(&executions, EVENTS);
    counter.assert_repeats(EVENTS, lost_sight_of);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_agents_are_killed() {
    let mut service = Service::start_with("[worker]\nmax_running = 8\nmax_waiting = 16\n");
    let counter = Counter::start();
    service.function("counts", &counter.handler(), json!({"retry": {"max_attempts": 10, "max_event_age": 3600}})).await;
    for chunk in events().chunks(100) {
        service.post(chunk).await;
    }
    let mut killed = 0;
    for _ in 0..4 {
        a_moment().await;
        for agent in agents(service.process().id()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent), nix::sys::signal::Signal::SIGKILL).unwrap();
            killed += 1;
        }
    }
    assert!(killed >= 2, "only {killed} agents were there to be killed");
    let executions = all_over(&service).await;
    assert_each_once(&executions, EVENTS);
    // An agent runs at most this many at once.
    counter.assert_repeats(EVENTS, killed * 8);
}

/// The agents that a service has started.
pub fn agents(parent: u32) -> Vec<i32> {
    let list = Command::new("ps").args(["-o", "pid=,args=", "--ppid", &parent.to_string()]).output().unwrap();
    String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|line| line.contains("lambda-agent run"))
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect()
}

/// A mongod of this test's own, because it gets killed.
struct Mongod {
    directory: tempfile::TempDir,
    port: u16,
}

impl Mongod {
    fn start() -> Option<Self> {
        crate::support::databases::mongodb_uri()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mongod = Self { directory: tempfile::tempdir().unwrap(), port };
        mongod.script("up");
        Some(mongod)
    }

    fn script(&self, verb: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud/mongo.sh");
        let output = Command::new("bash")
            .arg(script)
            .arg(verb)
            .env_remove("MONGODB_URI")
            .env("CARGO_TARGET_DIR", self.directory.path())
            .env("LAMBDA_TEST_MONGO_PORT", self.port.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "mongo.sh {verb}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn connection(&self) -> String {
        let uri = self.script("uri");
        match uri.split_once("/?") {
            Some((hosts, query)) => format!("{hosts}/lambda?{query}"),
            None => format!("{}/lambda", uri.trim_end_matches('/')),
        }
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.script("down");
    }
}

/// A program of the service with a log of its own.
pub struct Program {
    pub process: Child,
    command: Vec<PathBuf>,
    log: PathBuf,
}

impl Program {
    pub fn start(program: &str, configuration: &Path, log: PathBuf) -> Self {
        let command = vec![PathBuf::from(program), configuration.to_owned()];
        let mut program = Self { process: Command::new("true").spawn().unwrap(), command, log };
        program.run();
        program
    }

    pub fn run(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        self.process = Command::new(&self.command[0])
            .arg("--config-file")
            .arg(&self.command[1])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that was killed is gone already.
        if self.process.try_wait().unwrap().is_none() {
            super::signal(&self.process, nix::sys::signal::Signal::SIGTERM);
        }
        self.process.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_of_two_workers_and_the_database_are_killed() {
    let Some(mongod) = Mongod::start() else { return };
    let connection = mongod.connection();
    let directory = tempfile::tempdir().unwrap();
    open(directory.path(), 0o711);
    let counter = Counter::start();

    // The queue, in this process: it is not what is killed here.
    let queue = lambda_openstack::standalone::queue::open(directory.path().join("queue.db")).await.unwrap();
    let queue_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let queue_url = format!("http://{}", queue_listener.local_addr().unwrap());
    let tasks = lambda_openstack::task::Tasks::new();
    let serving = tasks.token();
    lambda_openstack::service::serve(
        &tasks,
        "queue",
        queue_listener,
        lambda_openstack::standalone::queue::router(queue),
        &serving,
        Duration::from_secs(1),
    );
    let api_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let configure = |name: &str| {
        let path = directory.path().join(format!("{name}.conf"));
        let state = directory.path().join(name);
        let text = format!(
            "[database]\nconnection = {connection}\ntimeout = 5\n[api]\nbind = 127.0.0.1:{api_port}\n[zaqar]\nendpoint_override = {queue_url}\n\
             [worker]\ngateway_bind = 127.0.0.1:0\nstate_dir = {}\nmax_running = 8\nmax_waiting = 16\nheartbeat_interval = 0.5\ndead_after = 3\n[local]\nsandbox_uid_base = {}\n",
            state.display(),
            300_000 + 50_000 * u32::from(name.ends_with('2')),
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    let log = |name: &str| directory.path().join(format!("{name}.log"));
    let _api = Program::start(env!("CARGO_BIN_EXE_lambda-api"), &configure("api"), log("api"));
    let mut first = Program::start(env!("CARGO_BIN_EXE_lambda-worker"), &configure("worker1"), log("worker1"));
    let _second = Program::start(env!("CARGO_BIN_EXE_lambda-worker"), &configure("worker2"), log("worker2"));

    let service = Service::connect(format!("http://127.0.0.1:{api_port}"), queue_url);
    service
        .until("two workers are alive", async || {
            let url = format!("{}/v1/workers", service.api);
            let response = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.ok()?;
            let workers: Value = response.json().await.ok()?;
            (workers["workers"].as_array()?.len() == 2).then_some(())
        })
        .await;
    service.function("counts", &counter.handler(), json!({"retry": {"max_attempts": 10, "max_event_age": 3600}})).await;
    for chunk in events().chunks(100) {
        service.post(chunk).await;
    }
    a_moment().await;
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    let lost_with_worker = in_flight(&connection).await;
    a_moment().await;
    let running = in_flight(&connection).await;
    mongod.script("kill9");
    a_moment().await;
    mongod.script("start");
    a_moment().await;
    first.run();

    let executions = all_over(&service).await;
    assert_each_once(&executions, EVENTS);
    // Both workers may have had as many under way when the database went.
    counter.assert_repeats(EVENTS, lost_with_worker + running + 2 * (8 + 16));
    assert_eq!(service.messages(QUEUE).await.len(), 0, "the queue is empty");
    tasks.stop(Duration::from_secs(5)).await;
}
