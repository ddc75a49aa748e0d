//! Who may do what: one rule for each operation, in the shape of oslo.policy's defaults in code. A route without a
//! rule is refused, so none can be forgotten; a test compares the table with the OpenAPI document.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::{ApiError, Code};
use super::identity::Identity;

/// What a caller must be. Each one implies those before it, as Keystone's default roles do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees what the project has.
    Reader,
    /// Changes it, and runs it.
    Member,
    /// Operates the service and sees all projects.
    Admin,
}

impl Role {
    /// The role's name in Keystone.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }
}

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

/// The rule of one operation.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name in policy files.
    pub name: &'static str,
    /// The operation.
    pub method: &'static str,
    /// Its path, as the OpenAPI document writes it.
    pub path: &'static str,
    /// Who may.
    pub role: Role,
    /// How long it may take.
    pub time: TimeLimit,
}

const fn rule_of(name: &'static str, method: &'static str, path: &'static str, role: Role) -> Rule {
    Rule { name, method, path, role, time: TimeLimit::Ordinary }
}

const fn taking(rule: Rule, time: TimeLimit) -> Rule {
    Rule { time, ..rule }
}

/// Every operation that needs an identity.
pub const RULES: &[Rule] = &[
    rule_of("functions:list", "GET", "/v1/functions", Role::Reader),
    taking(rule_of("functions:create", "POST", "/v1/functions", Role::Member), TimeLimit::Upload),
    rule_of("functions:show", "GET", "/v1/functions/{function}", Role::Reader),
    taking(rule_of("functions:update", "PATCH", "/v1/functions/{function}", Role::Member), TimeLimit::Upload),
    rule_of("functions:delete", "DELETE", "/v1/functions/{function}", Role::Member),
    rule_of("functions:download_code", "GET", "/v1/functions/{function}/code", Role::Reader),
    taking(rule_of("functions:upload_code", "PUT", "/v1/functions/{function}/code", Role::Member), TimeLimit::Upload),
    taking(rule_of("functions:invoke", "POST", "/v1/functions/{function}/invocations", Role::Member), TimeLimit::Own),
    rule_of("triggers:list", "GET", "/v1/triggers", Role::Reader),
    rule_of("triggers:create", "POST", "/v1/triggers", Role::Member),
    rule_of("triggers:show", "GET", "/v1/triggers/{trigger}", Role::Reader),
    rule_of("triggers:delete", "DELETE", "/v1/triggers/{trigger}", Role::Member),
    rule_of("events:post", "POST", "/v1/events", Role::Member),
    rule_of("executions:list", "GET", "/v1/executions", Role::Reader),
    rule_of("executions:show", "GET", "/v1/executions/{execution}", Role::Reader),
    taking(rule_of("executions:log", "GET", "/v1/executions/{execution}/log", Role::Reader), TimeLimit::Own),
    rule_of("executions:cancel", "POST", "/v1/executions/{execution}/cancel", Role::Member),
    rule_of("executions:redrive", "POST", "/v1/executions/{execution}/redrive", Role::Member),
    rule_of("runtimes:list", "GET", "/v1/runtimes", Role::Reader),
    rule_of("runtimes:show", "GET", "/v1/runtimes/{runtime}", Role::Reader),
    rule_of("workers:list", "GET", "/v1/workers", Role::Admin),
    rule_of("instances:list", "GET", "/v1/instances", Role::Reader),
];

/// The rule of an operation. `HEAD` is what `GET` is.
pub(super) fn rule(method: &Method, path: &str) -> Option<&'static Rule> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    RULES.iter().find(|rule| rule.method == method && rule.path == path)
}

/// The layer that holds every request against its rule. Behind the one that finds out who calls.
pub(super) async fn enforce(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let Some(rule) = rule(request.method(), &path) else {
        // No rule is for a method that the route does not have: the router shall say so.
        if RULES.iter().any(|rule| rule.path == path) {
            return next.run(request).await;
        }
        return ApiError::internal(format!("no policy rule for {path}")).into_response();
    };
    let allowed = request.extensions().get::<Identity>().is_some_and(|identity| identity.may(rule.role));
    if !allowed {
        return ApiError::new(
            Code::PolicyDenied,
            format!("'{}' needs the role '{}' in this project", rule.name, rule.role.name()),
        )
        .into_response();
    }
    next.run(request).await
}
