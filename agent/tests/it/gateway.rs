//! A gateway for one agent: starts the program, speaks `wire` with it, and waits for what it says.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lambda_agent::tls::Stream;
use lambda_agent::wire::{
    self, AttemptMeasures, AttemptRef, Credential, Frame, HandlerOutcome, Inbox, Invocation, Message, Outbox,
    SandboxFailure, SandboxSpec, Stream as LogStream,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::help::{identity, python, spec, zip};

/// Long enough for a loaded machine; nothing waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const TOKEN: &str = "a-secret-token";
const SESSION: &str = "a-secret-session";

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a test that only root can show may go on. Without root it fails, unless it was opted out of by name.
pub fn root_or_left_out() -> bool {
    if is_root() {
        return true;
    }
    assert!(
        std::env::var("LAMBDA_TEST_SKIP_ROOT").as_deref() == Ok("1"),
        "only root can show this; LAMBDA_TEST_SKIP_ROOT=1 leaves out all tests that need it"
    );
    eprintln!("SKIPPED, needs root: LAMBDA_TEST_SKIP_ROOT=1");
    false
}

/// How an agent is started.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Not as root, though the test is.
    pub unprivileged: bool,
    /// With resource limits only.
    pub without_cgroups: bool,
    /// With the machine's own `/tmp`, where test and handler can meet.
    pub shared_tmp: bool,
    /// As in a container: told by its environment, as process 1, and without the right to mount.
    pub contained: bool,
    /// With TLS on the way.
    pub tls: bool,
}

pub struct Gateway {
    pub work: tempfile::TempDir,
    pub agent: Child,
    pub uid_base: u32,
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    stream: Option<Stream>,
    buffer: BytesMut,
    outbox: Outbox,
    inbox: Inbox,
    packages: HashMap<String, Vec<u8>>,
    /// How often each package was asked for.
    pub fetched: HashMap<String, u32>,
    last_sandbox: u64,
    last_execution: u32,
    hellos: u32,
}

/// What became of an invocation.
#[derive(Debug)]
pub struct Finished {
    pub outcome: Option<HandlerOutcome>,
    pub body: Bytes,
    pub failure: Option<SandboxFailure>,
    pub measures: AttemptMeasures,
    pub logs: Vec<Piece>,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub execution: Option<AttemptRef>,
    pub stream: LogStream,
    pub text: String,
    pub at_ms: i64,
}

impl Finished {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
    pub fn returned(self) -> Value {
        assert_eq!(self.outcome, Some(HandlerOutcome::Returned), "{self:?}");
        self.json()
    }
    pub fn failed(&self) -> &SandboxFailure {
        self.failure.as_ref().unwrap_or_else(|| panic!("it did not fail: {self:?}"))
    }
    pub fn text(&self, stream: LogStream) -> String {
        self.logs.iter().filter(|piece| piece.stream == stream).map(|piece| piece.text.as_str()).collect()
    }
}

/// What became of a start.
#[derive(Debug)]
pub struct Begun {
    pub sandbox: u64,
    pub failure: Option<SandboxFailure>,
    pub logs: Vec<Piece>,
    pub init_us: u64,
    pub package_us: u64,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let work = tempfile::tempdir().unwrap();
        std::fs::set_permissions(work.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let uid_base = 300_000 + 1000 * rand::random_range(0..100_000_u32);
        let instance = format!("test-{:016x}", rand::random::<u64>());
        let program = work.path().join("lambda-agent");
        // Another build of it, to be measured.
        let built = std::env::var_os("LAMBDA_AGENT_PROGRAM");
        let built = built.unwrap_or_else(|| env!("CARGO_BIN_EXE_lambda-agent").into());
        // Where everybody can reach it.
        if std::fs::hard_link(&built, &program).is_err() {
            std::fs::copy(&built, &program).unwrap();
        }
        let address = listener.local_addr().unwrap().to_string();
        let mut command = Command::new(if options.contained { "unshare".as_ref() } else { program.as_os_str() });
        if options.contained {
            command.args([
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "setpriv",
                "--bounding-set",
                "-sys_admin",
            ]);
            command.args(["--inh-caps", "-sys_admin"]).arg(&program);
            command.env("LAMBDA_AGENT_GATEWAY", address).env("LAMBDA_AGENT_INSTANCE", &instance);
            command.env("LAMBDA_AGENT_MEMORY_MIB", "4096").arg("run");
        } else {
            command.args(["run", "--gateway", &address, "--instance", &instance, "--memory-mib", "4096"]);
            command.args(["--uid-base", &uid_base.to_string(), "--die-with-parent"]);
        }
        let (acceptor, fingerprint) = if options.tls { Some(identity()).unzip() } else { (None, None) };
        if let Some(fingerprint) = fingerprint {
            command.env("LAMBDA_AGENT_FINGERPRINT", fingerprint.to_string());
        }
        command.arg("--work-dir").arg(work.path().join("work")).args(["--python", &python()]);
        if options.without_cgroups {
            command.arg("--no-cgroups");
        }
        if options.shared_tmp {
            command.arg("--shared-tmp");
        }
        command.env("LAMBDA_AGENT_TOKEN", TOKEN).env("A_SECRET_OF_THE_SERVICE", "value-of-the-service");
        if std::env::var_os("LAMBDA_AGENT_LOG").is_none() {
            command.env("LAMBDA_AGENT_LOG", "error");
        }
        if options.unprivileged && is_root() {
            command.uid(65_534).gid(65_534);
        }
        let agent = command.spawn().unwrap();
        let mut gateway = Self {
            work,
            agent,
            uid_base,
            listener,
            acceptor,
            stream: None,
            buffer: BytesMut::new(),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            packages: HashMap::new(),
            fetched: HashMap::new(),
            last_sandbox: 0,
            last_execution: 0,
            hellos: 0,
        };
        gateway.accept().await;
        gateway
    }

