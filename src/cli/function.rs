//! `lambda function …`: functions and their code. Calling them is in [`invoke`].

mod invoke;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::StreamExt as _;
use reqwest::Method;
use reqwest::header::{ACCEPT, ETAG, IF_MATCH};
use serde_json::{Map, Value, json};

use super::client::{Call, Client};
use super::error::{CliError, Result};
use super::output::{Column, OutputArgs};
use super::package::{self, Package};
use super::trigger::BindingArgs;
use super::{all_projects, each, parameters, path_segment, progress};
use crate::model::function::FunctionName;

const COLUMNS: &[Column] = &[
    Column::listed("id"),
    Column::listed("name"),
    Column::listed("runtime"),
    Column::listed("handler"),
    Column::listed("memory"),
    Column::listed("timeout"),
    Column::listed("revision"),
    Column::listed("updated_at"),
    Column::other("description"),
    Column::other("environment"),
    Column::other("max_concurrency"),
    Column::other("provisioned_concurrency"),
    Column::other("isolation"),
    Column::other("max_attempts").at("retry.max_attempts"),
    Column::other("max_event_age").at("retry.max_event_age"),
    Column::other("dead_letter_queue"),
    Column::other("triggers"),
    Column::other("code_sha256").at("code.sha256"),
    Column::other("code_size").at("code.size"),
    Column::other("project_id"),
    Column::other("created_at"),
    Column::hidden("links"),
];

/// How often a change is tried again when somebody else changed the function meanwhile.
const RACES_MAX: usize = 5;

/// Functions and their code.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create a function.
    Create(CreateArgs),
    /// List functions.
    List(ListArgs),
    /// Show a function.
    Show(ShowArgs),
    /// Change a function; events that come after it run the new one.
    Set(SetArgs),
    /// Delete functions with their triggers.
    Delete(DeleteArgs),
    /// Call a function and print its result.
    Invoke(invoke::InvokeArgs),
    /// Work with a function's code.
    #[command(subcommand)]
    Code(CodeCommand),
}

/// Work with a function's code.
#[derive(Subcommand, Debug)]
pub enum CodeCommand {
    /// Save the code as a zip archive.
    Save(CodeSaveArgs),
}

/// `function create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Name of the new function.
    #[arg(value_parser = |text: &str| FunctionName::parse(text).map(|name| name.to_string()))]
    name: String,
    /// The code: a Python file, a zip archive, or a directory, which is packed without .git and __pycache__. For the
    /// runtime `provided` any other file is taken as its bootstrap program.
    #[arg(long, value_name = "FILE|DIR")]
    code: Option<PathBuf>,
    /// What runs the code; `lambda runtime list` shows what there is.
    #[arg(long, default_value = "python3")]
    runtime: String,
    #[command(flatten)]
    attributes: AttributeArgs,
    #[command(flatten)]
    binding: BindingArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `create` and `set` have in common.
#[derive(Args, Debug)]
struct AttributeArgs {
    /// What is called for an event: module.function. By default `handler` in the file, or in main.py of the directory.
    #[arg(long)]
    handler: Option<String>,
    /// Memory of one sandbox.
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Time that one event may take.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// An environment variable; may be given several times.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,
    /// A file of environment variables, one NAME=VALUE a line: what should not stand on a command line.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// A text for people.
    #[arg(long)]
    description: Option<String>,
    /// Most events handled at the same time.
    #[arg(long, value_name = "NUMBER")]
    max_concurrency: Option<u32>,
    /// Sandboxes that are kept started, also when no event comes; 0: none.
    #[arg(long, value_name = "NUMBER")]
    provisioned_concurrency: Option<u32>,
    /// How strongly it must be separated from others, at least: container or vm.
    #[arg(long, value_name = "KIND")]
    isolation: Option<String>,
    /// How often an event is tried, the first time included.
    #[arg(long, value_name = "NUMBER")]
    max_attempts: Option<u32>,
    /// Age at which an event is given up.
    #[arg(long, value_name = "SECONDS")]
    max_event_age: Option<u32>,
    /// The queue for events that were given up.
    #[arg(long, value_name = "QUEUE")]
    dead_letter_queue: Option<String>,
}

/// `function list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only the one of this name.
    #[arg(long)]
    name: Option<String>,
    /// Only those of this runtime.
    #[arg(long)]
    runtime: Option<String>,
    /// Those of all projects (for operators).
    #[arg(long)]
    all_projects: bool,
    /// At most so many.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    #[command(flatten)]
    output: OutputArgs,
}

/// `function show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Name or id of the function.
    #[arg(value_parser = path_segment)]
    function: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// `function set`.
