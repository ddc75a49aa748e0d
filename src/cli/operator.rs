//! `lambda runtime …`, `lambda worker …`, `lambda instance …`: what the service offers, and what it is made of.

use clap::{Args, Subcommand};

use super::client::Client;
use super::error::Result;
use super::output::{Column, OutputArgs};
use super::{all_projects, parameters, path_segment};

const RUNTIMES: &[Column] = &[
    Column::listed("name"),
    Column::listed("kind"),
    Column::listed("default_handler"),
    Column::listed("description"),
    Column::hidden("links"),
];

const WORKERS: &[Column] = &[
    Column::listed("id"),
    Column::listed("host"),
    Column::listed("state"),
    Column::listed("executions"),
    Column::listed("capacity"),
    Column::listed("sandboxes"),
    Column::listed("silent_seconds"),
    Column::other("heartbeat_at"),
    Column::other("gateway"),
    Column::other("version"),
    Column::other("started_at"),
];

const INSTANCES: &[Column] = &[
    Column::listed("id"),
    Column::listed("project_id"),
    Column::listed("driver"),
    Column::listed("state"),
    Column::listed("memory"),
    Column::listed("sandboxes"),
    Column::listed("created_at"),
    Column::other("worker_id"),
    Column::other("ready_at"),
    Column::other("error"),
];

/// What code can be run in.
#[derive(Subcommand, Debug)]
pub enum RuntimeCommand {
    /// List runtimes.
    List(ListArgs),
    /// Show a runtime.
    Show(ShowArgs),
}

/// The service's workers.
#[derive(Subcommand, Debug)]
pub enum WorkerCommand {
    /// List workers.
    List(ListArgs),
}

/// What the workers have booted.
#[derive(Subcommand, Debug)]
pub enum InstanceCommand {
    /// List instances.
    List(InstanceListArgs),
}

/// A list without conditions.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// `instance list`.
#[derive(Args, Debug)]
pub struct InstanceListArgs {
    /// Those of all projects.
    #[arg(long)]
    all_projects: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// `runtime show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Name of the runtime.
    #[arg(value_parser = path_segment)]
    runtime: String,
    #[command(flatten)]
    output: OutputArgs,
}

async fn list(client: &Client, collection: &str, columns: &[Column], args: &ListArgs) -> Result<()> {
    let listing = client.list(collection, &[], None).await?;
    args.output.print_list(columns, &listing.rows)
}

impl RuntimeCommand {
    /// Does it.
    ///
    /// # Errors
    /// As [`CliError`](super::error::CliError) says.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::List(args) => list(client, "runtimes", RUNTIMES, &args).await,
            Self::Show(args) => {
                let runtime = client.get(&["runtimes", &args.runtime]).json_answer().await?;
                args.output.print_object(RUNTIMES, &runtime)
            }
        }
    }
}

impl WorkerCommand {
    /// Does it.
    ///
    /// # Errors
    /// As [`CliError`](super::error::CliError) says.
    pub async fn run(self, client: &Client) -> Result<()> {
        let Self::List(args) = self;
        list(client, "workers", WORKERS, &args).await
    }
}

impl InstanceCommand {
    /// Does it.
    ///
    /// # Errors
    /// As [`CliError`](super::error::CliError) says.
    pub async fn run(self, client: &Client) -> Result<()> {
        let Self::List(args) = self;
        let listing = client.list("instances", &parameters([all_projects(args.all_projects)]), None).await?;
        args.output.print_list(INSTANCES, &listing.rows)
    }
}
