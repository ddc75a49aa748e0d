//! `lambda event post`: puts CloudEvents on the service's queue, and can wait for what becomes of them.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::Client;
use super::error::{CliError, Result};
use super::execution;
use super::json_argument;
use super::output::{Column, OutputArgs};
use super::wait::{self, Awaited};

const COLUMNS: &[Column] = &[Column::listed("id"), Column::listed("message_id")];

/// Events.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Post one event, or those of a file.
    Post(PostArgs),
}

/// `event post`.
#[derive(Args, Debug)]
pub struct PostArgs {
    /// Where it happened.
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    source: Option<String>,
    /// What happened, such as file.created.
    #[arg(
        long = "type",
        id = "event_type",
        value_name = "TYPE",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    event_type: Option<String>,
    /// What the handler is to know about it: JSON, `@file`, or `-` for standard input.
    #[arg(long, value_name = "JSON|@FILE|-", conflicts_with = "file")]
    data: Option<String>,
    /// What it happened to.
    #[arg(long, conflicts_with = "file")]
    subject: Option<String>,
    /// The event's id; a new one when absent.
    #[arg(long, conflicts_with = "file")]
    id: Option<String>,
    /// A file with one event, or an array of events, as CloudEvents in JSON; `-`: standard input.
    #[arg(long, value_name = "EVENTS.json")]
    file: Option<String>,
    /// Wait until the events are handled, and show the executions. Fails if one of them did.
    #[arg(long)]
    wait: bool,
    /// With --wait: how long.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    wait_timeout: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// A CloudEvent as it is posted. Its data is passed on as it was written.
#[derive(Serialize)]
struct NewEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// As [`CliError`] says.
    pub async fn run(self, client: &Client) -> Result<()> {
        let Self::Post(args) = self;
        args.output.check(if args.wait { execution::COLUMNS } else { COLUMNS })?;
        let (content_type, body) = args.body()?;
        let mut answer = client.post(&["events"]).body(content_type, body).json_answer().await?;
        let Value::Array(events) = answer["events"].take() else {
            return Err(client.not_ours("a receipt without 'events'"));
        };
        if !args.wait {
            return args.output.print_list(COLUMNS, &events);
        }
        let ids = events.iter().filter_map(|event| event["id"].as_str());
        let awaited: Vec<_> = ids.map(|id| Awaited::Event(id.to_owned())).collect();
        let records = wait::until_finished(client, &awaited, Duration::from_secs(args.wait_timeout)).await?;
        args.output.print_list(execution::COLUMNS, &records)?;
        wait::verdict(&records)
    }
}

impl PostArgs {
    fn body(&self) -> Result<(&'static str, Bytes)> {
        if let Some(file) = &self.file {
            let name = if file == "-" { file.clone() } else { format!("@{file}") };
            let events = json_argument("--file", &name)?;
            let batch = events.get().trim_start().starts_with('[');
            let kind = if batch { "application/cloudevents-batch+json" } else { "application/cloudevents+json" };
            return Ok((kind, Bytes::from(events.get().to_owned())));
        }
        let (Some(source), Some(event_type)) = (&self.source, &self.event_type) else {
            return Err(CliError::Usage("--source and --type, or --file, are needed".to_owned()));
        };
        let event = NewEvent {
            specversion: "1.0",
            // Chosen here, so that it is the same in whatever repeats the request on the way.
            id: self.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            source,
            event_type,
            subject: self.subject.as_deref(),
            data: self.data.as_deref().map(|data| json_argument("--data", data)).transpose()?,
        };
        let body = serde_json::to_vec(&event).map_err(|error| CliError::Usage(format!("--data: {error}")))?;
        Ok(("application/cloudevents+json", body.into()))
    }
}
