//! `lambda function invoke`: one call, its result on standard output, its failure on standard error.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use reqwest::header::{HeaderName, LOCATION};
use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::error::{CliError, Refusal, Result};
use crate::cli::execution::{self, failure_report};
use crate::cli::output::{self, Column, OutputArgs};
use crate::cli::wait::{self, Awaited};
use crate::cli::{json_argument, path_segment, progress};

/// The longest that a call can take: a function's largest timeout, and the time for which the service looks for room.
const LONGEST_CALL: Duration = Duration::from_secs(1_020);

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// `function invoke`.
#[derive(Args, Debug)]
pub struct InvokeArgs {
    /// Name or id of the function.
    #[arg(value_parser = path_segment)]
    function: String,
    /// What the handler gets: JSON, `@file`, or `-` for standard input.
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE|-")]
    data: String,
    /// Do not wait for the result; show where it will be found.
    #[arg(long = "async")]
    asynchronous: bool,
    /// With --async: wait for the record, then print the result.
    #[arg(long, requires = "asynchronous")]
    wait: bool,
    /// With --wait: how long.
    #[arg(long, default_value_t = 1_020, value_name = "SECONDS")]
    wait_timeout: u64,
    #[command(flatten)]
    output: OutputArgs,
}

const COLUMNS: &[Column] = &[Column::listed("execution_id")];

/// Calls a function.
///
/// # Errors
/// When the function failed, or as [`CliError`] says.
pub async fn run(client: &Client, args: InvokeArgs) -> Result<()> {
    args.output.check(COLUMNS)?;
    let data = json_argument("--data", &args.data)?;
    let call = client
        .post(&["functions", &args.function, "invocations"])
        .body("application/json", Bytes::from(data.get().to_owned()))
        .timeout(Some(LONGEST_CALL));
    if args.asynchronous {
        let answer = call.header(PREFER, "respond-async").send().await?;
        let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let id = location.and_then(|location| location.trim_end_matches('/').rsplit('/').next());
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Err(client.not_ours("an accepted call without the Location of its execution"));
        };
        if args.wait {
            return wait_for(client, &args, id).await;
        }
        return args.output.print_object(COLUMNS, &json!({ "execution_id": id }));
    }
    let spinner = progress::spinner("running");
    let answer = call.send().await;
    spinner.finish_and_clear();
    match answer {
        Ok(answer) => print_result(&answer.body),
        Err(CliError::Refused(refusal)) if refusal.failure.is_some() => Err(failed(&args.function, &refusal)),
        Err(error) => Err(error),
    }
}

async fn wait_for(client: &Client, args: &InvokeArgs, id: &str) -> Result<()> {
    let limit = Duration::from_secs(args.wait_timeout);
    let records = wait::until_finished(client, &[Awaited::Execution(id.to_owned())], limit).await?;
    let record = records.first().unwrap_or(&Value::Null);
    if record["state"] == "succeeded" {
        return print_result(record["result"].to_string().as_bytes());
    }
    Err(CliError::Failed(execution::outcome_report(record)))
}

/// The result as the handler's runtime wrote it, and one line end.
fn print_result(body: &[u8]) -> Result<()> {
    let mut text = body.to_vec();
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    output::print_bytes(&text)
}

fn failed(function: &str, refusal: &Refusal) -> CliError {
    let failure = refusal.failure.as_ref().unwrap_or(&Value::Null);
    let request_id = failure["request_id"].as_str().unwrap_or(&refusal.request_id);
    CliError::Failed(failure_report(function, failure, refusal.execution_id.as_deref(), request_id))
}
