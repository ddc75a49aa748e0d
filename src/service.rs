//! How the rooms are put together into programs. `lambda-api`, `lambda-worker` and `lambda-standalone` differ in which of
//! these they call and with which options, nowhere else.

mod cloud;
mod delegation;
mod drivers;
mod tokens;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::{MatchedPath, Path as UrlPath, Request};
use axum::middleware::{self, Next};
use axum::routing::post;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiDeps, EventPoster, LocalWorker, PostError};
use crate::config::{Config, Sources};
use crate::driver::DriverError;
use crate::health::{Health, Part};
use crate::model::execution::{Execution, Failure};
use crate::model::posting::PostingKey;
use crate::model::{Event, ExecutionId, FunctionId, Invalid, ProjectId, WorkerId};
use crate::openstack::OpenStackError;
use crate::openstack::zaqar::{self, NewMessage};
use crate::policy::{self, Enforcer, PolicyError};
use crate::store::metered::MeteredStore;
use crate::store::{self, Retention, Store, StoreError};
use crate::task::{OnFailure, Tasks};
use crate::telemetry::metrics::{Metrics, metrics_router};
use crate::worker::gateway::Calls;
use crate::worker::intake::Trust;
use crate::worker::queues::ProjectQueues;
use crate::worker::wake::Bell;
use crate::worker::{self, Worker};

pub use cloud::{Cloud, openstack_session};
pub use tokens::keystone_for_tokens;

