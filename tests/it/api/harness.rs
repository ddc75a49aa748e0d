//! A service for one test, and how requests are made and answers are read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures::StreamExt as _;
use lambda_openstack::api::{ApiDeps, EventPoster, KeystoneDeps, PostError, router};
use lambda_openstack::clock;
use lambda_openstack::config::ApiOptions;
use lambda_openstack::health::{Health, Part};
use lambda_openstack::model::execution::{EventSummary, LogChunk, LogLine, LogStream, Origin};
use lambda_openstack::model::instance::Isolation;
use lambda_openstack::model::worker::{Worker, WorkerState};
use lambda_openstack::model::{
    Event, Execution, ExecutionId, Function, Invalid, ProjectId, RequestId, Timestamp, WorkerId,
};
use lambda_openstack::store::sqlite::SqliteStore;
use lambda_openstack::store::{FunctionRef, Scope, Store};
use lambda_openstack::task::Tasks;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A queue that keeps what is posted, or fails as it is told.
#[derive(Default)]
pub struct Queue {
    pub events: Mutex<Vec<Event>>,
    pub failure: Mutex<Option<PostError>>,
}

#[async_trait]
impl EventPoster for Queue {
    async fn post(&self, events: &[Event]) -> Result<Vec<String>, PostError> {
        if let Some(failure) = self.failure.lock().unwrap().take() {
            return Err(failure);
        }
        let mut kept = self.events.lock().unwrap();
        let first = kept.len();
        kept.extend_from_slice(events);
        Ok((first..kept.len()).map(|n| format!("m{n}")).collect())
    }
}

pub struct Service {
    pub router: Router,
    pub store: Arc<dyn Store>,
    pub queue: Arc<Queue>,
    pub tasks: Tasks,
    pub shutdown: CancellationToken,
    _directory: TempDir,
}

impl Service {
    pub async fn new() -> Self {
        Self::with(ApiOptions::default(), None).await
    }

    pub async fn with(options: ApiOptions, extra: Option<Router>) -> Self {
        let (store, directory) = store().await;
        Self::on(store, directory, options, extra)
    }

    /// With callers known by tokens.
    pub async fn behind_keystone(options: ApiOptions, keystone: KeystoneDeps) -> Self {
        let (store, directory) = store().await;
        Self::try_on(store, directory, options, None, Some(keystone)).unwrap()
    }

    pub fn on(store: Arc<dyn Store>, directory: TempDir, options: ApiOptions, extra: Option<Router>) -> Self {
        Self::try_on(store, directory, options, extra, None).unwrap()
    }

