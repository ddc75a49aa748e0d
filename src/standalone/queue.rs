//! A small Zaqar v2 on one SQLite file, for a laptop and for tests.
//!
//! [`open`] gives the [`Queue`], [`router`] its HTTP. A client of the real service works on it unchanged. What it
//! promises: a post that was answered with 201 survives any crash; messages are claimed oldest first; no two live claims
//! hold the same message; bad input is answered with 4xx.
//!
//! Where it differs from the real service, on purpose:
//! * No identity: the project is `X-Project-Id`; without it, or with an empty one (which Zaqar refuses),
//!   `demo`. Everybody may do everything.
//! * Subscriptions, pre-signed URLs, topics, pools, flavors and encrypted queues are not there. They are answered as by a
//!   Zaqar in which they are switched off (400 or 404).
//! * A message that was claimed `_max_claim_count` times goes to the dead letter queue with the next claim, as in Zaqar,
//!   but is free there at once. Releasing or renewing a claim does not reset the count.
//! * `claim_ids` of a bulk deletion are honoured whenever they are given: nothing is deleted when one of the messages is
//!   under another claim (403) or under none any more (400). Messages that are gone already count as deleted.
//! * A list goes on behind a message's id as well as behind the marker of its `next` link.
//! * The age of a message counts from its posting, also when a claim has prolonged its life.

mod claims;
mod fault;
mod home;
mod id;
mod lane;
mod limits;
mod messages;
mod metadata;
mod queues;
mod request;
mod rows;
mod schema;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{any, get, post};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::model::Timestamp;

use fault::{Fault, Result};
use lane::{Access, Lane, Lasting};
use request::Query;

/// Tells the time. There is one in [`crate::clock`]; tests bring their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Why the file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is damaged, not ours, or not to be written.
    #[error("the queue's database cannot be opened")]
    Database(#[from] rusqlite::Error),
    /// It was written by a later release.
    #[error("the queue's database has version {found}, this release knows up to {known}")]
    Version {
        /// The file's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The system gives no thread.
    #[error("no thread for the queue")]
    Thread(#[from] std::io::Error),
}

/// An open queue service. Clones share it; the file is closed by [`Queue::close`] or with the last clone.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Lane,
    reader: Lane,
    clock: Clock,
    salt: u16,
    listener: OnceLock<Listener>,
}

/// Hears of posts: the project, and the name of the queue.
type Listener = Box<dyn Fn(&str, &str) + Send + Sync>;

/// Opens the service on this file, which is made when it is not there. Its directory must exist.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(path: impl AsRef<Path>) -> std::result::Result<Queue, OpenError> {
    open_with_clock(path, Arc::new(crate::clock::now)).await
}

/// Opens the service with another clock.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_with_clock(path: impl AsRef<Path>, clock: Clock) -> std::result::Result<Queue, OpenError> {
    let path = path.as_ref().to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let writer = schema::open(&path)?;
        let salt = schema::salt(&writer)?;
        let reader = schema::connect(&path)?;
        let writer = Lane::start(writer, Access::Write, Arc::clone(&clock))?;
        let reader = Lane::start(reader, Access::Read, Arc::clone(&clock))?;
        Ok(Queue { shared: Arc::new(Shared { writer, reader, clock, salt, listener: OnceLock::new() }) })
    });
    opened.await.unwrap_or_else(|gone| Err(OpenError::Thread(std::io::Error::other(gone))))
}

impl Queue {
    /// Finishes what was asked for and closes the file. Later requests are answered with 503.
    pub async fn close(&self) {
        self.shared.reader.close().await;
        self.shared.writer.close().await;
    }

    /// Has `listener` told of each post, by its project and the name of its queue, when it is durable; it must not wait.
    /// This takes the place of Zaqar's notifications for who is in the same process. The first listener stays.
    pub fn on_post(&self, listener: impl Fn(&str, &str) + Send + Sync + 'static) {
        let _ = self.shared.listener.set(Box::new(listener));
    }

