//! The connection breaks; sandboxes and what they say do not.

use std::time::Duration;

use lambda_agent::wire::Stream;

use crate::gateway::{Gateway, Options};
use crate::help::{identity, until, zip};

const SLOW: &str = r#"
import os, time
def handler(event, context):
    print("begun")
    open(event + ".begun", "w").close()
    while not os.path.exists(event):
        time.sleep(0.01)
    print("released")
    return "done"
"#;

#[tokio::test]
async fn an_invocation_survives_a_lost_connection_and_is_answered_once() {
    survives(Options { shared_tmp: true, ..Options::default() }).await;
}

#[tokio::test]
async fn with_tls_it_survives_too() {
    survives(Options { shared_tmp: true, tls: true, ..Options::default() }).await;
}

async fn survives(options: Options) {
    let mut gateway = Gateway::start_with(options).await;
    let spec = gateway.function(SLOW);
    let sandbox = gateway.ready(spec).await;
    let release = gateway.work.path().join("release");
    let begun = gateway.work.path().join("release.begun");
    let execution = gateway.give(sandbox, &format!("{:?}", release.display().to_string()), 60_000).await;
    until("the handler runs", || begun.exists()).await;
    gateway.hang_up();
    std::fs::write(&release, "").unwrap();
    gateway.accept().await;
    gateway.hang_up();
    gateway.accept().await;
    let finished = gateway.finished(&execution).await;
    assert_eq!(finished.text(Stream::Stdout), "begun\nreleased\n");
    assert_eq!(finished.returned(), "done");
    assert_eq!(gateway.invoke(sandbox, &format!("{:?}", release.display().to_string())).await.returned(), "done");
    gateway.shut_down().await;
}

