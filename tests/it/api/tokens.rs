//! `[api] auth_strategy = keystone`: the service behind a Keystone whose faults a test can make: what is asked, how
//! often, and what is answered when it is away. What the real one says is in the tests of the cloud.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Method, Request};
use lambda_openstack::api::{AccessRule, KeystoneDeps, Named, RULES, TokenFacts, TokenValidator, ValidationError};
use lambda_openstack::clock;
use lambda_openstack::config::{ApiOptions, KeystoneAuthtokenOptions};
use tokio::sync::Semaphore;

use super::harness::{Answer, Service, request, store};

/// Keystone as a test needs it.
struct Keystone {
    tokens: Mutex<BTreeMap<String, TokenFacts>>,
    /// Each question, and whether tokens that have run out were asked for too.
    asked: Mutex<Vec<(String, bool)>>,
    is_down: AtomicBool,
    /// Answers are given while there are places.
    answers: Semaphore,
    waiting: AtomicUsize,
}

#[async_trait]
impl TokenValidator for Keystone {
    async fn validate(&self, token: &str, allow_expired: bool) -> Result<Option<TokenFacts>, ValidationError> {
        self.asked.lock().unwrap().push((token.to_owned(), allow_expired));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _place = self.answers.acquire().await.unwrap();
        if self.is_down.load(Ordering::SeqCst) {
            return Err("connection refused".into());
        }
        let known = self.tokens.lock().unwrap().get(token).cloned();
        Ok(known.filter(|facts| allow_expired || facts.expires_at > clock::now()))
    }
}

