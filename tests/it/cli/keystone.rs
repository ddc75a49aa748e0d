//! The command on a cloud: how it finds out who calls and where the service is, with Keystone and service played by one
//! server.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{err, requests};
use crate::session::tls::{Authority, Files, TlsServer};

/// `lambda` in a directory, with these variables and no others.
fn lambda(here: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambda"));
    command.env_clear().envs(environment.iter().copied()).args(arguments).current_dir(here);
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    command
}

async fn run(here: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    lambda(here, environment, arguments).output().await.unwrap()
}

/// A Keystone whose catalog has our service at `/function/v1` of the same server, in two regions.
async fn cloud(server: &MockServer) {
    let url = server.uri();
    let endpoint = |interface: &str, region: &str, path: &str| json!({"id": "e", "interface": interface, "region": region, "region_id": region, "url": format!("{url}{path}")});
    let token = json!({"token": {
    "expires_at": "2030-01-01T01:00:00.000000Z", "issued_at": "2030-01-01T00:00:00.000000Z",
    "user": {"id": "u", "name": "me", "domain": {"id": "default", "name": "Default"}},
    "project": {"id": "p", "name": "p", "domain": {"id": "default", "name": "Default"}},
    "catalog": [{"id": "s", "type": "function", "name": "lambda", "endpoints": [
        endpoint("public", "one", "/function/v1"),
        endpoint("internal", "one", "/inside"),
        endpoint("public", "two", "/elsewhere"),
    ]}]}});
    let answer = ResponseTemplate::new(201).insert_header("X-Subject-Token", "secret-token").set_body_json(token);
    Mock::given(method("POST")).and(path("/identity/v3/auth/tokens")).respond_with(answer).mount(server).await;
    for place in ["/function", "/inside", "/elsewhere"] {
        Mock::given(method("GET"))
            .and(path(format!("{place}/v1/functions")))
            .and(header("x-auth-token", "secret-token"))
            .respond_with(ResponseTemplate::new(200).set_body_json(json!({"functions": []})))
            .mount(server)
            .await;
    }
}

/// The path of the one request that was not for Keystone.
async fn asked(server: &MockServer) -> String {
    let all = requests(server).await;
    let paths: Vec<_> = all.iter().map(|request| request.url.path().to_owned()).collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
    server.reset().await;
    cloud(server).await;
    paths[1].clone()
}

const OPENRC: [(&str, &str); 4] =
    [("OS_USERNAME", "me"), ("OS_PASSWORD", "hunter2"), ("OS_PROJECT_NAME", "p"), ("OS_USER_DOMAIN_ID", "default")];

