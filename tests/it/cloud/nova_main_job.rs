//! The main job with servers: the real programs on the real Keystone, Zaqar, Nova and MongoDB, with our own image.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lambda_openstack::openstack::nova::{Client, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Account;
use crate::service::{is_over, signal};
use crate::support::databases::{Database, with_mongo};

/// Booting takes long on emulated processors that are shared.
const PATIENCE: Duration = Duration::from_secs(400);

/// The image of `runtimes/build.sh vm` in Glance.
fn image() -> String {
    let named = std::env::var_os("LAMBDA_TEST_VM_IMAGE").and_then(|name| name.into_string().ok());
    named.unwrap_or_else(|| "lambda-python3-vm".to_owned())
}

/// `lambda-api` and workers on a store and queues of their own.
struct Programs {
    directory: TempDir,
    api: Child,
    workers: Vec<Child>,
    url: String,
    token: String,
    http: reqwest::Client,
    servers: Client,
    tag: String,
    more: String,
}

fn free_port(host: &str) -> u16 {
    std::net::TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port()
}

impl Programs {
    async fn start(database: &Database, drivers: &str) -> Self {
        let (user, service) = (super::env(), super::service());
        let directory = tempfile::tempdir().unwrap();
        let deployment = database.store.deployment().await.unwrap();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().unwrap();
        let token = token(&http, &user).await;
        let port = free_port("127.0.0.1");
        let more = format!("[worker]\ndrivers = {drivers}\n");
        let mut programs = Self {
            api: program(
                env!("CARGO_BIN_EXE_lambda-api"),
                &api_file(directory.path(), database, &service, port),
                "api",
                directory.path(),
            ),
            workers: Vec::new(),
            url: format!("http://127.0.0.1:{port}"),
            token,
            http,
            servers: Client::new(service.session()),
            tag: format!("lambda-deployment={deployment}"),
            directory,
            more,
        };
        programs.worker(database);
        programs
            .until("the API answers", async |p| p.http.get(format!("{}/healthcheck", p.url)).send().await.ok())
            .await;
        programs
    }

    /// Starts another worker.
    fn worker(&mut self, database: &Database) {
        let service = super::service();
        let (gateway, port) = (service.var("BOX_SERVER_GATEWAY"), free_port("0.0.0.0"));
        let name = format!("worker-{}", self.workers.len());
        let file = self.directory.path().join(format!("{name}.conf"));
        let text = format!(
            "{}{}gateway_bind = 0.0.0.0:{port}\ngateway_advertise = {gateway}:{port}\nstate_dir = {}\nkeep_alive = 5\ninstance_keep_alive = 5\ndead_after = 5\n\
             [zun]\nimage = lambda-python3:1\nimage_pull_policy = never\nnetwork = {}\ngateway_address = {}:{port}\n\
             [nova]\nimage = {}\nnetwork = {}\ninstance_memory_mib = 384\noverhead_memory_mib = 128\nboot_timeout = 120\n",
            common(self.directory.path(), database, &service),
            self.more,
            self.directory.path().join(&name).display(),
            service.var("BOX_CONTAINER_NETWORK"),
            service.var("BOX_CONTAINER_GATEWAY"),
            image(),
            service.var("BOX_SERVER_NETWORK"),
        );
        std::fs::write(&file, text).unwrap();
        self.workers.push(program(env!("CARGO_BIN_EXE_lambda-worker"), &file, &name, self.directory.path()));
    }

    fn log(&self) -> String {
        (0..self.workers.len())
            .map(|n| std::fs::read_to_string(self.directory.path().join(format!("worker-{n}.log"))).unwrap_or_default())
            .chain(std::fs::read_to_string(self.directory.path().join("api.log")))
            .collect()
    }

    async fn until<T>(&self, what: &str, look: impl AsyncFn(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "still waiting until {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .header("X-Auth-Token", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let answer = response.json().await.unwrap_or(Value::Null);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}\n{}", self.log());
        answer
    }

    async fn function(&self, name: &str, source: &str, isolation: &str) {
        let body = json!({"name": name, "runtime": "python3", "handler": "main.handler", "code": {"source": source},
                          "memory": 64, "timeout": 120, "isolation": isolation,
                          "triggers": [{"source": "test", "type": name}]});
        self.ok("POST", "/v1/functions", Some(&body)).await;
    }

