//! Handlers, good and bad: each gets its clear outcome, and none harms the agent.

use lambda_agent::wire::{FailureKind, HandlerOutcome, SandboxPhase, Stream};
use serde_json::json;

use crate::gateway::{Gateway, Options};

#[tokio::test]
async fn a_handler_gets_event_and_context_and_its_sandbox_is_reused() {
    let mut gateway = Gateway::start().await;
    let spec = gateway.function(
        r#"
import os, json
count = 0
def handler(event, context):
    global count
    count += 1
    return {
        "event": event, "count": count, "cwd": os.getcwd() == os.environ["LAMBDA_TASK_ROOT"],
        "request_id": context.aws_request_id, "name": context.function_name, "version": context.function_version,
        "memory": context.memory_limit_in_mb, "arn": context.invoked_function_arn,
        "group": context.log_group_name, "remaining": context.get_remaining_time_in_millis(),
        "identity": context.identity.cognito_identity_id, "client": context.client_context,
        "trace": os.environ["_X_AMZN_TRACE_ID"].startswith("Root=1-"), "colour": os.environ["COLOUR"],
    }
"#,
    );
    let sandbox = gateway.ready(spec).await;
    let execution = gateway.give(sandbox, r#"{"text":"žluťoučký"}"#, 5000).await;
    let finished = gateway.finished(&execution).await;
    assert!(finished.measures.duration_us > 0 && finished.measures.peak_memory_bytes > 100_000);
    let first = finished.returned();
    assert_eq!(first["event"], json!({ "text": "žluťoučký" }));
    assert_eq!(first["request_id"], execution.execution);
    assert_eq!((&first["name"], &first["version"], &first["memory"]), (&json!("hello"), &json!("7"), &json!("128")));
    assert_eq!(first["arn"], "arn:openstack:lambda:RegionOne:demo:function:hello:7");
    assert_eq!((&first["group"], &first["colour"]), (&json!("/lambda/hello"), &json!("red")));
    assert_eq!((&first["cwd"], &first["trace"]), (&json!(true), &json!(true)));
    assert_eq!((&first["identity"], &first["client"]), (&json!(null), &json!(null)));
    let remaining = first["remaining"].as_u64().unwrap();
    assert!((1..=5000).contains(&remaining), "{remaining}");
    assert_eq!(gateway.invoke(sandbox, "1").await.returned()["count"], 2);
    gateway.stop(sandbox).await;
    gateway.shut_down().await;
}

/// What is wrong with a handler, and how its start ends.
const CANNOT_START: [(&str, &str, FailureKind, &str, &str); 9] = [
    (
        "def other(): pass",
        "main.handler",
        FailureKind::InitError,
        "Runtime.HandlerNotFound",
        "Handler 'handler' missing",
    ),
    ("handler = 5", "main.handler", FailureKind::InitError, "Runtime.HandlerNotFound", "is no function"),
    ("def handler(:\n", "main.handler", FailureKind::InitError, "Runtime.UserCodeSyntaxError", "Syntax error"),
    (
        "import nowhere",
        "main.handler",
        FailureKind::InitError,
        "Runtime.ImportModuleError",
        "No module named 'nowhere'",
    ),
    ("", "absent.handler", FailureKind::InitError, "Runtime.ImportModuleError", "No module named 'absent'"),
    ("", "handler", FailureKind::InitError, "Runtime.MalformedHandlerName", "must be module.function"),
    ("raise ValueError('at import')", "main.handler", FailureKind::InitError, "ValueError", "at import"),
    ("import sys; sys.exit(3)", "main.handler", FailureKind::Exited, "Runtime.ExitError", "exit status 3"),
    ("import os; os.kill(os.getpid(), 9)", "main.handler", FailureKind::Exited, "Runtime.ExitError", "SIGKILL"),
];

#[tokio::test]
async fn a_handler_that_cannot_start_says_why() {
    let mut gateway = Gateway::start().await;
    for (source, handler, kind, error_type, message) in CANNOT_START {
        let mut spec = gateway.function(source);
        spec.handler = handler.into();
        let failure = gateway.begin(spec).await.failure.unwrap_or_else(|| panic!("{source:?} started"));
        assert_eq!((failure.kind, failure.phase), (kind, SandboxPhase::Init), "{source:?}: {failure:?}");
        assert_eq!(failure.error_type, error_type, "{source:?}: {failure:?}");
        assert!(failure.message.contains(message), "{source:?}: {failure:?}");
    }
    let mut slow = gateway.function("import time; time.sleep(60)");
    slow.init_timeout_ms = 300;
    let failure = gateway.begin(slow).await.failure.unwrap();
    assert_eq!((failure.kind, failure.phase), (FailureKind::TimedOut, SandboxPhase::Init));
    assert!(failure.message.contains("0.30 seconds"), "{failure:?}");
    let late = gateway.function("import time; time.sleep(0.2)\ndef handler(event, context): return 1");
    assert!(gateway.begin(late).await.init_us > 200_000);
    gateway.shut_down().await;
}

/// A handler's body, and how its invocation ends: a reported error's type and message.
const REPORTED: [(&str, &str, &str); 9] = [
    ("raise ValueError('no ' + event)", "ValueError", "no e"),
    ("class Café(Exception): pass\n    raise Café('x')", "Café", "x"),
    ("return object()", "Runtime.MarshalError", "Object of type object is not JSON serializable"),
    ("return float('nan')", "Runtime.MarshalError", "not JSON compliant"),
    ("return {(1, 2): 3}", "Runtime.MarshalError", "keys must be"),
    ("return '\\ud800'", "Runtime.MarshalError", "surrogates not allowed"),
    ("x = []\n    for i in range(100000): x = [x]\n    return x", "Runtime.MarshalError", "recursion"),
    ("f = lambda: f()\n    f()", "RecursionError", "recursion"),
    ("bytearray(1 << 50)", "Runtime.OutOfMemory", "memory limit of 128 MiB"),
];

#[tokio::test]
async fn a_handler_that_fails_tells_type_message_and_trace_and_may_go_on() {
    let mut gateway = Gateway::start().await;
    for (body, error_type, message) in REPORTED {
        let spec = gateway.function(&format!("def handler(event, context):\n    {body}\n"));
        let sandbox = gateway.ready(spec).await;
        for _ in 0..2 {
            let finished = gateway.invoke(sandbox, "\"e\"").await;
            assert_eq!(finished.outcome, Some(HandlerOutcome::Error), "{body}: {finished:?}");
            let error = finished.json();
            assert_eq!(error["errorType"], error_type, "{error}");
            assert!(error["errorMessage"].as_str().unwrap().contains(message), "{error}");
            assert!(error["requestId"].is_string());
            assert!(finished.text(Stream::Stdout).contains(&format!("[ERROR] {error_type}")), "{finished:?}");
        }
        gateway.stop(sandbox).await;
    }
    let spec = gateway.function("def deep():\n    raise KeyError('k')\ndef handler(event, context):\n    deep()\n");
    let sandbox = gateway.ready(spec).await;
    let error = gateway.invoke(sandbox, "{}").await.json();
    let trace: Vec<_> = error["stackTrace"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(trace.len(), 2, "only the user's frames: {trace:?}");
    assert!(trace[0].contains("main.py\", line 4, in handler") && trace[1].contains("line 2, in deep"), "{trace:?}");
    gateway.shut_down().await;
}

/// A handler's body, and how its sandbox ends.
const ENDS: [(&str, FailureKind, &str, &str); 6] = [
    ("import sys; sys.exit(0)", FailureKind::Exited, "Runtime.ExitError", "exit status 0"),
    ("exit_ = __import__('os')._exit; exit_(7)", FailureKind::Exited, "Runtime.ExitError", "exit status 7"),
    ("raise KeyboardInterrupt", FailureKind::Exited, "Runtime.ExitError", "exit status 1"),
    ("import os; os.kill(os.getpid(), 11)", FailureKind::Exited, "Runtime.ExitError", "SIGSEGV"),
    ("import time; time.sleep(60)", FailureKind::TimedOut, "Sandbox.Timeout", "Task timed out after 0.50 seconds"),
    ("while True: pass", FailureKind::TimedOut, "Sandbox.Timeout", "Task timed out after 0.50 seconds"),
];

#[tokio::test]
async fn a_handler_that_ends_its_sandbox_is_told_apart_by_how() {
    let mut gateway = Gateway::start().await;
    for (body, kind, error_type, message) in ENDS {
        let source = format!("def handler(event, context):\n    print('begun', flush=True)\n    {body}\n");
        let spec = gateway.function(&source);
        let sandbox = gateway.ready(spec).await;
        let finished = gateway.invoke_within(sandbox, "{}", 500).await;
        let failure = finished.failed();
        assert_eq!((failure.kind, failure.phase), (kind, SandboxPhase::Invoke), "{body}: {failure:?}");
        assert_eq!(failure.error_type, error_type);
        assert!(failure.message.contains(message), "{body}: {failure:?}");
        assert!(finished.text(Stream::Stdout).starts_with("begun\n"), "{finished:?}");
        if kind == FailureKind::TimedOut {
            let took = finished.measures.duration_us;
            assert!((500_000..3_000_000).contains(&took), "killed at its deadline, after {took} µs");
        }
    }
    gateway.shut_down().await;
}

#[tokio::test]
async fn memory_over_the_limit_is_out_of_memory_and_not_a_crash() {
    for options in [Options::default(), Options { without_cgroups: true, ..Options::default() }] {
        let mut gateway = Gateway::start_with(options).await;
        let spec = gateway.function(
            "def handler(event, context):\n    kept = []\n    while True:\n        kept.append(b'x' * (1 << 20))\n",
        );
        let sandbox = gateway.ready(spec).await;
        let finished = gateway.invoke(sandbox, "{}").await;
        if let Some(failure) = &finished.failure {
            assert_eq!((failure.kind, failure.phase), (FailureKind::OutOfMemory, SandboxPhase::Invoke), "{failure:?}");
            assert_eq!(failure.error_type, "Runtime.OutOfMemory");
        } else {
            // Without cgroups it is Python that notices.
            assert_eq!(finished.json()["errorType"], "Runtime.OutOfMemory");
        }
        assert!(finished.measures.peak_memory_bytes > 64 << 20, "{:?}", finished.measures);
        let import = gateway.function("kept = []\nwhile True: kept.append(b'x' * (1 << 20))\n");
        let failure = gateway.begin(import).await.failure.unwrap();
        assert_eq!((failure.kind, failure.phase), (FailureKind::OutOfMemory, SandboxPhase::Init), "{failure:?}");
        gateway.shut_down().await;
    }
}

#[tokio::test]
async fn a_response_over_the_limit_is_too_large_and_one_at_the_limit_is_not() {
    let mut gateway = Gateway::start().await;
    let spec = gateway.function("def handler(event, context): return 'x' * (event - 2)");
    let sandbox = gateway.ready(spec).await;
    let limit = (6 << 20) + 100;
    assert_eq!(gateway.invoke(sandbox, &limit.to_string()).await.returned().as_str().unwrap().len(), limit - 2);
    let finished = gateway.invoke(sandbox, &(limit + 1).to_string()).await;
    assert_eq!(finished.outcome, Some(HandlerOutcome::TooLarge));
    assert_eq!(finished.json()["errorType"], "Function.ResponseSizeTooLarge");
    assert_eq!(gateway.invoke(sandbox, "3").await.returned(), "x", "the runtime goes on");
    gateway.shut_down().await;
}

#[tokio::test]
async fn handlers_are_found_below_directories_and_shadow_the_library() {
    let mut gateway = Gateway::start().await;
    let source = b"def handler(event, context): return __name__";
    let package = crate::help::zip(&[("a/b/mod.py", source), ("a/__init__.py", b""), ("queue.py", source)]);
    for (handler, module) in
        [("a/b/mod.handler", "a.b.mod"), ("a.b.mod.handler", "a.b.mod"), ("queue.handler", "queue")]
    {
        let mut spec = gateway.package(package.clone());
        spec.handler = handler.into();
        let sandbox = gateway.ready(spec).await;
        assert_eq!(gateway.invoke(sandbox, "{}").await.returned(), module);
    }
    gateway.shut_down().await;
}

#[tokio::test]
async fn an_event_for_a_sandbox_that_is_not_there_is_answered() {
    let mut gateway = Gateway::start().await;
    let execution = gateway.give(99, "{}", 1000).await;
    let finished = gateway.finished(&execution).await;
    assert_eq!((finished.failed().kind, finished.failed().phase), (FailureKind::Exited, SandboxPhase::Idle));
    gateway.stop(98).await;
    gateway.shut_down().await;
}
