//! What holds for every route: versions, request ids, errors, the documents about itself.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::body::Body;
use axum::http::Method;
use lambda_openstack::api::{Code, RULES, openapi};
use lambda_openstack::config::ApiOptions;
use lambda_openstack::model::execution::Reason;
use lambda_openstack::model::trigger::queue::QueueFault;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::broken_store::BrokenStore;
use super::harness::{Service, json_request, request};

/// Every operation of the OpenAPI document.
fn operations() -> BTreeMap<String, BTreeSet<String>> {
    let document = serde_json::to_value(openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let methods = ["get", "put", "post", "delete", "patch"];
    paths
        .iter()
        .map(|(path, item)| {
            let found = methods.iter().filter(|method| item.get(**method).is_some());
            (path.clone(), found.map(|method| method.to_ascii_uppercase()).collect())
        })
        .collect()
}

/// A path with its parameters filled in.
fn concrete(path: &str) -> String {
    path.replace("{function}", "nobody")
        .replace("{runtime}", "nobody")
        .replace("{trigger}", "01900000-0000-7000-8000-000000000000")
        .replace("{execution}", "01900000-0000-7000-8000-000000000000")
}

#[tokio::test]
async fn every_route_of_the_document_is_served_and_no_other() {
    let service = Service::new().await;
    for (path, documented) in operations() {
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            let answer = service.send(request(method.clone(), &concrete(&path)).body(Body::empty()).unwrap()).await;
            if documented.contains(method.as_str()) {
                assert_ne!(answer.status, 405, "{method} {path}");
                if answer.status == 404 {
                    assert_ne!(answer.error().0, "function.route.not_found", "{method} {path}");
                }
            } else {
                answer.is_error(405, "function.route.method_not_allowed");
                let mut allowed: BTreeSet<_> =
                    answer.header("allow").split(',').map(|method| method.trim().to_owned()).collect();
                allowed.remove("HEAD");
                assert_eq!(allowed, documented, "{method} {path}");
            }
        }
    }
}

#[test]
fn every_operation_has_a_policy_rule_unless_it_is_open_to_all() {
    let ruled: BTreeSet<_> = RULES
        .iter()
        .flat_map(|rule| rule.operations)
        .map(|operation| (operation.path.to_owned(), operation.method.to_owned()))
        .collect();
    let open = ["/", "/v1", "/v1/", "/healthcheck", "/v1/openapi.json", "/v1/errors"];
    let documented: BTreeSet<_> = operations()
        .into_iter()
        .filter(|(path, _)| !open.contains(&path.as_str()))
        .flat_map(|(path, methods)| methods.into_iter().map(move |method| (path.clone(), method)))
        .collect();
    assert_eq!(ruled, documented);
    let names: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), RULES.len(), "names of rules are unique");
}

#[test]
fn the_openapi_document_is_the_one_in_docs() {
    let generated = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == generated, "run this test with UPDATE_SNAPSHOTS=1 to write docs/openapi.json anew");
}

#[test]
fn every_reference_in_the_openapi_document_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = serde_json::to_value(openapi()).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/ErrorBody"));
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_error_and_every_reason_is_explained_and_nothing_else_is() {
    let page = include_str!("../../../docs/errors.md");
    let explained: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### `"))
        .map(|rest| rest.split_once('`').unwrap())
        .map(|(word, status)| (word.to_owned(), status.trim().trim_matches(['(', ')']).to_owned()))
        .collect();
    let codes = Code::ALL.iter().map(|code| (code.to_string(), code.status().as_u16().to_string()));
    let reasons = Reason::ALL.iter().map(|reason| (reason.to_string(), String::new()));
    let faults = QueueFault::ALL.iter().map(|fault| (fault.as_str().to_owned(), String::new()));
    let expected: BTreeSet<_> = codes.chain(reasons).chain(faults).collect();
    assert_eq!(explained.iter().cloned().collect::<BTreeSet<_>>(), expected);
    assert_eq!(explained.len(), expected.len(), "one entry each");
    // An entry is more than its heading.
    let entries = page.split("### `").skip(1);
    assert!(entries.clone().all(|entry| entry.lines().nth(1).is_some_and(|line| line.len() > 20)));
}

#[tokio::test]
async fn the_version_documents_have_absolute_links() {
    let service = Service::new().await;
    for path in ["/", "/v1", "/v1/"] {
        let answer = service.get(path).await;
        assert_eq!(answer.status, 200);
        let version = &answer.json()["versions"][0];
        assert_eq!((&version["id"], &version["status"]), (&json!("v1.0"), &json!("CURRENT")));
        assert_eq!(version["links"][0], json!({"rel": "self", "href": "http://api.test/v1/"}));
        assert_eq!(version["links"][1], json!({"rel": "collection", "href": "http://api.test/"}));
    }
}