    fn posted(&self, project: &str, queue: &str) {
        if let Some(listener) = self.shared.listener.get() {
            listener(project, queue);
        }
    }

    fn now(&self) -> i64 {
        (self.shared.clock)().as_millis()
    }

    fn salt(&self) -> u16 {
        self.shared.salt
    }

    /// Changes the file; `work` gets the connection and the time.
    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, i64) -> Result<T> + Send + 'static,
    {
        self.change(Lasting::Flushed, work).await
    }

    /// Changes who holds what. Messages whose claim a power cut undoes are free again, as at the claim's end.
    async fn write_claim<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, i64) -> Result<T> + Send + 'static,
    {
        self.change(Lasting::Written, work).await
    }

    async fn change<T, F>(&self, lasting: Lasting, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, i64) -> Result<T> + Send + 'static,
    {
        let clock = Arc::clone(&self.shared.clock);
        self.shared.writer.run(lasting, move |connection| work(connection, clock().as_millis())).await
    }

    /// Looks at the file; `work` gets the connection and the time.
    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, i64) -> Result<T> + Send + 'static,
    {
        let clock = Arc::clone(&self.shared.clock);
        self.shared.reader.run(Lasting::Flushed, move |connection| work(connection, clock().as_millis())).await
    }

    /// Whether both threads answer.
    async fn check(&self) -> Result<()> {
        self.write(|_, _| Ok(())).await?;
        self.read(|connection, _| Ok(schema::salt(connection).map(|_| ())?)).await
    }
}

/// The service over HTTP. Serve it with TCP_NODELAY: answers are small.
pub fn router(queue: Queue) -> Router {
    let v2 = Router::new()
        .route("/v2/", get(home::home))
        .route("/v2/ping", get(home::ping))
        .route("/v2/health", get(home::health))
        .route("/v2/queues", get(queues::list))
        .route("/v2/queues/{queue}", get(queues::show).put(queues::create).patch(queues::update).delete(queues::delete))
        .route("/v2/queues/{queue}/stats", get(queues::stats))
        .route("/v2/queues/{queue}/purge", post(queues::purge))
        .route("/v2/queues/{queue}/messages", get(messages::list).post(messages::post).delete(messages::delete_many))
        .route("/v2/queues/{queue}/messages/{item}", get(messages::show).delete(messages::delete))
        .route("/v2/queues/{queue}/claims", post(claims::create))
        .route("/v2/queues/{queue}/claims/{item}", get(claims::show).patch(claims::update).delete(claims::release))
        .route("/v2/queues/{queue}/subscriptions", get(home::no_subscriptions).post(home::cannot_subscribe))
        .route("/v2/queues/{queue}/subscriptions/{item}", any(home::no_subscription))
        .route("/v2/queues/{queue}/subscriptions/{item}/confirm", any(home::no_subscription))
        .route("/v2/queues/{queue}/share", post(home::cannot_share))
        .method_not_allowed_fallback(home::no_method)
        .route_layer(from_fn(request::check))
        .with_state(queue);
    Router::new()
        .route("/", get(home::versions))
        .method_not_allowed_fallback(home::no_method)
        .merge(v2)
        .fallback(home::nothing)
}

/// The `links` of a list: how it was asked for, but from behind its last element; none behind an empty one.
fn links(path: &str, query: &Query, marker: Option<String>) -> Value {
    let Some(marker) = marker else {
        return json!([]);
    };
    let mut pairs: Vec<(&str, &str)> = query
        .pairs()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| *name != "marker")
        .collect();
    pairs.push(("marker", &marker));
    let query = serde_urlencoded::to_string(pairs).unwrap_or_default();
    json!([{"rel": "next", "href": format!("{path}?{query}")}])
}

/// Whole seconds since then.
fn age(since: i64, now: i64) -> i64 {
    (now - since).max(0) / 1000
}

fn body_too_large() -> Fault {
    Fault::request(format!("Request body is too large. Max size {}", limits::SMALL_MAX))
}
