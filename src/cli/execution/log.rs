//! `lambda execution log`: what a function wrote, as it is or as it comes.

use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use reqwest::header::ACCEPT;

use crate::cli::client::Client;
use crate::cli::error::{CliError, Result};
use crate::cli::output::print_bytes;
use crate::cli::path_segment;
use crate::cli::wait::is_finished;

/// `execution log`.
#[derive(Args, Debug)]
pub struct LogArgs {
    /// Id of the execution.
    #[arg(value_parser = path_segment)]
    execution: String,
    /// Print what comes until the execution has ended.
    #[arg(long)]
    follow: bool,
    /// Only what this attempt wrote; the first is 1.
    #[arg(long, value_name = "NUMBER")]
    attempt: Option<u32>,
}

/// How often a connection that breaks while a log is followed is made anew before anything more has come.
const RECONNECTS: u32 = 5;
/// Pause before it is made anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints a log.
///
/// # Errors
/// As [`CliError`] says.
pub async fn run(client: &Client, args: LogArgs) -> Result<()> {
    let mut printed = 0;
    let mut failures = 0;
    loop {
        let before = printed;
        match copy(client, &args, &mut printed).await {
            Ok(()) if !args.follow || is_complete(client, &args).await? => return Ok(()),
            // The service was stopped in an orderly manner before the execution ended; another one goes on.
            Ok(()) if failures < RECONNECTS => failures += 1,
            Ok(()) => return Err(client.not_ours("a followed log that ends before its execution does")),
            Err(error) if !args.follow || !error.is_passing() || failures == RECONNECTS => return Err(error),
            // Proxies close connections on which nothing is said for a while.
            Err(_) => failures = if printed > before { 1 } else { failures + 1 },
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether nothing more can come.
async fn is_complete(client: &Client, args: &LogArgs) -> Result<bool> {
    let execution = client.get(&["executions", &args.execution]).json_answer().await?;
    let is_later = |attempt: u32| execution["attempts"].as_u64().is_some_and(|attempts| attempts > u64::from(attempt));
    Ok(is_finished(&execution) || args.attempt.is_some_and(is_later))
}

/// Prints the log but for the first `printed` bytes: a log only grows.
async fn copy(client: &Client, args: &LogArgs, printed: &mut usize) -> Result<()> {
    let mut call = client.get(&["executions", &args.execution, "log"]).header(ACCEPT, "text/plain");
    if args.follow {
        // It lasts as long as the execution; the service keeps the connection alive.
        call = call.query("follow", "true").timeout(None);
    }
    if let Some(attempt) = args.attempt {
        call = call.query("attempt", &attempt.to_string());
    }
    let mut pieces = call.stream().await?.bytes_stream();
    let mut skip = *printed;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| CliError::Unreachable {
            endpoint: client.endpoint().to_owned(),
            why: format!("the log broke off: {error}"),
            sent: false,
        })?;
        let fresh = &piece[skip.min(piece.len())..];
        skip -= piece.len() - fresh.len();
        print_bytes(fresh)?;
        *printed += fresh.len();
    }
    Ok(())
}
