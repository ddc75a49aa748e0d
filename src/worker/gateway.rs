//! Where agents and the API dial. It knows which instances are expected and by what they prove themselves; what they say
//! goes to the dispatcher, what the dispatcher says goes to them.

mod caller;
mod calls;
mod connection;
mod identity;
mod link;
mod listener;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lambda_agent::tls::Fingerprint;
use lambda_agent::wire::{self, Credential, Message};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::calls::Calls;
use self::connection::Connection;
use self::identity::Identity;
pub use self::listener::Listener;
use super::dispatch::{Dispatch, Event};
use super::functions::Functions;
use crate::model::{InstanceId, WorkerId};
use crate::store::Store;
use crate::task::Tasks;
use crate::telemetry::metrics::Metrics;

/// Time for the first frame of a connection.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that may be saying hello at the same time.
const HELLOS: usize = 256;
/// Orders that may wait for an agent. An agent that leaves so many lie is lost.
const ORDERS: usize = 1024;
/// Pieces of packages that may wait for an agent.
const PIECES: usize = 4;

/// The gateway. Clones share it.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

struct Shared {
    expected: Mutex<HashMap<InstanceId, Expected>>,
    identity: Identity,
    caller_secret: String,
    calls: Calls,
    dispatch: Dispatch,
    store: Arc<dyn Store>,
    tasks: Tasks,
    metrics: Metrics,
    agents: AtomicUsize,
}

/// An instance whose agent may dial.
struct Expected {
    proof: Proof,
    orders: mpsc::Sender<Order>,
    connections: mpsc::Sender<link::Arrival>,
    called: watch::Receiver<bool>,
}

/// What proves an instance's agent now.
enum Proof {
    /// The token that the driver handed over.
    Token(String),
    /// The token was shown and a session was offered. Until the agent has shown that it knows the session, the connection
    /// may have broken on the way: then it has nothing but its token.
    Offered { token: String, session: String },
    /// The session. The token is of no use any more.
    Session(String),
}

/// What a link is told.
enum Order {
    Say(Box<Message>, Bytes),
    /// Have the agent end everything, then end.
    Close,
}

/// What the gateway works with.
pub struct Parts {
    /// This worker.
    pub me: WorkerId,
    /// What callers must show.
    pub caller_secret: String,
    /// Where events go.
    pub dispatch: Dispatch,
    /// Where packages are.
    pub store: Arc<dyn Store>,
    /// What functions are.
    pub functions: Functions,
    /// Runs connections.
    pub tasks: Tasks,
    /// What is counted.
    pub metrics: Metrics,
    /// Most synchronous calls at the same time.
    pub max_calls: usize,
    /// Notified when a caller says that there is something new: in the inbox, or on the queue.
    pub nudged: [Arc<Notify>; 2],
    /// Rung when the API says that a function has changed.
    pub changed: Arc<Notify>,
}

#[cfg(test)]
impl Parts {
    /// Of a worker that does nothing else.
    pub fn of_test(dispatch: Dispatch, store: Arc<dyn Store>, tasks: Tasks) -> Self {
        Self {
            me: WorkerId::generate(),
            caller_secret: random_secret(),
            dispatch,
            functions: Functions::new(Arc::clone(&store)),
            store,
            tasks,
            metrics: Metrics::new("test"),
            max_calls: 1,
            nudged: [Arc::default(), Arc::default()],
            changed: Arc::default(),
        }
    }
}

impl Gateway {
    /// A gateway that expects nobody yet.
    ///
    /// # Errors
    /// When the machine gives no key for its certificate.
    pub fn new(parts: Parts) -> std::io::Result<Self> {
        let calls = Calls {
            me: parts.me,
            dispatch: parts.dispatch.clone(),
            functions: parts.functions,
            permits: Arc::new(Semaphore::new(parts.max_calls)),
            nudged: parts.nudged,
            changed: parts.changed,
        };
        let shared = Shared {
            expected: Mutex::default(),
            identity: Identity::make()?,
            caller_secret: parts.caller_secret,
            calls,
            dispatch: parts.dispatch,
            store: parts.store,
            tasks: parts.tasks,
            metrics: parts.metrics,
            agents: AtomicUsize::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// For who asks from the same process.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.shared.calls.clone()
    }

    /// The fingerprint of its certificate: what those who dial from another host must know.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.shared.identity.fingerprint()
    }

