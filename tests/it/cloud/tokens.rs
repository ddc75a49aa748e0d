//! Callers known by real tokens: the service on a real store, in front of the real Keystone.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Request};
use lambda_openstack::api::{KeystoneDeps, RULES};
use lambda_openstack::clock;
use lambda_openstack::config::{ApiOptions, Config, ConfigPath, Sources};
use lambda_openstack::service;
use lambda_openstack::telemetry::Metrics;
use serde_json::{Value, json};

use super::Account;
use crate::api::harness::{Answer, Service, request};

/// What a test asks Keystone for, as an account.
trait Asks {
    fn url(&self, path: &str) -> String;
    fn password(&self) -> Value;
    async fn token(&self) -> Token;
    async fn ask(&self, body: Value) -> Token;
}

impl Asks for Account {
    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.var("OS_AUTH_URL").trim_end_matches('/'))
    }

    fn password(&self) -> Value {
        let domain = json!({"name": self.var("OS_USER_DOMAIN_NAME")});
        json!({"methods": ["password"], "password": {"user": {
            "name": self.var("OS_USERNAME"), "domain": domain, "password": self.var("OS_PASSWORD"),
        }}})
    }

    /// For its project.
    async fn token(&self) -> Token {
        let domain = json!({"name": self.var("OS_PROJECT_DOMAIN_NAME")});
        let scope = json!({"project": {"name": self.var("OS_PROJECT_NAME"), "domain": domain}});
        self.ask(json!({"auth": {"identity": self.password(), "scope": scope}})).await
    }

    async fn ask(&self, body: Value) -> Token {
        let answer = http().post(self.url("auth/tokens")).json(&body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 201, "{}", self.var("OS_USERNAME"));
        let text = answer.headers()["x-subject-token"].to_str().unwrap().to_owned();
        let body: Value = answer.json().await.unwrap();
        Token { text, body: body["token"].clone() }
    }
}

struct Token {
    text: String,
    body: Value,
}

impl Token {
    fn project(&self) -> &str {
        self.body["project"]["id"].as_str().unwrap()
    }
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

/// The service as an operator configures it, with the service user of the cloud; tokens are remembered for so long.
async fn service(cache_seconds: i64) -> Service {
    let account = Account::read("openrc-service");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lambda.conf");
    let text = format!(
        "[api]\nauth_strategy = keystone\n[keystone_authtoken]\nauth_type = password\nauth_url = {}\nusername = {}\npassword = {}\n\
         user_domain_name = {}\nproject_name = {}\nproject_domain_name = {}\ntoken_cache_time = {cache_seconds}\n\
         www_authenticate_uri = http://cloud.example/identity\nmemcached_servers = localhost:11211\n",
        account.var("OS_AUTH_URL"),
        account.var("OS_USERNAME"),
        account.var("OS_PASSWORD"),
        account.var("OS_USER_DOMAIN_NAME"),
        account.var("OS_PROJECT_NAME"),
        account.var("OS_PROJECT_DOMAIN_NAME"),
    );
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&Sources::none().with_paths([ConfigPath::File(file)])).unwrap();
    let keystone: KeystoneDeps = service::keystone_for_tokens(&config, &Metrics::new("test")).unwrap().unwrap();
    Service::behind_keystone(ApiOptions { auth_strategy: "keystone".to_owned(), ..ApiOptions::default() }, keystone)
        .await
}

fn asked(method: Method, path: &str, token: &str) -> Request<Body> {
    request(method, path).header("x-auth-token", token).body(Body::empty()).unwrap()
}

async fn get(service: &Service, path: &str, token: &str) -> Answer {
    service.send(asked(Method::GET, path, token)).await
}

async fn create(service: &Service, name: &str, token: &str) -> Answer {
    let mut asked = asked(Method::POST, "/v1/functions", token);
    asked.headers_mut().insert("content-type", "application/json".parse().unwrap());
    *asked.body_mut() = Body::from(json!({"name": name, "code": {"source": "def handler(e, c): pass"}}).to_string());
    service.send(asked).await
}

fn is_refused(answer: &Answer) {
    answer.is_error(401, "function.identity.required");
    assert_eq!(answer.header("www-authenticate"), "Keystone uri=\"http://cloud.example/identity\"");
}

/// The service in the catalog, without which access rules allow nothing, for as long as a test needs it.
struct Registration(Option<(Account, String, String)>);