impl Keystone {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            tokens: Mutex::default(),
            asked: Mutex::default(),
            is_down: AtomicBool::new(false),
            answers: Semaphore::new(1000),
            waiting: AtomicUsize::new(0),
        })
    }

    fn gives(&self, token: &str, facts: TokenFacts) {
        self.tokens.lock().unwrap().insert(token.to_owned(), facts);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn named(id: &str) -> Named {
    Named { id: id.to_owned(), name: format!("name-of-{id}"), domain_id: "default".to_owned() }
}

/// A token for the project `demo`, good for an hour.
fn facts(roles: &[&str]) -> TokenFacts {
    TokenFacts {
        user: named("u1"),
        project: Some(named("demo")),
        domain_id: None,
        is_system: false,
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        expires_at: clock::now() + Duration::from_secs(3600),
        access_rules: None,
        knows_this_service: true,
        is_admin_project: true,
    }
}

fn expired(roles: &[&str]) -> TokenFacts {
    TokenFacts { expires_at: clock::now() - Duration::from_secs(60), ..facts(roles) }
}

async fn service(keystone: &Arc<Keystone>) -> Service {
    with(keystone, KeystoneAuthtokenOptions::default()).await
}

async fn with(keystone: &Arc<Keystone>, options: KeystoneAuthtokenOptions) -> Service {
    let deps = KeystoneDeps {
        options,
        www_authenticate_uri: "https://cloud.example/identity".to_owned(),
        validator: Arc::clone(keystone) as Arc<dyn TokenValidator>,
    };
    Service::behind_keystone(ApiOptions { auth_strategy: "keystone".to_owned(), ..ApiOptions::default() }, deps).await
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request =
        headers.iter().fold(request(Method::GET, path), |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).unwrap()
}

const LIST: &str = "/v1/functions";

fn is_refused(answer: &Answer) {
    answer.is_error(401, "function.identity.required");
    assert_eq!(answer.header("www-authenticate"), "Keystone uri=\"https://cloud.example/identity\"");
}

#[tokio::test]
async fn without_a_good_token_every_route_answers_401_and_says_where_to_get_one() {
    let keystone = Keystone::new();
    keystone.gives("old", expired(&["member", "reader"]));
    let service = service(&keystone).await;
    for rule in RULES {
        for operation in rule.operations {
            let asked = |headers: &[(&str, &str)]| {
                let mut asked = get(operation.path, headers);
                *asked.method_mut() = operation.method.parse().unwrap();
                asked
            };
            for headers in [
                &[] as &[_],
                &[("x-auth-token", "")],
                &[("x-auth-token", "wrong")],
                &[("x-auth-token", "old")],
                // Whatever is claimed beside it.
                &[
                    ("x-project-id", "demo"),
                    ("x-roles", "admin"),
                    ("x-user-id", "u1"),
                    ("x-identity-status", "Confirmed"),
                ],
            ] {
                is_refused(&service.send(asked(headers)).await);
            }
        }
    }
    for open in ["/", "/v1", "/healthcheck", "/v1/openapi.json", "/v1/errors"] {
        assert!(service.get(open).await.status.as_u16() < 400, "{open}");
    }
}

#[tokio::test]
async fn who_calls_is_what_the_token_says_and_nothing_that_the_request_claims() {
    let keystone = Keystone::new();
    keystone.gives("r", facts(&["reader"]));
    keystone.gives("m", facts(&["Member", "reader"]));
    let service = service(&keystone).await;
    let claims = [("x-roles", "admin"), ("x-project-id", "other"), ("x-tenant-id", "other"), ("x-user-id", "root")];
    let as_token = |method: Method, token: &str, body: &str| {
        let mut asked = get(LIST, &claims);
        *asked.method_mut() = method;
        asked.headers_mut().insert("x-auth-token", token.parse().unwrap());
        asked.headers_mut().insert("content-type", "application/json".parse().unwrap());
        *asked.body_mut() = Body::from(body.to_owned());
        asked
    };
    service.send(as_token(Method::POST, "r", "{\"name\": \"f\"}")).await.is_error(403, "function.policy.denied");
    let made = service.send(as_token(Method::POST, "m", "{\"name\": \"f\"}")).await;
    assert_eq!((made.status.as_u16(), &made.json()["project_id"]), (201, &"demo".into()), "{}", made.text());
    let listed = service.send(as_token(Method::GET, " r ", "")).await;
    assert_eq!(listed.json()["functions"][0]["name"], "f");
    // Swift's header, where the other one is not there.
    assert_eq!(service.send(get(LIST, &[("x-storage-token", "r")])).await.status, 200);
    is_refused(&service.send(get(LIST, &[("x-storage-token", "r"), ("x-auth-token", "wrong")])).await);
}

#[tokio::test]
async fn a_token_that_is_for_no_project_is_refused_with_its_reason() {
    let keystone = Keystone::new();
    keystone.gives("unscoped", TokenFacts { project: None, ..facts(&[]) });
    keystone.gives("system", TokenFacts { project: None, is_system: true, ..facts(&["admin"]) });
    keystone.gives("domain", TokenFacts { project: None, domain_id: Some("default".to_owned()), ..facts(&["admin"]) });
    let service = service(&keystone).await;
    for (token, says) in [("unscoped", "for nothing"), ("system", "for the system"), ("domain", "for a domain")] {
        let answer = service.send(get(LIST, &[("x-auth-token", token)])).await;
        answer.is_error(403, "function.identity.no_project");
        assert!(answer.error().1.contains(says), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_good_token_is_asked_about_once_a_bad_one_each_time() {
    let keystone = Keystone::new();
    keystone.gives("good", facts(&["reader"]));
    let service = service(&keystone).await;
    for _ in 0..3 {
        assert_eq!(service.send(get(LIST, &[("x-auth-token", "good")])).await.status, 200);
    }
    assert_eq!(keystone.asked(), 1);
    // Revoked: it passes for as long as it is remembered, as with keystonemiddleware.
    keystone.tokens.lock().unwrap().clear();
    assert_eq!(service.send(get(LIST, &[("x-auth-token", "good")])).await.status, 200);
    for _ in 0..3 {
        is_refused(&service.send(get(LIST, &[("x-auth-token", "bad")])).await);
    }
    assert_eq!(keystone.asked(), 4);
}

#[tokio::test]
async fn with_a_cache_time_of_minus_one_nothing_is_remembered() {
    let keystone = Keystone::new();
    keystone.gives("good", facts(&["reader"]));
    let options = KeystoneAuthtokenOptions { token_cache_time: -1, ..KeystoneAuthtokenOptions::default() };
    let service = with(&keystone, options).await;
    assert_eq!(service.send(get(LIST, &[("x-auth-token", "good")])).await.status, 200);
    keystone.tokens.lock().unwrap().clear();
    is_refused(&service.send(get(LIST, &[("x-auth-token", "good")])).await);
}

#[tokio::test]
async fn a_remembered_token_that_runs_out_is_refused_without_asking() {
    let keystone = Keystone::new();
    keystone.gives("short", TokenFacts { expires_at: clock::now() + Duration::from_millis(700), ..facts(&["reader"]) });
    let service = service(&keystone).await;
    let asked = || service.send(get(LIST, &[("x-auth-token", "short")]));
    let mut answer = asked().await;
    while answer.status == 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = asked().await;
    }
    is_refused(&answer);
    assert_eq!(keystone.asked(), 1);
}

#[tokio::test]
async fn many_requests_with_one_token_are_one_question_while_keystone_is_slow() {
    let keystone = Keystone::new();
    keystone.gives("good", facts(&["reader"]));
    keystone.answers.forget_permits(1000);
    let service = service(&keystone).await;
    let requests = futures::future::join_all((0..50).map(|_| service.send(get(LIST, &[("x-auth-token", "good")]))));
    let let_go = async {
        while keystone.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        keystone.answers.add_permits(1);
    };
    let (answers, ()) = tokio::join!(requests, let_go);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(keystone.asked(), 1);
}

#[tokio::test]
async fn while_keystone_is_away_the_answer_is_503_but_for_who_is_remembered() {
    let keystone = Keystone::new();
    keystone.gives("good", facts(&["reader"]));
    keystone.gives("new", facts(&["reader"]));
    let service = service(&keystone).await;
    assert_eq!(service.send(get(LIST, &[("x-auth-token", "good")])).await.status, 200);
    keystone.is_down.store(true, Ordering::SeqCst);
    assert_eq!(service.send(get(LIST, &[("x-auth-token", "good")])).await.status, 200);
    let answer = service.send(get(LIST, &[("x-auth-token", "new")])).await;
    answer.is_error(503, "function.identity.unavailable");
    assert_eq!(answer.error().1, "The Keystone service is temporarily unavailable.");
    assert!(!answer.header("retry-after").is_empty());
    assert!(!answer.text().contains("refused"), "why is for the log");
    // What failed is not remembered.
    keystone.is_down.store(false, Ordering::SeqCst);
    assert_eq!(service.send(get(LIST, &[("x-auth-token", "new")])).await.status, 200);
}

#[tokio::test]
async fn a_service_s_token_lets_a_user_s_token_be_late_and_no_other_token_does() {
    let keystone = Keystone::new();
    keystone.gives("late", expired(&["reader"]));
    keystone.gives("good", facts(&["reader"]));
    keystone.gives("service", facts(&["service"]));
    keystone.gives("other", facts(&["admin", "member"]));
    let service = service(&keystone).await;
    let asked =
        |user: &str, service_token: &str| get(LIST, &[("x-auth-token", user), ("x-service-token", service_token)]);
    assert_eq!(service.send(asked("late", "service")).await.status, 200);
    is_refused(&service.send(get(LIST, &[("x-auth-token", "late")])).await);
    // Without the role, or not good: the whole request is refused, whatever the user's token.
    for bad in ["other", "wrong"] {
        is_refused(&service.send(asked("late", bad)).await);
        is_refused(&service.send(asked("good", bad)).await);
    }
    is_refused(&service.send(asked("wrong", "service")).await);
    is_refused(&service.send(get(LIST, &[("x-service-token", "service")])).await);
    let asked_for_late: Vec<_> = keystone.asked.lock().unwrap().iter().filter(|(_, late)| *late).cloned().collect();
    assert!(asked_for_late.iter().all(|(token, _)| token != "service"), "{asked_for_late:?}");

    // The older behaviour: any token passes, but none lets the user's be late.
    let options =
        KeystoneAuthtokenOptions { service_token_roles_required: false, ..KeystoneAuthtokenOptions::default() };
    let lax = with(&keystone, options).await;
    assert_eq!(lax.send(asked("good", "other")).await.status, 200);
    is_refused(&lax.send(asked("late", "other")).await);
    assert_eq!(lax.send(asked("late", "service")).await.status, 200);
}

#[tokio::test]
async fn an_application_credential_may_do_what_its_access_rules_say() {
    let rule = |method: &str, path: &str, service: &str| AccessRule {
        service: service.to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
    };
    let keystone = Keystone::new();
    let narrow = TokenFacts {
        access_rules: Some(vec![rule("GET", "/v1/functions", "function")]),
        ..facts(&["member", "reader"])
    };
    keystone.gives("narrow", narrow.clone());
    keystone.gives("nothing", TokenFacts { access_rules: Some(Vec::new()), ..narrow.clone() });
    keystone.gives(
        "elsewhere",
        TokenFacts { access_rules: Some(vec![rule("GET", "/v1/functions", "compute")]), ..narrow.clone() },
    );
    keystone.gives("unregistered", TokenFacts { knows_this_service: false, ..narrow });
    keystone.gives("service", facts(&["service"]));
    let service = service(&keystone).await;
    let asked = |path: &str, token: &str| get(path, &[("x-auth-token", token)]);
    assert_eq!(service.send(asked(LIST, "narrow")).await.status, 200);
    assert_eq!(service.send(asked("/v1/functions?limit=1", "narrow")).await.status, 200);
    for (path, token) in [
        ("/v1/triggers", "narrow"),
        ("/v1/functions/f", "narrow"),
        (LIST, "nothing"),
        (LIST, "elsewhere"),
        (LIST, "unregistered"),
    ] {
        is_refused(&service.send(asked(path, token)).await);
    }
    // A service that sends the request on is not bound by them.
    let on_behalf = get("/v1/triggers", &[("x-auth-token", "narrow"), ("x-service-token", "service")]);
    assert_eq!(service.send(on_behalf).await.status, 200);
}

#[tokio::test]
async fn the_service_does_not_start_without_a_keystone_to_ask() {
    let (store, directory) = store().await;
    let options = ApiOptions { auth_strategy: "keystone".to_owned(), ..ApiOptions::default() };
    let refused = Service::try_on(store, directory, options, None, None).err().unwrap();
    assert!(refused.to_string().contains("auth_strategy"), "{refused}");
}
