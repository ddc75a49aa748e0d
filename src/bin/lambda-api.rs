//! `lambda-api`: the REST service. It keeps no state; any number may run behind a load balancer.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lambda_openstack::program::signals::{Reloads, Shutdown};
use lambda_openstack::program::{self, Common, Started};
use lambda_openstack::task::Tasks;
use lambda_openstack::telemetry::Metrics;
use lambda_openstack::{api, service};
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

    let listener = service::listen(&config.api.bind).await?;
    let store = service::open_store(config, &metrics).await?;
    let client = service::zaqar_client(&config.zaqar, &metrics)?;
    let stop = CancellationToken::new();
    let router = service::api_router(config, store, client, &tasks, &stop, &metrics)?;
    tracing::info!("serving at http://{}", listener.local_addr()?);

    let grace = Duration::from_secs(config.default.graceful_shutdown_timeout);
    let mut serving = std::pin::pin!(api::serve(listener, router, stop.clone(), grace));
    let failed = loop {
        tokio::select! {
            signal = shutdown.recv() => {
                tracing::info!("{signal}: stopping");
                break None;
            }
            () = reloads.recv() => {
                started.reload();
            }
            failed = tasks.failed() => break Some(anyhow::Error::from(failed)),
            ended = &mut serving => {
                break Some(ended.err().map_or_else(|| anyhow::anyhow!("the listener has ended"), Into::into));
            }
        }
    };
    stop.cancel();
    match failed {
        Some(error) => Err(error),
        None => {
            if !serving.await? {
                tracing::warn!("some requests did not end in time");
            }
            tasks.stop(Duration::from_secs(5)).await;
            tracing::info!("stopped");
            Ok(())
        }
    }
}