#[tokio::test]
async fn the_service_is_found_in_the_catalog_by_region_and_interface() {
    let (server, here) = (MockServer::start().await, tempfile::tempdir().unwrap());
    cloud(&server).await;
    let url = format!("{}/identity/v3", server.uri());
    let openrc = [&OPENRC[..], &[("OS_AUTH_URL", url.as_str())]].concat();
    let elsewhere = format!("{}/elsewhere/v1/", server.uri());
    for (arguments, variables, place) in [
        (&["function", "list"][..], &[][..], "/function/v1/functions"),
        (&["function", "list", "--os-region-name", "two"], &[], "/elsewhere/v1/functions"),
        (&["function", "list"], &[("OS_REGION_NAME", "two")], "/elsewhere/v1/functions"),
        (&["--os-interface", "internalURL", "function", "list"], &[], "/inside/v1/functions"),
        (&["function", "list"], &[("OS_INTERFACE", "internal")], "/inside/v1/functions"),
        (&["function", "list", "--os-endpoint", &elsewhere], &[], "/elsewhere/v1/functions"),
        (&["function", "list"], &[("OS_ENDPOINT", &elsewhere)], "/elsewhere/v1/functions"),
    ] {
        let output = run(here.path(), &[&openrc, variables].concat(), arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        assert_eq!(asked(&server).await, place, "{arguments:?}");
    }
    for (arguments, part) in [
        (&["function", "list", "--os-region-name", "three"][..], "no endpoint in region 'three', only in: one, two"),
        (&["function", "list", "--os-interface", "admin"], "function has no admin endpoint, only: public"),
        (&["function", "list", "--os-interface", "odd"], "OS_INTERFACE is 'odd'"),
    ] {
        let output = run(here.path(), &openrc, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(err(&output).contains(part), "{}", err(&output));
    }
}

#[tokio::test]
async fn a_cloud_of_clouds_yaml_is_chosen_by_its_name() {
    let (server, here) = (MockServer::start().await, tempfile::tempdir().unwrap());
    cloud(&server).await;
    let clouds = json!({"clouds": {
        "mine": {"auth": {"auth_url": format!("{}/identity", server.uri()), "username": "me", "project_name": "p"},
                 "region_name": "two"},
        "other": {"auth": {"auth_url": "http://127.0.0.1:1"}}}});
    std::fs::write(here.path().join("clouds.yaml"), clouds.to_string()).unwrap();
    std::fs::write(here.path().join("secure.yaml"), "clouds: {mine: {auth: {password: hunter2}}}").unwrap();
    for (variables, arguments) in [
        (&[("OS_CLOUD", "mine"), ("OS_PASSWORD", "of-another")][..], &["function", "list"][..]),
        (&[("OS_CLOUD", "other")], &["--os-cloud", "mine", "function", "list"]),
    ] {
        let output = run(here.path(), variables, arguments).await;
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let sent: Value = serde_json::from_slice(&requests(&server).await[0].body).unwrap();
        assert_eq!(sent["auth"]["identity"]["password"]["user"]["password"], "hunter2");
        assert_eq!(asked(&server).await, "/elsewhere/v1/functions");
    }
    let output = run(here.path(), &[("OS_CLOUD", "none")], &["function", "list"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(err(&output), "lambda: there is no cloud 'none' in clouds.yaml, only: mine, other\n");
}

#[tokio::test]
async fn nothing_secret_is_shown_even_when_everything_is() {
    let (server, here) = (MockServer::start().await, tempfile::tempdir().unwrap());
    cloud(&server).await;
    let url = format!("{}/identity", server.uri());
    let openrc = [&OPENRC[..], &[("OS_AUTH_URL", url.as_str())]].concat();
    let output = run(here.path(), &openrc, &["function", "list", "--debug"]).await;
    let said = err(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("lambda: authenticate at Keystone: 201 in ") && said.contains("GET /function/v1/functions"));
    assert!(!said.contains("hunter2") && !said.contains("secret-token"), "{said}");

    server.reset().await;
    let refusal = json!({"error": {"code": 401, "title": "Unauthorized", "message": "Please authenticate."}});
    let answer = ResponseTemplate::new(401).set_body_json(refusal);
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    let output = run(here.path(), &openrc, &["function", "list", "--debug"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("Keystone does not accept the user, its password or its project (it says: ")
            && !err(&output).contains("hunter2"),
        "{}",
        err(&output)
    );
}

#[tokio::test]
async fn a_keystone_that_is_away_is_named() {
    let here = tempfile::tempdir().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}/identity/v3");
    let openrc = [&OPENRC[..], &[("OS_AUTH_URL", url.as_str())]].concat();
    let output = run(here.path(), &openrc, &["function", "list"]).await;
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("lambda: Keystone at http://{address}/identity does not answer: ");
    assert!(err(&output).starts_with(&expected) && err(&output).contains("refused"), "{}", err(&output));
}

#[tokio::test]
async fn certificates_are_checked_unless_the_caller_says_no() {
    let (ours, others, files) = (Authority::new(), Authority::new(), Files::new());
    let server = TlsServer::start(ours.issue("localhost"), None);
    let (ca, wrong) = (files.write("ca", &ours.pem), files.write("wrong", &others.pem));
    let (ca, wrong) = (ca.to_str().unwrap(), wrong.to_str().unwrap());
    let endpoint = format!("https://localhost:{}", server.address.port());
    let noauth = [("OS_AUTH_TYPE", "none"), ("OS_ENDPOINT", endpoint.as_str())];
    let here = tempfile::tempdir().unwrap();
    for (variables, arguments, code) in [
        (&[("OS_CACERT", ca)][..], &["function", "list"][..], 0),
        (&[], &["function", "list", "--os-cacert", ca], 0),
        (&[], &["function", "list", "--insecure"], 0),
        (&[("OS_INSECURE", "true")], &["function", "list"], 0),
        (&[("OS_CACERT", wrong)], &["function", "list"], 1),
        (&[], &["function", "list"], 1),
        (&[("OS_CACERT", "/nowhere")], &["function", "list"], 2),
    ] {
        let output = run(here.path(), &[&noauth, variables].concat(), arguments).await;
        assert_eq!(output.status.code(), Some(code), "{variables:?} {arguments:?}: {}", err(&output));
    }
}