/// Why a program could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// An option does not do.
    #[error(transparent)]
    Option(#[from] Invalid),
    /// A directory or file does not do.
    #[error("{} {why}", .path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A directory has another user.
    #[error("{} is used by another process", .0.display())]
    Taken(PathBuf),
    /// An address cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(String, #[source] io::Error),
    /// The store cannot be opened or brought to this release's shape.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The cloud's services cannot be spoken to.
    #[error("the cloud's services cannot be used")]
    Cloud(#[from] OpenStackError),
    /// Instances cannot be made.
    #[error("the driver cannot be used")]
    Driver(#[from] DriverError),
    /// The policy's files do not do.
    #[error("the policy cannot be used")]
    Policy(#[from] PolicyError),
    /// The worker cannot start.
    #[error("the worker cannot start")]
    Worker(#[from] worker::StartError),
}

/// Opens the store and brings it to this release's shape.
///
/// # Errors
/// When it cannot be reached or is not what it should be.
pub async fn open_store(config: &Config, metrics: &Metrics) -> Result<Arc<dyn Store>, ServiceError> {
    if config.database.connection.is_empty() {
        let reason = "must be set, for example to mongodb://127.0.0.1:27017/lambda";
        return Err(Invalid::new("[database] connection", reason).into());
    }
    let store = store::open(&config.database).await?;
    store.migrate().await?;
    Ok(Arc::new(MeteredStore::new(store, metrics.clone())))
}

/// The ways to projects' own queues.
fn project_queues(cloud: &Cloud) -> Result<ProjectQueues, ServiceError> {
    let make = cloud.zaqar_of_projects()?;
    Ok(ProjectQueues::new(Arc::new(move |project, trust_id| make(project.as_str(), trust_id))))
}

/// Whether only the service is trusted on the platform queue.
fn is_signed(config: &Config) -> bool {
    match config.zaqar.trusted_posters.as_deref() {
        Some(trusted) => trusted == "signed",
        // Everybody with a role in the service's project can post there.
        None => config.service_auth.has_keystone(),
    }
}

async fn posting_key(store: &dyn Store) -> Result<PostingKey, StoreError> {
    Ok(PostingKey::new(&store.posting_secret(&worker::gateway::random_secret()).await?))
}

/// Who may name a project on the platform queue.
async fn trusted(config: &Config, store: &dyn Store) -> Result<Trust, ServiceError> {
    if !is_signed(config) {
        return Ok(Trust::Everybody { default_project: ProjectId::parse(&config.api.default_project)? });
    }
    let unsigned_project = config.zaqar.unsigned_project.as_deref().map(ProjectId::parse).transpose()?;
    Ok(Trust::Signed { key: posting_key(store).await?, unsigned_project })
}

/// Listens on an address.
///
/// # Errors
/// When it is taken or not ours.
pub async fn listen(address: &str) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(address).await.map_err(|error| ServiceError::Listen(address.to_owned(), error))
}

/// How long an event that was posted through the API may stay on the queue: Zaqar's longest.
const EVENT_TTL: Duration = Duration::from_secs(1_209_600);

/// Posts events of the API on to the platform queue.
struct QueuePoster {
    client: zaqar::Client,
    queue: String,
    /// Where the secret is that they are signed with; none: they are not signed.
    signing: Option<Arc<dyn Store>>,
    key: OnceCell<PostingKey>,
}

impl QueuePoster {
    async fn message(&self, event: &Event) -> Result<NewMessage, PostError> {
        let Some(store) = &self.signing else {
            return Ok(NewMessage { ttl: EVENT_TTL, body: event.payload().to_raw() });
        };
        let key = self.key.get_or_try_init(|| posting_key(store.as_ref())).await;
        let key = key.map_err(|error| PostError::Unavailable(error.into()))?;
        let signed = key.sign(event.clone(), &uuid::Uuid::new_v4().simple().to_string());
        Ok(NewMessage { ttl: EVENT_TTL, body: signed.payload().to_raw() })
    }
}

#[async_trait]
impl EventPoster for QueuePoster {
    async fn post(&self, events: &[Event]) -> Result<Vec<String>, PostError> {
        let mut messages = Vec::with_capacity(events.len());
        for event in events {
            messages.push(self.message(event).await?);
        }
        self.client.post(&self.queue, &messages).await.map_err(|error| {
            if error.source.retryable() {
                PostError::Unavailable(error.into())
            } else {
                PostError::Refused(error.into())
            }
        })
    }
}

/// What every program asks for its detailed health check: the store, the queue by a call that needs our identity, and,
/// where there is one, Keystone.
///
/// # Errors
/// When an option does not do.
pub fn health_parts(store: &Arc<dyn Store>, cloud: &Cloud) -> Result<Vec<Part>, ServiceError> {
    let (store, client) = (Arc::clone(store), cloud.zaqar()?);
    let mut parts = vec![
        Part::new("store", move || {
            let store = Arc::clone(&store);
            async move { store.ping().await }
        }),
        Part::new("queue", move || {
            let client = client.clone();
            async move { client.ping().await }
        }),
    ];
    parts.extend(cloud.keystone()?.map(|keystone| {
        Part::new("keystone", move || {
            let keystone = keystone.clone();
            async move { keystone.ping().await }
        })
    }));
    Ok(parts)
}

/// `/metrics` and `/healthcheck` of a program without the API; ill until its parts are there.
pub fn operator_router(metrics: Metrics, parts: &Arc<OnceLock<Health>>) -> axum::Router {
    metrics_router(metrics).merge(api::health_router(Arc::clone(parts)))
}

/// Who may do what: the rules in code, and the operator's files over them.
///
/// # Errors
/// When a file cannot be read or is wrong.
pub fn policy(config: &Config, sources: &Sources) -> Result<Arc<Enforcer>, ServiceError> {
    let files = policy::Files::new(&config.oslo_policy, sources.directories());
    Ok(Arc::new(Enforcer::open(api::default_rules(), files)?))
}

/// What the REST service is put together from.
pub struct ApiParts<'a> {
    /// All options.
    pub config: &'a Config,
    /// Everything that is remembered.
    pub store: Arc<dyn Store>,
    /// The cloud's services.
    pub cloud: &'a Cloud,
    /// Who may do what.
    pub policy: Arc<Enforcer>,
    /// The worker of this process, if it has one.
    pub worker: Option<Calls>,
    /// Where background work runs.
    pub tasks: &'a Tasks,
    /// Followed logs end when it is cancelled.
    pub stopping: &'a CancellationToken,
    /// What is counted.
    pub metrics: &'a Metrics,
}

#[async_trait]
impl LocalWorker for Calls {
    fn id(&self) -> WorkerId {
        self.worker()
    }

    async fn call(&self, function: FunctionId, event: Bytes, patience: Duration) -> Result<Execution, Box<Failure>> {
        Self::call(self, function, event, patience).await
    }

    async fn cancel(&self, execution: ExecutionId) -> bool {
        Self::cancel(self, execution).await
    }

    fn nudge(&self) {
        Self::nudge(self);
    }

    async fn function_changed(&self, function: FunctionId) {
        let (in_force, told) = oneshot::channel();
        Self::function_changed(self, function, Some(in_force)).await;
        // It is never sent, only dropped.
        let _ = told.await;
    }
}

/// The REST service with its metrics.
///
/// # Errors
/// When an option does not do.
pub fn api_router(parts: ApiParts) -> Result<axum::Router, ServiceError> {
    let ApiParts { config, store, cloud, policy, worker, tasks, stopping, metrics } = parts;
    let health = Health::new(health_parts(&store, cloud)?);
    let poster = QueuePoster {
        client: cloud.zaqar()?,
        queue: config.zaqar.queue.clone(),
        signing: is_signed(config).then(|| Arc::clone(&store)),
        key: OnceCell::new(),
    };
    let delegation = delegation::delegation(&Cloud::new(config, metrics)?, &config.zaqar.trust_roles, &store)?;
    let deps = ApiDeps {
        options: config.api.clone(),
        isolations: config.worker.drivers.iter().filter_map(|name| drivers::isolation(name)).collect(),
        store,
        poster: Arc::new(poster),
        delegation,
        keystone: keystone_for_tokens(config, metrics)?,
        policy,
        local: worker.map(|calls| -> Arc<dyn LocalWorker> { Arc::new(calls) }),
        tasks: tasks.clone(),
        shutdown: stopping.clone(),
        health,
        extra: Some(metrics_router(metrics.clone())),
    };
    let metrics = metrics.clone();
    Ok(api::router(deps)?.layer(middleware::from_fn(move |request: Request, next: Next| {
        let metrics = metrics.clone();
        async move {
            let (method, begun) = (request.method().clone(), std::time::Instant::now());
            let route = request.extensions().get::<MatchedPath>().cloned();
            let response = next.run(request).await;
            let route = route.as_ref().map(MatchedPath::as_str);
            metrics.request(&method, route, response.status().as_u16(), begun.elapsed());
            response
        }
    })))
}

/// Starts a worker with the drivers that are configured. `alone`: no other worker can be using the store.
///
/// # Errors
/// When it cannot start.
pub async fn start_worker(
    config: &Config,
    store: Arc<dyn Store>,
    cloud: &Cloud,
    state_dir: &Path,
    alone: bool,
    tasks: &Tasks,
    metrics: &Metrics,
) -> Result<Worker, ServiceError> {
    let deployment = store.deployment().await?;
    let trusts = cloud.keystone()?.map(|keystone| (keystone, deployment));
    let drivers = drivers::drivers(config, cloud, deployment, state_dir, tasks)?;
    let parts = worker::Parts {
        trusted: trusted(config, store.as_ref()).await?,
        store,
        queue: cloud.zaqar()?,
        project_queues: project_queues(cloud)?,
        trusts,
        drivers,
        metrics: metrics.clone(),
        worker: config.worker.clone(),
        zaqar: config.zaqar.clone(),
        host: config.default.host.clone().unwrap_or_else(host_name),
        retention: Retention {
            executions: Duration::from_secs(config.database.execution_retention),
            logs: Duration::from_secs(config.database.log_retention),
        },
        alone,
    };
    Ok(Worker::start(parts, tasks).await?)
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".to_owned())
}

/// Makes the directory of all state, for its owner only but passable, and locks it; the lock lasts as long as the file is
/// kept open.
///
/// # Errors
/// When it cannot be made or written to, or another process has it.
pub fn lock_state_dir(dir: &Path) -> Result<(PathBuf, std::fs::File), ServiceError> {
    let wrong = |why| {
        let path = dir.to_owned();
        move |source| ServiceError::Path { path, why, source }
    };
    std::fs::create_dir_all(dir).map_err(wrong("cannot be made"))?;
    let dir = dir.canonicalize().map_err(wrong("cannot be used"))?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).map_err(wrong("is not ours"))?;
    let lock = std::fs::File::create(dir.join("lock")).map_err(wrong("cannot be written to"))?;
    lock.try_lock().map_err(|_| ServiceError::Taken(dir.clone()))?;
    Ok((dir, lock))
}

/// What Zaqar calls when a message has come to a queue. It answers the same to everybody.
pub fn bell_router(bell: Bell) -> axum::Router {
    let own = bell.clone();
    axum::Router::new()
        .route("/{code}", post(move |UrlPath(code): UrlPath<String>| async move { bell.ring(&code, None) }))
        .route(
            "/{code}/{project}/{queue}",
            post(move |UrlPath((code, project, queue)): UrlPath<(String, String, String)>| async move {
                own.ring(&code, Some((&project, &queue)));
            }),
        )
}

/// Serves one router until told to stop, as a supervised task. It cannot be started twice: its end stops the program.
pub fn serve(
    tasks: &Tasks,
    name: &'static str,
    listener: TcpListener,
    router: axum::Router,
    serving: &CancellationToken,
    grace: Duration,
) {
    let parts = std::sync::Mutex::new(Some((listener, router)));
    let serving = serving.clone();
    tasks.supervise(name, OnFailure::Shutdown, move |cancel| {
        let parts = parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let serving = serving.clone();
        async move {
            let Some((listener, router)) = parts else {
                return Err(std::io::Error::other("it cannot be started twice"));
            };
            if !api::serve(listener, router, serving, grace).await? {
                tracing::warn!("some requests to {name} did not end in time");
            }
            cancel.cancelled().await;
            Ok(())
        }
    });
}