#[tokio::test]
async fn what_the_gateway_said_while_there_was_no_connection_arrives_once() {
    let mut gateway = Gateway::start().await;
    let spec = gateway
        .function("count = 0\ndef handler(event, context):\n    global count\n    count += 1\n    return count\n");
    let sandbox = gateway.ready(spec).await;
    for round in 1..=5 {
        gateway.hang_up();
        let execution = gateway.give(sandbox, "{}", 10_000).await;
        gateway.accept().await;
        if round % 2 == 0 {
            // Before the acknowledgement can have come: the frame is sent again and must not be handled again.
            gateway.hang_up();
            gateway.accept().await;
        }
        assert_eq!(gateway.finished(&execution).await.returned(), round);
    }
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_long_log_goes_on_where_the_connection_broke() {
    goes_on(Options::default()).await;
}

#[tokio::test]
async fn with_tls_it_goes_on_too() {
    goes_on(Options { tls: true, ..Options::default() }).await;
}

#[tokio::test]
async fn with_tls_large_packages_events_and_results_arrive_whole() {
    let mut gateway = Gateway::start_with(Options { tls: true, ..Options::default() }).await;
    let ballast: Vec<u8> = std::iter::repeat_with(rand::random).take(3 << 20).collect();
    let source = "import hashlib\nsize = len(open('ballast', 'rb').read())\ndef handler(event, context):\n    return [size, event]\n";
    let spec = gateway.package(zip(&[("main.py", source.as_bytes()), ("ballast", &ballast)]));
    let sandbox = gateway.ready(spec).await;
    for size in [1, 100_000, 5_000_000] {
        let event = "x".repeat(size);
        let returned = gateway.invoke(sandbox, &format!("{event:?}")).await.returned();
        assert_eq!(returned[0], 3 << 20);
        assert!(returned[1] == event, "of {size} bytes {} came back", returned[1].as_str().unwrap().len());
    }
    gateway.shut_down().await;
}

async fn goes_on(options: Options) {
    let mut gateway = Gateway::start_with(options).await;
    let mut spec = gateway.function("def handler(event, context):\n    for n in range(300000): print(n)\n");
    spec.log_limit_bytes = 64 << 20;
    let sandbox = gateway.ready(spec).await;
    let execution = gateway.give(sandbox, "{}", 120_000).await;
    let mut text = String::new();
    for _ in 0..20 {
        let (message, body) = gateway.hear().await;
        assert!(matches!(message, lambda_agent::wire::Message::Log { .. }), "{message:?}");
        text.push_str(std::str::from_utf8(&body).unwrap());
        gateway.hang_up();
        gateway.accept().await;
    }
    text.push_str(&gateway.finished(&execution).await.text(Stream::Stdout));
    assert!(text.lines().enumerate().all(|(n, line)| line == n.to_string()) && text.lines().count() == 300_000);
    gateway.shut_down().await;
}

/// An agent that dials here, with what it was told of the certificate.
fn dialling(listener: &tokio::net::TcpListener, work: &std::path::Path, fingerprint: &str) -> std::process::Child {
    std::fs::set_permissions(work, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::process::Command::new(env!("CARGO_BIN_EXE_lambda-agent"))
        .args(["run", "--gateway", &listener.local_addr().unwrap().to_string(), "--instance", "refused"])
        .args(["--memory-mib", "512", "--python", &crate::help::python(), "--work-dir"])
        .arg(work)
        .env("LAMBDA_AGENT_TOKEN", "a-token-for-one-gateway")
        .env("LAMBDA_AGENT_FINGERPRINT", fingerprint)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn an_agent_shows_its_token_to_no_other_certificate() {
    use tokio::io::AsyncReadExt as _;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ((acceptor, _), (_, expected)) = (identity(), identity());
    let work = tempfile::tempdir_in("/tmp").unwrap();
    let agent = dialling(&listener, work.path(), &expected.to_string());
    let (stream, _) = listener.accept().await.unwrap();
    let mut heard = Vec::new();
    match acceptor.accept(stream).await {
        // It may hang up before or after we are through with our part.
        Ok(mut stream) => drop(stream.read_to_end(&mut heard).await),
        Err(refused) => drop(refused),
    }
    assert_eq!(heard, b"");
    let ended = tokio::task::spawn_blocking(move || agent.wait_with_output().unwrap());
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(77));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("has another certificate"), "{said}");
}

#[tokio::test]
async fn an_agent_that_was_told_a_certificate_does_not_talk_without_tls() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let work = tempfile::tempdir_in("/tmp").unwrap();
    let mut agent = dialling(&listener, work.path(), &identity().1.to_string());
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut heard = vec![0; 16];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard[0], 0x16, "a TLS handshake");
    stream.write_all(b"\0\0\0\x10this is not TLS").await.unwrap();
    stream.read_to_end(&mut heard).await.unwrap();
    assert!(!heard.windows(7).any(|part| part == b"a-token"));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[tokio::test]
async fn an_agent_that_is_refused_ends_and_says_so() {
    use lambda_agent::wire::{self, Frame, Message};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let work = tempfile::tempdir_in("/tmp").unwrap();
    let agent = dialling(&listener, work.path(), "");
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut hello = [0; 4];
    stream.read_exact(&mut hello).await.unwrap();
    let mut buffer = bytes::BytesMut::new();
    let message = Message::Refused { reason: "unknown token".into() };
    wire::encode(&Frame { sequence: 0, ack: 0, message, body: bytes::Bytes::new() }, &mut buffer).unwrap();
    stream.write_all(&buffer).await.unwrap();
    let ended = tokio::task::spawn_blocking(move || agent.wait_with_output().unwrap());
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(77));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("the gateway refused this agent: unknown token"), "{said}");
}

#[tokio::test]
async fn sigterm_ends_everything_in_order() {
    let mut gateway = Gateway::start_with(Options { shared_tmp: true, ..Options::default() }).await;
    let spec = gateway.function(SLOW);
    let sandbox = gateway.ready(spec).await;
    let never = gateway.work.path().join("never").display().to_string();
    let execution = gateway.give(sandbox, &format!("{never:?}"), 60_000).await;
    until("the handler runs", || std::path::Path::new(&format!("{never}.begun")).exists()).await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(gateway.agent.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let finished = gateway.finished(&execution).await;
    assert_eq!((finished.failure, finished.outcome), (None, None), "it was asked to end");
    gateway.hang_up();
    assert_eq!(gateway.wait().code(), Some(0));
}
