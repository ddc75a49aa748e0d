//! The `lambda` program itself against a service that is played: what each command asks for, what it shows, and how it
//! ends.

mod contract;
mod keystone;
mod openstacksdk;

use std::io::{Cursor, Read as _};
use std::process::Output;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::process::Command;
use wiremock::matchers::{any, body_json, header, header_exists, method, path, query_param};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

fn lambda(endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambda"));
    command.env_clear().env("OS_AUTH_TYPE", "none").env("OS_ENDPOINT", endpoint).env("OS_PROJECT_ID", "p1");
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    command
}

async fn run(server: &MockServer, arguments: &[&str]) -> Output {
    lambda(&server.uri(), arguments).output().await.unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What the command printed; it must have succeeded.
async fn printed(server: &MockServer, arguments: &[&str]) -> String {
    let output = run(server, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
    out(&output)
}

/// What the command said when it failed with this exit code, having printed nothing else.
async fn complained(server: &MockServer, code: i32, arguments: &[&str]) -> String {
    let output = run(server, arguments).await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", err(&output));
    assert_eq!(out(&output), "", "{arguments:?}");
    err(&output)
}

async fn answers(server: &MockServer, verb: &str, at: &str, status: u16, body: Value) {
    Mock::given(method(verb))
        .and(path(at))
        .respond_with(ResponseTemplate::new(status).set_body_json(body))
        .mount(server)
        .await;
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.unwrap()
}

fn refusal(status: u16, code: &str, detail: &str) -> Value {
    json!({"errors": [{"request_id": "req-1", "code": code, "status": status, "title": "It cannot be", "detail": detail}]})
}

fn execution(id: &str, state: &str) -> Value {
    let failure = json!({"request_id": "req-9", "component": "function", "phase": "invoke", "reason": "handler_error",
                         "error": {"type": "ValueError", "message": "no picture", "trace": ["File \"main.py\", line 2"]}});
    let failed = state == "failed";
    json!({"id": id, "function_name": "thumb", "event": {"id": "ev1", "type": "file.created"}, "state": state, "attempts": 2,
           "result": if failed { Value::Null } else { json!({"ok": true}) },
           "failure": if failed { failure } else { Value::Null }})
}

/// Method, path, query and body that are expected; the answer; the command and what it shows.
type Case<'a> = (&'a str, &'a str, &'a str, Value, Value, &'a [&'a str], &'a str);

#[tokio::test]
async fn every_command_asks_for_its_route_and_shows_the_answer() {
    let function = json!({"id": "f1", "name": "thumb", "runtime": "python3", "memory": 128});
    let trigger = json!({"id": "t1", "function_id": "f1", "source": "s", "type": "t", "filter": {}});
    let post_trigger =
        json!({"function": "thumb", "source": "s", "type": "t", "filter": {"suffix": {"data.name": ".png"}}});
    let filter = post_trigger["filter"].to_string();
    #[rustfmt::skip]
    let cases: &[Case<'_>] = &[
        ("GET", "/v1/functions", "", Value::Null, json!({"functions": [function], "functions_links": []}), &["function", "list", "-f", "value", "-c", "name"], "thumb\n"),
        ("GET", "/v1/functions", "name=thumb&runtime=python3&all_projects=true&limit=1", Value::Null, json!({"functions": [function]}), &["function", "list", "--name", "thumb", "--runtime", "python3", "--all-projects", "--limit", "1", "-f", "value", "-c", "ID"], "f1\n"),
        ("GET", "/v1/functions/thumb", "", Value::Null, function.clone(), &["function", "show", "thumb", "-f", "value", "-c", "memory"], "128\n"),
        ("GET", "/v1/functions/a%2Fb%20c", "", Value::Null, function.clone(), &["function", "show", "a/b c", "-c", "id", "-f", "value"], "f1\n"),
        ("DELETE", "/v1/functions/thumb", "", Value::Null, Value::Null, &["function", "delete", "thumb"], ""),
        ("PATCH", "/v1/functions/thumb", "", json!({"memory": 256, "retry": {"max_attempts": 1}, "dead_letter_queue": null}), function.clone(), &["function", "set", "thumb", "--memory", "256", "--max-attempts", "1", "--no-dead-letter-queue", "-f", "value", "-c", "name"], "thumb\n"),
        ("POST", "/v1/triggers", "", post_trigger, trigger.clone(), &["trigger", "create", "thumb", "--source", "s", "--type", "t", "--filter", &filter, "-f", "value", "-c", "id"], "t1\n"),
        ("GET", "/v1/triggers", "function=thumb", Value::Null, json!({"triggers": [trigger]}), &["trigger", "list", "--function", "thumb", "-f", "value", "-c", "type"], "t\n"),
        ("GET", "/v1/triggers/t1", "", Value::Null, trigger, &["trigger", "show", "t1", "-f", "value", "-c", "source"], "s\n"),
        ("DELETE", "/v1/triggers/t1", "", Value::Null, Value::Null, &["trigger", "delete", "t1"], ""),
        ("GET", "/v1/executions/e1", "", Value::Null, execution("e1", "failed"), &["execution", "show", "e1", "-f", "value", "-c", "reason", "-c", "error_type"], "handler_error\nValueError\n"),
        ("POST", "/v1/executions/e1/cancel", "", Value::Null, execution("e1", "cancelled"), &["execution", "cancel", "e1"], ""),
        ("POST", "/v1/executions/e1/redrive", "", Value::Null, execution("e1", "queued"), &["execution", "redrive", "e1"], ""),
        ("GET", "/v1/executions", "function=thumb&state=failed%2Ctimed_out&event_id=ev1&since=2026-11-22T10%3A00%3A00.000Z&limit=100", Value::Null, json!({"executions": [execution("e1", "failed")]}), &["execution", "list", "--function", "thumb", "--state", "failed", "--state", "timed_out", "--event", "ev1", "--since", "2026-11-22T10:00:00Z", "--limit", "500", "-f", "value", "-c", "id", "-c", "attempts"], "e1 2\n"),
        ("GET", "/v1/executions/e1/log", "attempt=2", Value::Null, json!("a line"), &["execution", "log", "e1", "--attempt", "2"], "\"a line\""),
        ("GET", "/v1/runtimes", "", Value::Null, json!({"runtimes": [{"name": "python3"}]}), &["runtime", "list", "-f", "value", "-c", "name"], "python3\n"),
        ("GET", "/v1/runtimes/python3", "", Value::Null, json!({"name": "python3"}), &["runtime", "show", "python3", "-f", "value", "-c", "name"], "python3\n"),
        ("GET", "/v1/workers", "", Value::Null, json!({"workers": [{"id": "w1", "state": "active"}]}), &["worker", "list", "-f", "value", "-c", "state"], "active\n"),
        ("GET", "/v1/instances", "", Value::Null, json!({"instances": [{"id": "i1"}]}), &["instance", "list", "-f", "value", "-c", "id"], "i1\n"),
        ("GET", "/v1/functions/thumb/code", "", Value::Null, json!("PK"), &["function", "code", "save", "thumb", "--file", "-"], "\"PK\""),
    ];
    for (verb, at, query, body, answer, arguments, shown) in cases {
        let server = MockServer::start().await;
        let template = ResponseTemplate::new(if *verb == "DELETE" { 204 } else { 200 });
        let template = if answer.is_null() { template } else { template.set_body_json(answer) };
        Mock::given(any()).respond_with(template).mount(&server).await;
        assert_eq!(printed(&server, arguments).await, *shown, "{arguments:?}");
        let all = requests(&server).await;
        assert_eq!(all.len(), 1, "{arguments:?}");
        let request = &all[0];
        assert_eq!(request.method.as_str(), *verb, "{arguments:?}");
        assert_eq!((request.url.path(), request.url.query().unwrap_or_default()), (*at, *query), "{arguments:?}");
        let sent: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        assert_eq!(sent, *body, "{arguments:?}");
        assert_eq!(request.headers["x-project-id"], "p1");
        assert!(request.headers["x-openstack-request-id"].to_str().unwrap().starts_with("req-"));
    }
}

#[tokio::test]
async fn a_function_is_made_with_code_and_trigger_in_one_request() {
    let server = MockServer::start().await;
    answers(&server, "POST", "/v1/functions", 201, json!({"id": "f1"})).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("thumb.py");
    std::fs::write(&file, "def handler(event, context): ...\n").unwrap();
    let secrets = directory.path().join("secrets");
    std::fs::write(&secrets, "# a comment\n\nTOKEN=a=b\nLEVEL=1\n").unwrap();
    let (file, secrets) = (file.to_str().unwrap(), secrets.to_str().unwrap());
    #[rustfmt::skip]
    let arguments = ["function", "create", "thumb", "--code", file, "--memory", "256", "--timeout", "5", "--env", "LEVEL=2",
        "--env-file", secrets, "--max-concurrency", "3", "--max-event-age", "60", "--dead-letter-queue", "dead", "--description", "d",
        "--source", "store", "--type", "file.*", "-f", "json"];
    assert_eq!(serde_json::from_str::<Value>(&printed(&server, &arguments).await).unwrap(), json!({"id": "f1"}));
    let mut sent: Value = serde_json::from_slice(&requests(&server).await[0].body).unwrap();
    let archive = base64::engine::general_purpose::STANDARD.decode(sent["code"]["zip"].as_str().unwrap()).unwrap();
    let mut archive = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let mut source = String::new();
    archive.by_name("thumb.py").unwrap().read_to_string(&mut source).unwrap();
    assert_eq!(source, "def handler(event, context): ...\n");
    sent["code"].take();
    let expected = json!({"name": "thumb", "runtime": "python3", "handler": "thumb.handler", "memory": 256, "timeout": 5,
        "environment": {"TOKEN": "a=b", "LEVEL": "2"}, "max_concurrency": 3, "retry": {"max_event_age": 60},
        "dead_letter_queue": "dead", "description": "d", "triggers": [{"source": "store", "type": "file.*"}], "code": null});
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn a_change_of_one_variable_keeps_the_others_even_in_a_race() {
    let server = MockServer::start().await;
    let function = |revision: &str, environment: Value| {
        ResponseTemplate::new(200)
            .insert_header("etag", revision)
            .set_body_json(json!({"runtime": "python3", "handler": "old.run", "environment": environment}))
    };
    let get = || Mock::given(method("GET")).and(path("/v1/functions/f"));
    get().respond_with(function("\"1\"", json!({"A": "1", "B": "1"}))).up_to_n_times(1).mount(&server).await;
    get().respond_with(function("\"2\"", json!({"A": "2", "B": "2"}))).mount(&server).await;
    let stale = ResponseTemplate::new(412).set_body_json(refusal(412, "function.function.stale", "read it again"));
    let patch = || Mock::given(method("PATCH")).and(path("/v1/functions/f"));
    patch().and(header("if-match", "\"1\"")).respond_with(stale).expect(1).mount(&server).await;
    let change = json!({"environment": {"A": "2", "C": "3"}});
    let done = ResponseTemplate::new(200).set_body_json(json!({"id": "f1"}));
    patch().and(header("if-match", "\"2\"")).and(body_json(change)).respond_with(done).expect(1).mount(&server).await;
    printed(&server, &["function", "set", "f", "--env", "C=3", "--unset-env", "B"]).await;
}

#[tokio::test]
async fn new_code_in_another_file_takes_the_handler_with_it() {
    let server = MockServer::start().await;
    answers(&server, "GET", "/v1/functions/f", 200, json!({"runtime": "python3", "handler": "old.run"})).await;
    answers(&server, "PATCH", "/v1/functions/f", 200, json!({})).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new.py");
    std::fs::write(&file, "").unwrap();
    printed(&server, &["function", "set", "f", "--code", file.to_str().unwrap()]).await;
    let sent: Value = serde_json::from_slice(&requests(&server).await[1].body).unwrap();
    assert_eq!(sent["handler"], "new.run");
    assert!(sent["code"]["zip"].is_string());
}

#[tokio::test]
async fn a_result_is_printed_as_the_handler_wrote_it() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/functions/f/invocations"))
        .respond_with(|request: &Request| ResponseTemplate::new(200).set_body_bytes(request.body.clone()))
        .mount(&server)
        .await;
    let exact = "{\"b\": 1.0, \"a\": 12345678901234567890123}";
    assert_eq!(printed(&server, &["function", "invoke", "f", "--data", exact]).await, format!("{exact}\n"));
    assert_eq!(printed(&server, &["function", "invoke", "f"]).await, "{}\n");
    let said = complained(&server, 2, &["function", "invoke", "f", "--data", "hello"]).await;
    assert!(said.contains("--data: is not JSON") && said.contains("'\"text\"'"), "{said}");
    assert_eq!(requests(&server).await.len(), 2, "what is not JSON is not sent");
}

#[tokio::test]
async fn a_failed_function_says_why_and_where_to_look() {
    let server = MockServer::start().await;
    let mut body = refusal(502, "function.invocation.failed", "ValueError: no picture");
    body["errors"][0]["execution_id"] = json!("e1");
    body["errors"][0]["failure"] = execution("e1", "failed")["failure"].take();
    answers(&server, "POST", "/v1/functions/f/invocations", 502, body).await;
    let expected = "lambda: 'f' failed: handler_error (function, invoke)\n  ValueError: no picture\n    File \"main.py\", line 2\n  \
                    log: lambda execution log e1\n  request id: req-9\n";
    assert_eq!(complained(&server, 1, &["function", "invoke", "f"]).await, expected);
}

#[tokio::test]
async fn an_asynchronous_call_names_its_execution_or_waits_for_it() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/functions/f/invocations"))
        .and(header("prefer", "respond-async"))
        .respond_with(ResponseTemplate::new(202).insert_header("location", "http://inside/v1/executions/e1"))
        .mount(&server)
        .await;
    let get = |state| {
        let template = ResponseTemplate::new(200).set_body_json(execution("e1", state));
        Mock::given(method("GET")).and(path("/v1/executions/e1")).respond_with(template)
    };
    get("queued").up_to_n_times(2).mount(&server).await;
    get("succeeded").mount(&server).await;
    let arguments = ["function", "invoke", "f", "--async", "-f", "value"];
    assert_eq!(printed(&server, &arguments).await, "e1\n");
    assert_eq!(printed(&server, &["function", "invoke", "f", "--async", "--wait"]).await, "{\"ok\":true}\n");
}

