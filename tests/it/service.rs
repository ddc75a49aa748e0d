//! The whole service as its users meet it: real programs, real sandboxes, REST calls, and messages on the queue.

mod handlers;
mod isolation;
mod main_job;
mod messages;
pub mod nothing_lost;
mod programs;
mod provisioned;
mod queues;
mod runtimes;
mod update_under_load;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// The platform queue.
pub const QUEUE: &str = "lambda-events";
/// Longest that a condition is waited for.
const PATIENCE: Duration = Duration::from_secs(180);

/// A `lambda-standalone` of its own, on ports and in a directory of its own.
pub struct Service {
    process: Option<Child>,
    pub api: String,
    pub queue: String,
    pub directory: TempDir,
    arguments: Vec<String>,
    http: reqwest::Client,
    /// What callers show, where there is Keystone.
    pub token: Option<String>,
}

impl Service {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts one with these lines of configuration.
    pub fn start_with(configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Sandboxes run as other users and have to pass.
        open(directory.path(), 0o711);
        std::fs::write(directory.path().join("lambda.conf"), configuration).unwrap();
        let mut service = Self {
            process: None,
            api: String::new(),
            queue: String::new(),
            arguments: vec!["127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()],
            directory,
            http: reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap(),
            token: None,
        };
        service.run();
        // From now on the same addresses, so that a restart is the same service.
        service.arguments = [&service.api, &service.queue].map(|url| url["http://".len()..].to_owned()).to_vec();
        service
    }

    /// One that runs elsewhere.
    pub fn connect(api: String, queue: String) -> Self {
        Self {
            process: None,
            api,
            queue,
            arguments: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
            http: reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap(),
            token: None,
        }
    }

    /// The program.
    pub fn process(&mut self) -> &mut Child {
        self.process.as_mut().unwrap()
    }

    /// The directory of its state.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the program and waits until it is ready.
    pub fn run(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.path().join("service.log"))
            .unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_lambda-standalone"))
            .arg("--config-file")
            .arg(self.directory.path().join("lambda.conf"))
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--api-bind", &self.arguments[0], "--queue-bind", &self.arguments[1]])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.process = Some(process);
        let words: Vec<_> = line.split_whitespace().collect();
        let [ready, api, queue] = words[..] else { panic!("not ready but {line:?}:\n{}", self.log()) };
        assert_eq!(ready, "ready");
        self.api = api.strip_prefix("api=").unwrap().to_owned();
        self.queue = queue.strip_prefix("queue=").unwrap().to_owned();
    }

    /// What the program has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("service.log")).unwrap_or_default()
    }

    /// SIGKILL, without warning.
    pub fn kill(&mut self) {
        self.process().kill().unwrap();
        self.process().wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        signal(self.process(), nix::sys::signal::Signal::SIGTERM);
        self.process().wait().unwrap().code()
    }

    /// A REST call; status and body, which is null where it is no JSON.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.api));
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(token) = &self.token {
            request = request.header("X-Auth-Token", token);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// A REST call that must succeed.
    pub async fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}\n{}", self.log());
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

    /// Posts bodies to the platform queue, as any client of Zaqar would.
    pub async fn post(&self, bodies: &[Value]) {
        let messages: Vec<_> = bodies.iter().map(|body| json!({"ttl": 3600, "body": body})).collect();
        let response = self
            .http
            .post(format!("{}/v2/queues/{QUEUE}/messages", self.queue))
            .header("Client-ID", "3381af92-2b9e-11e3-b191-71861300734c")
            .header("X-Project-Id", "demo")
            .json(&json!({ "messages": messages }))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 201, "{}", response.text().await.unwrap());
    }

    /// Posts at most 100 events through the API.
    pub async fn post_batch(&self, events: &[Value]) {
        let url = format!("{}/v1/events", self.api);
        let request = self.http.post(url).header("Content-Type", "application/cloudevents-batch+json");
        let response = request.body(serde_json::to_vec(events).unwrap()).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 202, "{}", response.text().await.unwrap());
    }

    /// Posts one event for the function of this name.
    pub async fn event(&self, name: &str, data: Value) {
        self.post(&[json!({"source": "test", "type": name, "data": data})]).await;
    }

    /// What lies on a queue.
    pub async fn messages(&self, queue: &str) -> Vec<Value> {
        let url = format!("{}/v2/queues/{queue}/messages?echo=true&limit=20", self.queue);
        let request = self.http.get(url).header("Client-ID", "3381af92-2b9e-11e3-b191-71861300734c");
        let response = request.header("X-Project-Id", "demo").send().await.unwrap();
        let body: Value = response.json().await.unwrap_or(Value::Null);
        body["messages"].as_array().cloned().unwrap_or_default()
    }

    /// Every execution that the query selects.
    pub async fn executions(&self, query: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut path = format!("/v1/executions?limit=1000&{query}");
        loop {
            let page = self.ok("GET", &path, None).await;
            all.extend(page["executions"].as_array().unwrap().clone());
            let next = page["executions_links"].as_array().and_then(|links| links.first()).cloned();
            match next {
                Some(link) => path = link["href"].as_str().unwrap().replace(&self.api, ""),
                None => return all,
            }
        }
    }

    /// Waits until this many executions of a function are over; all of them.
    pub async fn finished(&self, function: &str, count: usize) -> Vec<Value> {
        self.until(&format!("{count} executions of {function} are over"), async || {
            let all = self.executions(&format!("function={function}")).await;
            let over = all.iter().filter(|execution| is_over(execution)).count();
            (over >= count && over == all.len()).then_some(all)
        })
        .await
    }

    /// The log of an execution as text.
    pub async fn execution_log(&self, id: &str) -> String {
        let url = format!("{}/v1/executions/{id}/log", self.api);
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// Waits until something is there; fails with the service's log when it takes too long.
    pub async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(tokio::time::Instant::now() < end, "still waiting until {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.process.as_mut().is_some_and(|process| process.try_wait().is_ok_and(|status| status.is_none())) {
            self.terminate();
        }
    }
}

/// Whether an execution is in a terminal state.
pub fn is_over(execution: &Value) -> bool {
    !matches!(execution["state"].as_str(), Some("queued" | "running"))
}

/// Sends a signal.
pub fn signal(process: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
}

/// Sets a path's permissions.
pub fn open(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
