//! Takes events and runs them. One event's way: [`platform`] or [`queues`] → [`intake`] (or [`inbox`], for what was
//! parked) → [`dispatch`] →
//! [`gateway`] → the agent → [`gateway`] → [`dispatch`] → [`record`]. Beside it: [`fleet`] makes instances,
//! [`heartbeat`] shows life, [`reap`] cleans up after the dead, [`dead_letter`] posts what was given up.

pub mod admission;
pub mod dead_letter;
pub mod dispatch;
pub mod fleet;
pub mod functions;
pub mod gateway;
pub mod heartbeat;
pub mod inbox;
pub mod intake;
mod once;
pub mod outcome;
pub mod platform;
pub mod provisioned;
pub mod queues;
pub mod reap;
pub mod record;
mod reloadable;
pub mod trusts;
pub mod wake;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_agent::address::GatewayAddress;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::{WorkerOptions, ZaqarOptions};
use crate::driver::{Driver, GatewayAccess};
use crate::health::Part;
use crate::model::function::QueueName;
use crate::model::worker::{Worker as WorkerRecord, WorkerState};
use crate::model::{DeploymentId, Invalid, WorkerId};
use crate::openstack::{keystone, zaqar};
use crate::scheduler::offer::Offers;
use crate::store::{Retention, Store, StoreError};
use crate::task::{OnFailure, TaskError, Tasks};
use crate::telemetry::metrics::Metrics;

use dispatch::IsolationRules;
use fleet::{DriverSetup, Maker};
use gateway::Listener;
use once::{Once, until};
use reloadable::Reloadable;

/// Synchronous calls held for each execution that may run.
const CALLS_PER_RUNNING: u32 = 8;

/// Wake-ups that may wait to be heard. They are hints: what is beyond is lost, and the queue looked at a little later.
const WAKE_UPS: usize = 1024;

