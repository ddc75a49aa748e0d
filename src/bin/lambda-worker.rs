//! `lambda-worker`: takes events, keeps a fleet of instances, runs functions in them, and records what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lambda_openstack::program::signals::{Reloads, Shutdown};
use lambda_openstack::program::{self, Common, Started};
use lambda_openstack::service;
use lambda_openstack::task::Tasks;
use lambda_openstack::telemetry::{Metrics, metrics_router};
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = "lambda-worker";

/// Takes events and runs functions.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version)]
struct Options {
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    program::main(PROGRAM, |options: &Options| options.common.sources(PROGRAM), run)
}

async fn run(mut started: Started) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::listen()?;
    let mut reloads = Reloads::listen()?;
    let config = &started.config;
    let metrics = Metrics::new(PROGRAM);
    let tasks = Tasks::new();
    let restarts = metrics.clone();
    tasks.on_restart(move |task| restarts.task_restarted(task));

    let (state_dir, _lock) = service::lock_state_dir(&PathBuf::from(&config.worker.state_dir))?;
    let serving = CancellationToken::new();
    if let Some(address) = &config.worker.metrics_bind {
        let listener = service::listen(address).await?;
        service::serve(&tasks, "metrics", listener, metrics_router(metrics.clone()), &serving);
    }
    let store = service::open_store(config, &metrics).await?;
    let client = service::zaqar_client(&config.zaqar, &metrics)?;
    let worker = service::start_worker(config, store, client, &state_dir, false, &tasks, &metrics).await?;
    tracing::info!("worker {} takes events", worker.id());

    let grace = Duration::from_secs(config.default.graceful_shutdown_timeout);
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
    match failed {
        Some(failed) => Err(failed.into()),
        None => {
            tracing::info!("stopped");
            Ok(())
        }
    }
}