#[tokio::test]
async fn a_version_is_negotiated_and_named_in_every_answer() {
    let service = Service::new().await;
    let ask = |path: &str, version: &str| {
        request(Method::GET, path).header("openstack-api-version", version).body(Body::empty()).unwrap()
    };
    for path in ["/v1/functions", "/v1/functions/nobody", "/v1/nowhere"] {
        let answer = service.send(ask(path, "function latest")).await;
        assert_eq!(answer.header("openstack-api-version"), "function 1.0", "{path}");
        assert_eq!(answer.header("vary"), "OpenStack-API-Version", "{path}");
    }
    service.send(ask("/v1/functions", "function one")).await.is_error(400, "function.version.malformed");
    let refused = service.send(ask("/v1/functions", "function 1.7")).await;
    refused.is_error(406, "function.version.not_supported");
    assert_eq!(refused.json()["errors"][0]["max_version"], "1.0");
    assert_eq!(refused.header("openstack-api-version"), "function 1.0");
    // Discovery is how a client finds out which it may ask for.
    assert_eq!(service.send(ask("/v1", "function 9.9")).await.status, 200);
}

#[tokio::test]
async fn every_answer_has_its_own_request_id() {
    let service = Service::new().await;
    let given = "req-0f0e0d0c-0b0a-4900-8807-060504030201";
    let mut seen = BTreeSet::from([given.to_owned()]);
    for path in ["/", "/healthcheck", "/v1/functions", "/v1/functions/nobody", "/nowhere", "/v1/docs/"] {
        let asked = request(Method::GET, path).header("x-openstack-request-id", given).body(Body::empty()).unwrap();
        let id = service.send(asked).await.header("x-openstack-request-id").to_owned();
        assert!(id.starts_with("req-") && seen.insert(id.clone()), "{path}: {id}");
    }
}