#[derive(Args, Debug)]
pub struct SetArgs {
    /// Name or id of the function.
    #[arg(value_parser = path_segment)]
    function: String,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// New code: a Python file, a zip archive or a directory.
    #[arg(long, value_name = "FILE|DIR")]
    code: Option<PathBuf>,
    /// What runs the code.
    #[arg(long)]
    runtime: Option<String>,
    #[command(flatten)]
    attributes: AttributeArgs,
    /// Remove an environment variable; may be given several times.
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,
    /// Remove the function's own limit of concurrent events.
    #[arg(long, conflicts_with = "max_concurrency")]
    no_max_concurrency: bool,
    /// Leave it to the service how strongly it is separated from others.
    #[arg(long, conflicts_with = "isolation")]
    no_isolation: bool,
    /// Use the platform's dead letter queue.
    #[arg(long, conflicts_with = "dead_letter_queue")]
    no_dead_letter_queue: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// `function delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Names or ids of the functions.
    #[arg(required = true, value_name = "FUNCTION", value_parser = path_segment)]
    functions: Vec<String>,
}

/// `function code save`.
#[derive(Args, Debug)]
pub struct CodeSaveArgs {
    /// Name or id of the function.
    #[arg(value_parser = path_segment)]
    function: String,
    /// Where to save it; `-`: standard output.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// As [`CliError`] says.
    pub async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Create(args) => create(client, args).await,
            Self::List(args) => list(client, args).await,
            Self::Show(args) => {
                let function = client.get(&["functions", &args.function]).json_answer().await?;
                args.output.print_object(COLUMNS, &function)
            }
            Self::Set(args) => set(client, args).await,
            Self::Delete(args) => {
                each("deleted", &args.functions, async |function| {
                    client.call(Method::DELETE, &["functions", &function]).send().await.map(drop)
                })
                .await
            }
            Self::Invoke(args) => invoke::run(client, args).await,
            Self::Code(CodeCommand::Save(args)) => save(client, args).await,
        }
    }
}

async fn list(client: &Client, args: ListArgs) -> Result<()> {
    let query = parameters([("name", args.name), ("runtime", args.runtime), all_projects(args.all_projects)]);
    let listing = client.list("functions", &query, args.limit).await?;
    args.output.print_list(COLUMNS, &listing.rows)
}

async fn create(client: &Client, args: CreateArgs) -> Result<()> {
    args.output.check(COLUMNS)?;
    let package = args.code.as_deref().map(|path| package::read(path, &args.runtime)).transpose()?;
    let mut body = args.attributes.document();
    body.insert("name".to_owned(), json!(args.name));
    body.insert("runtime".to_owned(), json!(args.runtime));
    if !body.contains_key("handler")
        && let Some(handler) = suggested_handler(args.code.as_deref(), package.as_ref(), &args.runtime)?
    {
        body.insert("handler".to_owned(), json!(handler));
    }
    let environment = args.attributes.variables()?;
    if !environment.is_empty() {
        body.insert("environment".to_owned(), environment.into());
    }
    if let Some(trigger) = args.binding.trigger()? {
        body.insert("triggers".to_owned(), json!([trigger]));
    }
    // One request makes function, code and triggers: no event can meet a function that is half made.
    let function = send(client.post(&["functions"]), body, package).await?;
    args.output.print_object(COLUMNS, &function)
}

/// Sends a function or a change of one, with its code.
async fn send(call: Call<'_>, mut body: Map<String, Value>, package: Option<Package>) -> Result<Value> {
    let Some(package) = package else {
        return call.json(&Value::Object(body)).json_answer().await;
    };
    let archive = base64::engine::general_purpose::STANDARD.encode(package.archive);
    body.insert("code".to_owned(), json!({ "zip": archive }));
    let body = Bytes::from(Value::Object(body).to_string());
    let bar = progress::bytes("uploading", body.len() as u64);
    let result = call.body("application/json", body).progress(bar.clone()).json_answer().await;
    bar.finish_and_clear();
    result
}

/// The handler that the code suggests; none: the service's default for the runtime.
fn suggested_handler(path: Option<&Path>, package: Option<&Package>, runtime: &str) -> Result<Option<String>> {
    match (path, package) {
        (Some(path), Some(Package { handler: None, .. })) if path.is_dir() && runtime != "provided" => {
            Err(CliError::Usage(format!(
                "there is no main.py in {}: say with --handler module.function what to call",
                path.display()
            )))
        }
        (_, package) => Ok(package.and_then(|package| package.handler.clone())),
    }
}

/// The handler for new code in which the old one cannot be: another Python file brings another module.
fn moved_handler(package: &Package, function: &Value) -> Option<String> {
    let module = package.module.as_deref()?;
    let (old_module, name) = function["handler"].as_str()?.rsplit_once('.')?;
    (old_module != module).then(|| format!("{module}.{name}"))
}

