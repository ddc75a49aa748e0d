//! `lambda-manage`: what an operator does on a machine of the service, without the service running.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lambda_openstack::api;
use lambda_openstack::config::{self, sample::sample};
use lambda_openstack::program::{self, Common};

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

fn main() -> ExitCode {
    let options: Options = match program::parse(PROGRAM) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match options.command {
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

fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => program::failed(PROGRAM, &error),
    }
}
