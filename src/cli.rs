//! The `lambda` command: functions, triggers, events and executions for users, workers and instances for operators.
//!
//! It speaks to the REST service and to nothing else. Results go to standard output, everything else to standard error.
//! Exit codes: 0 done; 1 the service refused or the function failed; 2 the command was not understood.

pub mod client;
pub mod connection;
pub mod error;
pub mod event;
pub mod execution;
pub mod function;
pub mod operator;
pub mod output;
pub mod package;
pub mod progress;
pub mod trigger;
pub mod wait;

use std::ffi::OsString;
use std::io::Read as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::value::RawValue;

use client::Client;
use connection::ConnectionArgs;
use error::{CliError, Result};

/// Functions as a service for OpenStack: upload functions, bind them to events, see what became of them.
#[derive(Parser, Debug)]
#[command(name = "lambda", version, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    resource: Resource,
}

#[derive(Subcommand, Debug)]
enum Resource {
    /// Functions and their code.
    #[command(subcommand)]
    Function(function::Command),
    /// Which events go to which function.
    #[command(subcommand)]
    Trigger(trigger::Command),
    /// Events.
    #[command(subcommand)]
    Event(event::Command),
    /// What became of each event: records and logs.
    #[command(subcommand)]
    Execution(execution::Command),
    /// What code can be run in.
    #[command(subcommand)]
    Runtime(operator::RuntimeCommand),
    /// The service's workers (for operators).
    #[command(subcommand)]
    Worker(operator::WorkerCommand),
    /// What the workers have booted (for operators).
    #[command(subcommand)]
    Instance(operator::InstanceCommand),
}

/// Runs one command line, the program's name first.
pub async fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for and go to standard output; a closed one is nothing to tell.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::OutputClosed) {
                output::note(&error.report());
            }
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let client = Client::new(cli.connection.connection().await?, cli.connection.debug)?;
    match cli.resource {
        Resource::Function(command) => command.run(&client).await,
        Resource::Trigger(command) => command.run(&client).await,
        Resource::Event(command) => command.run(&client).await,
        Resource::Execution(command) => command.run(&client).await,
        Resource::Runtime(command) => command.run(&client).await,
        Resource::Worker(command) => command.run(&client).await,
        Resource::Instance(command) => command.run(&client).await,
    }
}

/// Reads JSON that was given as text, as `@file`, or as `-` for standard input. It is checked and otherwise left as it
/// was written: a number keeps its digits.
fn json_argument(option: &str, text: &str) -> Result<Box<RawValue>> {
    let wrong = |why: String| CliError::Usage(format!("{option}: {why}"));
    let read = match (text, text.strip_prefix('@')) {
        ("-", _) => {
            let mut content = String::new();
            std::io::stdin()
                .read_to_string(&mut content)
                .map_err(|error| wrong(format!("standard input cannot be read: {error}")))?;
            content
        }
        (_, Some(path)) => {
            std::fs::read_to_string(path).map_err(|error| wrong(format!("{path} cannot be read: {error}")))?
        }
        (text, None) => text.to_owned(),
    };
    RawValue::from_string(read).map_err(|error| {
        let hint = if text == "-" || text.starts_with('@') { "" } else { "; text needs quotes of its own: '\"text\"'" };
        wrong(format!("is not JSON: {error}{hint}"))
    })
}

/// Takes the name or id of a resource: anything that can be a part of a path.
fn path_segment(text: &str) -> std::result::Result<String, String> {
    // A URL's own rules would swallow these two and name the collection instead.
    if text.is_empty() || text == "." || text == ".." {
        return Err("must be a name or an id".to_owned());
    }
    Ok(text.to_owned())
}

/// The query parameters of which there is a value.
fn parameters<const N: usize>(all: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The query parameter by which an operator sees more than one project.
fn all_projects(wanted: bool) -> (&'static str, Option<String>) {
    ("all_projects", wanted.then(|| "true".to_owned()))
}

/// Does the same for each of several resources, goes on after a failure, and says in the end how many failed.
async fn each<F>(verb: &str, names: &[String], mut work: impl FnMut(String) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut failed = 0;
    for name in names {
        match work(name.clone()).await {
            Ok(()) => {}
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => {
                output::note(&error.report());
                failed += 1;
            }
        }
    }
    if failed > 0 {
        return Err(CliError::Failed(format!("{failed} of {} could not be {verb}", names.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_and_options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_every_option_has_its_help() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
            }
            for inner in command.get_subcommands() {
                check(inner, &path);
            }
        }
        check(&Cli::command(), "");
    }
}
