//! What the service answers when the Keystone that knows its callers has faults: by the way of an operator's configuration,
//! against a server that answers as each test says.

use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use lambda_openstack::config::{ApiOptions, Config, ConfigError, ConfigPath, Sources};
use lambda_openstack::service;
use lambda_openstack::telemetry::Metrics;
use serde_json::{Value, json};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::api::harness::{Answer, Service, request};

const AUTHTOKEN: &str = "[keystone_authtoken]\nauth_type = password\nauth_url = {url}\nusername = lambda\npassword = p\n\
                         user_domain_id = default\nproject_name = service\nproject_domain_id = default\n\
                         http_connect_timeout = 1\n";

fn load(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lambda.conf");
    std::fs::write(&file, format!("[api]\nauth_strategy = keystone\n{text}")).unwrap();
    Config::load(&Sources::none().with_paths([ConfigPath::File(file)]))
}

async fn service(text: &str) -> Service {
    let config = load(text).unwrap();
    let keystone = service::keystone_for_tokens(&config, &Metrics::new("test")).unwrap().unwrap();
    Service::behind_keystone(ApiOptions { auth_strategy: "keystone".to_owned(), ..ApiOptions::default() }, keystone)
        .await
}

fn token(hours: i64) -> Value {
    let now = chrono_text(0);
    json!({"token": {
        "methods": ["password"], "audit_ids": ["a"], "issued_at": now, "expires_at": chrono_text(hours),
        "user": {"id": "u", "name": "user", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": "demo", "name": "demo", "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "r", "name": "reader"}], "catalog": [],
    }})
}

fn chrono_text(hours: i64) -> String {
    let now = lambda_openstack::clock::now();
    lambda_openstack::model::Timestamp::from_millis(now.as_millis() + hours * 3_600_000).to_string()
}

/// A Keystone that gives the service its token.
async fn keystone() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v3/auth/tokens"))
        .respond_with(ResponseTemplate::new(201).insert_header("X-Subject-Token", "own").set_body_json(token(1)))
        .mount(&server)
        .await;
    server
}

async fn answers(server: &MockServer, response: ResponseTemplate) {
    Mock::given(method("GET")).and(path("/v3/auth/tokens")).respond_with(response).mount(server).await;
}

async fn asked(service: &Service) -> Answer {
    let asked = request(Method::GET, "/v1/functions").header("x-auth-token", "user-token");
    service.send(asked.body(Body::empty()).unwrap()).await
}

#[track_caller]
fn is_unavailable(answer: &Answer) {
    answer.is_error(503, "function.identity.unavailable");
    assert_eq!(answer.error().1, "The Keystone service is temporarily unavailable.");
}

#[tokio::test]
async fn a_good_token_is_known_by_what_keystone_says_of_it() {
    let server = keystone().await;
    Mock::given(method("GET"))
        .and(path("/v3/auth/tokens"))
        .and(header("x-auth-token", "own"))
        .and(header("x-subject-token", "user-token"))
        // Without it Keystone knows no token that has access rules.
        .and(header("openstack-identity-access-rules", "1.0"))
        .respond_with(ResponseTemplate::new(200).set_body_json(token(1)))
        .expect(1)
        .mount(&server)
        .await;
    let service = service(&AUTHTOKEN.replace("{url}", &server.uri())).await;
    for _ in 0..2 {
        assert_eq!(asked(&service).await.status, 200);
    }
}

#[tokio::test]
async fn a_token_that_keystone_does_not_know_is_refused() {
    let server = keystone().await;
    answers(&server, ResponseTemplate::new(404)).await;
    let service = service(&AUTHTOKEN.replace("{url}", &server.uri())).await;
    let answer = asked(&service).await;
    answer.is_error(401, "function.identity.required");
    assert_eq!(answer.header("www-authenticate"), format!("Keystone uri=\"{}\"", server.uri()));
}

#[tokio::test]
async fn a_keystone_that_is_not_there_or_fails_or_babbles_is_a_503() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    is_unavailable(&asked(&service(&AUTHTOKEN.replace("{url}", &url)).await).await);
    for response in [
        ResponseTemplate::new(500),
        // Our own token is refused, and the next one too.
        ResponseTemplate::new(401),
        // The role is missing.
        ResponseTemplate::new(403),
        ResponseTemplate::new(200).set_body_string("no JSON"),
        ResponseTemplate::new(200).set_body_json(json!({"token": {"user": {}}})),
        ResponseTemplate::new(200).set_body_json(token(1)).set_delay(Duration::from_secs(30)),
    ] {
        let server = keystone().await;
        answers(&server, response).await;
        is_unavailable(&asked(&service(&AUTHTOKEN.replace("{url}", &server.uri())).await).await);
    }
}

#[tokio::test]
async fn a_token_of_ours_that_keystone_takes_no_more_is_replaced() {
    let server = keystone().await;
    Mock::given(method("GET"))
        .and(path("/v3/auth/tokens"))
        .respond_with(ResponseTemplate::new(401))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    answers(&server, ResponseTemplate::new(200).set_body_json(token(1))).await;
    let service = service(&AUTHTOKEN.replace("{url}", &server.uri())).await;
    assert_eq!(asked(&service).await.status, 200);
}

#[tokio::test]
async fn without_credentials_of_its_own_the_service_asks_as_its_own_user() {
    let server = keystone().await;
    answers(&server, ResponseTemplate::new(200).set_body_json(token(1))).await;
    let text = AUTHTOKEN.replace("[keystone_authtoken]", "[service_auth]").replace(
        "http_connect_timeout = 1\n",
        "timeout = 1\n[keystone_authtoken]\nwww_authenticate_uri = https://k/\n",
    );
    assert_eq!(asked(&service(&text.replace("{url}", &server.uri())).await).await.status, 200);
    for (text, wrong) in [
        ("", "api.auth_strategy is \"keystone\""),
        ("[keystone_authtoken]\nauth_type = password\nauth_url = http://k\n", "keystone_authtoken.password"),
    ] {
        let refused = load(text).unwrap_err().to_string();
        assert!(refused.contains(wrong), "{refused}");
    }
    assert!(service::keystone_for_tokens(&Config::default(), &Metrics::new("test")).unwrap().is_none());
}
