//! `lambda-standalone`: API, worker, SQLite store, a small Zaqar-v2 queue and the local driver in one process.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use lambda_openstack::program::signals::{Reloads, Shutdown};
use lambda_openstack::program::{self, Common, Started};
use lambda_openstack::standalone::queue;
use lambda_openstack::task::{OnFailure, Tasks};
use lambda_openstack::telemetry::Metrics;
use lambda_openstack::{api, service};

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

fn main() -> ExitCode {
    let options: Options = match program::parse(PROGRAM) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let mut sources = options.common.sources(PROGRAM);
    for (option, value, flag) in [
        ("data_dir", options.data_dir, "--data-dir"),
        ("api_bind", options.api_bind, "--api-bind"),
        ("queue_bind", options.queue_bind, "--queue-bind"),
    ] {
        if let Some(value) = value {
            sources = sources.with_override("standalone", option, value, flag);
        }
    }
    let started = match program::start(PROGRAM, sources) {
        Ok(started) => started,
        Err(error) => return program::unusable(PROGRAM, &error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return program::failed(PROGRAM, &error),
    };
    match runtime.block_on(run(started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => program::failed(PROGRAM, &format!("{error:#}")),
    }
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
    if config.database.connection.is_empty() {
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
    let serving = tokio_util::sync::CancellationToken::new();
    serve(&tasks, "queue", queue_listener, queue::router(queue.clone()), &serving);
    let store = service::open_store(config, &metrics).await?;
    let client = service::zaqar_client(&config.zaqar, &metrics)?;
    let worker =
        service::start_worker(config, store.clone(), client.clone(), &data_dir, true, &tasks, &metrics).await?;
    let router = service::api_router(config, store, client, &tasks, &metrics)?;
    serve(&tasks, "api", api_listener, router, &serving);

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

/// Serves one router until told to stop.
fn serve(
    tasks: &Tasks,
    name: &'static str,
    listener: tokio::net::TcpListener,
    router: axum::Router,
    serving: &tokio_util::sync::CancellationToken,
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
            api::serve(listener, router, serving, Duration::from_secs(2)).await?;
            cancel.cancelled().await;
            Ok(())
        }
    });
}