    pub fn try_on(
        store: Arc<dyn Store>,
        directory: TempDir,
        options: ApiOptions,
        extra: Option<Router>,
        keystone: Option<KeystoneDeps>,
    ) -> Result<Self, Invalid> {
        let queue = Arc::new(Queue::default());
        let tasks = Tasks::new();
        let shutdown = CancellationToken::new();
        let asked = Arc::clone(&store);
        let part = Part::new("store", move || {
            let store = Arc::clone(&asked);
            async move { store.ping().await }
        });
        let deps = ApiDeps {
            health: Health::new(vec![part]),
            isolations: vec![Isolation::Process, Isolation::Container],
            options,
            store: Arc::clone(&store),
            delegation: std::sync::Arc::new(lambda_openstack::api::NoDelegation),
            poster: Arc::clone(&queue) as Arc<dyn EventPoster>,
            keystone,
            policy: std::sync::Arc::new(
                lambda_openstack::policy::Enforcer::of_defaults(lambda_openstack::api::default_rules()).unwrap(),
            ),
            local: None,
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            extra,
        };
        Ok(Self { router: router(deps)?, store, queue, tasks, shutdown, _directory: directory })
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.router, request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(request(Method::DELETE, path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(json_request(Method::POST, path, body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(json_request(Method::PATCH, path, body)).await
    }

    /// A function with code.
    pub async fn function(&self, name: &str) -> Function {
        let source = "def handler(event, context):\n    return event\n";
        let answer = self.post("/v1/functions", &json!({"name": name, "code": {"source": source}})).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.json()["id"].as_str().unwrap().parse().unwrap();
        self.store.function(&Scope::All, &FunctionRef::Id(id)).await.unwrap()
    }

    /// A queued execution of a function, in the store.
    pub async fn execution(&self, function: &Function, received_at: Timestamp) -> Execution {
        let execution = Self::unwritten(function, received_at);
        self.store.insert_executions(std::slice::from_ref(&execution)).await.unwrap();
        execution
    }

    /// The same, which is not in the store.
    pub fn unwritten(function: &Function, received_at: Timestamp) -> Execution {
        let event = Event::from_value(
            json!({"id": format!("e-{received_at}"), "source": "test", "type": "made", "data": {"n": 1}}),
            "",
        )
        .unwrap();
        let origin = Origin::Queue { queue: "lambda-events".to_owned(), message_id: "m1".to_owned(), trigger_id: None };
        Execution::receive(
            ExecutionId::generate(),
            function,
            origin,
            EventSummary::from(&event),
            event.payload(),
            received_at,
        )
    }

    /// Puts a changed record in the place of one that was read.
    pub async fn rewrite(&self, read: &Execution, next: &Execution) {
        let write = lambda_openstack::store::ExecutionWrite { expected: read.fence(), next: next.clone() };
        assert_eq!(self.store.write_executions(&[write]).await.unwrap(), [true]);
    }

    /// A worker whose gateway is at an address.
    pub async fn worker(&self, gateway: &str, state: WorkerState) -> WorkerId {
        let worker = Worker {
            id: WorkerId::generate(),
            host: "machine-1".to_owned(),
            gateway: gateway.to_owned(),
            gateway_fingerprint: None,
            caller_secret: "the-secret".to_owned(),
            state,
            capacity: 64,
            executions: 0,
            sandboxes: 2,
            version: "0.1.0".to_owned(),
            started_at: clock::now(),
            heartbeat_at: clock::now(),
        };
        self.store.heartbeat(&worker).await.unwrap();
        worker.id
    }

    /// A part of a log.
    pub async fn log(&self, execution: &Execution, attempt: u32, sequence: u32, texts: &[&str]) {
        let lines = texts
            .iter()
            .map(|text| LogLine {
                at: Timestamp::from_millis(1_795_000_000_000),
                stream: LogStream::Stdout,
                text: (*text).to_owned(),
            })
            .collect();
        let chunk =
            LogChunk { execution_id: execution.id, project_id: execution.project_id.clone(), attempt, sequence, lines };
        self.store.append_logs(&[chunk]).await.unwrap();
    }
}

/// A new store of its own.
pub async fn store() -> (Arc<dyn Store>, TempDir) {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open(&directory.path().join("store.db"), Duration::from_secs(10)).await.unwrap();
    store.migrate().await.unwrap();
    (Arc::new(store), directory)
}

pub async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body }
}

pub fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "api.test")
}

pub fn json_request(method: Method, path: &str, body: &Value) -> Request<Body> {
    request(method, path).header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()
}

pub fn project() -> ProjectId {
    ProjectId::parse("demo").unwrap()
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is an error as every error is, and gives its code and its detail.
    pub fn error(&self) -> (String, String) {
        let body = self.json();
        let error = &body["errors"][0];
        assert_eq!(body["errors"].as_array().unwrap().len(), 1);
        assert_eq!(error["status"], self.status.as_u16());
        assert_eq!(error["request_id"], self.header("x-openstack-request-id"));
        assert!(RequestId::parse(self.header("x-openstack-request-id")).is_some());
        let code = error["code"].as_str().unwrap();
        assert!(code.starts_with("function."), "{code}");
        assert!(code.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')), "{code}");
        assert_eq!(error["links"][0]["rel"], "help");
        (code.to_owned(), error["detail"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    pub fn is_error(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.error().0, code, "{}", self.text());
    }

    /// The body with what differs from run to run replaced.
    pub fn steady(&self) -> String {
        serde_json::to_string_pretty(&steady(self.json())).unwrap()
    }
}

fn steady(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(steady_text(&text)),
        Value::Array(items) => items.into_iter().map(steady).collect(),
        Value::Object(object) => object.into_iter().map(|(name, value)| (name, steady(value))).collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

fn steady_text(text: &str) -> String {
    if text.parse::<Timestamp>().is_ok() {
        return "<time>".to_owned();
    }
    if let Some((before, _)) = text.split_once("marker=") {
        return steady_text(before) + "marker=<marker>";
    }
    let mut steady = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        if rest.get(..36).is_some_and(|piece| uuid::Uuid::try_parse(piece).is_ok()) {
            steady.push_str("<uuid>");
            rest = &rest[36..];
        } else {
            let length = rest.chars().next().unwrap().len_utf8();
            steady.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    steady
}

/// The pieces of a body as they come.
pub struct Pieces(axum::body::BodyDataStream);

impl Pieces {
    pub async fn of(router: &Router, request: Request<Body>) -> (StatusCode, Self) {
        let response = router.clone().oneshot(request).await.unwrap();
        (response.status(), Self(response.into_body().into_data_stream()))
    }

    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Option<String> {
        let piece = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await.expect("a piece within 20 s")?;
        Some(String::from_utf8(piece.unwrap().to_vec()).unwrap())
    }
}