impl Registration {
    async fn of_the_service() -> Self {
        let admin = Account::read("openrc-admin");
        let token = admin.token().await;
        if token.body["catalog"].as_array().unwrap().iter().any(|entry| entry["type"] == "function") {
            return Self(None);
        }
        let post = async |path: &str, body: Value| -> Value {
            let answer =
                http().post(admin.url(path)).header("x-auth-token", &token.text).json(&body).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 201);
            answer.json().await.unwrap()
        };
        let made = post("services", json!({"service": {"type": "function", "name": "policy-test"}})).await;
        let id = made["service"]["id"].as_str().unwrap().to_owned();
        let endpoint = json!({"service_id": id, "interface": "public", "region": admin.var("OS_REGION_NAME"),
            "url": "http://127.0.0.1:9"});
        post("endpoints", json!({"endpoint": endpoint})).await;
        Self(Some((admin, token.text, id)))
    }

    async fn undo(self) {
        if let Some((admin, token, id)) = self.0 {
            // Its endpoint goes with it.
            let url = admin.url(&format!("services/{id}"));
            http().delete(url).header("x-auth-token", token).send().await.unwrap().error_for_status().unwrap();
        }
    }
}

#[tokio::test]
async fn reader_member_and_admin_may_what_they_are_meant_to_in_their_own_and_in_another_project() {
    let service = service(300).await;
    let demo = Account::read("openrc").token().await;
    let reader = Account::read("openrc-reader").token().await;
    let other = Account::read("openrc-other").token().await;
    let admin = Account::read("openrc-admin").token().await;
    let lambda = Account::read("openrc-service").token().await;
    assert_eq!(demo.project(), reader.project());

    create(&service, "f", &reader.text).await.is_error(403, "function.policy.denied");
    let made = create(&service, "f", &demo.text).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.json()["project_id"], demo.project());
    let path = format!("/v1/functions/{}", made.json()["id"].as_str().unwrap());

    for (token, status) in [(&demo, 200), (&reader, 200), (&admin, 200), (&other, 404), (&lambda, 404)] {
        assert_eq!(get(&service, &path, &token.text).await.status, status, "{}", token.body["user"]);
    }
    // A name is one of the caller's own project.
    assert_eq!(get(&service, "/v1/functions/f", &admin.text).await.status, 404);
    for (token, status) in [(&demo, 403), (&reader, 403), (&other, 403), (&admin, 200)] {
        let answer = get(&service, "/v1/functions?all_projects=true", &token.text).await;
        assert_eq!(answer.status, status, "{}", token.body["user"]);
    }
    for (token, status) in [(&demo, 403), (&reader, 403), (&admin, 200)] {
        assert_eq!(get(&service, "/v1/workers", &token.text).await.status, status, "{}", token.body["user"]);
    }
    for (token, status) in [(&reader, 403), (&other, 404), (&admin, 204)] {
        assert_eq!(
            service.send(asked(Method::DELETE, &path, &token.text)).await.status,
            status,
            "{}",
            token.body["user"]
        );
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_one_without_a_project_too() {
    let service = service(300).await;
    for rule in RULES {
        for operation in rule.operations {
            is_refused(&service.send(asked(operation.method.parse().unwrap(), operation.path, "no-token")).await);
        }
    }
    let account = Account::read("openrc");
    let unscoped = account.ask(json!({"auth": {"identity": account.password(), "scope": "unscoped"}})).await;
    get(&service, "/v1/functions", &unscoped.text).await.is_error(403, "function.identity.no_project");
    let admin = Account::read("openrc-admin");
    let system = admin.ask(json!({"auth": {"identity": admin.password(), "scope": {"system": {"all": true}}}})).await;
    get(&service, "/v1/functions", &system.text).await.is_error(403, "function.identity.no_project");
}

#[tokio::test]
async fn a_revoked_token_passes_for_no_longer_than_it_is_remembered() {
    let account = Account::read("openrc");
    let (remembering, asking) = (service(1).await, service(-1).await);
    let token = account.token().await;
    assert_eq!(get(&remembering, "/v1/functions", &token.text).await.status, 200);
    assert_eq!(get(&asking, "/v1/functions", &token.text).await.status, 200);
    let revoked = http()
        .delete(account.url("auth/tokens"))
        .header("x-auth-token", &token.text)
        .header("x-subject-token", &token.text)
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status().as_u16(), 204);
    is_refused(&get(&asking, "/v1/functions", &token.text).await);
    let begun = Instant::now();
    let mut answer = get(&remembering, "/v1/functions", &token.text).await;
    while answer.status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is remembered for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = get(&remembering, "/v1/functions", &token.text).await;
    }
    is_refused(&answer);
}

