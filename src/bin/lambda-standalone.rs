//! `lambda-standalone`: API, worker, SQLite store, a small Zaqar-v2 queue and the local driver in one process.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use lambda_openstack::config::Sources;
use lambda_openstack::program::signals::{Reloads, Shutdown};
use lambda_openstack::program::{self, Common, Started};
use lambda_openstack::service;
use lambda_openstack::standalone::queue;
use lambda_openstack::task::Tasks;
use lambda_openstack::telemetry::Metrics;
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = "lambda-standalone";

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
    program::main(PROGRAM, Options::sources, run)
}

async fn run(mut started: Started) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::listen()?;
    let mut reloads = Reloads::listen()?;
    let config = &mut started.config;
    let metrics = Metrics::new(PROGRAM);
    let tasks = Tasks::new();
    let restarts = metrics.clone();
    tasks.on_restart(move |task| restarts.task_restarted(task));

    // The directory first: what is in it belongs to one process.
    let (data_dir, _lock) = service::lock_state_dir(&PathBuf::from(&config.standalone.data_dir))?;
    let alone = config.database.connection.is_empty();
    if alone {
        config.database.connection = format!("sqlite://{}", data_dir.join("lambda.db").display());
    }
    let api_listener = service::listen(&config.standalone.api_bind).await?;
    let queue_listener = service::listen(&config.standalone.queue_bind).await?;
    let (api_address, queue_address) = (api_listener.local_addr()?, queue_listener.local_addr()?);
    config.zaqar.endpoint_override = format!("http://{queue_address}");
    if config.worker.gateway_bind == lambda_openstack::config::WorkerOptions::default().gateway_bind {
        // Nobody but our own children and our own API dials it: any port will do.
        config.worker.gateway_bind = "127.0.0.1:0".to_owned();
    }

    let queue = queue::open(data_dir.join("queue.db")).await.context("the queue cannot be opened")?;
    let grace = Duration::from_secs(config.default.graceful_shutdown_timeout);
    // Both listeners have a token of their own: they serve until the worker, which calls them, is done.
    let serving = CancellationToken::new();
    service::serve(&tasks, "queue", queue_listener, queue::router(queue.clone()), &serving);
    // The file in our locked directory is ours alone; a database that is configured may have other workers.
    let store = service::open_store(config, &metrics).await?;
    let client = service::zaqar_client(&config.zaqar, &metrics)?;
    let worker =
        service::start_worker(config, store.clone(), client.clone(), &data_dir, alone, &tasks, &metrics).await?;
    let router = service::api_router(config, store, client, &tasks, &serving, &metrics)?;
    service::serve(&tasks, "api", api_listener, router, &serving);

    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready api=http://{api_address} queue=http://{queue_address}")?;
    stdout.flush()?;
    tracing::info!("ready at http://{api_address}, queue at http://{queue_address}");

    let failed = loop {
        tokio::select! {
            signal = shutdown.recv() => {
                tracing::info!("{signal}: stopping");
                break None;
            }
            () = reloads.recv() => {
                if started.reload() {
                    worker.reload(&started.config.worker).await;
                }
            }
            failed = tasks.failed() => break Some(failed),
        }
    };
    worker.stop(if failed.is_some() { Duration::ZERO } else { grace }).await;
    serving.cancel();
    if !tasks.stop(Duration::from_secs(5)).await {
        tracing::warn!("some tasks did not end in time");
    }
    queue.close().await;
    match failed {
        Some(failed) => Err(failed.into()),
        None => {
            tracing::info!("stopped");
            Ok(())
        }
    }
}
