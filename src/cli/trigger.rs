//! `lambda trigger …`: which events go to which function.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::error::{CliError, Result};
use super::output::{Column, OutputArgs};
use super::{all_projects, each, json_argument, parameters, path_segment};

const COLUMNS: &[Column] = &[
    Column::listed("id"),
    Column::listed("function_id"),
    Column::listed("source"),
    Column::listed("type"),
    Column::listed("filter"),
    Column::listed("queue"),
    Column::listed("status"),
    Column::other("status_reason"),
    Column::other("status_message"),
    Column::other("project_id"),
    Column::other("created_at"),
    Column::hidden("links"),
];

/// Which events go to which function.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Bind events to a function.
    Create(CreateArgs),
    /// List triggers.
    List(ListArgs),
    /// Show a trigger.
    Show(ShowArgs),
    /// Delete triggers.
    Delete(DeleteArgs),
}

/// Which events are meant. What is not given may be anything.
#[derive(Args, Debug)]
pub struct BindingArgs {
    /// The `source` of the events to bind to; `*` at the end stands for anything.
    #[arg(long)]
    source: Option<String>,
    /// Their `type`; `*` at the end stands for anything.
    #[arg(long = "type", id = "event_type", value_name = "TYPE")]
    event_type: Option<String>,
    /// What else must hold, such as '{"suffix": {"data.name": ".png"}}': JSON, `@file`, or `-`.
    #[arg(long, value_name = "JSON|@FILE|-")]
    filter: Option<String>,
}

/// `trigger create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Name or id of the function.
    function: String,
    #[command(flatten)]
    binding: BindingArgs,
    /// A queue of the project's own: its messages are the events. Without --source and --type: all of them.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Most messages that are taken from the queue at once, 1 to 20.
    #[arg(long, value_name = "NUMBER", requires = "queue")]
    batch_size: Option<u32>,
    #[command(flatten)]
    output: OutputArgs,
}

/// `trigger list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only those of this function, by name or id.
    #[arg(long)]
    function: Option<String>,
    /// Those of all projects (for operators).
    #[arg(long)]
    all_projects: bool,
    /// At most so many.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    #[command(flatten)]
    output: OutputArgs,
}

/// `trigger show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Id of the trigger.
    #[arg(value_parser = path_segment)]
    trigger: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// `trigger delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Ids of the triggers.
    #[arg(required = true, value_name = "TRIGGER", value_parser = path_segment)]
    triggers: Vec<String>,
}

impl BindingArgs {
    /// The trigger as the service takes it; none: none was asked for.
    ///
    /// # Errors
    /// When the filter is not JSON.
    pub fn trigger(&self) -> Result<Option<Map<String, Value>>> {
        let mut trigger = Map::new();
        for (name, value) in [("source", &self.source), ("type", &self.event_type)] {
            trigger.extend(value.iter().map(|value| (name.to_owned(), json!(value))));
        }
        if let Some(filter) = &self.filter {
            let filter = serde_json::from_str(json_argument("--filter", filter)?.get()).unwrap_or(Value::Null);
            trigger.insert("filter".to_owned(), filter);
        }
        Ok((!trigger.is_empty()).then_some(trigger))
    }
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// As [`CliError`] says.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Create(args) => {
                args.output.check(COLUMNS)?;
                let mut body = match (args.binding.trigger()?, &args.queue) {
                    (Some(body), _) => body,
                    (None, Some(_)) => Map::new(),
                    (None, None) => {
                        let why = "say which events: --source, --type, --filter or --queue";
                        return Err(CliError::Usage(why.to_owned()));
                    }
                };
                if let Some(name) = &args.queue {
                    let mut queue = Map::new();
                    queue.insert("name".to_owned(), json!(name));
                    queue.extend(args.batch_size.map(|size| ("batch_size".to_owned(), json!(size))));
                    body.insert("queue".to_owned(), queue.into());
                }
                body.insert("function".to_owned(), json!(args.function));
                let created = client.post(&["triggers"]).json(&body.into()).json_answer().await?;
                args.output.print_object(COLUMNS, &created)
            }
            Self::List(args) => {
                let query = parameters([("function", args.function), all_projects(args.all_projects)]);
                let listing = client.list("triggers", &query, args.limit).await?;
                args.output.print_list(COLUMNS, &listing.rows)
            }
            Self::Show(args) => {
                let trigger = client.get(&["triggers", &args.trigger]).json_answer().await?;
                args.output.print_object(COLUMNS, &trigger)
            }
            Self::Delete(args) => {
                each("deleted", &args.triggers, async |trigger| {
                    client.call(Method::DELETE, &["triggers", &trigger]).send().await.map(drop)
                })
                .await
            }
        }
    }
}
