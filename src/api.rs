//! The REST service. It keeps no state: what it knows is in the store, what runs is in the workers.
//!
//! A request passes, from the outside in: its name and its place in the log (`layers`), the bound on how many there are,
//! the version it asks for (`version`), who calls (`identity`), whether that one may (`policy`), its time limit; then
//! the handler, in the file of its resource. What a handler refuses is an `error::ApiError`, which `layers` writes.
//! Conventions are those of the OpenStack API special interest group. `StatusCode` is used here and nowhere else.

mod delegation;
mod docs;
mod error;
mod events;
mod executions;
mod functions;
mod gateway_client;
mod health;
mod identity;
mod input;
mod instances;
mod invocations;
mod layers;
mod links;
mod logs;
mod packages;
mod paging;
mod policy;
mod runtimes;
mod triggers;
mod version;
mod workers;

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::HeaderName;
use axum::serve::ListenerExt as _;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::gateway_client::Gateways;
use self::packages::Packages;
use crate::config::ApiOptions;
use crate::health::Health;
use crate::model::instance::Isolation;
use crate::model::package::PackageLimits;
use crate::model::{Invalid, ProjectId};
use crate::policy::Enforcer;
use crate::store::Store;
use crate::task::Tasks;

pub use crate::model::SERVICE_TYPE;
pub use delegation::{Delegation, DelegationError, Delegator, NoDelegation};
pub use error::Code;
pub use events::{EventPoster, PostError};
pub use gateway_client::LocalWorker;
pub use health::health_router;
pub use identity::{AccessRule, KeystoneDeps, Named, TokenFacts, TokenValidator, ValidationError};
pub use policy::{ALL_PROJECTS_RULES, BASE_RULES, Operation, RULES, Rule, TimeLimit, default_rules, policy_sample};

/// Names the execution that a call became.
const EXECUTION_ID: HeaderName = HeaderName::from_static("x-execution-id");

/// What the service works with.
pub struct ApiDeps {
    /// `[api]`.
    pub options: ApiOptions,
    /// What functions can ask for, because the workers have drivers for it.
    pub isolations: Vec<Isolation>,
    /// Everything that is remembered.
    pub store: Arc<dyn Store>,
    /// The way to the platform queue.
    pub poster: Arc<dyn EventPoster>,
    /// The Keystone that knows callers; none where `[api] auth_strategy` is noauth.
    pub keystone: Option<KeystoneDeps>,
    /// Who may do what.
    pub policy: Arc<Enforcer>,
    /// Leave to act on projects' own queues.
    pub delegation: Arc<dyn Delegation>,
    /// The worker that runs in this process, if one does. All others are dialled.
    pub local: Option<Arc<dyn LocalWorker>>,
    /// Where background work runs: one task, and one for each worker that is called.
    pub tasks: Tasks,
    /// Cancelled when followed logs shall end, because the service stops.
    pub shutdown: CancellationToken,
    /// What a detailed health check asks.
    pub health: Health,
    /// Served beside the API and without its layers but for the outermost: `/metrics`.
    pub extra: Option<Router>,
}

/// How callers are known.
enum AuthStrategy {
    /// The headers are believed.
    NoAuth,
    /// By tokens, which Keystone is asked about.
    Keystone(identity::Tokens),
}

/// What handlers share.
#[derive(Clone)]
struct Api(Arc<Shared>);

struct Shared {
    options: ApiOptions,
    auth: AuthStrategy,
    default_project: ProjectId,
    isolations: Vec<Isolation>,
    store: Arc<dyn Store>,
    poster: Arc<dyn EventPoster>,
    delegation: Arc<dyn Delegation>,
    policy: Arc<Enforcer>,
    health: Health,
    gateways: Gateways,
    recent: functions::Recent,
    packages: Packages,
    admission: Semaphore,
    followers: Arc<Semaphore>,
    shutdown: CancellationToken,
    openapi: OpenApi,
}

