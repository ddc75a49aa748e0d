//! This service, as released programs: `lambda-standalone` in a directory of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bench::{Bench, directory};
use crate::http::Connection;
use crate::program::{Program, command};

/// Longest that something is waited for that takes no time to speak of.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The platform queue.
pub const QUEUE: &str = "lambda-events";

/// What callers do with a REST service, whoever runs it.
pub struct Api {
    /// Where it is.
    pub url: String,
    headers: Vec<(String, String)>,
}

impl Api {
    /// At this address, with these headers on every request.
    pub fn new(url: &str, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { url: url.to_owned(), headers }
    }

    /// A connection to it.
    pub fn connection(&self) -> Connection {
        self.headers.iter().fold(Connection::new(&self.url), |connection, (name, value)| connection.header(name, value))
    }

    /// One request that must succeed.
    pub async fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.connection().json(method, path, body).await
    }

    /// Makes a python3 function of one file, with a trigger on events whose type is its name.
    pub async fn python(&self, name: &str, source: &str, more: Value) -> Result<String> {
        self.function(name, json!({"runtime": "python3", "code": {"source": source}}), more).await
    }

    /// Makes a function of the runtime `provided` of one program.
    pub async fn provided(&self, name: &str, program: &std::path::Path) -> Result<String> {
        let archive = archive("bootstrap", &std::fs::read(program).with_context(|| program.display().to_string())?)?;
        let zip = base64::engine::general_purpose::STANDARD.encode(archive);
        self.function(name, json!({"runtime": "provided", "code": {"zip": zip}}), json!({})).await
    }

    async fn function(&self, name: &str, code: Value, more: Value) -> Result<String> {
        let mut body = json!({"name": name, "triggers": [{"source": "bench", "type": name}]});
        for part in [code, more] {
            let (Some(body), Value::Object(part)) = (body.as_object_mut(), part) else { continue };
            body.extend(part);
        }
        let made = self.ok("POST", "/v1/functions", Some(&body)).await?;
        Ok(made["id"].as_str().context("a function without id")?.to_owned())
    }

    /// Deletes a function.
    pub async fn delete(&self, function: &str) -> Result<()> {
        self.ok("DELETE", &format!("/v1/functions/{function}"), None).await.map(drop)
    }

    /// Every execution of a function, once so many are over.
    pub async fn finished(&self, function: &str, count: usize, patience: Duration) -> Result<Vec<Value>> {
        let mut connection = self.connection();
        let begun = std::time::Instant::now();
        loop {
            let mut all = Vec::new();
            let mut path = format!("/v1/executions?limit=1000&function={function}");
            loop {
                let page = connection.json("GET", &path, None).await?;
                all.extend(page["executions"].as_array().cloned().unwrap_or_default());
                match page["executions_links"][0]["href"].as_str() {
                    Some(link) => path = link[link.find("/v1/").context("a strange link")?..].to_owned(),
                    None => break,
                }
            }
            let over = |e: &Value| {
                e["state"].as_str().is_some_and(|state| !["received", "queued", "running"].contains(&state))
            };
            if all.len() >= count && all.iter().all(over) {
                let failed = all.iter().find(|execution| execution["state"] != "succeeded");
                ensure!(failed.is_none(), "an execution failed: {failed:?}");
                return Ok(all);
            }
            ensure!(
                begun.elapsed() < patience,
                "{count} executions of {function} did not come; there are {}",
                all.len()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The path at which a function is called.
pub fn invocations(function: &str) -> String {
    format!("/v1/functions/{function}/invocations")
}

/// A zip archive of one file that may be run.
pub fn archive(name: &str, content: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.start_file(name, zip::write::SimpleFileOptions::default().unix_permissions(0o755))?;
    writer.write_all(content)?;
    Ok(writer.finish()?.into_inner())
}

/// A `lambda-standalone`.
pub struct Standalone {
    program: Program,
    /// Its REST service.
    pub api: Api,
    /// Where its queue is.
    pub queue: String,
    _directory: TempDir,
}

impl Standalone {
    /// Starts one with these lines of configuration.
    pub async fn start(bench: &Bench, configuration: &str) -> Result<Self> {
        Self::start_within(bench, configuration, PATIENCE).await
    }

    /// The same, where it may take longer than usual.
    pub async fn start_within(bench: &Bench, configuration: &str, patience: Duration) -> Result<Self> {
        let directory = directory()?;
        let file = directory.path().join("lambda.conf");
        std::fs::write(&file, configuration)?;
        let mut start = command(&bench.programs.join("lambda-standalone"));
        start.arg("--config-file").arg(&file).arg("--data-dir").arg(directory.path().join("data"));
        start.args(["--api-bind", "127.0.0.1:0", "--queue-bind", "127.0.0.1:0"]);
        let mut program = Program::start(&mut start, directory.path().join("log"))?;
        let ready = async |program: &Program| {
            let output = program.output();
            let line = output.lines().find(|line| line.starts_with("ready "))?;
            let of = |name| line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
            of("api=").zip(of("queue="))
        };
        let (api, queue) = program.until("its line 'ready'", patience, ready).await?;
        Ok(Self { program, api: Api::new(&api, &[]), queue, _directory: directory })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.program.pid()
    }

    /// A connection to its queue, as a Zaqar client makes it.
    pub fn poster(&self) -> Connection {
        Connection::new(&self.queue)
            .header("Client-ID", &uuid::Uuid::new_v4().to_string())
            .header("X-Project-Id", "demo")
    }

    /// The end.
    pub async fn stop(self) -> Result<()> {
        self.program.stop().await
    }
}

/// Messages for a queue: events of the type that a function of this name has a trigger for.
pub fn messages(kind: &str, project: Option<&str>, data: impl IntoIterator<Item = Value>) -> Bytes {
    let messages: Vec<_> = data
        .into_iter()
        .map(|data| {
            let mut body = json!({"source": "bench", "type": kind, "data": data});
            if let Some(project) = project {
                body["projectid"] = project.into();
            }
            json!({"ttl": 3600, "body": body})
        })
        .collect();
    Bytes::from(json!({"messages": messages}).to_string())
}

/// The path at which messages are posted to a queue.
pub fn posts(queue: &str) -> String {
    format!("/v2/queues/{queue}/messages")
}