    /// Accepts connections until cancelled.
    ///
    /// # Errors
    /// When the listener is broken.
    pub async fn listen(&self, listener: Arc<Listener>, cancel: CancellationToken) -> std::io::Result<()> {
        let hellos = Arc::new(Semaphore::new(HELLOS));
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let arrived = match accepted {
                Ok(arrived) => arrived,
                Err(error) => {
                    // Out of file descriptors, or a peer that left: the next one may do.
                    tracing::warn!(error = %error, "a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&hellos).acquire_owned().await else { return Ok(()) };
            let (gateway, cancel, from) = (self.clone(), cancel.clone(), arrived.from());
            self.shared.tasks.run("gateway connection", async move {
                let accept = Connection::accept(arrived, &gateway.shared.identity);
                let hello = tokio::time::timeout(HELLO_TIMEOUT, accept).await;
                drop(permit);
                match hello {
                    Ok(Ok((connection, message))) => gateway.greet(connection, message, cancel).await,
                    Ok(Err(error)) => {
                        tracing::debug!(from = %from, error = %error, "a connection ended before its hello: {error}");
                    }
                    Err(_) => tracing::debug!(from = %from, "a connection said no hello"),
                }
            });
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is said first is no hello")]
    async fn greet(&self, connection: Connection, hello: Message, cancel: CancellationToken) {
        let said = match &hello {
            Message::Hello { instance, .. } => instance.chars().take(64).collect(),
            _ => String::new(),
        };
        let refusal = match hello {
            // Whatever it shows has been seen by everybody on the way.
            Message::Hello { .. } | Message::HelloCaller { .. } if !connection.is_private() => {
                "only this host may talk without TLS: the fingerprint of the certificate is missing at the other end"
            }
            Message::HelloCaller { version: wire::VERSION, secret } if same(&secret, &self.shared.caller_secret) => {
                caller::serve(connection, self.shared.calls.clone(), cancel).await;
                return;
            }
            Message::Hello { version: wire::VERSION, instance, credential, received } => {
                match self.admit(&instance, &credential) {
                    Ok((connections, session)) => {
                        let arrival = link::Arrival { connection, session, received };
                        // A link that has just ended wants no connection; the agent will find that out.
                        let _ = connections.send(arrival).await;
                        return;
                    }
                    Err(refusal) => refusal,
                }
            }
            Message::HelloCaller { version: wire::VERSION, .. } => "the secret is wrong",
            Message::Hello { .. } | Message::HelloCaller { .. } => "the version is not spoken here",
            _ => "the first message must be a hello",
        };
        tracing::warn!(
            instance.id = said, from = %connection.from(), reason = refusal,
            "a connection from {} is refused: {refusal}", connection.from()
        );
        connection.refuse(refusal).await;
    }

    /// Checks what an agent shows; its one-time token becomes a session.
    fn admit(&self, instance: &str, shown: &Credential) -> Result<(mpsc::Sender<link::Arrival>, String), &'static str> {
        const UNKNOWN: &str = "this instance is not expected, or not with this credential";
        let instance = instance.parse().map_err(|_| UNKNOWN)?;
        let mut expected = self.shared.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let agent = expected.get_mut(&instance).ok_or(UNKNOWN)?;
        let session = match (shown, &agent.proof) {
            (Credential::Token(shown), Proof::Token(token) | Proof::Offered { token, .. }) if same(shown, token) => {
                let (token, session) = (token.clone(), random_secret());
                agent.proof = Proof::Offered { token, session: session.clone() };
                session
            }
            (Credential::Session(shown), Proof::Offered { session, .. } | Proof::Session(session))
                if same(shown, session) =>
            {
                let session = session.clone();
                agent.proof = Proof::Session(session.clone());
                session
            }
            (Credential::Token(_), Proof::Session(_)) => {
                return Err("the token of this instance has been used already");
            }
            (Credential::Token(_) | Credential::Session(_), _) => return Err(UNKNOWN),
        };
        Ok((agent.connections.clone(), session))
    }

    /// Expects an instance's agent. Must come before the driver is asked to boot it.
    pub fn expect(&self, instance: InstanceId, token: String) {
        let (orders, order_queue) = mpsc::channel(ORDERS);
        let (connections, arrivals) = mpsc::channel(1);
        let (pieces, piece_queue) = mpsc::channel(PIECES);
        let (seen, called) = watch::channel(false);
        let agent = Expected { proof: Proof::Token(token), orders, connections, called };
        self.shared.expected.lock().unwrap_or_else(PoisonError::into_inner).insert(instance, agent);
        let link =
            link::Link::new(instance, order_queue, piece_queue, arrivals, pieces, seen, Arc::clone(&self.shared));
        self.shared.tasks.run("agent link", link.run());
    }

    /// Says something to an agent.
    pub fn send(&self, instance: InstanceId, message: Box<Message>, body: Bytes) {
        let full = {
            let mut expected = self.shared.expected.lock().unwrap_or_else(PoisonError::into_inner);
            match expected.get(&instance).map(|agent| agent.orders.try_send(Order::Say(message, body))) {
                Some(Err(mpsc::error::TrySendError::Full(_))) => expected.remove(&instance).is_some(),
                Some(Ok(()) | Err(mpsc::error::TrySendError::Closed(_))) | None => false,
            }
        };
        if full {
            let dispatch = self.shared.dispatch.clone();
            self.shared.tasks.run("report of a stuck agent", async move {
                let why = "its agent does not take its orders".to_owned();
                dispatch.tell(Event::InstanceLost(instance, why)).await;
            });
        }
    }

    /// The instances whose agents are expected or connected.
    #[must_use]
    pub fn expected(&self) -> Vec<InstanceId> {
        self.shared.expected.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Whether an instance's agent may call.
    #[must_use]
    pub fn expects(&self, instance: InstanceId) -> bool {
        self.shared.expected.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&instance)
    }

    /// Waits until an instance's agent has called for the first time; whether it has, or is not expected any more.
    pub async fn seen(&self, instance: InstanceId) -> bool {
        let called = {
            let expected = self.shared.expected.lock().unwrap_or_else(PoisonError::into_inner);
            expected.get(&instance).map(|agent| agent.called.clone())
        };
        let Some(mut called) = called else { return false };
        // An error means that it is not expected any more.
        called.wait_for(|called| *called).await.is_ok()
    }

    /// Whether an instance's agent is expected and has called.
    #[must_use]
    pub fn has_called(&self, instance: InstanceId) -> bool {
        let expected = self.shared.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.get(&instance).is_some_and(|agent| *agent.called.borrow())
    }

    /// Has an agent end everything, and expects it no more.
    pub fn dismiss(&self, instance: InstanceId) {
        let agent = self.shared.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&instance);
        if let Some(agent) = agent {
            // A full queue: the link ends with it, the driver ends the agent.
            let _ = agent.orders.try_send(Order::Close);
        }
    }
}

impl Shared {
    /// An agent has shown that it knows its session: from now on its token is of no use.
    fn confirm(&self, instance: InstanceId, known: &str) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = expected.get_mut(&instance)
            && let Proof::Offered { session, .. } = &agent.proof
            && session == known
        {
            agent.proof = Proof::Session(known.to_owned());
        }
    }

    /// An agent's connection is up; whether it was there before.
    fn agent_connected(&self, again: bool) {
        self.metrics.set_agents(self.agents.fetch_add(1, Ordering::Relaxed) + 1);
        if again {
            self.metrics.agent_reconnected();
        }
    }

    /// An agent's connection is down.
    fn agent_disconnected(&self) {
        self.metrics.set_agents(self.agents.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

/// A secret of 256 bits, as text.
#[must_use]
pub fn random_secret() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        use std::fmt::Write as _;
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares two secrets in a time that does not tell where they differ.
fn same(shown: &str, right: &str) -> bool {
    shown.len() == right.len()
        && shown.bytes().zip(right.bytes()).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests;
