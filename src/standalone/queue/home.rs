//! What is no queue: the version document, the JSON-home, ping and health; and what this service does not have, answered
//! as a Zaqar answers in which it is switched off.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Queue;
use super::fault::{Fault, Result};
use super::request::{Caller, Target};

/// `GET /`: the versions there are.
pub(super) async fn versions() -> Response {
    let versions = json!({"versions": [{
        "id": "2",
        "status": "CURRENT",
        "updated": "2014-9-24T04:06:47Z",
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.messaging-v2+json"}],
        "links": [{"href": "/v2/", "rel": "self"}],
    }]});
    (StatusCode::MULTIPLE_CHOICES, Json(versions)).into_response()
}

/// `GET /v2/`: what can be asked for, as JSON-home.
pub(super) async fn home() -> Response {
    let resource = |path: &str, allow: &[&str]| {
        let mut variables: Vec<&str> = Vec::new();
        for part in path.split('{').skip(1) {
            let names = part.split('}').next().unwrap_or_default().trim_start_matches('?');
            variables.extend(names.split(','));
        }
        let variables: Value =
            variables.iter().map(|name| ((*name).to_owned(), json!(format!("param/{name}")))).collect();
        json!({
            "href-template": format!("/v2/{path}"),
            "href-vars": variables,
            "hints": {"allow": allow, "formats": {"application/json": {}}},
        })
    };
    let resources = json!({
        "rel/queues": resource("queues{?marker,limit,detailed,name,with_count}", &["GET"]),
        "rel/queue": resource("queues/{queue_name}", &["GET", "PUT", "DELETE", "PATCH"]),
        "rel/queue_stats": resource("queues/{queue_name}/stats", &["GET"]),
        "rel/queue_purge": resource("queues/{queue_name}/purge", &["POST"]),
        "rel/messages": resource("queues/{queue_name}/messages{?marker,limit,echo,include_claimed,include_delayed}", &["GET"]),
        "rel/post_messages": resource("queues/{queue_name}/messages", &["POST"]),
        "rel/messages_delete": resource("queues/{queue_name}/messages{?ids,claim_ids,pop}", &["DELETE"]),
        "rel/message_get": resource("queues/{queue_name}/messages/{message_id}", &["GET"]),
        "rel/message_delete": resource("queues/{queue_name}/messages/{message_id}{?claim_id}", &["DELETE"]),
        "rel/post_claim": resource("queues/{queue_name}/claims{?limit}", &["POST"]),
        "rel/claim": resource("queues/{queue_name}/claims/{claim_id}", &["GET"]),
        "rel/patch_claim": resource("queues/{queue_name}/claims/{claim_id}", &["PATCH"]),
        "rel/delete_claim": resource("queues/{queue_name}/claims/{claim_id}", &["DELETE"]),
        "rel/ping": resource("ping", &["GET"]),
        "rel/health": resource("health", &["GET"]),
    });
    let headers = [(header::CONTENT_TYPE, "application/json-home"), (header::CACHE_CONTROL, "max-age=86400")];
    (headers, json!({"resources": resources}).to_string()).into_response()
}

/// `GET /v2/ping`: whether the file can be read and written.
pub(super) async fn ping(State(queue): State<Queue>) -> Result<StatusCode> {
    queue.check().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v2/health`
pub(super) async fn health(State(queue): State<Queue>) -> Json<Value> {
    Json(json!({"storage_reachable": queue.check().await.is_ok()}))
}

/// `GET /v2/queues/{queue}/subscriptions`: there are none.
pub(super) async fn no_subscriptions(_: Caller, _: Target) -> Json<Value> {
    Json(json!({"subscriptions": [], "links": []}))
}

/// `POST /v2/queues/{queue}/subscriptions`: what a Zaqar says whose `subscriber_types` is empty.
pub(super) async fn cannot_subscribe(_: Caller, _: Target) -> Fault {
    Fault::request("The subscriber type of subscription must be supported in the list [].")
}

/// Anything about one subscription: there is none, so deleting it has been done.
pub(super) async fn no_subscription(_: Caller, target: Target, method: Method) -> Result<StatusCode> {
    if method == Method::DELETE {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Fault::not_found(format!("Subscription {} does not exist", target.item)))
}

/// `POST /v2/queues/{queue}/share`: what a Zaqar says that has no `[signed_url] secret_key`.
pub(super) async fn cannot_share(_: Caller, _: Target) -> Fault {
    Fault::request("Pre-signed URLs are not configured on this service.")
}

/// Any other path.
pub(super) async fn nothing(uri: Uri) -> Fault {
    Fault::new(StatusCode::NOT_FOUND, "404 Not Found", format!("There is nothing at {}.", shortened(uri.path())))
}

/// A path that is there, asked in another way.
pub(super) async fn no_method(method: Method, uri: Uri) -> Fault {
    let reason = format!("{method} does nothing at {}.", shortened(uri.path()));
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "405 Method Not Allowed", reason)
}

fn shortened(path: &str) -> &str {
    path.char_indices().nth(200).map_or(path, |(end, _)| path.get(..end).unwrap_or_default())
}
