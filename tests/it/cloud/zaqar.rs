//! The real Zaqar, on both of its stores: nothing is lost, dead letters lie where they shall, and projects' own queues are
//! read on trusts.

mod own_queues;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lambda_openstack::openstack::zaqar::{Client, Message, NewMessage};
use lambda_openstack::openstack::{Session, SessionOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Account, env, service};
use crate::service::nothing_lost::{Counter, Program, assert_each_once, in_flight};
use crate::service::{Service, is_over, open};

/// One of Zaqar's stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// At the address that the catalog has.
    Mongodb,
    /// At `ZAQAR_REDIS_URL`.
    Redis,
}

impl Backend {
    /// Where it is, if it is not where the catalog says.
    fn endpoint(self) -> Option<String> {
        match self {
            Self::Mongodb => None,
            Self::Redis => Some(env().var("ZAQAR_REDIS_URL").to_owned()),
        }
    }

    /// As this account.
    pub fn client(self, account: &Account) -> Client {
        let options = SessionOptions { endpoint: self.endpoint(), ..account.session_options() };
        Client::new(Session::new(Arc::new(account.auth()), options).unwrap())
    }
}

/// An API and workers of ours on the real cloud, with queues and a database of their own.
pub struct Deployment {
    pub service: Service,
    pub backend: Backend,
    pub queue: String,
    pub dead_letters: String,
    pub connection: String,
    pub directory: TempDir,
    api_port: u16,
    more: String,
    api: Option<Program>,
    /// The ordinary user's project.
    pub project: String,
}

impl Deployment {
    /// Starts the API, for callers without tokens in the project of the ordinary user, or for that user with its token;
    /// `more` are options of `[zaqar]`.
    pub async fn start(backend: Backend, auth_strategy: &str, more: &str) -> Self {
        let project = env().auth().project_id().await.unwrap().unwrap();
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), 0o711);
        let mark = Uuid::new_v4().simple().to_string();
        let connection = format!("mongodb://{}/lambda-test-{mark}?replicaSet=rs0", hosts());
        let api_port = free_port();
        let mut deployment = Self {
            service: Service::connect(format!("http://127.0.0.1:{api_port}"), String::new()),
            backend,
            queue: format!("lambda-events-{mark}"),
            dead_letters: format!("lambda-dead-{mark}"),
            connection,
            directory,
            api_port,
            more: more.to_owned(),
            api: None,
            project,
        };
        if auth_strategy == "keystone" {
            deployment.service.token = Some(env().auth().token().await.unwrap().to_str().unwrap().to_owned());
        }
        let own = format!(
            "[api]\nauth_strategy = {auth_strategy}\n[keystone_authtoken]\n{}",
            credentials("token_cache_time = -1\n"),
        );
        let configuration = deployment.configure("api", &own);
        let log = deployment.directory.path().join("api.log");
        deployment.api = Some(Program::start(env!("CARGO_BIN_EXE_lambda-api"), &configuration, log));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/healthcheck", deployment.service.api);
        deployment.service.until("the API answers", async || client.get(&url).send().await.ok()).await;
        deployment
    }

    fn configure(&self, name: &str, own: &str) -> PathBuf {
        let path = self.directory.path().join(format!("{name}.conf"));
        let endpoint = self.backend.endpoint().map(|url| format!("endpoint_override = {url}\n")).unwrap_or_default();
        let text = format!(
            "[database]\nconnection = {}\ntimeout = 10\n[api]\nbind = 127.0.0.1:{}\ndefault_project = {}\n\
             [service_auth]\n{}[zaqar]\n{endpoint}queue = {}\ndead_letter_queue = {}\nqueue_refresh = 0.5\n{}\n{own}",
            self.connection,
            self.api_port,
            self.project,
            credentials(&format!("region_name = {}\n", service().var("OS_REGION_NAME"))),
            self.queue,
            self.dead_letters,
            self.more,
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts a worker with the local driver.
    pub fn worker(&self, name: &str) -> Worker {
        let number = u32::from(name.bytes().last().unwrap_or_default());
        let metrics = free_port();
        let own = format!(
            "[worker]\ngateway_bind = 127.0.0.1:0\nmetrics_bind = 127.0.0.1:{metrics}\nstate_dir = {}\nmax_running = 16\nmax_waiting = 64\n\
             heartbeat_interval = 0.5\ndead_after = 5\nretry_base = 0.1\n[local]\nsandbox_uid_base = {}\n",
            self.directory.path().join(name).display(),
            300_000 + 50_000 * (number % 8),
        );
        let configuration = self.configure(name, &own);
        let log = self.directory.path().join(format!("{name}.log"));
        Worker { program: Program::start(env!("CARGO_BIN_EXE_lambda-worker"), &configuration, log), metrics }
    }

    /// Waits until this many workers are alive, by their records.
    pub async fn workers_alive(&self, count: usize) {
        let options = lambda_openstack::config::DatabaseOptions {
            connection: self.connection.clone(),
            timeout: 30,
            ..Default::default()
        };
        let store = lambda_openstack::store::open(&options).await.unwrap();
        self.service
            .until("the workers are alive", async || {
                let workers = store.workers().await.unwrap_or_default();
                let live = workers.iter().filter(|(_, age)| *age < Duration::from_secs(3)).count();
                (live == count).then_some(())
            })
            .await;
    }

    /// What lies on a queue, as this account sees it; it is claimed by the look.
    pub async fn claimed(&self, account: &Account, queue: &str) -> Vec<Message> {
        let ttl = Duration::from_secs(60);
        let claim = self.backend.client(account).claim(queue, 20, ttl, ttl).await.unwrap();
        claim.map(|claim| claim.messages).unwrap_or_default()
    }

    /// Deletes what the deployment has made in the cloud.
    pub async fn clean(&self) {
        let client = self.backend.client(&service());
        for queue in [&self.queue, &self.dead_letters] {
            client.delete_queue(queue).await.unwrap();
        }
        let uri = self.connection.as_str();
        mongodb::Client::with_uri_str(uri).await.unwrap().default_database().unwrap().drop().await.unwrap();
    }
}

/// A worker that runs.
pub struct Worker {
    pub program: Program,
    metrics: u16,
}

impl Worker {
    /// SIGKILL.
    pub fn kill(&mut self) {
        self.program.process.kill().unwrap();
        self.program.process.wait().unwrap();
    }

    /// A counter of its metrics.
    pub async fn counted(&self, name: &str) -> u64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let text = client.get(url).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("lambda_{name}_total "))).map(str::to_owned);
        // Counters are whole.
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

