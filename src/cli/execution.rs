//! `lambda execution …`: what became of each event.

mod log;
mod report;

use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;

use super::client::Client;
use super::error::Result;
use super::output::{Column, OutputArgs, note};
use super::wait::{self, Awaited};
use super::{all_projects, each, parameters, path_segment};
use crate::clock;
use crate::model::{ExecutionState, Timestamp};

pub use report::{failure_report, outcome_report};

/// The columns of executions.
pub const COLUMNS: &[Column] = &[
    Column::listed("id"),
    Column::listed("function").at("function_name"),
    Column::listed("event_type").at("event.type"),
    Column::listed("state"),
    Column::listed("attempts"),
    Column::listed("start"),
    Column::listed("duration_ms"),
    Column::listed("reason").at("failure.reason"),
    Column::listed("received_at"),
    Column::other("function_id"),
    Column::other("revision"),
    Column::other("event_id").at("event.id"),
    Column::other("event_source").at("event.source"),
    Column::other("event_subject").at("event.subject"),
    Column::other("started_at"),
    Column::other("finished_at"),
    Column::other("init_ms"),
    Column::other("peak_memory_bytes"),
    Column::other("log_bytes").at("log.bytes"),
    Column::other("log_truncated").at("log.truncated"),
    Column::other("result"),
    Column::other("component").at("failure.component"),
    Column::other("phase").at("failure.phase"),
    Column::other("error_type").at("failure.error.type"),
    Column::other("error_message").at("failure.error.message"),
    Column::other("error_trace").at("failure.error.trace"),
    Column::other("request_id").at("failure.request_id"),
    Column::other("dead_letter_queue").at("dead_letter.queue"),
    Column::other("waiting_for"),
    Column::other("not_before"),
    Column::other("redrives"),
    Column::other("origin").at("origin.kind"),
    Column::other("worker_id"),
    Column::other("instance_id"),
    Column::hidden("project_id"),
    Column::hidden("payload"),
    Column::hidden("links"),
];

/// Executions that a list shows when nothing is said.
const LISTED: usize = 50;

/// What became of each event.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// List executions, the newest first.
    List(ListArgs),
    /// Show all that is recorded of an execution.
    Show(ShowArgs),
    /// Print what the function wrote.
    Log(log::LogArgs),
    /// Wait until executions have ended, and show them. Fails if one of them did.
    Wait(WaitArgs),
    /// Stop executions that have not ended.
    Cancel(ManyArgs),
    /// Try executions again that were given up.
    Redrive(ManyArgs),
}

/// `execution list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only those of this function, by name or id.
    #[arg(long)]
    function: Option<String>,
    /// Only those in this state; may be given several times.
    #[arg(long = "state", value_name = "STATE", value_parser = states())]
    states: Vec<String>,
    /// Only those of the event with this id.
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Only those received since: an age such as 30s, 10m, 2h or 1d, or a time such as 2026-11-22T10:00:00Z.
    #[arg(long, value_name = "AGE|TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Those of all projects (for operators).
    #[arg(long)]
    all_projects: bool,
    /// At most so many.
    #[arg(long, value_name = "NUMBER", default_value_t = LISTED)]
    limit: usize,
    /// All there are.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// `execution show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Id of the execution.
    #[arg(value_parser = path_segment)]
    execution: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// `execution wait`.
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// Ids of the executions.
    #[arg(required = true, value_name = "EXECUTION", value_parser = path_segment)]
    executions: Vec<String>,
    /// How long to wait.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// `execution cancel` and `execution redrive`.
#[derive(Args, Debug)]
pub struct ManyArgs {
    /// Ids of the executions.
    #[arg(required = true, value_name = "EXECUTION", value_parser = path_segment)]
    executions: Vec<String>,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// As [`CliError`](super::error::CliError) says.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::List(args) => list(client, args).await,
            Self::Show(args) => {
                let execution = client.get(&["executions", &args.execution]).json_answer().await?;
                args.output.print_object(COLUMNS, &execution)
            }
            Self::Log(args) => log::run(client, args).await,
            Self::Wait(args) => {
                let awaited: Vec<_> = args.executions.into_iter().map(Awaited::Execution).collect();
                let records = wait::until_finished(client, &awaited, Duration::from_secs(args.timeout)).await?;
                args.output.print_list(COLUMNS, &records)?;
                wait::verdict(&records)
            }
            Self::Cancel(args) => order(client, "cancel", "cancelled", &args.executions).await,
            Self::Redrive(args) => order(client, "redrive", "re-driven", &args.executions).await,
        }
    }
}

async fn order(client: &Client, action: &str, done: &str, executions: &[String]) -> Result<()> {
    each(done, executions, async |execution| {
        client.call(Method::POST, &["executions", &execution, action]).send().await.map(drop)
    })
    .await
}

async fn list(client: &Client, args: ListArgs) -> Result<()> {
    let states = (!args.states.is_empty()).then(|| args.states.join(","));
    let since = args.since.map(|since| since.to_string());
    let query = parameters([
        ("function", args.function),
        ("state", states),
        ("event_id", args.event),
        ("since", since),
        all_projects(args.all_projects),
    ]);
    let most = (!args.all).then_some(args.limit);
    let listing = client.list("executions", &query, most).await?;
    args.output.print_list(COLUMNS, &listing.rows)?;
    if listing.more {
        note(&format!("The newest {} are shown; --limit NUMBER or --all shows more.", listing.rows.len()));
    }
    Ok(())
}

fn states() -> clap::builder::PossibleValuesParser {
    ExecutionState::ALL.map(ExecutionState::as_str).into()
}

/// Reads an age or a point in time.
fn moment(text: &str) -> std::result::Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    age(text)
        .map(|age| clock::now() - age)
        .ok_or_else(|| "must be an age such as 30s, 10m, 2h or 1d, or a time such as 2026-11-22T10:00:00Z".to_owned())
}

fn age(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_an_age_or_a_time() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("2h", 7_200), ("1d", 86_400)] {
            assert_eq!(age(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(moment("1970-01-01T00:00:01Z").map(Timestamp::as_millis), Ok(1_000));
        for bad in ["", "m", "10", "10w", "-1m", "1.5h", "yesterday", "99999999999999999999d", "1é"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