#[tokio::test]
async fn an_application_credential_may_do_what_its_access_rules_say() {
    let service = service(300).await;
    let account = Account::read("openrc");
    let token = account.token().await;
    let user = token.body["user"]["id"].as_str().unwrap();
    let registration = Registration::of_the_service().await;
    let url = account.url(&format!("users/{user}/application_credentials"));
    let name = format!("policy-test-{}", uuid::Uuid::new_v4());
    let wanted = json!({"application_credential": {"name": name, "access_rules": [
        {"service": "function", "method": "GET", "path": "/v1/functions"},
        {"service": "function", "method": "GET", "path": "/v1/functions/*/code"},
    ]}});
    let made = http().post(&url).header("x-auth-token", &token.text).json(&wanted).send().await.unwrap();
    assert_eq!(made.status().as_u16(), 201);
    let made: Value = made.json().await.unwrap();
    let made = &made["application_credential"];
    let identity = json!({"methods": ["application_credential"], "application_credential":
        {"id": made["id"], "secret": made["secret"]}});
    let narrow = account.ask(json!({"auth": {"identity": identity}})).await;

    let listed = get(&service, "/v1/functions", &narrow.text).await;
    let code = get(&service, "/v1/functions/nobody/code", &narrow.text).await;
    let denied = [get(&service, "/v1/triggers", &narrow.text).await, create(&service, "x", &narrow.text).await];
    let lambda = Account::read("openrc-service").token().await;
    let mut on_behalf = asked(Method::GET, "/v1/triggers", &narrow.text);
    on_behalf.headers_mut().insert("x-service-token", lambda.text.parse().unwrap());
    let on_behalf = service.send(on_behalf).await;

    let id = made["id"].as_str().unwrap();
    let gone = http().delete(format!("{url}/{id}")).header("x-auth-token", &token.text).send().await.unwrap();
    // Its rules stay behind, unlike the credential.
    let rules_url = account.url(&format!("users/{user}/access_rules"));
    for rule in made["access_rules"].as_array().unwrap() {
        let id = rule["id"].as_str().unwrap();
        http().delete(format!("{rules_url}/{id}")).header("x-auth-token", &token.text).send().await.unwrap();
    }
    registration.undo().await;
    assert_eq!(gone.status().as_u16(), 204);
    assert_eq!(listed.status, 200, "{}", listed.text());
    code.is_error(404, "function.function.not_found");
    for answer in &denied {
        is_refused(answer);
        assert!(answer.error().1.contains("access rules"), "{}", answer.text());
    }
    assert_eq!(on_behalf.status, 200, "{}", on_behalf.text());
}

#[tokio::test]
async fn only_a_service_s_own_token_counts_as_one() {
    let service = service(300).await;
    let user = Account::read("openrc").token().await;
    let lambda = Account::read("openrc-service").token().await;
    let other = Account::read("openrc-other").token().await;
    let asked = |user: &str, service_token: &str| {
        let mut asked = asked(Method::GET, "/v1/functions", user);
        asked.headers_mut().insert("x-service-token", service_token.parse().unwrap());
        asked
    };
    assert_eq!(service.send(asked(&user.text, &lambda.text)).await.status, 200);
    is_refused(&service.send(asked(&user.text, &other.text)).await);
    is_refused(&service.send(asked(&user.text, "wrong")).await);
    is_refused(&service.send(asked("wrong", &lambda.text)).await);
}

#[tokio::test]
async fn a_token_that_has_run_out_passes_with_a_service_s_token_beside_it_and_not_without() {
    let service = service(300).await;
    let account = Account::read("openrc");
    let token = account.token().await;
    let user = token.body["user"]["id"].as_str().unwrap();
    let url = account.url(&format!("users/{user}/application_credentials"));
    // The token that it gives ends when it does.
    let ends = clock::now() + Duration::from_secs(5);
    let name = format!("policy-test-{}", uuid::Uuid::new_v4());
    let wanted =
        json!({"application_credential": {"name": name, "expires_at": ends.to_string().trim_end_matches('Z')}});
    let made = http().post(&url).header("x-auth-token", &token.text).json(&wanted).send().await.unwrap();
    assert_eq!(made.status().as_u16(), 201);
    let made: Value = made.json().await.unwrap();
    let made = &made["application_credential"];
    let identity = json!({"methods": ["application_credential"], "application_credential":
        {"id": made["id"], "secret": made["secret"]}});
    let short = account.ask(json!({"auth": {"identity": identity}})).await;
    let lambda = Account::read("openrc-service").token().await;

    let begun = Instant::now();
    let mut alone = get(&service, "/v1/functions", &short.text).await;
    while alone.status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not run out");
        tokio::time::sleep(Duration::from_millis(200)).await;
        alone = get(&service, "/v1/functions", &short.text).await;
    }
    let mut on_behalf = asked(Method::GET, "/v1/functions", &short.text);
    on_behalf.headers_mut().insert("x-service-token", lambda.text.parse().unwrap());
    let on_behalf = service.send(on_behalf).await;
    let id = made["id"].as_str().unwrap();
    http().delete(format!("{url}/{id}")).header("x-auth-token", &token.text).send().await.unwrap();
    is_refused(&alone);
    assert_eq!(on_behalf.status, 200, "{}", on_behalf.text());
}
