//! Zaqar v2: queues, messages and claims.
//!
//! A claim is no lease that can be trusted (the Redis driver hands out messages that are under a live claim), so this
//! client treats a lost claim as an outcome, not as an error, and its users must not build on exclusiveness.

mod subscriptions;
mod wire;

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Answer, OpenStackError, Request, Service, Session};

/// Officially `message`; DevStack registers `messaging`.
pub const SERVICE: Service = Service(&["message", "messaging"]);

/// Most messages of one claim, and most ids of one deletion.
pub const PAGE_MAX: usize = 20;

/// Largest body of a post, in bytes: Zaqar's default `[transport] max_messages_post_size`.
pub const POST_MAX_BYTES: usize = 256 * 1024;

/// Most messages of one post. Zaqar sets no limit, but answers with all the ids in one header line, and the proxies in
/// front of it take no line of more than 8 KiB.
const POST_MAX_MESSAGES: usize = 200;

/// What a post costs beside its messages: `{"messages":[` and `]}`.
const POST_FRAME_BYTES: usize = 15;

/// A message to be posted.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// How long it lives: 60 s to 14 days.
    pub ttl: Duration,
    /// Any JSON.
    pub body: Box<RawValue>,
}

/// A claimed message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its id, unique for all times in its queue.
    pub id: String,
    /// The claim that holds it.
    pub claim_id: String,
    /// How long ago it was posted, in whole seconds.
    pub age: Duration,
    /// How long it lives in all.
    pub ttl: Duration,
    /// What was posted. A body that is JSON for Zaqar but not for us (nested deeper than 128 levels, a number beyond
    /// all measure) comes as a string of its text.
    pub body: Value,
}

/// Messages that are ours for a time; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Its id.
    pub id: String,
    /// Oldest first.
    pub messages: Vec<Message>,
}

/// What came of something that was done under a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Held {
    /// It was done.
    Done,
    /// The claim is not ours any more: the messages are free, or somebody else's. To a deletion, only a Zaqar with
    /// `message_delete_with_claim_id` (and our own queue) says so; others delete whoever holds the messages.
    Lost,
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages that can be claimed.
    pub free: u64,
    /// Messages under a claim.
    pub claimed: u64,
    /// Both.
    pub total: u64,
    /// How old the oldest is; none when there is none.
    pub oldest_age: Option<Duration>,
}

/// A post that did not wholly succeed.
#[derive(Debug, thiserror::Error)]
#[error("{} messages were posted before one was refused", .posted.len())]
pub struct PostError {
    /// The ids of those that are on the queue: the first of those given.
    pub posted: Vec<String>,
    /// What became of the next. After [`OpenStackError::Unavailable`] it may be there, with others up to the limit of
    /// one request.
    #[source]
    pub source: OpenStackError,
}

impl From<PostError> for OpenStackError {
    fn from(error: PostError) -> Self {
        error.source
    }
}

/// Talks to Zaqar.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
}

impl Client {
    /// On this session.
    #[must_use]
    pub const fn new(session: Session) -> Self {
        Self { session }
    }

