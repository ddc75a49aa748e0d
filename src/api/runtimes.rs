//! `/v1/runtimes`: what functions can be written in, and what that asks of a handler.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Code, Result, shown};
use super::identity::Caller;
use super::input::{Named, NoParameters, Query};
use super::links::Link;
use crate::model::Invalid;
use crate::model::function::Handler;
use crate::model::runtime::{Runtime, RuntimeKind, RuntimeName};

/// A runtime.
#[derive(Serialize, ToSchema)]
pub(super) struct RuntimeView {
    /// Its name, as functions name it.
    name: String,
    /// What it does with a package: `python` imports the handler, `provided` runs the program `bootstrap`.
    kind: &'static str,
    /// One line for people.
    description: String,
    /// The handler of a function that names none.
    default_handler: &'static str,
    /// `self`.
    links: Vec<Link>,
}

/// The runtimes.
#[derive(Serialize, ToSchema)]
pub(super) struct RuntimeList {
    /// All of them; there are no pages.
    runtimes: Vec<RuntimeView>,
    /// Always empty.
    runtimes_links: Vec<Link>,
}

fn view(runtime: &Runtime, base: &str) -> RuntimeView {
    RuntimeView {
        name: runtime.name.to_string(),
        kind: match runtime.kind {
            RuntimeKind::Python => "python",
            RuntimeKind::Provided => "provided",
        },
        description: runtime.description.clone(),
        default_handler: default_handler_of(runtime.kind),
        links: vec![Link::new("self", base, &format!("/v1/runtimes/{}", runtime.name))],
    }
}

/// List runtimes.
#[utoipa::path(get, path = "/v1/runtimes", tag = "runtimes", operation_id = "list_runtimes",
    responses((status = 200, description = "All runtimes.", body = RuntimeList)))]
pub(super) async fn list(caller: Caller, _query: Query<NoParameters>) -> Json<RuntimeList> {
    let runtimes = Runtime::built_in().iter().map(|runtime| view(runtime, &caller.base)).collect();
    Json(RuntimeList { runtimes, runtimes_links: Vec::new() })
}

/// Show a runtime.
#[utoipa::path(get, path = "/v1/runtimes/{runtime}", tag = "runtimes", operation_id = "show_runtime",
    params(("runtime" = String, Path, description = "Its name.")),
    responses((status = 200, description = "The runtime.", body = RuntimeView)))]
pub(super) async fn show(caller: Caller, Named(name): Named, _query: Query<NoParameters>) -> Result<Json<RuntimeView>> {
    Runtime::built_in()
        .iter()
        .find(|runtime| runtime.name.as_str() == name)
        .map(|runtime| Json(view(runtime, &caller.base)))
        .ok_or_else(|| ApiError::new(Code::RuntimeNotFound, format!("'{}' is none of {}", shown(&name), names())))
}

fn names() -> String {
    Runtime::built_in().iter().map(|runtime| runtime.name.to_string()).collect::<Vec<_>>().join(", ")
}

/// How a runtime starts, if the service offers it.
pub(super) fn known(name: &RuntimeName) -> std::result::Result<RuntimeKind, Invalid> {
    Runtime::built_in()
        .iter()
        .find(|runtime| runtime.name == *name)
        .map(|runtime| runtime.kind)
        .ok_or_else(|| Invalid::new("runtime", format!("'{name}' is none of {}", names())))
}

const fn default_handler_of(kind: RuntimeKind) -> &'static str {
    match kind {
        RuntimeKind::Python => "main.handler",
        RuntimeKind::Provided => "bootstrap",
    }
}

/// The handler of a function that names none.
pub(super) fn default_handler(runtime: &RuntimeName) -> std::result::Result<Handler, Invalid> {
    Handler::parse(default_handler_of(known(runtime)?))
}

/// Whether the runtime can find such a handler.
pub(super) fn check_handler(runtime: &RuntimeName, handler: &Handler) -> std::result::Result<(), Invalid> {
    entry_file(runtime, handler).map(|_| ())
}

/// The file that a handler is in, and its mode: what a single uploaded file is named.
pub(super) fn entry_file(runtime: &RuntimeName, handler: &Handler) -> std::result::Result<(String, u32), Invalid> {
    match known(runtime)? {
        RuntimeKind::Provided => Ok(("bootstrap".to_owned(), 0o755)),
        RuntimeKind::Python => {
            let wrong =
                || Invalid::new("handler", "must be module.function, such as main.handler or package/module.handler");
            let (module, function) = handler.as_str().rsplit_once('.').ok_or_else(wrong)?;
            let legal =
                |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
            let steps: Vec<&str> = module.split(['.', '/']).collect();
            if !legal(function) || !steps.iter().all(|step| legal(step)) {
                return Err(wrong());
            }
            Ok((format!("{}.py", steps.join("/")), 0o644))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_file_is_named_after_the_handlers_module() {
        let file = |runtime: &str, handler: &str| {
            entry_file(&RuntimeName::parse(runtime).unwrap(), &Handler::parse(handler).unwrap()).map(|(name, _)| name)
        };
        assert_eq!(file("python3", "main.handler").unwrap(), "main.py");
        assert_eq!(file("python3", "pkg.mod.run").unwrap(), "pkg/mod.py");
        assert_eq!(file("python3", "pkg/mod.run").unwrap(), "pkg/mod.py");
        assert_eq!(file("provided", "any-thing.at/all").unwrap(), "bootstrap");
        for bad in
            ["handler", ".handler", "main.", "../main.handler", "/main.handler", "a//b.c", "a\\b.c", "main.handler()"]
        {
            assert_eq!(file("python3", bad).unwrap_err().field, "handler", "{bad}");
        }
        assert_eq!(file("cobol", "main.handler").unwrap_err().field, "runtime");
    }
}