impl Deref for Api {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Builds the service.
///
/// # Errors
/// When an option has a value that it cannot have.
pub fn router(deps: ApiDeps) -> Result<Router, Invalid> {
    let ApiDeps { options, isolations, store, poster, delegation, keystone, policy, local, .. } = deps;
    let ApiDeps { tasks, shutdown, health, extra, .. } = deps;
    let auth = match (options.auth_strategy.as_str(), keystone) {
        ("noauth", _) => AuthStrategy::NoAuth,
        ("keystone", Some(keystone)) => AuthStrategy::Keystone(identity::Tokens::new(keystone)?),
        ("keystone", None) => return Err(Invalid::new("[api] auth_strategy", "needs a Keystone to ask about tokens")),
        (other, _) => return Err(Invalid::new("[api] auth_strategy", format!("'{other}' is not noauth or keystone"))),
    };
    let default_project = ProjectId::parse(&options.default_project)
        .map_err(|invalid| Invalid::new("[api] default_project", invalid.reason))?;
    if options.default_limit == 0 || options.default_limit > options.max_limit {
        return Err(Invalid::new("[api] default_limit", "must be at least 1 and at most max_limit"));
    }
    let silence = Duration::try_from_secs_f64(options.worker_silence)
        .map_err(|_| Invalid::new("[api] worker_silence", "must be a positive number of seconds"))?;
    let limits = PackageLimits { packed_bytes: options.max_package_mib << 20, ..PackageLimits::default() };
    let (open, guarded, openapi) = parts();
    let api = Api(Arc::new(Shared {
        auth,
        default_project,
        gateways: Gateways::start(Arc::clone(&store), local, &tasks, silence),
        recent: functions::Recent::new(),
        packages: Packages::new(limits, options.upload_memory_mib),
        admission: Semaphore::new(options.max_requests.clamp(1, Semaphore::MAX_PERMITS)),
        followers: Arc::new(Semaphore::new(options.max_followers.min(Semaphore::MAX_PERMITS))),
        isolations,
        store,
        poster,
        delegation,
        policy,
        health,
        shutdown,
        openapi,
        options,
    }));
    // The last layer is the outermost.
    let guarded = guarded
        .route_layer(middleware::from_fn_with_state(api.clone(), layers::deadline))
        .route_layer(middleware::from_fn_with_state(api.clone(), policy::enforce))
        .route_layer(middleware::from_fn_with_state(api.clone(), identity::authenticate));
    let all = Router::new()
        .merge(open)
        .merge(docs::browser())
        .merge(guarded)
        // Bodies are bounded where they are read, each route by its own measure.
        .layer(DefaultBodyLimit::disable())
        .with_state(api.clone());
    Ok(extra
        .into_iter()
        .fold(all, Router::merge)
        .layer(middleware::from_fn_with_state(api.clone(), version::negotiate))
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(middleware::from_fn_with_state(api.clone(), layers::admit))
        .layer(middleware::from_fn_with_state(api, layers::context)))
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> OpenApi {
    parts().2
}

/// The routes that are open to everybody, those that need an identity, and the description of both.
fn parts() -> (Router<Api>, Router<Api>, OpenApi) {
    let (open, open_doc) = OpenApiRouter::<Api>::new()
        .routes(routes!(version::root))
        .routes(routes!(version::v1))
        .routes(routes!(version::v1_slash))
        .routes(routes!(health::check))
        .routes(routes!(docs::openapi))
        .routes(routes!(docs::errors))
        .split_for_parts();
    let (guarded, guarded_doc) = OpenApiRouter::<Api>::new()
        .routes(routes!(functions::list, functions::create))
        .routes(routes!(functions::show, functions::update, functions::delete))
        .routes(routes!(packages::download, packages::upload))
        .routes(routes!(invocations::invoke))
        .routes(routes!(triggers::list, triggers::create))
        .routes(routes!(triggers::show, triggers::delete))
        .routes(routes!(events::post))
        .routes(routes!(executions::list))
        .routes(routes!(executions::show))
        .routes(routes!(logs::show))
        .routes(routes!(executions::cancel))
        .routes(routes!(executions::redrive))
        .routes(routes!(runtimes::list))
        .routes(routes!(runtimes::show))
        .routes(routes!(workers::list))
        .routes(routes!(instances::list))
        .split_for_parts();
    let mut openapi = open_doc.merge_from(guarded_doc);
    docs::complete(&mut openapi);
    (open, guarded, openapi)
}

/// Serves until `cancel`, then lets requests finish for as long as `grace`. Whether all of them did.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    cancel: CancellationToken,
    grace: Duration,
) -> io::Result<bool> {
    let listener = listener.tap_io(|stream| {
        // An answer is written in a few pieces; waiting for the acknowledgement of each costs 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("a connection keeps its delay: {error}");
        }
    });
    let stop = cancel.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
    let late = async {
        cancel.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        result = async { serving.await } => result.map(|()| true),
        () = late => Ok(false),
    }
}
