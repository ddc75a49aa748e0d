//! The `lambda` command with a real Keystone's tokens: what it sends to a service that is played is shown to Keystone.

use std::path::Path;
use std::process::Output;

use serde_json::json;
use tokio::process::Command;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::keystone::with_credential;

async fn service() -> MockServer {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(200).set_body_json(json!({"functions": []}));
    Mock::given(method("GET")).and(path("/v1/functions")).respond_with(answer).mount(&server).await;
    server
}

async fn lambda(here: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambda"));
    command.env_clear().envs(environment.iter().copied()).args(arguments).current_dir(here);
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    command.output().await.unwrap()
}

/// Whose token the service got, and for which project.
async fn caller(server: &MockServer) -> (String, String) {
    let requests = server.received_requests().await.unwrap();
    let token = requests.last().unwrap().headers["x-auth-token"].to_str().unwrap().to_owned();
    let told = super::service().keystone().validate(&token).await.unwrap().unwrap();
    (told.user.name, told.project.unwrap().name)
}

#[tokio::test]
async fn an_openrc_is_all_that_is_needed() {
    let (server, account, here) = (service().await, super::env(), tempfile::tempdir().unwrap());
    let endpoint = server.uri();
    let openrc: Vec<_> = account.variables().filter(|(name, _)| name.starts_with("OS_")).collect();
    let with_endpoint = [&openrc[..], &[("OS_ENDPOINT", endpoint.as_str())]].concat();
    let output = lambda(here.path(), &with_endpoint, &["function", "list", "--debug"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("authenticate at Keystone: 201"), "{said}");
    let expected = (account.var("OS_USERNAME").to_owned(), account.var("OS_PROJECT_NAME").to_owned());
    assert_eq!(caller(&server).await, expected);

    let wrong = [&with_endpoint[..], &[("OS_PASSWORD", "hunter2-wrong")]].concat();
    let output = lambda(here.path(), &wrong, &["function", "list", "--debug"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Keystone does not accept the user") && !said.contains("hunter2"), "{said}");

    let nowhere = [&with_endpoint[..], &[("OS_ENDPOINT", ""), ("OS_REGION_NAME", "Nowhere")]].concat();
    let output = lambda(here.path(), &nowhere, &["function", "list"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_cloud_with_an_application_credential_and_one_with_a_token_work() {
    let (server, account) = (service().await, super::env());
    let expected = (account.var("OS_USERNAME").to_owned(), account.var("OS_PROJECT_NAME").to_owned());
    let token = account.auth().token().await.unwrap().to_str().unwrap().to_owned();
    let project = account.auth().project_id().await.unwrap();
    let name = format!("lambda-it-{}", uuid::Uuid::new_v4().simple());
    with_credential(json!({"name": name, "roles": [{"name": "member"}]}), async |made| {
        let here = tempfile::tempdir().unwrap();
        let url = account.var("OS_AUTH_URL");
        let clouds = json!({"clouds": {
            "credential": {"auth_type": "v3applicationcredential", "function_endpoint_override": server.uri(),
                "auth": {"auth_url": url, "application_credential_id": made["id"]}},
            "token": {"auth_type": "token", "function_endpoint_override": server.uri(),
                "auth": {"auth_url": url, "token": token, "project_id": project}}}});
        let secure = json!({"clouds": {"credential": {"auth": {"application_credential_secret": made["secret"]}}}});
        std::fs::write(here.path().join("clouds.yaml"), clouds.to_string()).unwrap();
        std::fs::write(here.path().join("secure.yaml"), secure.to_string()).unwrap();
        for cloud in ["credential", "token"] {
            let output = lambda(here.path(), &[("OS_CLOUD", cloud)], &["function", "list"]).await;
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(caller(&server).await, expected);
        }
    })
    .await;
}
