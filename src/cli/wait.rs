//! Waiting for executions to end: by looking again and again, with pauses that grow, and with patience for a service
//! that is away for a moment.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::error::{CliError, Result, printable};

use super::progress;
use crate::model::ExecutionState;

/// First pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long the service may be away before the wait is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which executions are waited for.
#[derive(Clone, Debug)]
pub enum Awaited {
    /// This one.
    Execution(String),
    /// Those of the event with this id, however many functions it is for; at least one.
    Event(String),
}

/// Waits until all are in a terminal state, and answers their records in order.
///
/// # Errors
/// When the limit is reached, an execution is not there, or the service stays away.
pub async fn until_finished(client: &Client, awaited: &[Awaited], limit: Duration) -> Result<Vec<Value>> {
    let spinner = progress::spinner("waiting");
    let result = look_until_finished(client, awaited, limit, &spinner).await;
    spinner.finish_and_clear();
    result
}

async fn look_until_finished(
    client: &Client,
    awaited: &[Awaited],
    limit: Duration,
    spinner: &indicatif::ProgressBar,
) -> Result<Vec<Value>> {
    let begun = Instant::now();
    let mut records = Vec::new();
    for (number, one) in awaited.iter().enumerate() {
        let mut pause = PAUSE_MIN;
        let mut away_since = None;
        loop {
            match look(client, one).await {
                Ok(found) => {
                    away_since = None;
                    if !found.is_empty() && found.iter().all(is_finished) {
                        records.extend(found);
                        break;
                    }
                    spinner.set_message(format!("{} ({} of {})", progress_of(&found), number + 1, awaited.len()));
                }
                Err(error) if error.is_passing() => {
                    if away_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(error);
                    }
                    spinner.set_message("the service does not answer, trying again");
                }
                Err(error) => return Err(error),
            }
            if begun.elapsed() >= limit {
                return Err(CliError::Failed(out_of_time(one, limit)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSE_MAX);
        }
    }
    Ok(records)
}

async fn look(client: &Client, one: &Awaited) -> Result<Vec<Value>> {
    match one {
        Awaited::Execution(id) => Ok(vec![client.get(&["executions", id]).json_answer().await?]),
        Awaited::Event(id) => Ok(client.list("executions", &[("event_id", id.clone())], None).await?.rows),
    }
}

/// Whether nothing more happens to an execution by itself.
#[must_use]
pub fn is_finished(execution: &Value) -> bool {
    // A state that this release does not know is looked at again rather than taken for an end.
    execution["state"].as_str().and_then(ExecutionState::parse).is_some_and(ExecutionState::is_terminal)
}

fn progress_of(found: &[Value]) -> String {
    match found {
        [] => "waiting for the event to be taken from the queue".to_owned(),
        [one] => printable(one["state"].as_str().unwrap_or("waiting")).into_owned(),
        many => format!("{} of {} executions done", many.iter().filter(|one| is_finished(one)).count(), many.len()),
    }
}

fn out_of_time(one: &Awaited, limit: Duration) -> String {
    let limit = limit.as_secs();
    match one {
        Awaited::Execution(id) => {
            format!("execution {id} has not ended in {limit} s\n  `lambda execution show {id}` says what it waits for")
        }
        Awaited::Event(id) => format!(
            "event {id} has not been handled to the end in {limit} s\n  \
             `lambda execution list --event {id}` shows what became of it; none there: no trigger matches it\n  \
             (`lambda trigger list`; it lies on the dead letter queue then, with the reason), or no worker takes events\n  \
             (`lambda worker list`)"
        ),
    }
}

/// Ends a command that waited: an error unless all succeeded.
///
/// # Errors
/// When one did not succeed.
pub fn verdict(records: &[Value]) -> Result<()> {
    let failed: Vec<_> =
        records.iter().filter(|record| record["state"] != ExecutionState::Succeeded.as_str()).collect();
    let Some(first) = failed.first() else { return Ok(()) };
    let id = first["id"].as_str().unwrap_or("ID");
    Err(CliError::Failed(format!(
        "{} of {} executions did not succeed\n  `lambda execution show {id}` says why, `lambda execution log {id}` what it wrote",
        failed.len(),
        records.len()
    )))
}