    async fn event(&self, name: &str, data: Value) {
        let event = json!({"source": "test", "type": name, "data": data});
        self.ok("POST", "/v1/events", Some(&event)).await;
    }

    async fn executions(&self, function: &str) -> Vec<Value> {
        let page = self.ok("GET", &format!("/v1/executions?function={function}"), None).await;
        page["executions"].as_array().unwrap().clone()
    }

    async fn finished(&self, function: &str, count: usize) -> Vec<Value> {
        let what = format!("{count} executions of {function} are over");
        let all = self
            .until(&what, async |p| {
                let all = p.executions(function).await;
                (all.iter().filter(|execution| is_over(execution)).count() >= count).then_some(all)
            })
            .await;
        for execution in &all {
            assert_eq!(execution["state"], "succeeded", "{execution}\n{}", self.log());
        }
        all
    }

    async fn servers(&self) -> Vec<Server> {
        self.servers.servers(&[&self.tag]).await.unwrap()
    }

    async fn until_no_server(&self) {
        self.until("no server is left", async |p| p.servers().await.is_empty().then_some(())).await;
    }

    fn terminate(&mut self) {
        for child in self.workers.iter_mut().chain([&mut self.api]) {
            if child.try_wait().unwrap().is_none() {
                signal(child, nix::sys::signal::Signal::SIGTERM);
                child.wait().unwrap();
            }
        }
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        self.terminate();
    }
}

fn program(path: &str, file: &Path, name: &str, directory: &Path) -> Child {
    let log = std::fs::File::create(directory.join(format!("{name}.log"))).unwrap();
    Command::new(path)
        .arg("--config-file")
        .arg(file)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn common(directory: &Path, database: &Database, service: &Account) -> String {
    let name = directory.file_name().unwrap().to_str().unwrap().replace('.', "");
    format!(
        "[database]\nconnection = {}\n[service_auth]\nauth_type = password\nauth_url = {}\nusername = {}\npassword = {}\n\
         user_domain_name = Default\nproject_name = {}\nproject_domain_name = Default\nregion_name = {}\n\
         [zaqar]\nqueue = nova-{name}\ndead_letter_queue = nova-{name}-dead\n",
        database.options.connection,
        service.var("OS_AUTH_URL"),
        service.var("OS_USERNAME"),
        service.var("OS_PASSWORD"),
        service.var("OS_PROJECT_NAME"),
        service.var("OS_REGION_NAME"),
    )
}

fn api_file(directory: &Path, database: &Database, service: &Account, port: u16) -> std::path::PathBuf {
    let file = directory.join("api.conf");
    let text = format!(
        "{}[api]\nbind = 127.0.0.1:{port}\nauth_strategy = keystone\n[worker]\ndrivers = zun,nova\n",
        common(directory, database, service)
    );
    std::fs::write(&file, text).unwrap();
    file
}

async fn token(http: &reqwest::Client, user: &Account) -> String {
    let domain = json!({"name": "Default"});
    let body = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": user.var("OS_USERNAME"), "password": user.var("OS_PASSWORD"), "domain": domain}}},
        "scope": {"project": {"name": user.var("OS_PROJECT_NAME"), "domain": domain}}}});
    let answer = http.post(format!("{}/auth/tokens", user.var("OS_AUTH_URL"))).json(&body).send().await.unwrap();
    answer.headers()["x-subject-token"].to_str().unwrap().to_owned()
}

