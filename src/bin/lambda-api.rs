//! `lambda-api`: the REST service. It keeps no state; any number may run behind a load balancer.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lambda_openstack::program::{self, Common, Life, Machine, Started};
use lambda_openstack::service;
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = "lambda-api";

/// The REST service.
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

    let policy = service::policy(config, &life.started.sources)?;
    let listener = service::listen(&config.api.bind).await?;
    let store = service::open_store(config, &metrics).await?;
    let cloud = service::Cloud::new(config, &metrics)?;
    let serving = CancellationToken::new();
    let router = service::api_router(service::ApiParts {
        config,
        store,
        cloud: &cloud,
        policy,
        worker: None,
        tasks: &tasks,
        stopping: &serving,
        metrics: &metrics,
    })?;
    tracing::info!("serving at http://{}", listener.local_addr()?);
    service::serve(&tasks, "api", listener, router, &serving, grace);

    let failed = life.last(async |_| {}).await;
    serving.cancel();
    Ok(life.end(grace + Duration::from_secs(5), failed).await?)
}
