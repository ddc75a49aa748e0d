//! What a function's making and changing may say, and how it becomes a function.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::error::{ApiError, Code, Result};
use crate::api::input::present;
use crate::api::packages::{CodeBody, NewArchive, NewCode};
use crate::api::runtimes;
use crate::api::triggers::TriggerBody;
use crate::model::function::{
    DESCRIPTION_MAX, Environment, FunctionName, Handler, MaxAttempts, MaxEventAgeSeconds, MemoryMib, QueueName,
    RetryPolicy, TimeoutSeconds,
};
use crate::model::instance::Isolation;
use crate::model::runtime::RuntimeName;
use crate::model::{Function, FunctionId, Invalid, ProjectId, Timestamp, Trigger};

/// The runtime of a function that names none.
const DEFAULT_RUNTIME: &str = "python3";

/// Most triggers that a function is made with.
const TRIGGERS_MAX: usize = 50;

/// A function to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct FunctionCreate {
    /// Its name, unique in the project: 1 to 64 letters, digits, `_`, `-`, `.`.
    #[schema(example = "word-count")]
    name: String,
    /// What runs the code, of `/v1/runtimes`. Default: `python3`.
    #[schema(example = "python3")]
    runtime: Option<String>,
    /// What is called for an event. Default: `main.handler` for `python3`, `bootstrap` for `provided`.
    #[schema(example = "main.handler")]
    handler: Option<String>,
    /// Memory of a sandbox, in MiB. Default: 128.
    #[schema(minimum = 64, maximum = 10240)]
    memory: Option<u32>,
    /// Time for one event, in seconds. Default: 30.
    #[schema(minimum = 1, maximum = 900)]
    timeout: Option<u32>,
    /// Variables of the process; together at most 4 KiB.
    environment: Option<BTreeMap<String, String>>,
    /// Free text of at most 256 characters.
    #[schema(max_length = 256)]
    description: Option<String>,
    /// Most events handled at the same time. Default: as the service allows.
    #[schema(minimum = 1)]
    max_concurrency: Option<u32>,
    /// Sandboxes that are kept started, also when no event comes; at most `max_concurrency`, and as many as the operator
    /// allows. Default: 0.
    #[schema(minimum = 0)]
    provisioned_concurrency: Option<u32>,
    /// How strongly it must be separated from others, at least: `container` or `vm`. Default: as the service does.
    #[schema(example = "vm")]
    isolation: Option<String>,
    /// When an event is given up.
    retry: Option<RetryBody>,
    /// The Zaqar queue for events that were given up. Default: the service's own.
    dead_letter_queue: Option<String>,
    /// What it is bound to.
    triggers: Option<Vec<TriggerBody>>,
    /// Its code.
    code: Option<CodeBody>,
}

/// When an event is given up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct RetryBody {
    /// Attempts, the first included. Default: 3.
    #[schema(minimum = 1, maximum = 20)]
    max_attempts: Option<u32>,
    /// Age of the event, in seconds. Default: 6 hours.
    #[schema(minimum = 10, maximum = 1_209_600)]
    max_event_age: Option<u32>,
}

/// What is made from a body that is in order.
pub(in crate::api) struct Prepared {
    /// The function, without its package.
    pub function: Function,
    /// Its first triggers.
    pub triggers: Vec<Trigger>,
    /// Its code.
    pub code: Option<NewArchive>,
}

impl FunctionCreate {
    /// Checks each attribute.
    pub fn prepare(self, project: &ProjectId, now: Timestamp) -> Result<Prepared> {
        let (function, triggers) =
            self.build(project, now).map_err(|wrong| ApiError::invalid(Code::FunctionInvalid, &wrong))?;
        let code = self.code.map(|code| NewCode::try_from(code)?.for_function(&function)).transpose()?;
        Ok(Prepared { function, triggers, code })
    }