async fn set(client: &Client, args: SetArgs) -> Result<()> {
    args.output.check(COLUMNS)?;
    let mut change = args.attributes.document();
    let optional = [("name", &args.name), ("runtime", &args.runtime)];
    change.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))));
    let cleared = [
        ("max_concurrency", args.no_max_concurrency),
        ("isolation", args.no_isolation),
        ("dead_letter_queue", args.no_dead_letter_queue),
    ];
    change.extend(cleared.into_iter().filter(|(_, clear)| *clear).map(|(name, _)| (name.to_owned(), Value::Null)));
    let variables = args.attributes.variables()?;
    let changes_environment = !variables.is_empty() || !args.unset_env.is_empty();
    if change.is_empty() && !changes_environment && args.code.is_none() {
        return Err(CliError::Usage("nothing to change was given".to_owned()));
    }
    let mut races = 0;
    let function = loop {
        let (function, etag) = if changes_environment || args.code.is_some() {
            read(client, &args.function).await?
        } else {
            (Value::Null, None)
        };
        let runtime = args.runtime.as_deref().or(function["runtime"].as_str()).unwrap_or_default();
        let package = args.code.as_deref().map(|path| package::read(path, runtime)).transpose()?;
        let mut change = change.clone();
        if let Some(handler) = package.as_ref().and_then(|package| moved_handler(package, &function))
            && !change.contains_key("handler")
        {
            change.insert("handler".to_owned(), json!(handler));
        }
        let mut call = client.call(Method::PATCH, &["functions", &args.function]);
        if changes_environment {
            // The service replaces all variables at once, so a change of some needs those that are there, unchanged.
            let mut environment = function["environment"].as_object().cloned().unwrap_or_default();
            environment.retain(|name, _| !args.unset_env.contains(name));
            environment.extend(variables.clone());
            change.insert("environment".to_owned(), environment.into());
            call = etag.iter().fold(call, |call, etag| call.header(IF_MATCH, etag));
        }
        match send(call, change, package).await {
            Ok(function) => break function,
            Err(error) if error.is_status(412) && races < RACES_MAX => races += 1,
            Err(error) => return Err(error),
        }
    };
    args.output.print_object(COLUMNS, &function)
}

/// A function and the tag of its revision.
async fn read(client: &Client, function: &str) -> Result<(Value, Option<String>)> {
    let answer = client.get(&["functions", function]).send().await?;
    let etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    let function = serde_json::from_slice(&answer.body).map_err(|_| client.not_ours("an answer that is not JSON"))?;
    Ok((function, etag))
}

async fn save(client: &Client, args: CodeSaveArgs) -> Result<()> {
    let call = client.get(&["functions", &args.function, "code"]).header(ACCEPT, "application/zip, */*;q=0.1");
    let mut pieces = call.timeout(None).stream().await?.bytes_stream();
    let broken = |error: reqwest::Error| CliError::Failed(format!("the code did not arrive: {error}"));
    if args.file.as_os_str() == "-" {
        while let Some(piece) = pieces.next().await {
            super::output::print_bytes(&piece.map_err(broken)?)?;
        }
        return Ok(());
    }
    let unwritable =
        |error: std::io::Error| CliError::Failed(format!("{} cannot be written: {error}", args.file.display()));
    let mut file = std::fs::File::create(&args.file).map_err(unwritable)?;
    while let Some(piece) = pieces.next().await {
        std::io::Write::write_all(&mut file, &piece.map_err(broken)?).map_err(unwritable)?;
    }
    Ok(())
}

impl AttributeArgs {
    /// What was given, as the service names it, but for the environment.
    fn document(&self) -> Map<String, Value> {
        let mut document = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                document.insert(name.to_owned(), value);
            }
        };
        put("handler", self.handler.as_ref().map(|text| json!(text)));
        put("memory", self.memory.map(Value::from));
        put("timeout", self.timeout.map(Value::from));
        put("description", self.description.as_ref().map(|text| json!(text)));
        put("max_concurrency", self.max_concurrency.map(Value::from));
        put("provisioned_concurrency", self.provisioned_concurrency.map(Value::from));
        put("isolation", self.isolation.as_ref().map(|text| json!(text)));
        put("dead_letter_queue", self.dead_letter_queue.as_ref().map(|text| json!(text)));
        let retry: Map<_, _> = [("max_attempts", self.max_attempts), ("max_event_age", self.max_event_age)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), json!(value?))))
            .collect();
        put("retry", (!retry.is_empty()).then(|| retry.into()));
        document
    }

    /// The environment variables that were given; those of `--env` over those of the file.
    fn variables(&self) -> Result<Map<String, Value>> {
        let mut variables = Map::new();
        if let Some(path) = &self.env_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| CliError::Usage(format!("--env-file: {} cannot be read: {error}", path.display())))?;
            for (number, line) in text.lines().enumerate() {
                if line.trim().is_empty() || line.trim_start().starts_with('#') {
                    continue;
                }
                // The line itself is not shown: it may hold a secret.
                let (name, value) = variable(line).map_err(|why| {
                    CliError::Usage(format!("--env-file: {}, line {}: {why}", path.display(), number + 1))
                })?;
                variables.insert(name, value.into());
            }
        }
        variables.extend(self.environment.iter().map(|(name, value)| (name.clone(), json!(value))));
        Ok(variables)
    }
}

fn variable(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}