    pub fn work_dir(&self) -> PathBuf {
        self.work.path().join("work")
    }

    /// Takes the agent's next connection and goes on where the last one broke.
    pub async fn accept(&mut self) {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("the agent dials").unwrap();
        stream.set_nodelay(true).unwrap();
        self.stream = Some(match &self.acceptor {
            Some(acceptor) => Stream::Tls(Box::new(acceptor.accept(stream).await.unwrap().into())),
            None => Stream::Plain(stream),
        });
        self.buffer.clear();
        let hello = self.read().await;
        let Message::Hello { version, credential, received, .. } = hello.message else { panic!("{hello:?}") };
        assert_eq!(version, wire::VERSION);
        let expected = if self.hellos == 0 {
            Credential::Token(TOKEN.to_owned())
        } else {
            Credential::Session(SESSION.to_owned())
        };
        assert!(credential == expected, "the agent shows the token once and the session afterwards");
        self.hellos += 1;
        self.outbox.acknowledge(received);
        let welcome = Message::Welcome { session: SESSION.to_owned(), received: self.inbox.received() };
        self.write(Frame { sequence: 0, ack: 0, message: welcome, body: Bytes::new() }).await;
        let again: Vec<Frame> = self.outbox.pending().cloned().collect();
        for frame in again {
            self.write(frame).await;
        }
    }

    /// Breaks the connection.
    pub fn hang_up(&mut self) {
        self.stream = None;
    }

    async fn write(&mut self, frame: Frame) {
        let mut buffer = BytesMut::new();
        wire::encode(&Frame { ack: self.inbox.received(), ..frame }, &mut buffer).unwrap();
        if let Some(stream) = &mut self.stream {
            stream.write_all(&buffer).await.unwrap();
            stream.flush().await.unwrap();
        }
    }

    async fn read(&mut self) -> Frame {
        loop {
            if let Some(frame) = wire::decode(&mut self.buffer).unwrap() {
                return frame;
            }
            let stream = self.stream.as_mut().expect("a connection");
            let read = timeout(PATIENCE, stream.read_buf(&mut self.buffer)).await.expect("the agent speaks").unwrap();
            assert_ne!(read, 0, "the agent hung up");
        }
    }

    pub async fn say(&mut self, message: Message, body: Bytes) {
        let frame = self.outbox.push(message, body);
        self.write(frame).await;
    }

    /// The next thing that the agent says. Packages are served on the way.
    pub async fn hear(&mut self) -> (Message, Bytes) {
        loop {
            let frame = self.read().await;
            self.outbox.acknowledge(frame.ack);
            if frame.message == Message::Ping {
                self.write(Frame { sequence: 0, ack: 0, message: Message::Ack, body: Bytes::new() }).await;
            }
            if frame.sequence == 0 || !self.inbox.accept(frame.sequence) {
                continue;
            }
            // As a real gateway does now and then.
            if frame.sequence % 16 == 0 {
                self.write(Frame { sequence: 0, ack: 0, message: Message::Ack, body: Bytes::new() }).await;
            }
            if let Message::FetchPackage { sha256 } = &frame.message {
                *self.fetched.entry(sha256.clone()).or_default() += 1;
                self.serve(sha256.clone()).await;
                continue;
            }
            return (frame.message, frame.body);
        }
    }

    async fn serve(&mut self, sha256: String) {
        let Some(bytes) = self.packages.get(&sha256).cloned() else {
            let missing = Message::PackageMissing { sha256, reason: "it was deleted".to_owned() };
            return self.say(missing, Bytes::new()).await;
        };
        let bytes = Bytes::from(bytes);
        let mut offset = 0;
        loop {
            let end = (offset + wire::PACKAGE_PIECE).min(bytes.len());
            let last = end == bytes.len();
            let piece = Message::PackagePiece { sha256: sha256.clone(), offset: offset as u64, last };
            self.say(piece, bytes.slice(offset..end)).await;
            if last {
                return;
            }
            offset = end;
        }
    }

    /// Puts a package where the agent can fetch it; the spec of a function made of it.
    pub fn package(&mut self, bytes: Vec<u8>) -> SandboxSpec {
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let size = bytes.len() as u64;
        self.packages.insert(sha256.clone(), bytes);
        spec(sha256, size)
    }

    /// The spec of a Python function.
    pub fn function(&mut self, source: &str) -> SandboxSpec {
        self.package(zip(&[("main.py", source.as_bytes())]))
    }