#[tokio::test]
async fn what_is_not_there_says_so_in_the_same_shape() {
    let service = Service::new().await;
    for path in ["/nowhere", "/v1/nowhere", "/v1/functions/a/b", "/v2", "/v1/functions/%ff"] {
        service.get(path).await.is_error(404, "function.route.not_found");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing_but_the_request_id() {
    async fn broken() {
        panic!("a secret detail");
    }
    let extra = Router::new().route("/metrics", axum::routing::get(broken));
    let service = Service::with(ApiOptions::default(), Some(extra)).await;
    let answer = service.get("/metrics").await;
    answer.is_error(500, "function.service.internal");
    assert!(!answer.text().contains("secret"));
    assert_eq!(service.get("/v1/functions").await.status, 200);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_a_503_with_a_time_to_try_again() {
    let service = Service::on(std::sync::Arc::new(BrokenStore), TempDir::new().unwrap(), ApiOptions::default(), None);
    let id = "01900000-0000-7000-8000-000000000000";
    for (method, path, body) in [
        (Method::GET, "/v1/functions".to_owned(), Value::Null),
        (Method::POST, "/v1/functions".to_owned(), json!({"name": "a", "code": {"source": "x = 1"}})),
        (Method::GET, "/v1/functions/a".to_owned(), Value::Null),
        (Method::PATCH, "/v1/functions/a".to_owned(), json!({"timeout": 5})),
        (Method::DELETE, "/v1/functions/a".to_owned(), Value::Null),
        (Method::GET, "/v1/functions/a/code".to_owned(), Value::Null),
        (Method::POST, "/v1/functions/a/invocations".to_owned(), Value::Null),
        (Method::GET, "/v1/triggers".to_owned(), Value::Null),
        (Method::POST, "/v1/triggers".to_owned(), json!({"function": "a", "type": "t"})),
        (Method::GET, "/v1/executions".to_owned(), Value::Null),
        (Method::GET, format!("/v1/executions/{id}/log"), Value::Null),
        (Method::POST, format!("/v1/executions/{id}/cancel"), Value::Null),
        (Method::POST, format!("/v1/executions/{id}/redrive"), Value::Null),
        (Method::GET, "/v1/workers".to_owned(), Value::Null),
        (Method::GET, "/v1/instances".to_owned(), Value::Null),
    ] {
        let answer = service.send(json_request(method.clone(), &path, &body)).await;
        answer.is_error(503, "function.service.unavailable");
        assert_eq!(answer.header("retry-after"), "2", "{method} {path}");
        assert!(!answer.text().contains("hidden"), "{method} {path}: {}", answer.text());
    }
    assert_eq!(service.get("/healthcheck").await.status, 200);
    let detailed = service.get("/healthcheck?detailed=true").await;
    assert_eq!((detailed.status.as_u16(), detailed.text().as_str()), (503, "store: FAILING"));
}

#[tokio::test]
async fn the_health_check_answers_as_oslo_middleware_does() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("disable");
    let options =
        ApiOptions { healthcheck_disable_file: Some(file.to_str().unwrap().to_owned()), ..ApiOptions::default() };
    let service = Service::with(options, None).await;
    let ask =
        |method, path: &str, accept: &str| request(method, path).header("accept", accept).body(Body::empty()).unwrap();
    let plain = service.send(ask(Method::GET, "/healthcheck", "*/*")).await;
    assert_eq!((plain.status.as_u16(), plain.text().as_str()), (200, "OK"));
    let as_json = service.send(ask(Method::GET, "/healthcheck", "application/json")).await;
    assert_eq!(as_json.json(), json!({"detailed": false, "reasons": ["OK"]}));
    assert_eq!(service.send(ask(Method::HEAD, "/healthcheck", "*/*")).await.status, 204);
    let detailed = service.send(ask(Method::GET, "/healthcheck?detailed=true", "application/json")).await.json();
    assert_eq!(detailed["checks"][1], json!({"class": "store", "healthy": true, "reason": "OK"}));
    std::fs::write(&file, "").unwrap();
    let disabled = service.get("/healthcheck").await;
    assert_eq!((disabled.status.as_u16(), disabled.text().as_str()), (503, "DISABLED BY FILE"));
    assert_eq!(service.send(ask(Method::HEAD, "/healthcheck", "*/*")).await.status, 503);
}

#[tokio::test]
async fn the_documents_are_browsable_without_any_network() {
    let service = Service::new().await;
    let document = service.get("/v1/openapi.json").await.json();
    assert_eq!(document["info"]["title"], "Lambda on OpenStack");
    assert!(service.get("/v1/errors").await.text().starts_with("# Errors"));
    assert_eq!(service.get("/v1/docs").await.header("location"), "docs/");
    let page = service.get("/v1/docs/").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html"));
    assert!(!page.text().contains("https://") && !page.text().contains("//unpkg"), "{}", page.text());
    let script = service.get("/v1/docs/swagger-ui-bundle.js").await;
    assert!(script.status == 200 && script.body.len() > 100_000);
    let initializer = service.get("/v1/docs/swagger-initializer.js").await.text();
    assert!(initializer.contains("../openapi.json"), "{initializer}");
    service.get("/v1/docs/nothing.js").await.is_error(404, "function.route.not_found");
}

#[tokio::test]
async fn what_is_over_the_number_of_requests_is_turned_away() {
    let extra = Router::new().route("/slow", axum::routing::get(std::future::pending::<()>));
    let service = Service::with(ApiOptions { max_requests: 1, ..ApiOptions::default() }, Some(extra)).await;
    let slow = request(Method::GET, "/slow").body(Body::empty()).unwrap();
    let held = super::harness::send(&service.router, slow);
    tokio::pin!(held);
    assert!(futures::poll!(&mut held).is_pending());
    let answer = service.get("/v1/functions").await;
    answer.is_error(503, "function.service.busy");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(service.get("/healthcheck").await.status, 200);
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up() {
    let service = Service::with(ApiOptions { request_timeout: 1, ..ApiOptions::default() }, None).await;
    let never = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let asked = request(Method::POST, "/v1/triggers").header("content-type", "application/json").body(never).unwrap();
    service.send(asked).await.is_error(504, "function.service.timed_out");
}

#[tokio::test]
async fn options_that_cannot_be_are_refused_at_the_start() {
    let directory = TempDir::new().unwrap();
    let make = |options| {
        let deps = lambda_openstack::api::ApiDeps {
            isolations: Vec::new(),
            options,
            store: std::sync::Arc::new(BrokenStore),
            delegation: std::sync::Arc::new(lambda_openstack::api::NoDelegation),
            poster: std::sync::Arc::new(super::harness::Queue::default()),
            keystone: None,
            policy: std::sync::Arc::new(
                lambda_openstack::policy::Enforcer::of_defaults(lambda_openstack::api::default_rules()).unwrap(),
            ),
            local: None,
            tasks: lambda_openstack::task::Tasks::new(),
            shutdown: tokio_util::sync::CancellationToken::new(),
            health: lambda_openstack::health::Health::new(Vec::new()),
            extra: None,
        };
        lambda_openstack::api::router(deps).map(|_| ()).unwrap_err().field
    };
    let options = ApiOptions::default;
    assert_eq!(make(ApiOptions { auth_strategy: "magic".to_owned(), ..options() }), "[api] auth_strategy");
    assert_eq!(make(ApiOptions { default_project: "a/b".to_owned(), ..options() }), "[api] default_project");
    assert_eq!(make(ApiOptions { default_limit: 0, ..options() }), "[api] default_limit");
    drop(directory);
}