#[tokio::test]
async fn an_event_is_posted_as_a_cloudevent_and_waited_for() {
    let server = MockServer::start().await;
    let receipt = ResponseTemplate::new(202).set_body_json(json!({"events": [{"id": "ev1", "message_id": "m1"}]}));
    Mock::given(method("POST")).and(path("/v1/events")).respond_with(receipt).mount(&server).await;
    let post =
        ["event", "post", "--source", "s", "--type", "t", "--subject", "a", "--id", "ev1", "--data", "{\"n\": 1.50}"];
    assert_eq!(printed(&server, &[&post[..], &["-f", "value"]].concat()).await, "ev1 m1\n");
    let request = &requests(&server).await[0];
    assert_eq!(request.headers["content-type"], "application/cloudevents+json");
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        r#"{"specversion":"1.0","id":"ev1","source":"s","type":"t","subject":"a","data":{"n": 1.50}}"#
    );
    let list = |rows: Value| {
        let template = ResponseTemplate::new(200).set_body_json(json!({ "executions": rows }));
        Mock::given(method("GET"))
            .and(path("/v1/executions"))
            .and(query_param("event_id", "ev1"))
            .respond_with(template)
    };
    list(json!([])).up_to_n_times(1).mount(&server).await;
    let away = ResponseTemplate::new(503).set_body_json(refusal(503, "function.service.unavailable", "later"));
    Mock::given(method("GET")).respond_with(away).up_to_n_times(1).mount(&server).await;
    list(json!([execution("e1", "succeeded"), execution("e2", "running")])).up_to_n_times(1).mount(&server).await;
    list(json!([execution("e1", "succeeded"), execution("e2", "failed")])).mount(&server).await;
    let output = run(&server, &[&post[..], &["--wait", "-f", "value", "-c", "id", "-c", "state"]].concat()).await;
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (Some(1), "e1 succeeded\ne2 failed\n"),
        "{}",
        err(&output)
    );
    assert!(err(&output).contains("1 of 2 executions did not succeed"), "{}", err(&output));
}

