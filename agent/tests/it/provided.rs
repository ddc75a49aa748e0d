//! Runtimes that a package brings along, and the error answers of the Runtime API seen by one of them.

use lambda_agent::wire::{FailureKind, HandlerOutcome, RuntimeKind, SandboxPhase, SandboxSpec, Stream};
use serde_json::json;

use crate::gateway::{Gateway, Options, is_root, root_or_left_out};
use crate::help::{python, zip};

fn provided(gateway: &mut Gateway, bootstrap: &str) -> SandboxSpec {
    let mut spec = gateway.package(zip(&[("bootstrap", bootstrap.as_bytes())]));
    spec.runtime = RuntimeKind::Provided;
    spec.handler = "any.thing".into();
    spec
}

/// A runtime in Python that answers each event by evaluating it, with `call(method, path, body, headers)` at hand.
fn evaluator() -> String {
    format!(
        r#"#!{}
import http.client, json, os, sys
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None, headers={{}}):
    api.request(method, "/2018-06-01/runtime/" + path, body=body, headers=headers)
    answer = api.getresponse()
    return answer.status, answer.read().decode(), dict((k.lower(), v) for k, v in answer.getheaders())
while True:
    status, body, headers = call("GET", "invocation/next")
    id = headers["lambda-runtime-aws-request-id"]
    exec(json.loads(body))
"#,
        python()
    )
}

