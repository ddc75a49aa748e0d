//! The rules in code: one for each operation that needs an identity, one for each list that may show all projects, and
//! what they are put together of. Operators override them in files; what stands here is the sample.

/// How long a request of an operation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLimit {
    /// `[api] request_timeout`.
    Ordinary,
    /// Five times as long: megabytes are on their way.
    Upload,
    /// The handler bounds it: it waits for a function, or follows a log.
    Own,
}

/// An operation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its method.
    pub method: &'static str,
    /// Its path, as the OpenAPI document writes it.
    pub path: &'static str,
    /// How long it may take.
    pub time: TimeLimit,
}

/// A rule and its default, in the shape of oslo.policy's defaults in code.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name in policy files.
    pub name: &'static str,
    /// Who may, where no file says otherwise.
    pub check_str: &'static str,
    /// The scopes of tokens that it is for.
    pub scope_types: &'static [&'static str],
    /// What it decides.
    pub operations: &'static [Operation],
    /// What it decides, in words.
    pub description: &'static str,
}

/// Who is meant by a rule of an operation.
const READER: &str = "rule:project_reader_or_admin";
const MEMBER: &str = "rule:project_member_or_admin";
const ADMIN: &str = "rule:admin";

const PROJECT: &[&str] = &["project"];

/// Rules that others are put together of.
pub const BASE_RULES: &[Rule] = &[
    base("admin", "role:admin", "Operates the service, and sees and changes what every project has."),
    base("project_reader", "role:reader and project_id:%(project_id)s", "Sees what its project has."),
    base("project_member", "role:member and project_id:%(project_id)s", "Changes what its project has, and runs it."),
    base("project_reader_or_admin", "rule:project_reader or rule:admin", "Default of what only reads."),
    base("project_member_or_admin", "rule:project_member or rule:admin", "Default of what changes or runs something."),
];

const fn base(name: &'static str, check_str: &'static str, description: &'static str) -> Rule {
    Rule { name, check_str, scope_types: &[], operations: &[], description }
}

macro_rules! rules {
    ($($name:literal $who:ident $method:ident $path:literal $time:ident $description:literal;)*) => {
        &[$(Rule {
            name: $name,
            check_str: $who,
            scope_types: PROJECT,
            operations: &[Operation { method: stringify!($method), path: $path, time: TimeLimit::$time }],
            description: $description,
        }),*]
    };
}

/// The rule of every operation that needs an identity.
pub const RULES: &[Rule] = rules! {
    "functions:list" READER GET "/v1/functions" Ordinary "List functions.";
    "functions:create" MEMBER POST "/v1/functions" Upload "Create a function.";
    "functions:show" READER GET "/v1/functions/{function}" Ordinary "Show a function.";
    "functions:update" MEMBER PATCH "/v1/functions/{function}" Upload "Change a function.";
    "functions:delete" MEMBER DELETE "/v1/functions/{function}" Ordinary "Remove a function with its triggers.";
    "functions:download_code" READER GET "/v1/functions/{function}/code" Ordinary "Download the code of a function.";
    "functions:upload_code" MEMBER PUT "/v1/functions/{function}/code" Upload "Upload the code of a function.";
    "functions:invoke" MEMBER POST "/v1/functions/{function}/invocations" Own
        "Run a function with an event, waiting for its result or not.";
    "triggers:list" READER GET "/v1/triggers" Ordinary "List triggers.";
    "triggers:create" MEMBER POST "/v1/triggers" Ordinary "Bind events to a function.";
    "triggers:show" READER GET "/v1/triggers/{trigger}" Ordinary "Show a trigger.";
    "triggers:delete" MEMBER DELETE "/v1/triggers/{trigger}" Ordinary "Remove a trigger.";
    "events:post" MEMBER POST "/v1/events" Ordinary "Post events for the functions of the project.";
    "executions:list" READER GET "/v1/executions" Ordinary "List executions.";
    "executions:show" READER GET "/v1/executions/{execution}" Ordinary
        "Show an execution with its event and its result.";
    "executions:log" READER GET "/v1/executions/{execution}/log" Own "Read or follow the log of an execution.";
    "executions:cancel" MEMBER POST "/v1/executions/{execution}/cancel" Ordinary "Stop an execution.";
    "executions:redrive" MEMBER POST "/v1/executions/{execution}/redrive" Ordinary
        "Run an execution again that was given up.";
    "runtimes:list" READER GET "/v1/runtimes" Ordinary "List runtimes.";
    "runtimes:show" READER GET "/v1/runtimes/{runtime}" Ordinary "Show a runtime.";
    "workers:list" ADMIN GET "/v1/workers" Ordinary "List the workers of the service.";
    "instances:list" READER GET "/v1/instances" Ordinary "List the instances that were booted for the project.";
};

/// The rule of every list that may show the documents of all projects. It is asked besides the list's own rule, whose
/// name it has with [`ALL_PROJECTS`] behind it.
pub const ALL_PROJECTS_RULES: &[Rule] = rules! {
    "functions:list_all_projects" ADMIN GET "/v1/functions?all_projects=true" Ordinary
        "List the functions of all projects.";
    "triggers:list_all_projects" ADMIN GET "/v1/triggers?all_projects=true" Ordinary
        "List the triggers of all projects.";
    "executions:list_all_projects" ADMIN GET "/v1/executions?all_projects=true" Ordinary
        "List the executions of all projects.";
    "instances:list_all_projects" ADMIN GET "/v1/instances?all_projects=true" Ordinary
        "List the instances of all projects.";
};

/// What the name of a list's rule ends with, where the list is of all projects.
pub(in crate::api) const ALL_PROJECTS: &str = "_all_projects";

/// All of them, in the order of the sample.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    BASE_RULES.iter().chain(RULES).chain(ALL_PROJECTS_RULES)
}