#[tokio::test]
async fn a_file_of_events_is_posted_as_a_batch() {
    let server = MockServer::start().await;
    answers(&server, "POST", "/v1/events", 202, json!({"events": [{"id": "1"}, {"id": "2"}]})).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("events.json");
    std::fs::write(&file, " [{\"source\":\"s\",\"type\":\"t\"},{\"source\":\"s\",\"type\":\"t\"}]").unwrap();
    let shown = printed(&server, &["event", "post", "--file", file.to_str().unwrap(), "-f", "value", "-c", "id"]).await;
    assert_eq!(shown, "1\n2\n");
    assert_eq!(requests(&server).await[0].headers["content-type"], "application/cloudevents-batch+json");
}

#[tokio::test]
async fn a_wait_that_is_too_long_says_what_to_look_at() {
    let server = MockServer::start().await;
    answers(&server, "POST", "/v1/events", 202, json!({"events": [{"id": "ev1", "message_id": "m1"}]})).await;
    answers(&server, "GET", "/v1/executions", 200, json!({"executions": []})).await;
    let arguments = ["event", "post", "--source", "s", "--type", "t", "--wait", "--wait-timeout", "0"];
    let said = complained(&server, 1, &arguments).await;
    assert!(said.contains("lambda execution list --event ev1") && said.contains("lambda trigger list"), "{said}");
}

