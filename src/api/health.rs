//! `/healthcheck`, as oslo.middleware answers it: for load balancers, before any authentication.

use std::path::Path;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::Result;
use super::input::{Accepted, Query, QueryParameters, text_or_json};
use super::layers::{Intended, RequestContext};
use crate::clock;
use crate::store::StoreError;
use crate::task::chain;

/// How long the store may take to answer a detailed check.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// How much is checked.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct HealthQuery {
    /// `true`: ask the store too, and say which part is ill.
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
    let detailed = query.detailed.is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1");
    let file = api.options.healthcheck_disable_file.as_deref();
    let disabled = match file {
        None => false,
        Some(file) => tokio::fs::try_exists(Path::new(file)).await.unwrap_or(false),
    };
    let mut checks = Vec::new();
    if detailed {
        checks.push(Check { class: "file", healthy: !disabled, reason: if disabled { DISABLED } else { OK } });
        checks.push(store(&api, &context).await);
    }
    let healthy = !disabled && checks.iter().all(|check| check.healthy);
    let status = match (healthy, &method) {
        (false, _) => StatusCode::SERVICE_UNAVAILABLE,
        (true, method) if method == Method::HEAD => StatusCode::NO_CONTENT,
        (true, _) => StatusCode::OK,
    };
    let reason =
        checks.iter().find(|check| !check.healthy).map_or(if disabled { DISABLED } else { OK }, |check| check.reason);
    let mut response = match text_or_json(&headers)? {
        Accepted::Text => (status, reason).into_response(),
        Accepted::Json => {
            let health = Health {
                detailed,
                reasons: if detailed { Vec::new() } else { vec![reason] },
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

async fn store(api: &Api, context: &RequestContext) -> Check {
    let answer = tokio::time::timeout(STORE_PATIENCE, api.store.ping())
        .await
        .unwrap_or_else(|late| Err(StoreError::Unavailable(Box::new(late))));
    match answer {
        Ok(()) => Check { class: "store", healthy: true, reason: OK },
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(request_id = %context.request_id, error, "the store failed its health check: {error}");
            Check { class: "store", healthy: false, reason: "THE STORE DOES NOT ANSWER" }
        }
    }
}
