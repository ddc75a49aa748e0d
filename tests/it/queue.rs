//! The Zaqar-v2 queue and the client that the worker uses, each alone and against one another.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub mod clients;
mod contract;
mod faults;
mod promises;
mod round_trip;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::serve::ListenerExt;
use lambda_openstack::model::Timestamp;
use lambda_openstack::openstack::{NoAuth, Session, SessionOptions, zaqar};
use lambda_openstack::standalone::queue::{self, Queue};
use lambda_openstack::task::Tasks;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A client id, as one process has it.
const CLIENT: &str = "3381af92-2b9e-11e3-b191-71861300734c";

/// A queue service on a port of its own, with a clock that stands still until it is moved.
struct Service {
    url: String,
    queue: Queue,
    clock: Arc<AtomicI64>,
    http: reqwest::Client,
    tasks: Tasks,
    file: PathBuf,
    directory: Arc<TempDir>,
}

impl Service {
    async fn start() -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let clock = Arc::new(AtomicI64::new(lambda_openstack::clock::now().as_millis()));
        Self::start_on(directory, clock).await
    }

    async fn start_on(directory: Arc<TempDir>, clock: Arc<AtomicI64>) -> Self {
        let file = directory.path().join("queue.sqlite");
        let told = Arc::clone(&clock);
        let now = move || Timestamp::from_millis(told.load(Ordering::SeqCst));
        let queue = queue::open_with_clock(&file, Arc::new(now)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tasks = Tasks::new();
        let (router, cancel) = (queue::router(queue.clone()), tasks.token());
        tasks.run("queue", async move {
            let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
            axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await.unwrap();
        });
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build().unwrap();
        Self { url, queue, clock, http, tasks, file, directory }
    }

    /// Closes everything and starts again on the same file.
    async fn restart(self) -> Self {
        let Self { queue, clock, http, tasks, directory, .. } = self;
        drop(http);
        assert!(tasks.stop(Duration::from_secs(10)).await);
        queue.close().await;
        Self::start_on(directory, clock).await
    }

    fn advance(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// A request as a client would make it.
    fn ask(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{path}", self.url)).header("Client-ID", CLIENT)
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Answered {
        let mut request = self.ask(method, path);
        if !body.is_empty() {
            request = request.header("Content-Type", "application/json").body(body.to_owned());
        }
        Answered::from(request.send().await.unwrap()).await
    }

    async fn post(&self, queue: &str, bodies: &[Value]) -> Vec<String> {
        let messages: Vec<Value> = bodies.iter().map(|body| serde_json::json!({"ttl": 3600, "body": body})).collect();
        let body = serde_json::json!({"messages": messages}).to_string();
        let answer = self.send("POST", &format!("/v2/queues/{queue}/messages"), &body).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        answer.body["resources"].as_array().unwrap().iter().map(last).collect()
    }

    async fn claim(&self, queue: &str, limit: usize) -> Option<(String, Vec<Value>)> {
        let answer =
            self.send("POST", &format!("/v2/queues/{queue}/claims?limit={limit}"), r#"{"ttl":300,"grace":60}"#).await;
        if answer.status == 204 {
            return None;
        }
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        let claim = answer.location.unwrap().rsplit('/').next().unwrap().to_owned();
        Some((claim, answer.body["messages"].as_array().unwrap().clone()))
    }

    fn client(&self) -> zaqar::Client {
        client(&self.url, SessionOptions::default())
    }
}

struct Answered {
    status: u16,
    location: Option<String>,
    allow: Option<String>,
    body: Value,
}

impl Answered {
    async fn from(response: Response) -> Self {
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (location, allow) = (header("location"), header("allow"));
        let status = response.status().as_u16();
        let bytes = response.bytes().await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Self { status, location, allow, body }
    }
}

fn client(url: &str, options: SessionOptions) -> zaqar::Client {
    let auth = NoAuth::new("demo", [("message", url)]).unwrap();
    zaqar::Client::new(Session::new(Arc::new(auth), options).unwrap())
}

fn message(body: &Value) -> zaqar::NewMessage {
    let body = RawValue::from_string(body.to_string()).unwrap();
    zaqar::NewMessage { ttl: Duration::from_secs(3600), body }
}

fn last(href: &Value) -> String {
    href.as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