    fn build(&self, project: &ProjectId, now: Timestamp) -> std::result::Result<(Function, Vec<Trigger>), Invalid> {
        let runtime = runtime(self.runtime.as_deref())?;
        let function = Function {
            id: FunctionId::generate(),
            project_id: project.clone(),
            name: FunctionName::parse(&self.name)?,
            description: description(self.description.as_deref())?,
            handler: handler(self.handler.as_deref(), &runtime)?,
            runtime,
            memory: self.memory.map(MemoryMib::new).transpose()?.unwrap_or_default(),
            timeout: self.timeout.map(TimeoutSeconds::new).transpose()?.unwrap_or_default(),
            environment: Environment::parse(self.environment.clone().unwrap_or_default())?,
            max_concurrency: concurrency(self.max_concurrency)?,
            provisioned_concurrency: self.provisioned_concurrency.and_then(NonZeroU32::new),
            isolation: self.isolation.as_deref().map(Isolation::parse).transpose()?,
            retry: self
                .retry
                .as_ref()
                .map_or(Ok(RetryPolicy::default()), |retry| retry.over(RetryPolicy::default()))?,
            dead_letter_queue: queue(self.dead_letter_queue.as_deref())?,
            package: None,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        check_provisioned(&function)?;
        let bodies = self.triggers.as_deref().unwrap_or_default();
        if bodies.len() > TRIGGERS_MAX {
            return Err(Invalid::new("triggers", format!("are {}; at most {TRIGGERS_MAX} are taken", bodies.len())));
        }
        let triggers = bodies
            .iter()
            .enumerate()
            .map(|(place, body)| {
                body.bind(&function.project_id, function.id, now)
                    .map_err(|wrong| Invalid::new(format!("triggers[{place}].{}", wrong.field), wrong.reason))
            })
            .collect::<std::result::Result<_, _>>()?;
        Ok((function, triggers))
    }
}

impl RetryBody {
    /// The policy with what this says.
    fn over(&self, policy: RetryPolicy) -> std::result::Result<RetryPolicy, Invalid> {
        Ok(RetryPolicy {
            max_attempts: self.max_attempts.map(MaxAttempts::new).transpose()?.unwrap_or(policy.max_attempts),
            max_event_age: self.max_event_age.map(MaxEventAgeSeconds::new).transpose()?.unwrap_or(policy.max_event_age),
        })
    }
}

/// A change of a function. What is absent stays as it is; `null` sets the default. Triggers have their own route.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct FunctionUpdate {
    /// Its new name.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    /// What runs the code.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    runtime: Option<Option<String>>,
    /// What is called for an event.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    handler: Option<Option<String>>,
    /// Memory of a sandbox, in MiB.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 64, maximum = 10240)]
    memory: Option<Option<u32>>,
    /// Time for one event, in seconds.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 900)]
    timeout: Option<Option<u32>>,
    /// Variables of the process; they replace all that were there.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    environment: Option<Option<BTreeMap<String, String>>>,
    /// Free text of at most 256 characters.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// Most events handled at the same time.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    max_concurrency: Option<Option<u32>>,
    /// Sandboxes that are kept started, also when no event comes.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>, minimum = 0)]
    provisioned_concurrency: Option<Option<u32>>,
    /// How strongly it must be separated from others, at least: `container` or `vm`.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    isolation: Option<Option<String>>,
    /// When an event is given up; an attribute that is not given stays.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<RetryBody>)]
    retry: Option<Option<RetryBody>>,
    /// The Zaqar queue for events that were given up.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    dead_letter_queue: Option<Option<String>>,
    /// New code; it cannot be taken away.
    code: Option<CodeBody>,
}

/// A change whose code is decoded; the rest is held against the function that it is applied to.
pub(in crate::api) struct Changes {
    attributes: FunctionUpdate,
    code: Option<NewCode>,
}

impl TryFrom<FunctionUpdate> for Changes {
    type Error = ApiError;

    fn try_from(mut attributes: FunctionUpdate) -> Result<Self> {
        let code = attributes.code.take().map(NewCode::try_from).transpose()?;
        Ok(Self { attributes, code })
    }
}

impl Changes {
    /// Changes a function, and says what its code shall be if that changes too.
    pub fn apply(&self, function: &mut Function) -> Result<Option<NewArchive>> {
        self.attributes.apply(function).map_err(|wrong| ApiError::invalid(Code::FunctionInvalid, &wrong))?;
        self.code.as_ref().map(|code| code.for_function(function)).transpose()
    }
}

