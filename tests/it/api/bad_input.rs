//! What no caller should send, on every route that takes something.

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};

use super::harness::{Service, json_request, request};

#[tokio::test]
async fn a_function_with_a_wrong_attribute_says_which() {
    let service = Service::new().await;
    let huge = "n".repeat(10 << 20);
    let nested = (0..9).fold(json!({}), |inner, _| json!({ "not": inner }));
    for (body, code, says) in [
        (json!({}), "function.request.invalid_body", "missing field `name`"),
        (json!([]), "function.request.invalid_body", ""),
        (json!("text"), "function.request.invalid_body", "expected struct"),
        (json!({"name": 1}), "function.request.invalid_body", "name: invalid type: integer"),
        (json!({"name": "a", "colour": "red"}), "function.request.invalid_body", "unknown field `colour`"),
        (json!({"name": "a", "revision": 7}), "function.request.invalid_body", "unknown field `revision`"),
        (json!({"name": "a", "memory": "128"}), "function.request.invalid_body", "memory: invalid type: string"),
        (json!({"name": "a", "memory": 1.5}), "function.request.invalid_body", "memory: invalid type"),
        (json!({"name": "a", "memory": -1}), "function.request.invalid_body", "memory: invalid value"),
        (json!({"name": "a", "memory": 1e30}), "function.request.invalid_body", "memory: invalid type"),
        (json!({"name": "a", "retry": {"max": 1}}), "function.request.invalid_body", "retry.max: unknown field `max`"),
        (json!({"name": "a", "environment": {"A": 1}}), "function.request.invalid_body", "environment.A: invalid type"),
        (
            json!({"name": "a", "triggers": [{"type": "t", "filter": {"regex": {}}}]}),
            "function.request.invalid_body",
            "regex",
        ),
        (json!({"name": "a", "code": {"url": "x"}}), "function.request.invalid_body", "unknown field `url`"),
        (json!({"name": ""}), "function.function.invalid", "name: must be 1 to 64"),
        (json!({"name": "a/b"}), "function.function.invalid", "name: must be"),
        (json!({"name": "../x"}), "function.function.invalid", "name: must be"),
        (json!({"name": "naïve"}), "function.function.invalid", "name: must be"),
        (json!({"name": "日本語"}), "function.function.invalid", "name: must be"),
        (json!({"name": "a\u{0}b"}), "function.function.invalid", "name: must be"),
        (json!({"name": huge}), "function.function.invalid", "name: must be"),
        (
            json!({"name": "01900000-0000-7000-8000-000000000000"}),
            "function.function.invalid",
            "name: must not be a UUID",
        ),
        (
            json!({"name": "a", "runtime": "cobol"}),
            "function.function.invalid",
            "runtime: 'cobol' is none of python3, provided",
        ),
        (json!({"name": "a", "runtime": "a b"}), "function.function.invalid", "runtime: must be"),
        (json!({"name": "a", "handler": "main"}), "function.function.invalid", "handler: must be module.function"),
        (json!({"name": "a", "handler": "../../etc/x.y"}), "function.function.invalid", "handler: "),
        (json!({"name": "a", "handler": ""}), "function.function.invalid", "handler: "),
        (json!({"name": "a", "memory": 63}), "function.function.invalid", "memory: must be 64 to 10240 MiB"),
        (json!({"name": "a", "memory": 10241}), "function.function.invalid", "memory: must be"),
        (json!({"name": "a", "timeout": 0}), "function.function.invalid", "timeout: must be 1 to 900 seconds"),
        (json!({"name": "a", "timeout": 901}), "function.function.invalid", "timeout: must be"),
        (
            json!({"name": "a", "max_concurrency": 0}),
            "function.function.invalid",
            "max_concurrency: must be at least 1",
        ),
        (
            json!({"name": "a", "retry": {"max_attempts": 0}}),
            "function.function.invalid",
            "retry.max_attempts: must be",
        ),
        (
            json!({"name": "a", "retry": {"max_event_age": 9}}),
            "function.function.invalid",
            "retry.max_event_age: must be",
        ),
        (json!({"name": "a", "environment": {"A-B": "x"}}), "function.function.invalid", "environment: 'A-B'"),
        (json!({"name": "a", "environment": {"AWS_LAMBDA_RUNTIME_API": "x"}}), "function.function.invalid", "reserved"),
        (
            json!({"name": "a", "environment": {"A": "x".repeat(5000)}}),
            "function.function.invalid",
            "environment: is 5001 bytes",
        ),
        (
            json!({"name": "a", "description": "x".repeat(257)}),
            "function.function.invalid",
            "description: must be at most 256",
        ),
        (json!({"name": "a", "dead_letter_queue": "a.b"}), "function.function.invalid", "dead_letter_queue: must be"),
        (json!({"name": "a", "triggers": [{}]}), "function.function.invalid", "triggers[0].source: give"),
        (json!({"name": "a", "triggers": [{"type": "a*b"}]}), "function.function.invalid", "triggers[0].type: "),
        (
            json!({"name": "a", "triggers": [{"type": "t"}, {"type": "t", "filter": nested}]}),
            "function.function.invalid",
            "triggers[1].filter: is nested",
        ),
        (
            json!({"name": "a", "triggers": vec![json!({"type": "t"}); 51]}),
            "function.function.invalid",
            "triggers: are 51",
        ),
        (json!({"name": "a", "code": {}}), "function.code.invalid", "either 'source' or 'zip'"),
        (json!({"name": "a", "code": {"source": "x", "zip": ""}}), "function.code.invalid", "either"),
        (json!({"name": "a", "code": {"source": "  \n"}}), "function.code.invalid", "the source is empty"),
        (json!({"name": "a", "code": {"zip": "%%%"}}), "function.code.invalid", "code.zip: is not base64"),
    ] {
        let answer = service.post("/v1/functions", &body).await;
        let shown: String = body.to_string().chars().take(200).collect();
        answer.is_error(400, code);
        assert!(answer.error().1.contains(says), "{shown}: {}", answer.text());
        assert!(answer.body.len() < 2000, "{shown}");
    }
    assert_eq!(service.get("/v1/functions").await.json()["functions"], json!([]));
}

