//! `/healthcheck`, as oslo.middleware answers it: for load balancers, before any authentication. What is asked in detail
//! is the program's own list of parts (`crate::health`); an answer names the part that is ill and never says why.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::Result;
use super::input::{Accepted, Query, QueryParameters, text_or_json};
use super::layers::{Intended, RequestContext};
use crate::clock;
use crate::health::{Health as Parts, State as PartState};

/// How much is checked.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct HealthQuery {
    /// `true`: ask the parts too (the store, the queue, Keystone), and say which is ill. Each answers within two seconds,
    /// and whoever asks within two seconds gets the same answer.
    detailed: Option<String>,
}

impl QueryParameters for HealthQuery {}

/// How the service is.
#[derive(Serialize, ToSchema)]
struct Health {
    /// Whether the parts were asked.
    detailed: bool,
    /// Of a plain check: why it is as it is, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    /// Of a detailed check: each part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
    /// Of a detailed check: the version of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    /// Of a detailed check: the time here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    now: Option<String>,
}

/// How a part of the service is.
#[derive(Serialize, ToSchema)]
struct Check {
    /// The part.
    class: &'static str,
    /// Whether it is well.
    healthy: bool,
    /// Why it is as it is.
    reason: &'static str,
}

const OK: &str = "OK";
const DISABLED: &str = "DISABLED BY FILE";
const STARTING: &str = "STARTING";

/// Whether this node shall get requests.
#[utoipa::path(get, path = "/healthcheck", tag = "discovery", operation_id = "healthcheck", security(()),
    params(HealthQuery),
    responses((status = 200, description = "It is well.", content((String = "text/plain"), (Health = "application/json"))),
        (status = 503, description = "It shall get none.", content((String = "text/plain"), (Health = "application/json")))))]
pub(super) async fn check(
    State(api): State<Api>,
    Extension(context): Extension<RequestContext>,
    method: Method,
    Query(query): Query<HealthQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let disabled = match api.options.healthcheck_disable_file.as_deref() {
        None => false,
        Some(file) => tokio::fs::try_exists(Path::new(file)).await.unwrap_or(false),
    };
    let answer = answer(disabled.then_some(DISABLED), Some(&api.health), &query, &method, &headers).await?;
    if answer.status().is_server_error() {
        tracing::warn!(request_id = %context.request_id, "this node says that it shall get no requests");
    }
    Ok(answer)
}

/// The `/healthcheck` of a program that is not the API: 503 until it has `parts`, because it is still starting.
pub fn health_router(parts: Arc<OnceLock<Parts>>) -> Router {
    let handler = |State(parts): State<Arc<OnceLock<Parts>>>, method: Method, Query(query), headers: HeaderMap| async move {
        let starting = parts.get().is_none().then_some(STARTING);
        answer(starting, parts.get(), &query, &method, &headers).await
    };
    Router::new().route("/healthcheck", get(handler)).with_state(parts)
}

/// `out`: why the node is out whatever its parts say.
async fn answer(
    out: Option<&'static str>,
    parts: Option<&Parts>,
    query: &HealthQuery,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response> {
    let detailed = query.detailed.as_ref().is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1");
    let mut checks = Vec::new();
    if let (true, Some(parts)) = (detailed, parts) {
        checks.push(Check { class: "file", healthy: out.is_none(), reason: out.unwrap_or(OK) });
        checks.extend(parts.checks().await.into_iter().map(|check| Check {
            class: check.class,
            healthy: check.state == PartState::Well,
            reason: check.state.reason(),
        }));
    }
    let healthy = out.is_none() && checks.iter().all(|check| check.healthy);
    let status = match (healthy, method) {
        (false, _) => StatusCode::SERVICE_UNAVAILABLE,
        (true, method) if *method == Method::HEAD => StatusCode::NO_CONTENT,
        (true, _) => StatusCode::OK,
    };
    let mut response = match text_or_json(headers)? {
        Accepted::Text => {
            let ill = checks.iter().filter(|check| !check.healthy && check.class != "file");
            let mut reasons: Vec<_> = out.map(ToOwned::to_owned).into_iter().collect();
            reasons.extend(ill.map(|check| format!("{}: {}", check.class, check.reason)));
            (status, if reasons.is_empty() { OK.to_owned() } else { reasons.join("\n") }).into_response()
        }
        Accepted::Json => {
            let health = Health {
                detailed,
                reasons: if detailed { Vec::new() } else { vec![out.unwrap_or(OK)] },
                checks,
                version: detailed.then_some(env!("CARGO_PKG_VERSION")),
                now: detailed.then(|| clock::now().to_string()),
            };
            (status, Json(health)).into_response()
        }
    };
    response.extensions_mut().insert(Intended);
    Ok(response)
}