    /// Starts a sandbox and waits until it is ready or has ended.
    pub async fn begin(&mut self, spec: SandboxSpec) -> Begun {
        self.last_sandbox += 1;
        let number = self.last_sandbox;
        self.say(Message::StartSandbox { sandbox: number, spec }, Bytes::new()).await;
        let mut logs = Vec::new();
        loop {
            match self.hear().await {
                (Message::SandboxReady { sandbox, init_us, package_us }, _) if sandbox == number => {
                    return Begun { sandbox, failure: None, logs, init_us, package_us };
                }
                (Message::SandboxEnded { sandbox, failure, .. }, _) if sandbox == number => {
                    return Begun { sandbox, failure, logs, init_us: 0, package_us: 0 };
                }
                (Message::Log { execution, stream, at_ms, .. }, body) => {
                    logs.push(piece(execution, stream, at_ms, &body))
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// A sandbox that is ready.
    pub async fn ready(&mut self, spec: SandboxSpec) -> u64 {
        let begun = self.begin(spec).await;
        assert_eq!(begun.failure, None, "{begun:?}");
        begun.sandbox
    }

    /// Gives an event and does not wait.
    pub async fn give(&mut self, sandbox: u64, event: &str, timeout_ms: u64) -> AttemptRef {
        self.last_execution += 1;
        let execution =
            AttemptRef { execution: format!("8476a536-e9f4-11e8-9739-{:012x}", self.last_execution), attempt: 1 };
        let invocation = Invocation { execution: execution.clone(), timeout_ms, content_type: None };
        self.say(Message::Invoke { sandbox, invocation }, Bytes::from(event.to_owned())).await;
        execution
    }

    /// Waits for what becomes of an event.
    pub async fn finished(&mut self, wanted: &AttemptRef) -> Finished {
        let mut logs = Vec::new();
        loop {
            match self.hear().await {
                (Message::Result { execution, outcome, measures, .. }, body) if execution == *wanted => {
                    return Finished { outcome: Some(outcome), body, failure: None, measures, logs };
                }
                (Message::SandboxEnded { execution, failure, measures, .. }, body)
                    if execution.as_ref() == Some(wanted) =>
                {
                    return Finished { outcome: None, body, failure, measures, logs };
                }
                (Message::Log { execution, stream, at_ms, .. }, body) => {
                    logs.push(piece(execution, stream, at_ms, &body))
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn invoke(&mut self, sandbox: u64, event: &str) -> Finished {
        self.invoke_within(sandbox, event, 30_000).await
    }

    pub async fn invoke_within(&mut self, sandbox: u64, event: &str, timeout_ms: u64) -> Finished {
        let execution = self.give(sandbox, event, timeout_ms).await;
        self.finished(&execution).await
    }

    /// Ends a sandbox and waits for its end.
    pub async fn stop(&mut self, number: u64) -> Vec<Piece> {
        self.say(Message::StopSandbox { sandbox: number }, Bytes::new()).await;
        let mut logs = Vec::new();
        loop {
            match self.hear().await {
                (Message::SandboxEnded { sandbox, failure, .. }, _) if sandbox == number => {
                    assert_eq!(failure, None, "it was asked to end");
                    return logs;
                }
                (Message::Log { execution, stream, at_ms, .. }, body) => {
                    logs.push(piece(execution, stream, at_ms, &body))
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks the agent to end and checks that it leaves nothing.
    pub async fn shut_down(mut self) {
        self.say(Message::Shutdown, Bytes::new()).await;
        // Until the agent hangs up: what it says last is acknowledged, so that it need not wait.
        loop {
            while let Some(frame) = wire::decode(&mut self.buffer).unwrap() {
                self.inbox.accept(frame.sequence);
                let mut ack = BytesMut::new();
                let frame =
                    Frame { sequence: 0, ack: self.inbox.received(), message: Message::Ack, body: Bytes::new() };
                wire::encode(&frame, &mut ack).unwrap();
                let stream = self.stream.as_mut().unwrap();
                let _ = stream.write_all(&ack).await;
                let _ = stream.flush().await;
            }
            let stream = self.stream.as_mut().unwrap();
            match timeout(PATIENCE, stream.read_buf(&mut self.buffer)).await.expect("the agent ends") {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        assert_eq!(self.wait().code(), Some(0));
        let left: Vec<_> =
            std::fs::read_dir(self.work_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"], "nothing is left in its directory");
    }

    /// The agent's process, also where another stands before it.
    pub fn agent_pid(&self) -> i32 {
        let pid = i32::try_from(self.agent.id()).unwrap();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let is_agent = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap().ends_with("lambda-agent");
        if is_agent { pid } else { children.trim().parse().unwrap() }
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.agent.wait().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // What a failed test leaves.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        let _ = lambda_agent::clean::clean(&self.work_dir(), is_root().then_some(self.uid_base));
    }
}

fn piece(execution: Option<AttemptRef>, stream: LogStream, at_ms: i64, body: &Bytes) -> Piece {
    Piece { execution, stream, at_ms, text: String::from_utf8_lossy(body).into_owned() }
}
