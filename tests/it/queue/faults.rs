//! The client against a service that has a bad day.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lambda_openstack::openstack::zaqar::{Client, Held};
use lambda_openstack::openstack::{CallObservation, OpenStackError, SessionOptions};
use serde_json::{Map, json};
use wiremock::matchers::{header_exists, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{client, message};

const TTL: Duration = Duration::from_secs(60);

fn hasty() -> SessionOptions {
    SessionOptions {
        timeout: Duration::from_secs(10),
        deadline: Duration::from_secs(30),
        repeats: 2,
        pause_min: Duration::from_millis(1),
        pause_max: Duration::from_millis(5),
        ..SessionOptions::default()
    }
}

async fn answering(verb: &str, template: ResponseTemplate) -> (MockServer, Client) {
    let server = MockServer::start().await;
    Mock::given(method(verb)).respond_with(template).mount(&server).await;
    let client = client(&server.uri(), hasty());
    (server, client)
}

async fn seen(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

#[tokio::test]
async fn what_can_be_repeated_is_until_it_works() {
    for status in [502, 503, 504, 429] {
        let server = MockServer::start().await;
        Mock::given(method("GET")).respond_with(ResponseTemplate::new(status)).up_to_n_times(2).mount(&server).await;
        Mock::given(method("GET"))
            .and(path("/v2/ping"))
            .and(header_exists("client-id"))
            .and(header_exists("x-project-id"))
            .respond_with(ResponseTemplate::new(204))
            .mount(&server)
            .await;
        client(&server.uri(), hasty()).ping().await.unwrap();
        assert_eq!(seen(&server).await, 3, "{status}");
    }
}

#[tokio::test]
async fn a_service_that_stays_down_is_given_up() {
    let (server, client) = answering("GET", ResponseTemplate::new(503)).await;
    let error = client.ping().await.unwrap_err();
    assert!(matches!(error, OpenStackError::Unavailable { service: "message", .. }), "{error:?}");
    assert!(error.retryable());
    assert_eq!(seen(&server).await, 3);
}

#[tokio::test]
async fn a_post_and_a_claim_are_not_sent_twice() {
    let (server, client) = answering("POST", ResponseTemplate::new(503)).await;
    let error = client.post("q", &[message(&json!(1))]).await.unwrap_err();
    assert!(error.posted.is_empty() && error.source.retryable());
    assert!(client.claim("q", 1, TTL, TTL).await.unwrap_err().retryable());
    assert_eq!(seen(&server).await, 2);
    // But one that was refused for the rate alone was not looked at.
    let (server, client) = answering("POST", ResponseTemplate::new(429)).await;
    let error = client.claim("q", 1, TTL, TTL).await.unwrap_err();
    assert!(matches!(error, OpenStackError::OverLimit { .. }), "{error:?}");
    assert_eq!(seen(&server).await, 3);
}

#[tokio::test]
async fn a_service_says_when_it_wants_to_be_asked_again() {
    let (server, client) = answering("GET", ResponseTemplate::new(429).insert_header("Retry-After", "3600")).await;
    let error = client.ping().await.unwrap_err();
    assert!(
        matches!(error, OpenStackError::OverLimit { retry_after: Some(after), .. } if after.as_secs() == 3600),
        "{error:?}"
    );
    assert_eq!(seen(&server).await, 1, "it is not waited for longer than the deadline");
}

#[tokio::test]
async fn a_service_that_hangs_is_left_after_the_timeout() {
    let server = MockServer::start().await;
    let hangs = ResponseTemplate::new(201).set_delay(Duration::from_secs(60));
    Mock::given(method("POST")).respond_with(hangs).mount(&server).await;
    let options = SessionOptions { timeout: Duration::from_millis(300), ..hasty() };
    let begun = Instant::now();
    let error = client(&server.uri(), options).claim("q", 1, TTL, TTL).await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(seen(&server).await, 1);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unavailable() {
    // The discard port: nobody listens there, and nobody else is given it.
    let client = client("http://127.0.0.1:9", hasty());
    for error in [
        client.ping().await.unwrap_err(),
        client.claim("q", 1, TTL, TTL).await.unwrap_err(),
        client.post("q", &[message(&json!(1))]).await.unwrap_err().source,
    ] {
        assert!(matches!(error, OpenStackError::Unavailable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn garbage_is_a_protocol_error() {
    for body in ["", "<html>hello</html>", "null", "[]", r#"{"messages":[{"id":1}]}"#, r#"{"resources":["x","y"]}"#] {
        let (_server, client) = answering("POST", ResponseTemplate::new(201).set_body_string(body)).await;
        let error = client.claim("q", 1, TTL, TTL).await.unwrap_err();
        assert!(matches!(error, OpenStackError::Protocol { .. }), "{body}: {error:?}");
        let error = client.post("q", &[message(&json!(1))]).await.unwrap_err().source;
        assert!(matches!(error, OpenStackError::Protocol { .. }), "{body}: {error:?}");
    }
    let (_server, client) = answering("GET", ResponseTemplate::new(200).set_body_bytes(vec![0xff; 9])).await;
    assert!(matches!(client.stats("q").await.unwrap_err(), OpenStackError::Protocol { .. }));
    // A redirection is not followed: our token must not go there.
    let elsewhere = ResponseTemplate::new(302).insert_header("Location", "http://127.0.0.1:9/");
    let (_server, client) = answering("PUT", elsewhere).await;
    let error = client.ensure_queue("q", &Map::new()).await.unwrap_err();
    assert!(matches!(error, OpenStackError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn every_status_comes_as_what_can_be_done_about_it() {
    let body = json!({"title": "T", "description": "D"});
    for (status, is_right) in [
        (
            400,
            (|error| matches!(error, OpenStackError::Invalid(text) if text == "T: D")) as fn(&OpenStackError) -> bool,
        ),
        (401, |error| matches!(error, OpenStackError::Unauthorized(_))),
        (403, |error| matches!(error, OpenStackError::Forbidden(_))),
        (404, |error| matches!(error, OpenStackError::NotFound(_))),
        (409, |error| matches!(error, OpenStackError::Conflict(_))),
        (413, |error| matches!(error, OpenStackError::OverLimit { .. })),
        (500, |error| matches!(error, OpenStackError::Unavailable { .. })),
    ] {
        let (_server, client) = answering("PUT", ResponseTemplate::new(status).set_body_json(&body)).await;
        let error = client.ensure_queue("q", &Map::new()).await.unwrap_err();
        assert!(is_right(&error), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn a_lost_claim_is_no_error() {
    for status in [400, 403, 404] {
        let server = MockServer::start().await;
        Mock::given(method("DELETE"))
            .and(query_param("ids", "a,b"))
            .and(query_param("claim_ids", "c"))
            .respond_with(ResponseTemplate::new(status))
            .mount(&server)
            .await;
        let client = client(&server.uri(), hasty());
        let ids = ["a".to_owned(), "b".to_owned()];
        assert_eq!(client.delete_claimed("q", &ids, "c").await.unwrap(), Held::Lost, "{status}");
    }
}

#[tokio::test]
async fn many_ids_are_deleted_twenty_at_a_time() {
    let (server, client) = answering("DELETE", ResponseTemplate::new(204)).await;
    let ids: Vec<String> = (0..45).map(|n| n.to_string()).collect();
    assert_eq!(client.delete_claimed("q", &ids, "c").await.unwrap(), Held::Done);
    assert_eq!(seen(&server).await, 3);
}

#[tokio::test]
async fn every_attempt_is_observed() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let observations = Arc::clone(&told);
    let observer = move |call: &CallObservation| observations.lock().unwrap().push((call.operation, call.status));
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(503)).up_to_n_times(1).mount(&server).await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let options = SessionOptions { observer: Some(Arc::new(observer)), ..hasty() };
    client(&server.uri(), options).ping().await.unwrap();
    assert_eq!(*told.lock().unwrap(), [("ping", Some(503)), ("ping", Some(204))]);
}