/// What a worker works with.
pub struct Parts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The queue service, in the service's own project.
    pub queue: zaqar::Client,
    /// The ways to projects' own queues.
    pub project_queues: queues::ProjectQueues,
    /// Keystone, and what this deployment is called there, where trusts are made.
    pub trusts: Option<(keystone::Client, DeploymentId)>,
    /// Who may name a project on the platform queue.
    pub trusted: intake::Trust,
    /// What makes instances, the default first.
    pub drivers: Vec<DriverSetup>,
    /// What is counted.
    pub metrics: Metrics,
    /// `[worker]`.
    pub worker: WorkerOptions,
    /// `[zaqar]`.
    pub zaqar: ZaqarOptions,
    /// Name of this machine.
    pub host: String,
    /// How long executions and logs are kept.
    pub retention: Retention,
    /// Whether no other worker can be using the store: then whoever is written there is a former run of this one.
    pub alone: bool,
}

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option is wrong.
    #[error("an option is wrong")]
    Option(#[from] Invalid),
    /// The gateway gets no certificate.
    #[error("the gateway's certificate cannot be made")]
    Identity(#[source] std::io::Error),
    /// The gateway's address cannot be listened on.
    #[error("the gateway cannot listen on {0}")]
    Listen(String, #[source] std::io::Error),
    /// The store does not answer.
    #[error("the store")]
    Store(#[from] StoreError),
    /// What a former run left cannot be cleaned up.
    #[error("what a former run left behind cannot be cleaned up")]
    Reap(#[source] TaskError),
}

/// A running worker.
pub struct Worker {
    dispatch: dispatch::Dispatch,
    fleet: fleet::FleetHandle,
    intake: CancellationToken,
    dispatcher: CancellationToken,
    recorded: CancellationToken,
    store: Arc<dyn Store>,
    me: WorkerId,
    /// Where its gateway listens.
    gateway: SocketAddr,
    calls: gateway::Calls,
    drivers: Vec<Arc<dyn Driver>>,
    bell: Option<wake::Bell>,
    wakes: wake::Wakes,
    parts: Reloadable,
}

impl Worker {
    /// Starts a worker's tasks. When it returns, the gateway listens and the worker is known to the others.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(parts: Parts, tasks: &Tasks) -> Result<Self, StartError> {
        let me = WorkerId::generate();
        let o = &parts.worker;
        let dead_letter_queue = QueueName::parse(&parts.zaqar.dead_letter_queue)
            .map_err(|invalid| Invalid::new("zaqar.dead_letter_queue", invalid.reason))?;
        let listener = TcpListener::bind(&o.gateway_bind)
            .await
            .map_err(|error| StartError::Listen(o.gateway_bind.clone(), error))?;
        let bound = listener.local_addr().map_err(|error| StartError::Listen(o.gateway_bind.clone(), error))?;
        let gateway_address: SocketAddr = match &o.gateway_advertise {
            Some(text) => {
                text.parse().map_err(|_| Invalid::new("worker.gateway_advertise", "must be an address and a port"))?
            }
            None => bound,
        };
        let caller_secret = gateway::random_secret();
        let dead_after = Duration::from_secs_f64(o.dead_after);
        let admission = admission::Admission::new(o.max_running, o.max_waiting);
        let functions = functions::Functions::new(Arc::clone(&parts.store));
        let (dispatch, events, load) = dispatch::Dispatch::channel();
        let (recorder, records) = record::Recorder::channel();
        let (nudge, posted, owing) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let changed = Arc::new(Notify::new());
        let intake_token = CancellationToken::new();
        let dispatcher_token = CancellationToken::new();
        let recorded = CancellationToken::new();

        let reaper = Arc::new(reap::Reaper {
            me,
            store: Arc::clone(&parts.store),
            drivers: parts.drivers.iter().map(|setup| Arc::clone(&setup.driver)).collect(),
            nudge: Arc::clone(&nudge),
            owing: Arc::clone(&owing),
            dead_letter_queue: dead_letter_queue.clone(),
            dead_after,
            retention: parts.retention,
        });
        if parts.alone {
            reaper.round(Duration::ZERO).await.map_err(StartError::Reap)?;
        }

        let gateway = gateway::Gateway::new(gateway::Parts {
            me,
            caller_secret: caller_secret.clone(),
            dispatch: dispatch.clone(),
            store: Arc::clone(&parts.store),
            functions: functions.clone(),
            tasks: tasks.clone(),
            metrics: parts.metrics.clone(),
            max_calls: usize::try_from(o.max_running * CALLS_PER_RUNNING).unwrap_or(usize::MAX),
            nudged: [Arc::clone(&nudge), Arc::clone(&posted)],
            changed: Arc::clone(&changed),
        })
        .map_err(StartError::Identity)?;
        let calls = gateway.calls();
        let mut listeners = vec![Listener::Network(listener)];
        let makers = parts.drivers.iter().map(|setup| {
            let address = match &setup.gateway {
                // The network does as well, so that a path that is too long is no reason to stop.
                Some(GatewayAddress::Local(path)) => {
                    Listener::also_at(path, &mut listeners).unwrap_or(gateway_address.into())
                }
                Some(address) => address.clone(),
                None => gateway_address.into(),
            };
            let is_elsewhere = matches!(&address, GatewayAddress::Network(address) if !address.ip().is_loopback());
            let fingerprint = is_elsewhere.then(|| gateway.fingerprint().to_string());
            let gateway = GatewayAccess { address, fingerprint };
            (setup.isolation, Maker { driver: Arc::clone(&setup.driver), gateway, watch: setup.watch })
        });
        let makers = makers.collect();
        let fleet = fleet::FleetHandle::new(
            me,
            makers,
            Arc::clone(&parts.store),
            gateway.clone(),
            dispatch.clone(),
            tasks.clone(),
        );
        let heartbeat = Arc::new(heartbeat::Heartbeat {
            worker: WorkerRecord {
                id: me,
                host: parts.host.clone(),
                gateway: gateway_address.to_string(),
                gateway_fingerprint: Some(gateway.fingerprint().to_string()),
                caller_secret,
                state: WorkerState::Active,
                capacity: o.max_running,
                executions: 0,
                sandboxes: 0,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_at: clock::now(),
                heartbeat_at: clock::now(),
            },
            store: Arc::clone(&parts.store),
            dispatch: dispatch.clone(),
            interval: Duration::from_secs_f64(o.heartbeat_interval),
            dead_after,
            draining: intake_token.clone(),
        });
        heartbeat.first().await?;

        let reloadable = Reloadable {
            offers: Offers::new(parts.drivers.iter().map(|setup| (setup.isolation, setup.offer))),
            pools: parts.drivers.iter().flat_map(|setup| setup.pools.clone()).collect(),
            isolation: IsolationRules::read(o)?,
            dead_letter_queue: dead_letter_queue.clone(),
        };
        let desk = dispatch::Desk::new(me, reloadable.options(o), parts.metrics.clone(), Instant::now());
        let hands = dispatch::Hands {
            gateway: gateway.clone(),
            fleet: fleet.clone(),
            recorder,
            functions: functions.clone(),
            tasks: tasks.clone(),
            dispatch: dispatch.clone(),
            metrics: parts.metrics.clone(),
        };
        let intake = Arc::new(intake::Intake {
            me,
            queue: parts.queue.clone(),
            store: Arc::clone(&parts.store),
            functions: functions.clone(),
            admission: Arc::clone(&admission),
            dispatch: dispatch.clone(),
            metrics: parts.metrics.clone(),
            options: intake::Options {
                dead_letter_queue: parts.zaqar.dead_letter_queue.clone(),
                dead_letter_ttl: seconds(parts.zaqar.dead_letter_ttl),
                claim_ttl: seconds(parts.zaqar.claim_ttl),
                claim_grace: seconds(parts.zaqar.claim_grace),
                max_sandboxes_per_function: o.max_sandboxes_per_function,
                max_waiting: o.max_waiting,
            },
        });
        let platform = Arc::new(platform::Platform {
            intake: Arc::clone(&intake),
            source: intake::Source {
                client: parts.queue.clone(),
                queue: parts.zaqar.queue.clone(),
                kind: intake::Kind::Platform(parts.trusted),
            },
            nudge: posted,
            options: platform::Options {
                claims: parts.zaqar.claims,
                poll_min: Duration::from_millis(parts.zaqar.poll_min_ms),
                poll_max: Duration::from_millis(parts.zaqar.poll_max_ms),
            },
        });
        let (woken, wake_ups) = tokio::sync::mpsc::channel(WAKE_UPS);
        let wakes = wake::Wakes::new(Arc::clone(&platform.nudge), woken);
        let subscriptions = parts.zaqar.notification_bind.as_ref().map(|bind| {
            let here = format!("http://{bind}");
            let base = parts.zaqar.notification_url.as_ref().unwrap_or(&here);
            Arc::new(wake::Subscriptions {
                me,
                store: Arc::clone(&parts.store),
                platform: (parts.queue.clone(), parts.zaqar.queue.clone()),
                access: parts.project_queues.clone(),
                bell: wake::Bell::new(base, &gateway::random_secret(), wakes.clone()),
            })
        });
        let bell = subscriptions.as_ref().map(|subscriptions| subscriptions.bell.clone());
        let queues = Arc::new(queues::Queues {
            me,
            store: Arc::clone(&parts.store),
            intake,
            access: parts.project_queues.clone(),
            wake_ups: tokio::sync::Mutex::new(wake_ups),
            options: queues::Options::new(&parts.zaqar, dead_after),
        });
        let inbox = Arc::new(inbox::Inbox {
            me,
            store: Arc::clone(&parts.store),
            functions,
            admission,
            dispatch: dispatch.clone(),
            nudge,
            owing: Arc::clone(&owing),
            dead_letter_queue,
            max_sandboxes_per_function: o.max_sandboxes_per_function,
            max_waiting: o.max_waiting,
        });
        let provisioned =
            Arc::new(provisioned::Provisioned { store: Arc::clone(&parts.store), dispatch: dispatch.clone(), changed });
        let trusts = parts.trusts.map(|(keystone, deployment)| {
            Arc::new(trusts::Trusts {
                keystone,
                store: Arc::clone(&parts.store),
                access: parts.project_queues.clone(),
                deployment,
                interval: Duration::from_secs_f64(parts.zaqar.trust_check_interval),
            })
        });
        let letters = Arc::new(dead_letter::DeadLetters {
            me,
            store: Arc::clone(&parts.store),
            queue: parts.queue.clone(),
            platform_queue: parts.zaqar.dead_letter_queue.clone(),
            project_queues: parts.project_queues,
            owing: Arc::clone(&owing),
            metrics: parts.metrics.clone(),
            ttl: seconds(parts.zaqar.dead_letter_ttl),
        });

        // The dispatcher and the recorder end by their own tokens, after what feeds them; see `stop`.
        let run = Once::new({
            let stopped = dispatcher_token.clone();
            async move { dispatch::run(desk, hands, events, load, stopped).await }
        });
        tasks.supervise("dispatch", OnFailure::Shutdown, move |cancel| run.take(cancel));
        let run = Once::new({
            let (store, metrics, recorded) = (Arc::clone(&parts.store), parts.metrics.clone(), recorded.clone());
            async move {
                record::run(store, records, owing, metrics).await;
                recorded.cancel();
            }
        });
        tasks.supervise("record", OnFailure::Shutdown, move |cancel| run.take(cancel));
        for listener in listeners {
            let (gateway, listener) = (gateway.clone(), Arc::new(listener));
            tasks.supervise("gateway", OnFailure::Restart, move |cancel| {
                let (gateway, listener) = (gateway.clone(), Arc::clone(&listener));
                async move { gateway.listen(listener, cancel).await }
            });
        }
        for isolation in fleet.isolations() {
            let watched = fleet.clone();
            tasks.supervise("fleet", OnFailure::Restart, move |cancel| watched.clone().watch(isolation, cancel));
        }
        tasks.supervise("heartbeat", OnFailure::Shutdown, move |cancel| Arc::clone(&heartbeat).run(cancel));
        tasks.supervise("reap", OnFailure::Restart, move |cancel| Arc::clone(&reaper).run(cancel));
        tasks.supervise("dead letters", OnFailure::Restart, move |cancel| Arc::clone(&letters).run(cancel));
        let token = intake_token.clone();
        tasks.supervise("inbox", OnFailure::Restart, move |cancel| {
            until(cancel, token.clone(), Arc::clone(&inbox).run(token.clone()))
        });
        let token = intake_token.clone();
        tasks.supervise("intake", OnFailure::Restart, move |cancel| {
            until(cancel, token.clone(), Arc::clone(&platform).run(token.clone()))
        });
        let token = intake_token.clone();
        tasks.supervise("provisioned", OnFailure::Restart, move |cancel| {
            until(cancel, token.clone(), Arc::clone(&provisioned).run(token.clone()))
        });
        if let Some(trusts) = trusts {
            tasks.supervise("trusts", OnFailure::Restart, move |cancel| Arc::clone(&trusts).run(cancel));
        }
        if let Some(subscriptions) = subscriptions {
            let token = intake_token.clone();
            tasks.supervise("subscriptions", OnFailure::Restart, move |cancel| {
                until(cancel, token.clone(), Arc::clone(&subscriptions).run(token.clone()))
            });
        }
        let token = intake_token.clone();
        tasks.supervise("queues", OnFailure::Restart, move |cancel| {
            until(cancel, token.clone(), Arc::clone(&queues).run(token.clone()))
        });

        Ok(Self {
            dispatch,
            fleet,
            intake: intake_token,
            dispatcher: dispatcher_token,
            recorded,
            store: parts.store,
            me,
            gateway: bound,
            calls,
            drivers: parts.drivers.into_iter().map(|setup| setup.driver).collect(),
            bell,
            wakes,
            parts: reloadable,
        })
    }

    /// What a health check of this worker asks: whether its gateway takes connections, and whether the cloud of each
    /// driver answers.
    #[must_use]
    pub fn health(&self) -> Vec<Part> {
        let gateway = self.gateway;
        let gateway = Part::new("gateway", move || async move { TcpStream::connect(gateway).await.map(|_| ()) });
        let drivers = self.drivers.iter().map(|driver| {
            let driver = Arc::clone(driver);
            Part::new(driver.name(), move || {
                let driver = Arc::clone(&driver);
                async move { driver.list().await.map(|_| ()) }
            })
        });
        std::iter::once(gateway).chain(drivers).collect()
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> WorkerId {
        self.me
    }

    /// For an API in the same process.
    #[must_use]
    pub fn calls(&self) -> gateway::Calls {
        self.calls.clone()
    }

    /// Who is to be told of Zaqar's calls, if they are wanted.
    #[must_use]
    pub fn bell(&self) -> Option<wake::Bell> {
        self.bell.clone()
    }

    /// For who knows by himself that something has come to a queue.
    #[must_use]
    pub fn wakes(&self) -> wake::Wakes {
        self.wakes.clone()
    }

    /// Takes over the options that may change while it runs.
    pub async fn reload(&self, options: &WorkerOptions) {
        self.dispatch.tell(dispatch::Event::Options(self.parts.options(options))).await;
    }

    /// Stops in order: nothing more is taken, what waits goes back, what runs may finish within `grace`, what still runs
    /// then goes back too, instances are deleted, everything is written. The tasks still have to be stopped afterwards.
    pub async fn stop(self, grace: Duration) {
        self.intake.cancel();
        self.dispatch.tell(dispatch::Event::Drain).await;
        if tokio::time::timeout(grace, self.dispatch.idle()).await.is_err() {
            tracing::warn!("some executions did not finish in time, they are handed back");
            self.dispatch.tell(dispatch::Event::HandBack).await;
            if tokio::time::timeout(Duration::from_secs(5), self.dispatch.idle()).await.is_err() {
                tracing::error!("some executions could not be handed back; they will be adopted");
            }
        }
        self.fleet.delete_all().await;
        self.dispatcher.cancel();
        if tokio::time::timeout(Duration::from_secs(10), self.recorded.cancelled()).await.is_err() {
            tracing::error!("some records could not be written in time; their executions will be adopted");
            return;
        }
        // Nothing is owned any more: the others need not wait for silence.
        if let Err(error) = self.store.delete_worker(self.me).await {
            let error = crate::task::chain(&error);
            tracing::warn!(error, "the worker's record could not be removed: {error}");
        }
    }
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(u64::from(count))
}