#[tokio::test]
async fn a_change_with_a_wrong_attribute_changes_nothing() {
    let service = Service::new().await;
    service.function("f").await;
    for (body, code, says) in [
        (json!([]), "function.request.invalid_body", ""),
        (json!({"id": "x"}), "function.request.invalid_body", "unknown field `id`"),
        (json!({"triggers": []}), "function.request.invalid_body", "unknown field `triggers`"),
        (json!({"timeout": "5"}), "function.request.invalid_body", "timeout: invalid type"),
        (json!({"name": null}), "function.function.invalid", "name: must not be null"),
        (json!({"name": "a/b"}), "function.function.invalid", "name: must be"),
        (json!({"runtime": "cobol"}), "function.function.invalid", "runtime: "),
        (json!({"handler": "main"}), "function.function.invalid", "handler: "),
        (json!({"memory": 1}), "function.function.invalid", "memory: "),
        (json!({"timeout": 5, "memory": 1}), "function.function.invalid", "memory: "),
        (json!({"max_concurrency": 0}), "function.function.invalid", "max_concurrency: "),
        (json!({"isolation": "process"}), "function.function.invalid", "isolation: must be 'container' or 'vm'"),
        (json!({"isolation": "vm"}), "function.function.invalid", "there is: process, container"),
        (json!({"code": {"zip": "aGVsbG8="}}), "function.code.invalid", "not a whole zip archive"),
    ] {
        let answer = service.patch("/v1/functions/f", &body).await;
        answer.is_error(400, code);
        assert!(answer.error().1.contains(says), "{body}: {}", answer.text());
    }
    assert_eq!(service.get("/v1/functions/f").await.json()["revision"], 1);
    service.patch("/v1/functions/nobody", &json!({"timeout": 5})).await.is_error(404, "function.function.not_found");
}

#[tokio::test]
async fn a_wrong_trigger_says_why() {
    let service = Service::new().await;
    service.function("f").await;
    for (body, code, says) in [
        (json!({"type": "t"}), "function.request.invalid_body", "missing field `function`"),
        (json!({"function": "f", "kind": "t"}), "function.request.invalid_body", "unknown field `kind`"),
        (
            json!({"function": "f", "type": "t", "filter": {"exact": {"a": 1}}}),
            "function.request.invalid_body",
            "filter.exact.a",
        ),
        (
            json!({"function": "nobody", "type": "t"}),
            "function.trigger.invalid",
            "function: there is no function 'nobody'",
        ),
        (json!({"function": "a/b", "type": "t"}), "function.trigger.invalid", "function: "),
        (json!({"function": "f"}), "function.trigger.invalid", "source: give"),
        (json!({"function": "f", "type": ""}), "function.trigger.invalid", "type: must be"),
        (json!({"function": "f", "source": "a*b"}), "function.trigger.invalid", "source: may have"),
        (json!({"function": "f", "type": "x".repeat(257)}), "function.trigger.invalid", "type: must be"),
    ] {
        let answer = service.post("/v1/triggers", &body).await;
        answer.is_error(400, code);
        assert!(answer.error().1.contains(says), "{body}: {}", answer.text());
    }
    service
        .post("/v1/triggers", &json!({"function": "f", "type": "x".repeat(2 << 20)}))
        .await
        .is_error(413, "function.request.too_large");
}

