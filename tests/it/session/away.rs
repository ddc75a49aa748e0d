//! Programs that start while Keystone is away: they stay, say so, and go on when it is there.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use wiremock::matchers::{any, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// Longest wait for something that happens by itself.
const PATIENCE: Duration = Duration::from_secs(120);

struct Program {
    process: Child,
    log: PathBuf,
}

impl Program {
    fn start(program: &str, configuration: &Path) -> Self {
        let log = configuration.with_extension("log");
        let process = Command::new(program)
            .args(["--debug", "--config-file"])
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { process, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn until(&mut self, what: &str, holds: impl AsyncFn(&str) -> bool) {
        let begun = Instant::now();
        while !holds(&self.log()).await {
            assert!(self.process.try_wait().unwrap().is_none(), "it has ended: {}", self.log());
            assert!(begun.elapsed() < PATIENCE, "{what}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its exit code after SIGTERM.
    fn terminate(&mut self) -> Option<i32> {
        kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), Signal::SIGTERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_keystone_and_goes_on_when_it_is_there() {
    let (directory, keystone) = (tempfile::tempdir().unwrap(), free_port());
    let at = |name: &str| directory.path().join(name);
    let configuration = at("worker.conf");
    let text = format!(
        "[database]\nconnection = sqlite://{}\n[worker]\ngateway_bind = 127.0.0.1:0\nstate_dir = {}\n[service_auth]\n\
         auth_type = password\nauth_url = http://{keystone}/identity\nusername = lambda\npassword = hunter2\n\
         project_name = service\n",
        at("store.db").display(),
        at("state").display(),
    );
    std::fs::write(&configuration, text).unwrap();
    let mut worker = Program::start(env!("CARGO_BIN_EXE_lambda-worker"), &configuration);
    let told = format!("Keystone at http://{keystone}/identity does not answer");
    worker.until("it says what is missing", async |log| log.contains(&told)).await;

    let listener = std::net::TcpListener::bind(keystone).unwrap();
    let server = MockServer::builder().listener(listener).start().await;
    let owned = json!({"id": "x", "name": "x", "domain": {"id": "default", "name": "Default"}});
    let endpoint =
        json!({"id": "e", "interface": "public", "region_id": "r", "url": format!("{}/queue", server.uri())});
    let token = json!({"token": {
        "expires_at": "2030-01-01T01:00:00.000000Z", "issued_at": "2030-01-01T00:00:00.000000Z",
        "user": owned, "project": owned, "catalog": [{"type": "messaging", "endpoints": [endpoint]}]}});
    let answer = ResponseTemplate::new(201).insert_header("X-Subject-Token", "secret-token").set_body_json(token);
    Mock::given(method("POST")).and(path("/identity/v3/auth/tokens")).respond_with(answer).mount(&server).await;
    Mock::given(any())
        .and(header("x-auth-token", "secret-token"))
        .respond_with(ResponseTemplate::new(204))
        .mount(&server)
        .await;
    let claimed = async |_: &str| {
        let requests = server.received_requests().await.unwrap();
        requests.iter().any(|request| request.url.path() == "/queue/v2/queues/lambda-events/claims")
    };
    worker.until("it claims", claimed).await;
    let asked = server.received_requests().await.unwrap();
    let tokens = asked.iter().filter(|request| request.url.path() == "/identity/v3/auth/tokens").count();
    assert_eq!(tokens, 1, "one token for everything");
    assert_eq!(worker.terminate(), Some(0), "{}", worker.log());
    let log = worker.log();
    assert!(!log.contains("hunter2") && !log.contains("secret-token"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_serves_while_keystone_is_away() {
    let (directory, keystone, api) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let configuration = directory.path().join("api.conf");
    let text = format!(
        "[database]\nconnection = sqlite://{}\n[api]\nbind = {api}\n[service_auth]\nauth_type = v3applicationcredential\n\
         auth_url = http://{keystone}/identity\napplication_credential_id = i\napplication_credential_secret = hunter2\n",
        directory.path().join("store.db").display(),
    );
    std::fs::write(&configuration, text).unwrap();
    let mut program = Program::start(env!("CARGO_BIN_EXE_lambda-api"), &configuration);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answers = async |_: &str| client.get(format!("http://{api}/")).send().await.is_ok();
    program.until("it answers", answers).await;
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    assert!(!program.log().contains("hunter2"), "{}", program.log());
}
