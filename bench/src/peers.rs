//! The peers, as they come from PyPI at the versions of `peers.txt`, each as its own documentation starts it for use.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use crate::bench::{Bench, directory};
use crate::http::Connection;
use crate::program::{Program, command, free_port, listens};
use crate::service::{PATIENCE, archive};

/// Name and version of each, for the table.
pub const FRAMEWORK: &str = "functions-framework 3.10.2 (gunicorn, gthread)";
/// The emulator that `cargo lambda watch` starts.
pub const CARGO_LAMBDA: &str = "cargo-lambda 1.9.2";
/// The emulator of AWS.
pub const MINISTACK: &str = "ministack 1.5.33";

/// The echo that both sides serve: this one for functions-framework.
const FRAMEWORK_ECHO: &str = "def handler(request):\n    return request.get_json()\n";

/// functions-framework's production server.
pub struct Framework {
    program: Program,
    /// Where it listens.
    pub address: String,
    _directory: TempDir,
}

impl Framework {
    /// Starts it with so many processes; one thread more than one each, so that gunicorn takes the kind of process that keeps
    /// connections alive.
    pub async fn start(bench: &Bench, processes: usize) -> Result<Self> {
        let (directory, port) = (directory()?, free_port()?);
        std::fs::write(directory.path().join("main.py"), FRAMEWORK_ECHO)?;
        let mut start = command(&bench.peers.join("functions-framework"));
        start.args(["--target", "handler", "--host", "127.0.0.1", "--port", &port.to_string()]);
        start.current_dir(directory.path()).env("WORKERS", processes.to_string());
        let mut program = Program::start(&mut start, directory.path().join("log"))?;
        program.until("its port", PATIENCE, async |_| listens(port).await).await?;
        let address = format!("127.0.0.1:{port}");
        let mut connection = Connection::new(&address);
        program
            .until("an answer", PATIENCE, async |_| {
                let mut connection = Connection::new(&address);
                connection.post("/", Bytes::from_static(b"{}")).await.ok()
            })
            .await?;
        connection.post("/", Bytes::from_static(b"{}")).await?;
        Ok(Self { program, address, _directory: directory })
    }

    /// The end.
    pub async fn stop(self) -> Result<()> {
        self.program.stop().await
    }
}

/// cargo-lambda's emulator with one process of a handler, which is not built again: it is started as the emulator asks.
pub struct CargoLambda {
    handler: Program,
    emulator: Program,
    /// Where it listens.
    pub address: String,
    /// Where the function is called.
    pub path: &'static str,
    _directory: TempDir,
}

impl CargoLambda {
    /// Starts both.
    pub async fn start(bench: &Bench, handler: &std::path::Path) -> Result<Self> {
        let (directory, port) = (directory()?, free_port()?);
        // It wants a package where it is started, and does nothing with it.
        std::fs::create_dir(directory.path().join("src"))?;
        std::fs::write(directory.path().join("src/main.rs"), "fn main() {}\n")?;
        std::fs::write(
            directory.path().join("Cargo.toml"),
            "[package]\nname = \"bench\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
        )?;
        let mut start = command(&bench.peers.join("cargo-lambda"));
        // It asks cargo about that package.
        start.env_clear().envs(std::env::vars_os());
        start.args(["lambda", "watch", "--only-lambda-apis", "--invoke-address", "127.0.0.1"]);
        start.args(["--invoke-port", &port.to_string()]).current_dir(directory.path());
        let mut emulator = Program::start(&mut start, directory.path().join("emulator.log"))?;
        emulator.until("its port", PATIENCE, async |_| listens(port).await).await?;
        let mut start = command(handler);
        start.env("AWS_LAMBDA_RUNTIME_API", format!("http://127.0.0.1:{port}/.rt"));
        for (name, value) in [
            ("FUNCTION_NAME", "_"),
            ("FUNCTION_VERSION", "1"),
            ("FUNCTION_MEMORY_SIZE", "128"),
            ("LOG_GROUP_NAME", "bench"),
            ("LOG_STREAM_NAME", "bench"),
        ] {
            start.env(format!("AWS_LAMBDA_{name}"), value);
        }
        let handler = Program::start(&mut start, directory.path().join("handler.log"))?;
        let (address, path) = (format!("127.0.0.1:{port}"), "/2015-03-31/functions/_/invocations");
        Ok(Self { handler, emulator, address, path, _directory: directory })
    }