    /// Makes a queue if it is not there; whether it was made. Metadata of one that is there stays as it is.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn ensure_queue(&self, queue: &str, metadata: &Map<String, Value>) -> Result<bool, OpenStackError> {
        let body = Value::Object(metadata.clone());
        let request = with_json(request("ensure_queue", Method::PUT, queue, &[], true), body.to_string());
        Ok(self.session.send(&request).await?.status == StatusCode::CREATED)
    }

    /// Removes a queue with all that is in it. Succeeds when it is not there.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn delete_queue(&self, queue: &str) -> Result<(), OpenStackError> {
        self.session.send(&request("delete_queue", Method::DELETE, queue, &[], true)).await.map(|_| ())
    }

    /// Posts messages, in order, in as few requests as Zaqar's limits allow; their ids, in order. A request is not
    /// repeated once it may have been looked at: what is posted twice is two messages.
    ///
    /// # Errors
    /// [`PostError`] says which are on the queue. [`OpenStackError::Invalid`] when one message alone is over the limit.
    pub async fn post(&self, queue: &str, messages: &[NewMessage]) -> Result<Vec<String>, PostError> {
        let mut posted = Vec::with_capacity(messages.len());
        let mut rest: Vec<Vec<u8>> = messages.iter().map(wire::encode).collect();
        while !rest.is_empty() {
            match self.post_some(queue, &mut rest).await {
                Ok(ids) => posted.extend(ids),
                Err(source) => return Err(PostError { posted, source }),
            }
        }
        Ok(posted)
    }

    /// Posts as many as go into one request and takes them off the front.
    async fn post_some(&self, queue: &str, rest: &mut Vec<Vec<u8>>) -> Result<Vec<String>, OpenStackError> {
        let mut size = POST_FRAME_BYTES;
        let count = rest
            .iter()
            .take(POST_MAX_MESSAGES)
            .take_while(|message| {
                // One more for the comma.
                size = size.saturating_add(message.len() + 1);
                size <= POST_MAX_BYTES + 1
            })
            .count();
        if count == 0 {
            let length = rest.first().map_or(0, Vec::len) + POST_FRAME_BYTES;
            return Err(OpenStackError::Invalid(format!(
                "a message makes a request of {length} bytes, the queue takes {POST_MAX_BYTES}"
            )));
        }
        let chunk: Vec<Vec<u8>> = rest.drain(..count).collect();
        let body = [br#"{"messages":["#.as_slice(), &chunk.join(&b','), b"]}"].concat();
        let request = with_json(request("post", Method::POST, queue, &["messages"], false), body);
        let answer = self.session.send(&request).await?;
        let ids = wire::posted(&answer.body)?;
        if ids.len() == count {
            Ok(ids)
        } else {
            Err(OpenStackError::protocol(SERVICE.name(), format!("{} ids for {count} messages", ids.len())))
        }
    }

    /// Claims up to `limit` messages (at most [`PAGE_MAX`]), oldest first; none when there is nothing to claim. `ttl`
    /// and `grace` are 60 s to 12 h. The call is not repeated: what an unheard answer has claimed is free again after
    /// `ttl`.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn claim(
        &self,
        queue: &str,
        limit: usize,
        ttl: Duration,
        grace: Duration,
    ) -> Result<Option<Claim>, OpenStackError> {
        if limit == 0 {
            return Ok(None);
        }
        let terms = json!({"ttl": ttl.as_secs(), "grace": grace.as_secs()});
        let mut request = with_json(request("claim", Method::POST, queue, &["claims"], false), terms.to_string());
        request.query.push(("limit", limit.min(PAGE_MAX).to_string()));
        let answer = self.session.send(&request).await?;
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        wire::claimed(&answer.body, location(&answer))
    }

    /// Deletes claimed messages. [`Held::Lost`] when the claim of at least one of them is not ours any more; the others
    /// of the same 20 may still be there then.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn delete_claimed(&self, queue: &str, ids: &[String], claim_id: &str) -> Result<Held, OpenStackError> {
        let mut held = Held::Done;
        for chunk in ids.chunks(PAGE_MAX) {
            let mut request = request("delete_claimed", Method::DELETE, queue, &["messages"], true);
            request.query.push(("ids", chunk.join(",")));
            // Zaqar looks at it only with `message_delete_with_claim_id`.
            request.query.push(("claim_ids", claim_id.to_owned()));
            match self.session.send(&request).await {
                Ok(_) => {}
                // Zaqar says "not claimed", "claimed by another" and "no such claim" with these three.
                Err(OpenStackError::Invalid(_) | OpenStackError::Forbidden(_) | OpenStackError::NotFound(_)) => {
                    held = Held::Lost;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    /// Gives up a claim: its messages can be claimed by others at once. Succeeds when it is not there any more.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn release(&self, queue: &str, claim_id: &str) -> Result<(), OpenStackError> {
        match self.session.send(&request("release", Method::DELETE, queue, &["claims", claim_id], true)).await {
            Ok(_) | Err(OpenStackError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a claim last `ttl` from now.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn renew(
        &self,
        queue: &str,
        claim_id: &str,
        ttl: Duration,
        grace: Duration,
    ) -> Result<Held, OpenStackError> {
        let terms = json!({"ttl": ttl.as_secs(), "grace": grace.as_secs()});
        let request = request("renew", Method::PATCH, queue, &["claims", claim_id], true);
        match self.session.send(&with_json(request, terms.to_string())).await {
            Ok(_) => Ok(Held::Done),
            Err(OpenStackError::NotFound(_)) => Ok(Held::Lost),
            Err(error) => Err(error),
        }
    }

    /// Counts what is on a queue. One that is not there is empty.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn stats(&self, queue: &str) -> Result<Stats, OpenStackError> {
        match self.session.send(&request("stats", Method::GET, queue, &["stats"], true)).await {
            Ok(answer) => wire::stats(&answer.body),
            Err(OpenStackError::NotFound(_)) => Ok(Stats::default()),
            Err(error) => Err(error),
        }
    }

    /// Whether the service is up and we may use it.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn ping(&self) -> Result<(), OpenStackError> {
        let mut request = request("ping", Method::GET, "", &[], true);
        request.path = vec!["v2".to_owned(), "ping".to_owned()];
        self.session.send(&request).await.map(|_| ())
    }
}

/// A request about a queue, with the headers that Zaqar asks for.
fn request(operation: &'static str, method: Method, queue: &str, rest: &[&str], is_idempotent: bool) -> Request {
    let path = ["v2", "queues", queue].iter().chain(rest).map(|segment| (*segment).to_owned()).collect();
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("client-id"), client_id());
    headers.insert(reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
    Request { service: SERVICE, operation, method, path, query: Vec::new(), headers, body: None, is_idempotent }
}

fn with_json(mut request: Request, body: impl Into<Bytes>) -> Request {
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.body = Some(body.into());
    request
}

/// One id for this process: Zaqar hides a client's own messages from its lists.
fn client_id() -> HeaderValue {
    static ID: OnceLock<HeaderValue> = OnceLock::new();
    ID.get_or_init(|| {
        HeaderValue::from_str(&Uuid::new_v4().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("00000000-0000-0000-0000-000000000000"))
    })
    .clone()
}

fn location(answer: &Answer) -> Option<&str> {
    answer.headers.get(LOCATION).and_then(|location| location.to_str().ok())
}