/// Every route that reads JSON.
const JSON_ROUTES: [(Method, &str); 4] = [
    (Method::POST, "/v1/functions"),
    (Method::PATCH, "/v1/functions/f"),
    (Method::POST, "/v1/triggers"),
    (Method::POST, "/v1/events"),
];

#[tokio::test]
async fn malformed_json_is_told_with_its_place_on_every_route() {
    let service = Service::new().await;
    service.function("f").await;
    let routes = JSON_ROUTES.into_iter().chain([(Method::POST, "/v1/functions/f/invocations")]);
    for (method, path) in routes {
        for text in
            ["{", "{\"name\": }", "{'a': 1}", "nul", "{} {}", "\u{feff}{}", "{\"a\": \"\u{1}\"}", &"[".repeat(500)]
        {
            let asked = request(method.clone(), path)
                .header("content-type", "application/json")
                .body(Body::from(text.to_owned()))
                .unwrap();
            let answer = service.send(asked).await;
            answer.is_error(400, "function.request.malformed_json");
            assert!(answer.error().1.contains("line 1 column"), "{method} {path} {text}: {}", answer.text());
        }
        let asked = request(method.clone(), path)
            .header("content-type", "application/json")
            .body(Body::from(&b"{\"name\": \"\xff\"}"[..]))
            .unwrap();
        service.send(asked).await.is_error(400, "function.request.malformed_json");
    }
}

