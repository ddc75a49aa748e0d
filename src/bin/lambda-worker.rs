//! `lambda-worker`: takes events, keeps a fleet of instances, runs functions in them, and records what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lambda_openstack::program::{self, Common, Life, Started};
use lambda_openstack::service;
use lambda_openstack::telemetry::metrics_router;
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

async fn run(started: Started) -> anyhow::Result<()> {
    let mut life = Life::begin(PROGRAM, started)?;
    let (tasks, metrics, grace) = (life.tasks.clone(), life.metrics.clone(), life.grace());
    let config = &life.started.config;

    let (state_dir, _lock) = service::lock_state_dir(&PathBuf::from(&config.worker.state_dir))?;
    let serving = CancellationToken::new();
    if let Some(address) = &config.worker.metrics_bind {
        let listener = service::listen(address).await?;
        service::serve(&tasks, "metrics", listener, metrics_router(metrics.clone()), &serving, Duration::ZERO);
    }
    let store = service::open_store(config, &metrics).await?;
    let client = service::zaqar_client(&config.zaqar, &metrics)?;
    let worker = service::start_worker(config, store, client, &state_dir, false, &tasks, &metrics).await?;
    tracing::info!("worker {} takes events", worker.id());

    let failed = life.last(async |config| worker.reload(&config.worker).await).await;
    worker.stop(if failed.is_some() { Duration::ZERO } else { grace }).await;
    serving.cancel();
    Ok(life.end(Duration::from_secs(5), failed).await?)
}
