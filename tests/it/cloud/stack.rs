//! Our service on the real cloud: `lambda-api` and workers as programs, with Keystone, Zaqar and the drivers that a test
//! names, on a database and queues of their own.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lambda_openstack::openstack::zaqar::{self, NewMessage};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest that a condition is waited for: a boot, on a machine that is busy with a whole cloud.
const PATIENCE: Duration = Duration::from_secs(300);

/// A deployment of our service.
pub struct Stack {
    directory: TempDir,
    configuration: String,
    database: String,
    api: Child,
    workers: Vec<Option<Child>>,
    /// The port of each worker's gateway.
    pub gateways: Vec<u16>,
    pub url: String,
    pub queue: String,
    project: String,
    token: String,
    http: reqwest::Client,
}

/// An address of this machine on which nobody listens.
fn free_address(host: &str) -> SocketAddr {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

impl Stack {
    /// Starts the API, and as many workers. `more` are lines of configuration, in which `GATEWAY_PORT` stands for the port
    /// of each worker's gateway.
    pub async fn start(workers: usize, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = uuid::Uuid::new_v4().simple().to_string();
        let (user, service) = (super::env(), super::service());
        let auth = user.auth();
        let api = free_address("127.0.0.1");
        let mongo = user.var("MONGODB_URI").to_owned();
        let (base, query) = mongo.split_once('?').map_or((mongo.as_str(), ""), |(base, query)| (base, query));
        let connection = format!("{}/lambda_cloud_{name}?{query}", base.trim_end_matches('/'));
        let configuration = format!(
            "[DEFAULT]\ndebug = true\ngraceful_shutdown_timeout = 20\n\
             [database]\nconnection = {connection}\n\
             [api]\nbind = {api}\nauth_strategy = keystone\n\
             [service_auth]\nauth_type = password\nauth_url = {url}\nusername = {username}\npassword = {password}\n\
             user_domain_name = Default\nproject_name = {project}\nproject_domain_name = Default\n\
             region_name = {region}\n\
             [zaqar]\nqueue = events-{name}\ndead_letter_queue = letters-{name}\ntrusted_posters = all\n\
             {more}\n",
            url = service.var("OS_AUTH_URL"),
            username = service.var("OS_USERNAME"),
            password = service.var("OS_PASSWORD"),
            project = service.var("OS_PROJECT_NAME"),
            region = service.var("OS_REGION_NAME"),
        );
        // The API has no gateway, but reads the same options.
        std::fs::write(directory.path().join("lambda.conf"), configuration.replace("GATEWAY_PORT", "9071")).unwrap();
        let mut stack = Self {
            api: program(&directory, env!("CARGO_BIN_EXE_lambda-api"), "api", &[]),
            configuration,
            database: connection,
            workers: Vec::new(),
            gateways: Vec::new(),
            url: format!("http://{api}"),
            queue: format!("events-{name}"),
            project: auth.project_id().await.unwrap().unwrap(),
            token: auth.token().await.unwrap().to_str().unwrap().to_owned(),
            http: reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap(),
            directory,
        };
        stack
            .until("the API answers", async || {
                let log = stack.log("api");
                assert!(!log.contains("lambda-api: "), "{log}");
                stack.http.get(format!("{}/", stack.url)).send().await.is_ok().then_some(())
            })
            .await;
        for _ in 0..workers {
            stack.start_worker().await;
        }
        stack
    }

    /// Starts one more worker; its number.
    pub async fn start_worker(&mut self) -> usize {
        let number = self.workers.len();
        let port = free_address("0.0.0.0").port();
        let file = self.directory.path().join(format!("worker-{number}.conf"));
        std::fs::write(&file, self.configuration.replace("GATEWAY_PORT", &port.to_string())).unwrap();
        let state = self.directory.path().join(format!("state-{number}"));
        let variables = [
            ("OS_WORKER__GATEWAY_BIND", format!("0.0.0.0:{port}")),
            ("OS_WORKER__GATEWAY_ADVERTISE", format!("127.0.0.1:{port}")),
            ("OS_WORKER__STATE_DIR", state.to_str().unwrap().to_owned()),
            ("CONFIG", file.to_str().unwrap().to_owned()),
        ];
        let name = format!("worker-{number}");
        let worker = program(&self.directory, env!("CARGO_BIN_EXE_lambda-worker"), &name, &variables);
        self.workers.push(Some(worker));
        self.gateways.push(port);
        self.until("the worker takes events", async || self.log(&name).contains("takes events").then_some(())).await;
        number
    }

    /// SIGKILL, without warning.
    pub fn kill_worker(&mut self, number: usize) {
        let mut worker = self.workers[number].take().unwrap();
        worker.kill().unwrap();
        worker.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub fn stop_worker(&mut self, number: usize) -> Option<i32> {
        let mut worker = self.workers[number].take().unwrap();
        crate::service::signal(&worker, nix::sys::signal::Signal::SIGTERM);
        worker.wait().unwrap().code()
    }

    /// What a program has logged.
    pub fn log(&self, program: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(format!("{program}.log"))).unwrap_or_default()
    }

    /// The last lines of every program.
    fn logs(&self) -> String {
        let mut all = String::new();
        for name in std::iter::once("api".to_owned()).chain((0..self.workers.len()).map(|n| format!("worker-{n}"))) {
            let log = self.log(&name);
            let lines: Vec<_> = log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
            all.push_str(&format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n")));
        }
        all
    }

    /// A REST call with the user's token; status and body, which is null where it is no JSON.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.call_as(&self.token, method, path, body).await
    }

    async fn call_as(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        request = request.header("X-Auth-Token", token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// A REST call that must succeed.
    pub async fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.ok_as(&self.token, method, path, body).await
    }

    /// The same with somebody else's token.
    pub async fn ok_as(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.call_as(token, method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}\n{}", self.logs());
        answer
    }

    /// Makes a python3 function of one file, with a trigger on events of its own name as type.
    pub async fn function(&self, name: &str, source: &str, more: Value) -> Value {
        let mut body = json!({
            "name": name,
            "runtime": "python3",
            "handler": "main.handler",
            "code": {"source": source},
            "triggers": [{"source": "test", "type": name}],
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ok("POST", "/v1/functions", Some(&body)).await
    }

    /// Posts events for the function of this name to the platform queue, as a poster in the service's project does.
    pub async fn events(&self, name: &str, data: impl IntoIterator<Item = Value>) {
        let messages: Vec<_> = data
            .into_iter()
            .map(|data| {
                let event = json!({"source": "test", "type": name, "projectid": self.project, "data": data});
                NewMessage {
                    ttl: Duration::from_secs(3600),
                    body: serde_json::value::RawValue::from_string(event.to_string()).unwrap(),
                }
            })
            .collect();
        let client = zaqar::Client::new(super::service().session());
        client.post(&self.queue, &messages).await.unwrap();
    }

    /// Every execution of a function.
    pub async fn executions(&self, function: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut path = format!("/v1/executions?limit=1000&function={function}");
        loop {
            let page = self.ok("GET", &path, None).await;
            all.extend(page["executions"].as_array().unwrap().clone());
            let next = page["executions_links"].as_array().and_then(|links| links.first()).cloned();
            match next {
                Some(link) => path = link["href"].as_str().unwrap().replace(&self.url, ""),
                None => return all,
            }
        }
    }

    /// Waits until this many executions of a function are over; all of them.
    pub async fn finished(&self, function: &str, count: usize) -> Vec<Value> {
        self.until(&format!("{count} executions of {function} are over"), async || {
            let all = self.executions(function).await;
            let over = all.iter().filter(|execution| crate::service::is_over(execution)).count();
            (over >= count && over == all.len()).then_some(all)
        })
        .await
    }

    /// The log of an execution as text.
    pub async fn execution_log(&self, id: &str) -> String {
        let url = format!("{}/v1/executions/{id}/log", self.url);
        let request = self.http.get(url).header("X-Auth-Token", &self.token);
        request.send().await.unwrap().text().await.unwrap()
    }

    /// Waits until something is there; fails with what the programs have logged when it takes too long.
    pub async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(tokio::time::Instant::now() < end, "still waiting until {what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The end: the programs stop, queues and database go.
    pub async fn end(mut self) {
        for number in 0..self.workers.len() {
            if self.workers[number].is_some() {
                assert_eq!(self.stop_worker(number), Some(0), "{}", self.logs());
            }
        }
        crate::service::signal(&self.api, nix::sys::signal::Signal::SIGTERM);
        self.api.wait().unwrap();
        let client = zaqar::Client::new(super::service().session());
        for queue in [self.queue.clone(), self.queue.replace("events-", "letters-")] {
            client.delete_queue(&queue).await.unwrap();
        }
        let options = mongodb::options::ClientOptions::parse(&self.database).await.unwrap();
        let name = options.default_database.clone().unwrap();
        mongodb::Client::with_options(options).unwrap().database(&name).drop().await.unwrap();
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // After a failure: what a worker has booted it can still give back.
        for worker in self.workers.iter_mut().flatten() {
            if worker.try_wait().is_ok_and(|status| status.is_none()) {
                crate::service::signal(worker, nix::sys::signal::Signal::SIGTERM);
                let _ = worker.wait();
            }
        }
        let _ = self.api.kill();
        let _ = self.api.wait();
    }
}

/// Starts a program with the directory's configuration, or that of the variable `CONFIG`.
fn program(directory: &TempDir, path: &str, name: &str, variables: &[(&str, String)]) -> Child {
    let log = std::fs::File::create(directory.path().join(format!("{name}.log"))).unwrap();
    let file = variables
        .iter()
        .find(|(name, _)| *name == "CONFIG")
        .map_or_else(|| directory.path().join("lambda.conf"), |(_, file)| PathBuf::from(file));
    Command::new(path)
        .arg("--config-file")
        .arg(file)
        .envs(variables.iter().filter(|(name, _)| *name != "CONFIG").map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}
