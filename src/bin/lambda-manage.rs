//! `lambda-manage`: what an operator does on a machine of the service, without the service running.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lambda_openstack::api;
use lambda_openstack::config::{self, sample::sample};
use lambda_openstack::manage::checks;
use lambda_openstack::program::{self, Common};
use lambda_openstack::service;
use lambda_openstack::task::chain;
use lambda_openstack::telemetry::Metrics;

const PROGRAM: &str = "lambda-manage";

/// Manage a Lambda service's configuration.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version)]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the store to this release's shape. Again: nothing. Programs do it too when they start.
    DbSync,
    /// Say whether this release can start here.
    Status {
        #[command(subcommand)]
        command: Status,
    },
    /// Print a sample of lambda.conf with every option, its meaning and its default.
    #[command(name = "config-sample")]
    Sample,
    /// Print a sample of policy.yaml with every rule, what it is for and its default.
    #[command(name = "policy-sample")]
    PolicySample,
    /// Check the configuration; exit 0 when it can be used, 2 when not.
    #[command(name = "config-check")]
    Check {
        /// The program whose configuration it is.
        #[arg(long, default_value = "lambda-standalone")]
        program: String,
    },
    /// Print every option with the value that holds, secrets masked.
    #[command(name = "config-show")]
    Show {
        /// The program whose configuration it is.
        #[arg(long, default_value = "lambda-standalone")]
        program: String,
    },
}

#[derive(Debug, Subcommand)]
enum Status {
    /// Check configuration, store, queue and what else programs need; exit 0: fine, 1: with warnings, 2: not.
    UpgradeCheck,
}

fn main() -> ExitCode {
    let options: Options = match program::parse(PROGRAM) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match options.command {
        Command::DbSync => db_sync(&options.common),
        Command::Status { command: Status::UpgradeCheck } => upgrade_check(&options.common),
        Command::Sample => print(&sample()),
        Command::PolicySample => print(&api::policy_sample()),
        Command::Check { program } => with_config(&options.common, &program, |_| ExitCode::SUCCESS),
        Command::Show { program } => with_config(&options.common, &program, |config| {
            let lines = config.values().into_iter().map(|(name, value)| match value {
                Some(value) => format!("{name} = {value}\n"),
                None => format!("{name} = <None>\n"),
            });
            print(&lines.collect::<String>())
        }),
    }
}

fn with_config(common: &Common, name: &str, then: impl FnOnce(&config::Config) -> ExitCode) -> ExitCode {
    match config::load(&common.sources(name)) {
        Err(error) => program::unusable(PROGRAM, &error),
        Ok(loaded) => {
            for unread in &loaded.unread {
                eprintln!("{PROGRAM}: not read by this release: {unread}");
            }
            then(&loaded.config)
        }
    }
}

/// Runs something that waits for others.
fn wait<T>(work: impl Future<Output = T>) -> Result<T, ExitCode> {
    // As in the programs: an error means that it was chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| program::failed(PROGRAM, &error))?;
    Ok(runtime.block_on(work))
}

fn db_sync(common: &Common) -> ExitCode {
    with_config(common, PROGRAM, |config| match wait(service::open_store(config, &Metrics::new(PROGRAM))) {
        Ok(Ok(_)) => print("the store has this release's shape\n"),
        Ok(Err(error)) => program::failed(PROGRAM, &chain(&error)),
        Err(code) => code,
    })
}

fn upgrade_check(common: &Common) -> ExitCode {
    match wait(checks::all(&common.sources(PROGRAM))) {
        Ok(report) => match print(&report.table()) {
            ExitCode::SUCCESS => ExitCode::from(report.verdict().exit_code()),
            failed => failed,
        },
        Err(code) => code,
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => program::failed(PROGRAM, &error),
    }
}
