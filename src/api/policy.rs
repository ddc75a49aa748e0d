//! Holds every request against its policy rule, before its handler is asked. A route without a rule is refused, so none
//! can be forgotten; a test compares the table with the OpenAPI document.
//!
//! A rule is asked twice. Once with the caller's own project as the target's: only who may then is let through. And once
//! for a target that belongs to no project: who may even then, as an admin does, may do it to the documents of every
//! project, and only then does the store look beyond the caller's own ([`Granted`]). So a rule that lets a caller act in
//! a single other project, by naming it, has no effect: the store would have to be read before the question is asked.

mod rules;
mod sample;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Api;
use super::error::{ApiError, Code};
use super::identity::Identity;
use crate::policy::check::Attributes;
use crate::policy::{DefaultRule, Rules};

pub use rules::{ALL_PROJECTS_RULES, BASE_RULES, Operation, RULES, Rule, TimeLimit};
pub use sample::policy_sample;

/// What a policy engine must know of the rules.
#[must_use]
pub fn default_rules() -> Vec<DefaultRule> {
    rules::all()
        .map(|rule| DefaultRule { name: rule.name, check_str: rule.check_str, scope_types: rule.scope_types })
        .collect()
}

/// The rule of an operation, and the operation. `HEAD` is what `GET` is.
pub(super) fn rule(method: &Method, path: &str) -> Option<(&'static Rule, &'static Operation)> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let operations = RULES.iter().flat_map(|rule| rule.operations.iter().map(move |operation| (rule, operation)));
    operations.into_iter().find(|(_, operation)| operation.method == method && operation.path == path)
}

fn has_route(path: &str) -> bool {
    RULES.iter().flat_map(|rule| rule.operations).any(|operation| operation.path == path)
}

/// What a request was granted.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    rule: &'static str,
    rules: Arc<Rules>,
    /// Whether the operation is allowed on the documents of every project.
    pub anywhere: bool,
}

impl Granted {
    /// Whether the caller may see the documents of all projects in the list that the request asks for.
    pub fn all_projects(&self, identity: &Identity) -> Result<(), ApiError> {
        let name = format!("{}{}", self.rule, rules::ALL_PROJECTS);
        if self.rules.allow(&name, &target(identity), &identity.credentials()) { Ok(()) } else { Err(denied(&name)) }
    }
}

fn target(identity: &Identity) -> Attributes {
    Attributes::from_iter([("project_id".to_owned(), identity.project_id.as_str().into())])
}

fn denied(name: &str) -> ApiError {
    ApiError::new(Code::PolicyDenied, format!("your roles in this project do not allow '{name}'"))
}

/// The layer. Behind the one that finds out who calls.
pub(super) async fn enforce(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let Some((rule, _)) = rule(request.method(), &path) else {
        // No rule is for a method that the route does not have: the router shall say so.
        if has_route(&path) {
            return next.run(request).await;
        }
        return ApiError::internal(format!("no policy rule for {path}")).into_response();
    };
    let Some(identity) = request.extensions().get::<Identity>() else {
        return ApiError::internal("the layer that finds out who calls is not in place").into_response();
    };
    let (rules, caller) = (api.policy.rules(), identity.credentials());
    if !rules.allow(rule.name, &target(identity), &caller) {
        return denied(rule.name).into_response();
    }
    let anywhere = rules.allow(rule.name, &Attributes::new(), &caller);
    request.extensions_mut().insert(Granted { rule: rule.name, rules, anywhere });
    next.run(request).await
}
