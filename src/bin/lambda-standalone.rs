//! `lambda-standalone`: API, worker, SQLite store, a small Zaqar-v2 queue and the local driver in one process.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use lambda_openstack::config::{ServiceAuthOptions, Sources, WorkerOptions, ZaqarOptions};
use lambda_openstack::program::{self, Common, Life, Machine, Started};
use lambda_openstack::service;
use lambda_openstack::standalone::queue;
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = "lambda-standalone";
/// Time for the last answers, when everything that could be waited for is done.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Functions as a service on one machine: REST service, worker, queue and store in one process.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Directory of all state [default: lambda-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address and port of the REST service [default: 127.0.0.1:9070].
    #[arg(long, value_name = "ADDRESS")]
    api_bind: Option<String>,
    /// Address and port of the Zaqar-v2 queue [default: 127.0.0.1:8888].
    #[arg(long, value_name = "ADDRESS")]
    queue_bind: Option<String>,
}

impl Options {
    fn sources(&self) -> Sources {
        let own = [
            ("data_dir", &self.data_dir, "--data-dir"),
            ("api_bind", &self.api_bind, "--api-bind"),
            ("queue_bind", &self.queue_bind, "--queue-bind"),
        ];
        own.into_iter().fold(self.common.sources(PROGRAM), |sources, (option, value, flag)| match value {
            Some(value) => sources.with_override("standalone", option, value.as_str(), flag),
            None => sources,
        })
    }
}

fn main() -> ExitCode {
    program::main(PROGRAM, Machine::Shared, Options::sources, run)
}

async fn run(started: Started) -> anyhow::Result<()> {
    let mut life = Life::begin(PROGRAM, started)?;
    let (tasks, metrics, grace) = (life.tasks.clone(), life.metrics.clone(), life.grace());
    let sources = life.started.sources.clone();
    let config = &mut life.started.config;
    let policy = service::policy(config, &sources)?;

    // The directory first: what is in it belongs to one process.
    let (data_dir, _lock) = service::lock_state_dir(&PathBuf::from(&config.standalone.data_dir))?;
    // The file in our locked directory is ours alone; a database that is configured may have other workers.
    let alone = config.database.connection.is_empty();
    if alone {
        config.database.connection = format!("sqlite://{}", data_dir.join("lambda.db").display());
    }
    let api_listener = service::listen(&config.standalone.api_bind).await?;
    let queue_listener = service::listen(&config.standalone.queue_bind).await?;
    let (api_address, queue_address) = (api_listener.local_addr()?, queue_listener.local_addr()?);
    config.zaqar.endpoint_override = Some(format!("http://{queue_address}"));
    // The queue in this process knows no Keystone.
    config.service_auth = ServiceAuthOptions::default();
    if config.worker.gateway_bind == WorkerOptions::default().gateway_bind {
        // Our own children and our own API have shorter ways: any port will do.
        config.worker.gateway_bind = "127.0.0.1:0".to_owned();
    }

    if config.zaqar.poll_max_ms == ZaqarOptions::default().poll_max_ms {
        // Of what is posted to our own queue we hear at once: the clock is left with what was posted with a delay, or
        // comes again because its claim has ended.
        config.zaqar.poll_max_ms = 1000;
    }

    let queue = queue::open(data_dir.join("queue.db")).await.context("the queue cannot be opened")?;
    // Both listeners have a token of their own: they serve until the worker, which calls them, is done.
    let serving = CancellationToken::new();
    service::serve(&tasks, "queue", queue_listener, queue::router(queue.clone()), &serving, LAST_ANSWERS);
    let store = service::open_store(config, &metrics).await?;
    let cloud = service::Cloud::new(config, &metrics)?;
    let worker = service::start_worker(config, store.clone(), &cloud, &data_dir, alone, &tasks, &metrics).await?;
    // What Zaqar would say by its notifications.
    let (wakes, platform) = (worker.wakes(), (config.zaqar.project_id.clone(), config.zaqar.queue.clone()));
    queue.on_post(move |project, queue| {
        if (project, queue) == (&platform.0, &platform.1) { wakes.platform() } else { wakes.own(project, queue) }
    });
    let router = service::api_router(service::ApiParts {
        config,
        store,
        cloud: &cloud,
        policy,
        worker: Some(worker.calls()),
        tasks: &tasks,
        stopping: &serving,
        metrics: &metrics,
    })?;
    service::serve(&tasks, "api", api_listener, router, &serving, LAST_ANSWERS);

    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready api=http://{api_address} queue=http://{queue_address}")?;
    stdout.flush()?;
    tracing::info!("ready at http://{api_address}, queue at http://{queue_address}");

    let failed = life.last(async |config| worker.reload(&config.worker).await).await;
    worker.stop(if failed.is_some() { Duration::ZERO } else { grace }).await;
    serving.cancel();
    let ended = life.end(Duration::from_secs(5), failed).await;
    queue.close().await;
    Ok(ended?)
}