/// Who the service is, as a group of options says it, and more of them.
fn credentials(more: &str) -> String {
    let account = service();
    let (auth_url, project) = (account.var("OS_AUTH_URL"), account.var("OS_PROJECT_NAME"));
    let (user, password) = (account.var("OS_USERNAME"), account.var("OS_PASSWORD"));
    let (user_domain, project_domain) = (account.var("OS_USER_DOMAIN_NAME"), account.var("OS_PROJECT_DOMAIN_NAME"));
    format!(
        "auth_type = password\nauth_url = {auth_url}\nusername = {user}\npassword = {password}\n\
         user_domain_name = {user_domain}\nproject_name = {project}\nproject_domain_name = {project_domain}\n{more}"
    )
}

/// The MongoDB of the tests, without its scheme.
fn hosts() -> String {
    let uri = env().var("MONGODB_URI").to_owned();
    let rest = uri.strip_prefix("mongodb://").unwrap().to_owned();
    rest.split(['/', '?']).next().unwrap().to_owned()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A message for a queue.
pub fn message(body: &Value) -> NewMessage {
    NewMessage { ttl: Duration::from_secs(3600), body: serde_json::value::to_raw_value(body).unwrap() }
}

const EVENTS: usize = 10_000;

async fn nothing_is_lost(backend: Backend) {
    let deployment = Deployment::start(backend, "noauth", "").await;
    let counter = Counter::start();
    let (mut first, second) = (deployment.worker("worker1"), deployment.worker("worker2"));
    deployment.workers_alive(2).await;
    let service = &deployment.service;
    service.function("counts", &counter.handler(), json!({"retry": {"max_attempts": 10, "max_event_age": 3600}})).await;
    let events: Vec<Value> = (0..EVENTS)
        .map(|n| json!({"specversion": "1.0", "id": format!("event-{n}"), "source": "test", "type": "counts"}))
        .collect();
    let started = std::time::Instant::now();
    for (number, batch) in events.chunks(100).enumerate() {
        service.post_batch(batch).await;
        // In the middle of it, while both have claims open.
        if number == EVENTS / 200 {
            eprintln!("{backend:?}: first worker saw {} duplicates", first.counted("intake_duplicates").await);
            first.kill();
        }
    }
    let lost = in_flight(&deployment.connection).await;
    // On a busy machine this takes a while; what the killed worker had claimed comes back after a minute.
    let patience = std::time::Instant::now() + Duration::from_secs(1200);
    let executions = loop {
        let over = service.executions("function=counts&state=succeeded").await;
        if over.len() >= EVENTS && over.iter().all(is_over) {
            break over;
        }
        assert!(std::time::Instant::now() < patience, "only {} of {EVENTS} events have their record", over.len());
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    assert_each_once(&executions, EVENTS);
    let all = service.executions("function=counts").await;
    assert_eq!(all.len(), EVENTS, "no other record");
    eprintln!(
        "{backend:?}: {EVENTS} events in {:.1} s; {} messages were handed out twice and inserted nothing",
        started.elapsed().as_secs_f64(),
        second.counted("intake_duplicates").await,
    );
    // What ran in the killed worker, and nothing else, was seen again.
    counter.assert_repeats(EVENTS, lost.max(16 + 64));
    let left = deployment.backend.client(&super::service()).stats(&deployment.queue).await.unwrap();
    assert_eq!(left.free, 0, "{left:?}");
    assert_eq!(deployment.claimed(&super::service(), &deployment.dead_letters).await, []);
    drop((first, second));
    deployment.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_mongodb_when_one_of_two_workers_is_killed() {
    nothing_is_lost(Backend::Mongodb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_redis_when_one_of_two_workers_is_killed() {
    nothing_is_lost(Backend::Redis).await;
}

async fn dead_letters_and_redrive(backend: Backend) {
    let deployment = Deployment::start(backend, "noauth", "").await;
    let worker = deployment.worker("worker1");
    let (service, account) = (&deployment.service, super::service());
    let named = format!("dead-{}", Uuid::new_v4().simple());
    let source = "def handler(event, context):\n    raise ValueError('no good')\n";
    let more = json!({"dead_letter_queue": &named, "retry": {"max_attempts": 2}});
    let function = service.function("fails", source, more).await;
    service.post_batch(&[json!({"specversion": "1.0", "id": "e1", "source": "test", "type": "fails"})]).await;
    let letter =
        service.until("the dead letter is there", async || deployment.claimed(&account, &named).await.pop()).await;
    let body = &letter.body;
    assert_eq!((&body["reason"], &body["attempts"]), (&json!("handler_error"), &json!(2)), "{body}");
    assert_eq!(
        (&body["event"]["id"], &body["failure"]["error"]["message"]),
        (&json!("e1"), &json!("no good")),
        "{body}"
    );
    // Mended, it is brought back with the command line.
    let mended = json!({"code": {"source": "def handler(event, context):\n    return 'mended'\n"}});
    service.ok("PATCH", &format!("/v1/functions/{}", function["id"].as_str().unwrap()), Some(&mended)).await;
    let id = body["execution_id"].as_str().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lambda"))
        .args(["execution", "redrive", id])
        .env("OS_AUTH_TYPE", "none")
        .env("OS_ENDPOINT", &service.api)
        .env("OS_PROJECT_ID", &deployment.project)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let executions = service.finished("fails", 1).await;
    assert_eq!((&executions[0]["state"], &executions[0]["result"]), (&json!("succeeded"), &json!("mended")));

    // What lies on the platform queue without the service's code is nobody's event, whatever project it names.
    let forged =
        json!({"specversion": "1.0", "id": "e2", "source": "test", "type": "fails", "projectid": deployment.project});
    backend.client(&account).post(&deployment.queue, &[message(&forged)]).await.unwrap();
    let letter = service
        .until("the forged event is a dead letter", async || {
            deployment.claimed(&account, &deployment.dead_letters).await.pop()
        })
        .await;
    assert_eq!(letter.body["reason"], "untrusted_poster", "{}", letter.body);
    assert_eq!(service.executions("function=fails").await.len(), 1);
    drop(worker);
    backend.client(&account).delete_queue(&named).await.unwrap();
    deployment.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_lie_on_the_named_queue_and_come_back_on_mongodb() {
    dead_letters_and_redrive(Backend::Mongodb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_lie_on_the_named_queue_and_come_back_on_redis() {
    dead_letters_and_redrive(Backend::Redis).await;
}
