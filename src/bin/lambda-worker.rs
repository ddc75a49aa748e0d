//! `lambda-worker`: takes events, keeps a fleet of instances, runs functions in them, and records what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Parser;
use lambda_openstack::health::Health;
use lambda_openstack::program::{self, Common, Life, Machine, Started};
use lambda_openstack::service;
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
    program::main(PROGRAM, Machine::Own, |options: &Options| options.common.sources(PROGRAM), run)
}

async fn run(started: Started) -> anyhow::Result<()> {
    let mut life = Life::begin(PROGRAM, started)?;
    let (tasks, metrics, grace) = (life.tasks.clone(), life.metrics.clone(), life.grace());
    let config = &life.started.config;

    let (state_dir, _lock) = service::lock_state_dir(&PathBuf::from(&config.worker.state_dir))?;
    let serving = CancellationToken::new();
    let health = Arc::new(OnceLock::new());
    if let Some(address) = &config.worker.metrics_bind {
        let listener = service::listen(address).await?;
        let router = service::operator_router(metrics.clone(), &health);
        service::serve(&tasks, "metrics", listener, router, &serving, Duration::ZERO);
    }
    let store = service::open_store(config, &metrics).await?;
    let cloud = service::Cloud::new(config, &metrics)?;
    let mut parts = service::health_parts(&store, &cloud)?;
    let worker = service::start_worker(config, store, &cloud, &state_dir, false, &tasks, &metrics).await?;
    parts.extend(worker.health());
    health.get_or_init(|| Health::new(parts));
    if let (Some(bell), Some(address)) = (worker.bell(), &config.zaqar.notification_bind) {
        let listener = service::listen(address).await?;
        service::serve(&tasks, "wake-ups", listener, service::bell_router(bell), &serving, Duration::ZERO);
    }
    tracing::info!("worker {} takes events", worker.id());

    let failed = life.last(async |config| worker.reload(&config.worker).await).await;
    worker.stop(if failed.is_some() { Duration::ZERO } else { grace }).await;
    serving.cancel();
    Ok(life.end(Duration::from_secs(5), failed).await?)
}