#[tokio::test]
async fn pages_are_followed_by_their_query_whatever_host_they_name() {
    let server = MockServer::start().await;
    let page = |marker: Option<&str>, next: Option<&str>, ids: [&str; 2]| {
        let links: Vec<_> = next
            .iter()
            .map(|next| json!({"rel": "next", "href": format!("http://inside:1/x?marker={next}&limit=2")}))
            .collect();
        let rows = ids.map(|id| execution(id, "succeeded"));
        let template = ResponseTemplate::new(200).set_body_json(json!({"executions": rows, "executions_links": links}));
        let mock = Mock::given(method("GET")).and(path("/v1/executions"));
        let mock = match marker {
            Some(marker) => mock.and(query_param("marker", marker)),
            None => mock.and(wiremock::matchers::query_param_is_missing("marker")),
        };
        mock.respond_with(template)
    };
    page(None, Some("m1"), ["e1", "e2"]).mount(&server).await;
    page(Some("m1"), Some("m2"), ["e3", "e4"]).mount(&server).await;
    page(Some("m2"), None, ["e5", "e6"]).mount(&server).await;
    let list = ["execution", "list", "-f", "value", "-c", "id"];
    assert_eq!(printed(&server, &[&list[..], &["--all"]].concat()).await, "e1\ne2\ne3\ne4\ne5\ne6\n");
    let output = run(&server, &[&list[..], &["--limit", "3"]].concat()).await;
    assert_eq!(out(&output), "e1\ne2\ne3\n");
    assert_eq!(err(&output), "The newest 3 are shown; --limit NUMBER or --all shows more.\n");
}