#[tokio::test]
async fn a_shell_script_is_a_runtime() {
    let mut gateway = Gateway::start().await;
    let script = r#"#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/${AWS_LAMBDA_RUNTIME_API##*:}
echo "handler $_HANDLER as $(id -u)" >&2
while :; do
  printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n' >&3
  while read -r line <&3 && [ "$line" != $'\r' ]; do
    line=${line%$'\r'}
    case $line in
      lambda-runtime-aws-request-id:*) id=${line#*: } ;;
      content-length:*) length=${line#*: } ;;
    esac
  done
  read -r -N "$length" event <&3
  echo "got $event"
  answer="{\"echo\":$event}"
  printf 'POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n%s' "$id" "${#answer}" "$answer" >&3
  while read -r line <&3 && [ "$line" != $'\r' ]; do length=${line#*: }; done
  read -r <&3
done
"#;
    let spec = provided(&mut gateway, script);
    let sandbox = gateway.ready(spec).await;
    for n in 0..5 {
        let finished = gateway.invoke(sandbox, &n.to_string()).await;
        assert_eq!(finished.text(Stream::Stdout), format!("got {n}\n"));
        assert!(finished.measures.peak_memory_bytes > 0);
        assert_eq!(finished.returned(), json!({ "echo": n }));
    }
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_provided_runtime_is_confined_like_any_other() {
    let mut gateway = Gateway::start().await;
    let spec = provided(&mut gateway, &evaluator());
    let sandbox = gateway.ready(spec).await;
    let event = json!(
        "status = dict(l.rstrip('\\n').split(':\\t', 1) for l in open('/proc/self/status') if ':\\t' in l)\n\
         call('POST', 'invocation/%s/response' % id, json.dumps([status['Uid'].split()[0], status['NoNewPrivs'], \
         sorted(os.environ), len(os.listdir('/proc/self/fd')), os.getcwd() == os.environ['LAMBDA_TASK_ROOT']]))"
    );
    let about = gateway.invoke(sandbox, &event.to_string()).await.returned();
    if is_root() {
        assert_eq!(about[0], gateway.uid_base.to_string());
    }
    assert_eq!((&about[1], &about[4]), (&json!("1"), &json!(true)));
    assert!(!about[2].to_string().contains("SECRET") && !about[2].to_string().contains("TOKEN"));
    assert_eq!(about[3], 5, "nothing is inherited but the standard streams");
    gateway.shut_down().await;
}

#[tokio::test]
async fn the_functions_environment_has_no_say_in_how_it_is_started() {
    let mut gateway = Gateway::start().await;
    let mut spec = provided(&mut gateway, &evaluator());
    // It would be loaded into what still has the agent's rights.
    spec.environment.insert("LD_PRELOAD".into(), "/nonexistent/evil.so".into());
    let begun = gateway.begin(spec).await;
    assert_eq!(begun.failure, None);
    let complaints = begun.logs.iter().filter(|piece| piece.text.contains("evil.so")).count();
    assert!(complaints <= 1, "only the program itself sees it: {:?}", begun.logs);
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named() {
    let mut gateway = Gateway::start().await;
    let mut cases = vec![
        (gateway.package(zip(&[("other", b"")])), "'bootstrap' is not there"),
        (gateway.package(zip(&[("bootstrap/file", b"")])), "'bootstrap' is no file"),
        (gateway.package(zip(&[("bootstrap", b"#!/no/such/interpreter\n")])), "No such file"),
        (gateway.package(zip(&[("bootstrap", b"\x7fELF, but not really")])), "Exec format error"),
    ];
    let mut plain = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    plain.start_file("bootstrap", zip::write::SimpleFileOptions::default().unix_permissions(0o644)).unwrap();
    cases.push((gateway.package(plain.finish().unwrap().into_inner()), "'bootstrap' is not executable"));
    for (mut spec, why) in cases {
        spec.runtime = RuntimeKind::Provided;
        let failure = gateway.begin(spec).await.failure.expect("no start");
        assert_eq!((failure.kind, failure.phase), (FailureKind::EntrypointMissing, SandboxPhase::Init), "{failure:?}");
        assert_eq!(failure.error_type, "Runtime.InvalidEntrypoint");
        assert!(failure.message.contains(why), "{failure:?}");
    }
    let spec = provided(&mut gateway, "#!/bin/sh\necho so long\nexit 9\n");
    let begun = gateway.begin(spec).await;
    let failure = begun.failure.unwrap();
    assert_eq!((failure.kind, failure.error_type.as_str()), (FailureKind::Exited, "Runtime.ExitError"));
    assert!(failure.message.contains("exit status 9 before it was ready"), "{failure:?}");
    assert_eq!(begun.logs[0].text, "so long\n");
    gateway.shut_down().await;
}

/// What a runtime may do wrong while it has an event, and what it is answered: status and a part of the body.
const MISTAKES: [(&str, i64, &str); 8] = [
    ("call('POST', 'invocation/wrong/response', '1')", 400, "InvalidRequestID"),
    ("call('POST', 'invocation/wrong/error', '{}')", 400, "InvalidRequestID"),
    ("call('POST', 'init/error', '{}')", 403, "InvalidStateTransition"),
    ("call('GET', 'restore/next')", 404, "404 page not found"),
    ("call('DELETE', 'invocation/next')", 405, ""),
    ("call('GET', 'nowhere')", 404, "404 page not found"),
    (
        "call('POST', 'invocation/%s/response' % id, '1', {'Lambda-Runtime-Function-Response-Mode': 'buffered'})",
        400,
        "InvalidFunctionResponseMode",
    ),
    ("(lambda s, b, h: (s, h['lambda-runtime-aws-request-id'] + id, h))(*call('GET', 'invocation/next'))", 200, ""),
];

#[tokio::test]
async fn mistakes_of_a_runtime_are_answered_to_the_letter_and_it_may_go_on() {
    let mut gateway = Gateway::start().await;
    let spec = provided(&mut gateway, &evaluator());
    let sandbox = gateway.ready(spec).await;
    for (mistake, status, text) in MISTAKES {
        let event = json!(format!(
            "answer = {mistake}\ncall('POST', 'invocation/%s/response' % id, json.dumps([answer[0], answer[1], id]))"
        ));
        let answer = gateway.invoke(sandbox, &event.to_string()).await.returned();
        assert_eq!(answer[0], status, "{mistake}: {answer}");
        assert!(answer[1].as_str().unwrap().contains(text), "{mistake}: {answer}");
        if status == 200 {
            let id = answer[2].as_str().unwrap();
            assert_eq!(answer[1], format!("{id}{id}"), "the same event again");
        }
    }
    let twice = json!(
        "call('POST', 'invocation/%s/response' % id, '1')\n\
         for path in ('response', 'error'):\n    print(call('POST', 'invocation/%s/%s' % (id, path), '2')[:2], flush=True)"
    );
    assert_eq!(gateway.invoke(sandbox, &twice.to_string()).await.returned(), 1);
    let finished =
        gateway.invoke(sandbox, &json!("call('POST', 'invocation/%s/response' % id, '3')").to_string()).await;
    let said: String = finished.logs.iter().map(|piece| piece.text.as_str()).collect();
    assert_eq!(said.matches("403").count(), 2, "{said}");
    assert_eq!(said.matches("State transition from RuntimeResponseSent to Invocation").count(), 2, "{said}");
    assert!(finished.logs.iter().all(|piece| piece.execution.is_none()), "written between two events");
    gateway.shut_down().await;
}

#[tokio::test]
async fn errors_and_streams_of_a_runtime_become_outcomes() {
    let mut gateway = Gateway::start().await;
    let spec = provided(&mut gateway, &evaluator());
    let sandbox = gateway.ready(spec).await;
    let error = "call('POST', 'invocation/%s/error' % id, 'not an object', \
                 {'Lambda-Runtime-Function-Error-Type': 'Function.Broken'})";
    let finished = gateway.invoke(sandbox, &json!(error).to_string()).await;
    assert_eq!(finished.outcome, Some(HandlerOutcome::Error));
    assert_eq!(finished.json()["errorType"], "Function.Broken");
    assert_eq!(finished.json()["errorMessage"], "not an object");
    let streamed = "call('POST', 'invocation/%s/response' % id, iter([b'one ', b'two']), \
                    {'Lambda-Runtime-Function-Response-Mode': 'streaming'})";
    let finished = gateway.invoke(sandbox, &json!(streamed).to_string()).await;
    assert_eq!((finished.outcome, &finished.body[..]), (Some(HandlerOutcome::Returned), &b"one two"[..]));
    let large = "print(call('POST', 'invocation/%s/response' % id, b'x' * 8000000)[0])";
    let finished = gateway.invoke(sandbox, &json!(large).to_string()).await;
    assert_eq!(finished.outcome, Some(HandlerOutcome::TooLarge));
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_runtime_that_cannot_initialise_says_so() {
    let mut gateway = Gateway::start().await;
    let script = evaluator().replace(
        "while True:",
        "print(call('POST', 'init/error', json.dumps({'errorType': 'Runtime.NoLuck', 'errorMessage': 'm', 'stackTrace': ['t']}))[0], flush=True)\n\
         print(call('POST', 'init/error', '{}')[0], flush=True)\nsys.exit(1)\nwhile True:",
    );
    let spec = provided(&mut gateway, &script);
    let begun = gateway.begin(spec).await;
    let failure = begun.failure.unwrap();
    assert_eq!((failure.kind, failure.error_type.as_str()), (FailureKind::InitError, "Runtime.NoLuck"));
    assert_eq!((failure.message.as_str(), failure.trace), ("m", vec!["t".to_owned()]));
    let said: String = begun.logs.iter().map(|piece| piece.text.as_str()).collect();
    assert_eq!(said, "202\n403\n");
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_sandbox_cannot_reach_the_runtime_api_of_another() {
    if !root_or_left_out() {
        return;
    }
    let mut gateway = Gateway::start_with(Options::default()).await;
    let spec = gateway.function(
        r#"
import os, http.client
def handler(event, context):
    if not event:
        return os.environ["AWS_LAMBDA_RUNTIME_API"]
    try:
        api = http.client.HTTPConnection(event)
        api.request("GET", "/2018-06-01/runtime/invocation/next")
        return api.getresponse().status
    except (ConnectionError, http.client.HTTPException) as error:
        return "refused"
"#,
    );
    let (victim, thief) = (gateway.ready(spec.clone()).await, gateway.ready(spec).await);
    let address = gateway.invoke(victim, "null").await.returned();
    assert_eq!(gateway.invoke(thief, &address.to_string()).await.returned(), "refused");
    assert_eq!(gateway.invoke(victim, "null").await.returned(), address);
    gateway.shut_down().await;
}