/// What a user does: uploads functions with a token, posts events, reads results and logs. One server of the project runs
/// them all, and goes when it is idle.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_boots_a_server_that_runs_many_functions_and_goes() {
    let _booting = super::nova::booting().await;
    with_mongo(async |database| {
        let programs = Programs::start(&database, "nova").await;
        for name in ["first", "second"] {
            let source = format!("def handler(event, context):\n    print('{name} ran')\n    return [event['data'], '{name}']\n");
            programs.function(name, &source, "vm").await;
        }
        let asked = Instant::now();
        for n in 0..3 {
            programs.event("first", json!(n)).await;
            programs.event("second", json!(n)).await;
        }
        let server = programs.until("a server is asked for", async |p| p.servers().await.pop()).await;
        let ordered = asked.elapsed();
        programs
            .until("the first event is being handled", async |p| {
                let ran = p.executions("first").await.iter().any(|execution| execution["started_at"].is_string());
                ran.then_some(())
            })
            .await;
        let entered = asked.elapsed();
        let shown = super::nova::ask(
            &super::service().session(),
            lambda_openstack::openstack::nova::SERVICE,
            reqwest::Method::GET,
            &format!("v2.1/servers/{}", server.id),
            None,
        )
        .await;
        println!(
            "nova: event posted → server seen {ordered:?} → handler entered {entered:?}; Nova's own: created {} launched {}",
            shown["server"]["created"],
            shown["server"]["OS-SRV-USG:launched_at"],
        );
        let mut results = BTreeSet::new();
        for name in ["first", "second"] {
            for execution in programs.finished(name, 3).await {
                results.insert(execution["result"].to_string());
                let id = execution["id"].as_str().unwrap();
                let url = format!("{}/v1/executions/{id}/log", programs.url);
                let log = programs.http.get(url).header("X-Auth-Token", &programs.token).send().await.unwrap();
                assert!(log.text().await.unwrap().contains(&format!("{name} ran")));
            }
        }
        assert_eq!(results.len(), 6, "{results:?}");
        let servers = programs.servers().await;
        assert!(servers.len() <= 2, "a server runs many sandboxes of a project: {servers:?}");
        programs.until_no_server().await;
    })
    .await;
}

/// A server that somebody deletes costs its executions time, nothing else; and what a worker leaves that is killed, another
/// one deletes.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_die_and_so_may_its_worker() {
    let _booting = super::nova::booting().await;
    with_mongo(async |database| {
        let mut programs = Programs::start(&database, "nova").await;
        let source = "import time\ndef handler(event, context):\n    time.sleep(event['data'])\n    return 'done'\n";
        programs.function("slow", source, "vm").await;
        programs.event("slow", json!(8)).await;
        programs
            .until("it runs", async |p| {
                p.executions("slow").await.iter().any(|e| e["state"] == "running").then_some(())
            })
            .await;
        let first = programs.servers().await.remove(0);
        programs.servers.delete_server(&first.id).await.unwrap();
        let execution = programs.finished("slow", 1).await.remove(0);
        assert_eq!(execution["result"], "done", "{execution}");
        let second = programs.servers().await;
        assert!(second.iter().all(|server| server.id != first.id), "{second:?}");
        programs.event("slow", json!(30)).await;
        programs
            .until("it runs again", async |p| {
                p.executions("slow").await.iter().any(|e| e["state"] == "running").then_some(())
            })
            .await;
        let left = programs.servers().await;
        assert!(!left.is_empty());
        programs.workers[0].kill().unwrap();
        programs.workers[0].wait().unwrap();
        programs.worker(&database);
        programs
            .until("what the dead worker left is deleted", async |p| {
                let now = p.servers().await;
                left.iter().all(|old| now.iter().all(|server| server.id != old.id)).then_some(())
            })
            .await;
        programs.finished("slow", 2).await;
        programs.until_no_server().await;
    })
    .await;
}

/// A function says what separates it from others, and gets a container or a virtual machine: each on a kernel of its own
/// only there.
#[tokio::test(flavor = "multi_thread")]
async fn containers_and_servers_run_side_by_side() {
    let _booting = super::nova::booting().await;
    with_mongo(async |database| {
        let programs = Programs::start(&database, "zun,nova").await;
        let source =
            "def handler(event, context):\n    return open('/proc/sys/kernel/random/boot_id').read().strip()\n";
        for (name, isolation) in [("boxed", "container"), ("apart", "vm")] {
            programs.function(name, source, isolation).await;
            programs.event(name, json!(null)).await;
        }
        let ours = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let boxed = programs.finished("boxed", 1).await.remove(0);
        assert_eq!(boxed["result"], ours.trim(), "a container shares our kernel");
        let apart = programs.finished("apart", 1).await.remove(0);
        assert!(apart["result"].is_string() && apart["result"] != ours.trim(), "{apart}");
        programs.until_no_server().await;
    })
    .await;
}