#[tokio::test]
async fn a_followed_log_goes_on_after_a_stop_of_the_service_without_saying_anything_twice() {
    let server = MockServer::start().await;
    let log = |text: &str| {
        let template = ResponseTemplate::new(200).set_body_string(text);
        Mock::given(method("GET"))
            .and(path("/v1/executions/e1/log"))
            .and(query_param("follow", "true"))
            .and(header("accept", "text/plain"))
            .respond_with(template)
    };
    log("one\n").up_to_n_times(1).mount(&server).await;
    log("one\ntwo\n").mount(&server).await;
    let record = |state| {
        Mock::given(path("/v1/executions/e1"))
            .respond_with(ResponseTemplate::new(200).set_body_json(execution("e1", state)))
    };
    record("running").up_to_n_times(1).mount(&server).await;
    record("succeeded").mount(&server).await;
    assert_eq!(printed(&server, &["execution", "log", "e1", "--follow"]).await, "one\ntwo\n");
}

#[tokio::test]
async fn what_the_service_refuses_is_told_with_its_reason_and_request_id() {
    for (status, body, said) in [
        (
            404,
            refusal(404, "function.function.not_found", "there is no function 'x'"),
            "lambda: It cannot be: there is no function 'x' (HTTP 404, function.function.not_found)\n  \
          `list` shows what your project has; OS_PROJECT_ID says which project that is.\n  request id: req-1\n",
        ),
        (
            400,
            refusal(400, "function.function.invalid", "memory: must be 64 to 10240 MiB"),
            "lambda: It cannot be: memory: must be 64 to 10240 MiB (HTTP 400, function.function.invalid)\n  request id: req-1\n",
        ),
        (
            401,
            json!({"error": {"code": 401, "title": "Unauthorized", "message": "Please authenticate."}}),
            "lambda: Please authenticate. (HTTP 401)\n  The service wants you to authenticate; OS_AUTH_TYPE=none fits only a \
          service with noauth.\n  request id: req-header\n",
        ),
        (
            502,
            json!("<html>"),
            "lambda: no reason was given (HTTP 502)\n  Something in front of the service cannot reach it: try again.\n  \
          request id: req-header\n",
        ),
    ] {
        let server = MockServer::start().await;
        let template =
            ResponseTemplate::new(status).set_body_json(body).insert_header("x-openstack-request-id", "req-header");
        Mock::given(any()).respond_with(template).mount(&server).await;
        assert_eq!(complained(&server, 1, &["function", "show", "x"]).await, said);
    }
}