#[tokio::test]
async fn another_media_type_is_refused_with_those_that_are_taken() {
    let service = Service::new().await;
    service.function("f").await;
    let routes = JSON_ROUTES.into_iter().chain([(Method::PUT, "/v1/functions/f/code")]);
    for (method, path) in routes {
        for kind in ["", "text/plain", "application/x-www-form-urlencoded", "application/yaml"] {
            let mut asked = request(method.clone(), path).body(Body::from("{}")).unwrap();
            if !kind.is_empty() {
                asked.headers_mut().insert("content-type", kind.parse().unwrap());
            }
            let answer = service.send(asked).await;
            answer.is_error(415, "function.request.unsupported_media_type");
            assert!(answer.error().1.contains("application/"), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn unknown_and_wrong_query_parameters_are_refused_by_name() {
    let service = Service::new().await;
    let function = service.function("f").await;
    let execution = service.execution(&function, lambda_openstack::clock::now()).await;
    let id = execution.id;
    for (method, path) in [
        (Method::GET, "/v1/functions".to_owned()),
        (Method::POST, "/v1/functions".to_owned()),
        (Method::GET, "/v1/functions/f".to_owned()),
        (Method::PATCH, "/v1/functions/f".to_owned()),
        (Method::DELETE, "/v1/functions/f".to_owned()),
        (Method::GET, "/v1/functions/f/code".to_owned()),
        (Method::PUT, "/v1/functions/f/code".to_owned()),
        (Method::POST, "/v1/functions/f/invocations".to_owned()),
        (Method::GET, "/v1/triggers".to_owned()),
        (Method::POST, "/v1/triggers".to_owned()),
        (Method::POST, "/v1/events".to_owned()),
        (Method::GET, "/v1/executions".to_owned()),
        (Method::GET, format!("/v1/executions/{id}")),
        (Method::GET, format!("/v1/executions/{id}/log")),
        (Method::POST, format!("/v1/executions/{id}/cancel")),
        (Method::POST, format!("/v1/executions/{id}/redrive")),
        (Method::GET, "/v1/runtimes".to_owned()),
        (Method::GET, "/v1/runtimes/python3".to_owned()),
        (Method::GET, "/v1/workers".to_owned()),
        (Method::GET, "/v1/instances".to_owned()),
        (Method::GET, "/healthcheck".to_owned()),
    ] {
        let answer = service.send(json_request(method.clone(), &format!("{path}?colour=red"), &json!({}))).await;
        answer.is_error(400, "function.request.invalid_query");
        assert!(answer.error().1.contains("colour"), "{method} {path}: {}", answer.text());
    }
    for (query, says) in [
        ("functions?limit=0", "limit: must be 1 to 1000"),
        ("functions?limit=1001", "limit: "),
        ("functions?limit=ten", "limit: "),
        ("functions?limit=1&limit=2", "limit: is given more than once"),
        ("functions?sort=colour", "sort: 'colour' is none of the keys created_at, updated_at, name"),
        ("functions?sort=name:up", "sort: the direction 'up'"),
        ("functions?sort=name,created_at", "sort: only one key"),
        ("functions?name=a%2Fb", "name: must be"),
        ("functions?all_projects=maybe", "all_projects: "),
        ("executions?state=sleeping", "state: 'sleeping' is none of queued, running"),
        ("executions?since=yesterday", "since: is not an RFC 3339 time"),
        ("executions?until=2026-13-01T00:00:00Z", "until: "),
        ("executions?function=nobody", "function: there is no function 'nobody'"),
        ("executions?function=a%2Fb", "function: there is no function 'a/b'"),
        ("triggers?function=nobody", "function: "),
    ] {
        let answer = service.get(&format!("/v1/{query}")).await;
        answer.is_error(400, "function.request.invalid_query");
        assert!(answer.error().1.contains(says), "{query}: {}", answer.text());
    }
    for query in ["log?attempt=0", "log?attempt=-1", "log?follow=perhaps"] {
        service.get(&format!("/v1/executions/{id}/{query}")).await.is_error(400, "function.request.invalid_query");
    }
}

#[tokio::test]
async fn names_that_cannot_be_are_not_found_rather_than_a_fault() {
    let service = Service::new().await;
    for name in [
        "a%2Fb",
        "na%C3%AFve",
        "%00",
        "..%2F..%2Fetc",
        "%E6%97%A5",
        "01900000-0000-7000-8000-000000000000",
        "%20",
        &"x".repeat(5000),
    ] {
        for (method, path, code) in [
            (Method::GET, format!("/v1/functions/{name}"), "function.function.not_found"),
            (Method::DELETE, format!("/v1/functions/{name}"), "function.function.not_found"),
            (Method::GET, format!("/v1/functions/{name}/code"), "function.function.not_found"),
            (Method::POST, format!("/v1/functions/{name}/invocations"), "function.function.not_found"),
            (Method::GET, format!("/v1/triggers/{name}"), "function.trigger.not_found"),
            (Method::DELETE, format!("/v1/triggers/{name}"), "function.trigger.not_found"),
            (Method::GET, format!("/v1/executions/{name}"), "function.execution.not_found"),
            (Method::GET, format!("/v1/executions/{name}/log"), "function.execution.not_found"),
            (Method::POST, format!("/v1/executions/{name}/cancel"), "function.execution.not_found"),
            (Method::POST, format!("/v1/executions/{name}/redrive"), "function.execution.not_found"),
            (Method::GET, format!("/v1/runtimes/{name}"), "function.runtime.not_found"),
        ] {
            let answer = service.send(request(method, &path).body(Body::empty()).unwrap()).await;
            answer.is_error(404, code);
            assert!(answer.body.len() < 1500, "{path}");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_it_is_announced_or_not() {
    let service = Service::new().await;
    service.function("f").await;
    let text = Value::String("x".repeat(7 << 20)).to_string();
    for (method, path) in
        [(Method::POST, "/v1/triggers"), (Method::POST, "/v1/events"), (Method::POST, "/v1/functions/f/invocations")]
    {
        let announced = request(method.clone(), path)
            .header("content-type", "application/json")
            .header("content-length", text.len())
            .body(Body::from(text.clone()))
            .unwrap();
        service.send(announced).await.is_error(413, "function.request.too_large");
        let pieces: Vec<_> =
            text.as_bytes().chunks(64 << 10).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        let streamed = request(method.clone(), path)
            .header("content-type", "application/json")
            .body(Body::from_stream(futures::stream::iter(pieces)))
            .unwrap();
        service.send(streamed).await.is_error(413, "function.request.too_large");
    }
    let announced = request(Method::POST, "/v1/functions")
        .header("content-type", "application/json")
        .header("content-length", 1_u64 << 40)
        .body(Body::empty())
        .unwrap();
    service.send(announced).await.is_error(413, "function.request.too_large");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_senders_fault() {
    let service = Service::new().await;
    let pieces = [Ok("{\"name\":"), Err(std::io::Error::other("reset"))];
    let asked = request(Method::POST, "/v1/functions")
        .header("content-type", "application/json")
        .body(Body::from_stream(futures::stream::iter(pieces)))
        .unwrap();
    service.send(asked).await.is_error(400, "function.request.malformed");
}

#[tokio::test]
async fn a_project_that_is_none_is_refused() {
    let service = Service::new().await;
    for project in ["a/b", "a b", &"x".repeat(65)] {
        let asked = request(Method::GET, "/v1/functions").header("x-project-id", project).body(Body::empty()).unwrap();
        service.send(asked).await.is_error(400, "function.identity.invalid");
    }
}