    /// The end.
    pub async fn stop(self) -> Result<()> {
        self.handler.stop().await?;
        self.emulator.stop().await
    }
}

/// ministack with a queue, and a function that it gives the messages of this queue to.
pub struct Ministack {
    program: Program,
    queue: String,
    /// A connection to it.
    connection: Connection,
    _directory: TempDir,
}

/// What tells a service of AWS whose request it is; ministack reads the service's name in it.
fn authorization(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

impl Ministack {
    /// Starts it, with a function of this one file.
    pub async fn start(bench: &Bench, source: &str) -> Result<Self> {
        let (directory, port) = (directory()?, free_port()?);
        let mut start = command(&bench.peers.join("ministack"));
        start.current_dir(directory.path()).env("HOME", directory.path()).env("TMPDIR", directory.path());
        start.env("GATEWAY_PORT", port.to_string()).env("BIND_HOST", "127.0.0.1").env("MINISTACK_HOST", "127.0.0.1");
        start.env("SERVICES", "sqs,lambda,iam").env("LAMBDA_EXECUTOR", "local").env("LOG_LEVEL", "ERROR");
        let mut program = Program::start(&mut start, directory.path().join("log"))?;
        program.until("its port", PATIENCE, async |_| listens(port).await).await?;
        let address = format!("127.0.0.1:{port}");
        let connection = Connection::new(&address).header("Authorization", &authorization("sqs"));
        let mut stack = Self { program, queue: String::new(), connection, _directory: directory };
        stack.form("Action=CreateQueue&QueueName=bench&Version=2012-11-05").await?;
        stack.queue = format!("http://127.0.0.1:{port}/000000000000/bench");
        let mut lambda = Connection::new(&address).header("Authorization", &authorization("lambda"));
        let zip = base64::engine::general_purpose::STANDARD.encode(archive("main.py", source.as_bytes())?);
        let function = json!({"FunctionName": "bench", "Runtime": "python3.11", "Handler": "main.handler",
            "Role": "arn:aws:iam::000000000000:role/bench", "Code": {"ZipFile": zip}});
        lambda.json("POST", "/2015-03-31/functions", Some(&function)).await?;
        let mapping = json!({"EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:bench", "FunctionName": "bench",
            "BatchSize": 1});
        lambda.json("POST", "/2015-03-31/event-source-mappings/", Some(&mapping)).await?;
        Ok(stack)
    }

    async fn form(&mut self, form: &str) -> Result<()> {
        let form = Bytes::from(form.to_owned());
        let answer = self.connection.send("POST", "/", "application/x-www-form-urlencoded", form).await?;
        anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        Ok(())
    }

    /// Puts a message on the queue.
    pub async fn post(&mut self, message: &str) -> Result<()> {
        let queue = self.queue.replace(':', "%3A").replace('/', "%2F");
        self.form(&format!("Action=SendMessage&Version=2012-11-05&QueueUrl={queue}&MessageBody={message}")).await
    }

    /// The end.
    pub async fn stop(self) -> Result<()> {
        self.program.stop().await
    }
}

/// The time that `python3 -c pass` takes, from before it is started until it has ended, in milliseconds.
pub async fn python_pass() -> Result<f64> {
    let mut start = command(std::path::Path::new(crate::bench::PYTHON));
    start.args(["-c", "pass"]);
    let begun = std::time::Instant::now();
    let status = start.status().await?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(status.success(), "python3 -c pass: {status}");
    Ok(took)
}

/// Where a handler that is not ours tells when it was entered: datagrams of `seconds text`.
pub struct Listener(tokio::net::UdpSocket);

impl Listener {
    /// Opens one.
    pub async fn open() -> Result<Self> {
        Ok(Self(tokio::net::UdpSocket::bind("127.0.0.1:0").await?))
    }

    /// Where it listens.
    pub fn port(&self) -> Result<u16> {
        Ok(self.0.local_addr()?.port())
    }

    /// The time in the next datagram, in seconds since the epoch.
    pub async fn entered(&self, text: &str) -> Result<f64> {
        let mut buffer = [0; 512];
        loop {
            let length = tokio::time::timeout(Duration::from_secs(20), self.0.recv(&mut buffer))
                .await
                .context("no handler was entered")??;
            let datagram = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let (at, about) = datagram.split_once(' ').context("a strange datagram")?;
            if about == text {
                return Ok(at.parse()?);
            }
        }
    }
}
