//! The gateway as those see it who dial it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use bytes::BytesMut;
use lambda_agent::address::GatewayAddress;
use lambda_agent::tls::{self, Stream};
use lambda_agent::wire::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::store::sqlite::SqliteStore;

const SECRET: &str = "the-secret-of-callers";

struct World {
    gateway: Gateway,
    port: u16,
    tasks: Tasks,
    _events: mpsc::Receiver<Event>,
    _load: watch::Sender<crate::worker::dispatch::Load>,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store"), Duration::from_secs(10)).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let (dispatch, events, load) = Dispatch::channel();
        let tasks = Tasks::new();
        let parts = Parts::of_test(dispatch, store, tasks.clone());
        let gateway = Gateway::new(Parts { caller_secret: SECRET.to_owned(), ..parts }).unwrap();
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for listener in [Listener::Network(listener), Listener::local(&socket(&dir)).unwrap()] {
            let (listening, cancel) = (gateway.clone(), tasks.token());
            tasks.run("gateway", async move {
                listening.listen(Arc::new(listener), cancel).await.unwrap();
            });
        }
        Self { gateway, port, tasks, _events: events, _load: load, dir }
    }

    fn here(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The gateway at an address by which other hosts reach this one; a connection to it comes from there, too.
    fn elsewhere(&self) -> SocketAddr {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // Nothing is sent: only the way is looked up.
        let way = socket.connect("198.51.100.1:9").and_then(|()| socket.local_addr());
        let address = way.map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip());
        assert!(!address.is_loopback(), "this test needs a network: a default route, no matter where it leads");
        (address, self.port).into()
    }

    async fn stop(self) {
        self.tasks.stop(Duration::from_secs(10)).await;
    }
}

fn socket(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("gateway.sock")
}

async fn say(stream: &mut Stream, message: Message) {
    let mut bytes = BytesMut::new();
    wire::encode(&Frame { sequence: 0, ack: 0, message, body: Bytes::new() }, &mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
}

async fn hear(stream: &mut Stream) -> Message {
    let mut buffer = BytesMut::new();
    loop {
        if let Some(frame) = wire::decode(&mut buffer).unwrap() {
            return frame.message;
        }
        assert_ne!(stream.read_buf(&mut buffer).await.unwrap(), 0, "the gateway hung up");
    }
}

/// Says hello and hears the answer.
async fn hello(address: SocketAddr, fingerprint: Option<Fingerprint>, message: Message) -> (Stream, Message) {
    let mut stream = tls::dial(address, fingerprint).await.unwrap();
    say(&mut stream, message).await;
    let answer = hear(&mut stream).await;
    (stream, answer)
}

fn refusal(answer: Message) -> String {
    let Message::Refused { reason } = answer else { panic!("{answer:?}") };
    reason
}

fn session(answer: Message) -> String {
    let Message::Welcome { session, .. } = answer else { panic!("{answer:?}") };
    session
}

#[tokio::test]
async fn only_this_host_may_talk_without_tls() {
    let world = World::new().await;
    let caller = || Message::HelloCaller { version: wire::VERSION, secret: SECRET.to_owned() };
    let fingerprint = Some(world.gateway.fingerprint());
    for (address, fingerprint) in [(world.here(), None), (world.here(), fingerprint), (world.elsewhere(), fingerprint)]
    {
        let (_, answer) = hello(address, fingerprint, caller()).await;
        session(answer);
    }
    let (_, answer) = hello(world.elsewhere(), None, caller()).await;
    assert!(refusal(answer).contains("without TLS"));
    let agent = Message::Hello {
        version: wire::VERSION,
        instance: "i".to_owned(),
        credential: Credential::Token(String::new()),
        received: 0,
    };
    let (_, answer) = hello(world.elsewhere(), None, agent).await;
    assert!(refusal(answer).contains("without TLS"));
    let mut by_file = Stream::to(&GatewayAddress::Local(socket(&world.dir)), None).await.unwrap();
    say(&mut by_file, caller()).await;
    session(hear(&mut by_file).await);
    let mode = std::fs::metadata(socket(&world.dir)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "and only its own user by the file");
    let other: Fingerprint = "00".repeat(32).parse().unwrap();
    let error = tls::dial(world.elsewhere(), Some(other)).await.unwrap_err();
    assert!(tls::is_stranger(&error), "{error}");
    world.stop().await;
}

#[tokio::test]
async fn a_token_works_once_or_until_its_agent_knows_the_session() {
    let world = World::new().await;
    let fingerprint = Some(world.gateway.fingerprint());
    let (instance, other) = (InstanceId::generate(), InstanceId::generate());
    world.gateway.expect(instance, "the-token".to_owned());
    world.gateway.expect(other, "the-other-token".to_owned());
    let shows = |instance: InstanceId, credential| Message::Hello {
        version: wire::VERSION,
        instance: instance.to_string(),
        credential,
        received: 0,
    };
    let token = || Credential::Token("the-token".to_owned());
    let (here, unknown) = (world.elsewhere(), "not with this credential");

    // Neither the wrong token, nor another's, nor for an instance that nobody expects.
    for (instance, credential) in [
        (instance, Credential::Token("the-token-".to_owned())),
        (instance, Credential::Session("the-token".to_owned())),
        (other, token()),
        (InstanceId::generate(), token()),
    ] {
        let (_, answer) = hello(here, fingerprint, shows(instance, credential)).await;
        assert!(refusal(answer).contains(unknown));
    }

    // The welcome is lost on the way: the agent has nothing but its token.
    let (lost, answer) = hello(here, fingerprint, shows(instance, token())).await;
    let first = session(answer);
    drop(lost);
    let (mut stream, answer) = hello(here, fingerprint, shows(instance, token())).await;
    let second = session(answer);
    assert_ne!(first, second);
    let (_, answer) = hello(here, fingerprint, shows(instance, Credential::Session(first))).await;
    assert!(refusal(answer).contains(unknown));

    // The welcome has arrived: from now on the session it is.
    say(&mut stream, Message::Ping).await;
    while hear(&mut stream).await != Message::Ack {}
    for _ in 0..2 {
        let (_, answer) = hello(here, fingerprint, shows(instance, token())).await;
        assert!(refusal(answer).contains("used already"));
    }
    let (_, answer) = hello(here, fingerprint, shows(instance, Credential::Session(second.clone()))).await;
    assert_eq!(session(answer), second);
    world.stop().await;
}

#[test]
fn secrets_are_long_and_differ() {
    let (one, other) = (random_secret(), random_secret());
    assert_eq!(one.len(), 64);
    assert!(!same(&one, &other) && same(&one, &one.clone()) && !same(&one, "") && !same("", &one));
}