impl FunctionUpdate {
    fn apply(&self, function: &mut Function) -> std::result::Result<(), Invalid> {
        if let Some(name) = &self.name {
            let name = name.as_deref().ok_or_else(|| Invalid::new("name", "must not be null"))?;
            function.name = FunctionName::parse(name)?;
        }
        if let Some(name) = &self.runtime {
            function.runtime = runtime(name.as_deref())?;
        }
        if let Some(text) = &self.handler {
            function.handler = handler(text.as_deref(), &function.runtime)?;
        }
        if let Some(memory) = self.memory {
            function.memory = memory.map(MemoryMib::new).transpose()?.unwrap_or_default();
        }
        if let Some(timeout) = self.timeout {
            function.timeout = timeout.map(TimeoutSeconds::new).transpose()?.unwrap_or_default();
        }
        if let Some(environment) = &self.environment {
            function.environment = Environment::parse(environment.clone().unwrap_or_default())?;
        }
        if let Some(text) = &self.description {
            function.description = description(text.as_deref())?;
        }
        if let Some(most) = self.max_concurrency {
            function.max_concurrency = concurrency(most)?;
        }
        if let Some(kept) = self.provisioned_concurrency {
            function.provisioned_concurrency = kept.and_then(NonZeroU32::new);
        }
        if let Some(isolation) = &self.isolation {
            function.isolation = isolation.as_deref().map(Isolation::parse).transpose()?;
        }
        if let Some(retry) = &self.retry {
            function.retry = match retry {
                Some(retry) => retry.over(function.retry)?,
                None => RetryPolicy::default(),
            };
        }
        if let Some(name) = &self.dead_letter_queue {
            function.dead_letter_queue = queue(name.as_deref())?;
        }
        // These belong together, whichever of them was changed.
        check_provisioned(function)?;
        runtimes::check_handler(&function.runtime, &function.handler)
    }
}

/// Refuses what no driver of the service gives.
pub(in crate::api) fn check_isolation(function: &Function, offered: &[Isolation]) -> Result<()> {
    match function.isolation {
        Some(wanted) if !offered.iter().any(|isolation| *isolation >= wanted) => {
            let names: Vec<_> = offered.iter().map(|isolation| isolation.as_str()).collect();
            let reason = format!("'{wanted}' is not offered by this service; there is: {}", names.join(", "));
            Err(ApiError::invalid(Code::FunctionInvalid, &Invalid::new("isolation", reason)))
        }
        Some(_) | None => Ok(()),
    }
}

fn runtime(name: Option<&str>) -> std::result::Result<RuntimeName, Invalid> {
    let name = RuntimeName::parse(name.unwrap_or(DEFAULT_RUNTIME))?;
    runtimes::known(&name).map(|_| name)
}

fn handler(text: Option<&str>, runtime: &RuntimeName) -> std::result::Result<Handler, Invalid> {
    let handler = match text {
        Some(text) => Handler::parse(text)?,
        None => runtimes::default_handler(runtime)?,
    };
    runtimes::check_handler(runtime, &handler)?;
    Ok(handler)
}

fn description(text: Option<&str>) -> std::result::Result<String, Invalid> {
    let text = text.unwrap_or_default();
    if text.chars().nth(DESCRIPTION_MAX).is_some() || text.contains('\0') {
        return Err(Invalid::new("description", format!("must be at most {DESCRIPTION_MAX} characters without NUL")));
    }
    Ok(text.to_owned())
}

fn concurrency(most: Option<u32>) -> std::result::Result<Option<NonZeroU32>, Invalid> {
    most.map(|most| NonZeroU32::new(most).ok_or_else(|| Invalid::new("max_concurrency", "must be at least 1, or null")))
        .transpose()
}

/// What is kept started must be allowed to run.
fn check_provisioned(function: &Function) -> std::result::Result<(), Invalid> {
    match (function.provisioned_concurrency, function.max_concurrency) {
        (Some(kept), Some(most)) if kept > most => {
            let reason = format!("must be at most max_concurrency, which is {most}");
            Err(Invalid::new("provisioned_concurrency", reason))
        }
        (Some(_) | None, _) => Ok(()),
    }
}

fn queue(name: Option<&str>) -> std::result::Result<Option<QueueName>, Invalid> {
    name.map(|name| QueueName::parse(name).map_err(|wrong| Invalid::new("dead_letter_queue", wrong.reason))).transpose()
}