#[tokio::test]
async fn who_is_no_lambda_service_is_told_so() {
    for template in [
        ResponseTemplate::new(200).set_body_string("<html>hello</html>"),
        ResponseTemplate::new(200).set_body_json(json!({"servers": []})),
        ResponseTemplate::new(302).insert_header("location", "https://login/"),
    ] {
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(template).mount(&server).await;
        let said = complained(&server, 1, &["function", "list"]).await;
        assert!(
            said.contains("does not answer as a Lambda service would") && said.contains("Check OS_ENDPOINT"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_named() {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = lambda(&format!("http://{address}"), &["function", "delete", "f"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "lambda: no answer from http://{address}: connection refused (os error 111)\n  Is the service running at \
         http://{address}? If it is elsewhere, set OS_ENDPOINT.\n"
    );
    assert_eq!(err(&output), expected);
}

#[tokio::test]
async fn several_are_deleted_though_one_of_them_cannot_be() {
    let server = MockServer::start().await;
    Mock::given(path("/v1/functions/b"))
        .respond_with(ResponseTemplate::new(404).set_body_json(refusal(404, "c", "no b")))
        .mount(&server)
        .await;
    Mock::given(method("DELETE")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let said = complained(&server, 1, &["function", "delete", "a", "b", "c"]).await;
    assert!(said.contains("no b") && said.ends_with("lambda: 1 of 3 could not be deleted\n"), "{said}");
    assert_eq!(requests(&server).await.len(), 3);
}

#[tokio::test]
async fn debugging_shows_requests_but_neither_bodies_nor_variables() {
    let server = MockServer::start().await;
    let template =
        ResponseTemplate::new(201).set_body_json(json!({"id": "f1"})).insert_header("x-openstack-request-id", "req-5");
    Mock::given(method("POST")).and(header_exists("user-agent")).respond_with(template).mount(&server).await;
    let arguments = ["--debug", "function", "create", "f", "--env", "TOKEN=hunter2", "-f", "value", "-c", "id"];
    let output = run(&server, &arguments).await;
    assert_eq!(out(&output), "f1\n");
    assert!(err(&output).starts_with("lambda: POST /v1/functions: 201 in "), "{}", err(&output));
    assert!(err(&output).ends_with(" ms, req-5\n") && !err(&output).contains("hunter2"), "{}", err(&output));
}

#[tokio::test]
async fn what_is_not_understood_is_never_sent() {
    let server = MockServer::start().await;
    for arguments in [
        &["function"][..],
        &["function", "create", "a/b"],
        &["function", "create", "f", "--env", "NOVALUE"],
        &["function", "create", "f", "--code", "/nowhere/main.py"],
        &["function", "create", "f", "--filter", "{"],
        &["function", "create", "f", "-c", "nmae"],
        &["function", "set", "f", "--memory", "64", "-c", "nmae"],
        &["function", "invoke", "f", "--async", "-c", "nmae"],
        &["trigger", "create", "f", "--source", "s", "-c", "nmae"],
        &["event", "post", "--source", "s", "--type", "t", "-c", "state"],
        &["event", "post", "--source", "s", "--type", "t", "--wait", "-c", "message_id"],
        &["function", "set", "f"],
        &["function", "show", ".."],
        &["function", "show", ""],
        &["function", "delete"],
        &["function", "invoke", "f", "--wait"],
        &["trigger", "create", "f"],
        &["event", "post", "--source", "s"],
        &["event", "post", "--file", "x.json", "--source", "s"],
        &["execution", "list", "--state", "happy"],
        &["execution", "list", "--since", "yesterday"],
        &["execution", "list", "--all", "--limit", "3"],
        &["function", "list", "--os-auth-type", "password"],
        &["function", "list", "--os-endpoint", "nowhere"],
        &["function", "list", "--os-project-id", "a/b"],
        &["function", "list", "-f", "xml"],
        &["queue", "list"],
    ] {
        let said = complained(&server, 2, arguments).await;
        assert!(!said.is_empty(), "{arguments:?}");
    }
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_the_command_quietly() {
    let server = MockServer::start().await;
    let rows: Vec<_> = (0..5_000).map(|n| json!({"id": format!("function-{n}"), "name": "x"})).collect();
    answers(&server, "GET", "/v1/functions", 200, json!({ "functions": rows })).await;
    let mut child = lambda(&server.uri(), &["function", "list"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
}
