//! Handlers that misbehave. Each gets its outcome; none harms the service or the next event.

use std::time::Duration;

use serde_json::{Value, json};

use super::Service;

/// What a handler does, and what its record says.
struct Case {
    name: &'static str,
    source: &'static str,
    more: Value,
    state: &'static str,
    reason: &'static str,
    error_type: &'static str,
}

fn cases() -> Vec<Case> {
    let case =
        |name, source, reason, error_type| Case { name, source, more: json!({}), state: "failed", reason, error_type };
    vec![
        Case {
            more: json!({"handler": "main.absent"}),
            ..case("handler-missing", "x = 1\n", "handler_not_found", "Runtime.HandlerNotFound")
        },
        case("syntax-error", "def handler(event, context)\n    pass\n", "syntax_error", "Runtime.UserCodeSyntaxError"),
        case("import-error", "import no_such_module\n", "import_error", "Runtime.ImportModuleError"),
        case("raises", "def handler(event, context):\n    raise KeyError('k')\n", "handler_error", "KeyError"),
        case(
            "exits",
            "import sys\ndef handler(event, context):\n    sys.exit(3)\n",
            "process_exited",
            "Runtime.ExitError",
        ),
        case(
            "exits-hard",
            "import os\ndef handler(event, context):\n    os._exit(4)\n",
            "process_exited",
            "Runtime.ExitError",
        ),
        case(
            "kills-itself",
            "import os\ndef handler(event, context):\n    os.kill(os.getpid(), 11)\n",
            "process_exited",
            "Runtime.ExitError",
        ),
        case(
            "returns-a-set",
            "def handler(event, context):\n    return {1, 2}\n",
            "result_not_json",
            "Runtime.MarshalError",
        ),
        case(
            "returns-too-much",
            "def handler(event, context):\n    return 'x' * 7_000_000\n",
            "result_too_large",
            "Function.ResponseSizeTooLarge",
        ),
        case(
            "recurses",
            "def handler(event, context):\n    return handler(event, context)\n",
            "handler_error",
            "RecursionError",
        ),
        Case {
            more: json!({"timeout": 1}),
            state: "timed_out",
            ..case(
                "sleeps",
                "import time\ndef handler(event, context):\n    time.sleep(60)\n",
                "timed_out",
                "Sandbox.Timeout",
            )
        },
        Case {
            more: json!({"timeout": 1}),
            state: "timed_out",
            ..case("is-busy", "def handler(event, context):\n    while True: pass\n", "timed_out", "Sandbox.Timeout")
        },
        Case {
            more: json!({"memory": 64}),
            ..case(
                "eats-memory",
                "def handler(event, context):\n    hoard = []\n    while True: hoard.append(bytearray(1 << 20))\n",
                "out_of_memory",
                "Runtime.OutOfMemory",
            )
        },
        case("raises-at-import", "raise RuntimeError('not today')\n", "import_error", "RuntimeError"),
        case("exits-at-import", "import os\nos._exit(1)\n", "process_exited", "Runtime.ExitError"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_its_outcome_and_none_harms_the_next_event() {
    let service = Service::start();
    service.function("good", "def handler(event, context):\n    return 'good'\n", json!({})).await;
    let cases = cases();
    for case in &cases {
        let mut more = case.more.clone();
        more["retry"] = json!({"max_attempts": 1, "max_event_age": 600});
        service.function(case.name, case.source, more).await;
    }
    for case in &cases {
        service.event(case.name, json!({})).await;
    }
    for case in &cases {
        let execution = service.finished(case.name, 1).await.remove(0);
        let failure = &execution["failure"];
        let seen = (&execution["state"], &failure["reason"], &failure["error"]["type"]);
        assert_eq!(
            seen,
            (&json!(case.state), &json!(case.reason), &json!(case.error_type)),
            "{}: {execution}",
            case.name
        );
        assert_eq!(execution["attempts"], 1, "{}: {execution}", case.name);
        assert!(!failure["error"]["message"].as_str().unwrap().is_empty(), "{}: {execution}", case.name);
        let id = execution["id"].as_str().unwrap();
        assert_eq!(failure["request_id"], format!("req-{id}"), "{}", case.name);
    }
    assert_eq!(service.ok("POST", "/v1/functions/good/invocations", Some(&json!({}))).await, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_told_the_same_as_the_record_says() {
    let service = Service::start();
    service.function("raises", "def handler(event, context):\n    raise KeyError('k')\n", json!({})).await;
    let (status, body) = service.call("POST", "/v1/functions/raises/invocations", Some(&json!({}))).await;
    assert_eq!(status, 502, "{body}");
    assert_eq!(body["errors"][0]["code"], "function.invocation.failed", "{body}");
    let text = body.to_string();
    assert!(text.contains("KeyError") && text.contains("handler_error"), "{body}");
    let slow = "import time\ndef handler(event, context):\n    time.sleep(60)\n";
    service.function("slow", slow, json!({"timeout": 1})).await;
    let (status, body) = service.call("POST", "/v1/functions/slow/invocations", Some(&json!({}))).await;
    assert_eq!((status, &body["errors"][0]["code"]), (504, &json!("function.invocation.timed_out")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_of_log_are_cut_at_the_limit_with_a_mark() {
    let service = Service::start_with("[worker]\nlog_limit_kib = 256\n");
    let source = "import sys\ndef handler(event, context):\n    line = 'x' * 99 + '\\n'\n    for n in range(1_000_000):\n        sys.stdout.write(line)\n    return 'printed'\n";
    service.function("prints", source, json!({"timeout": 120, "memory": 256})).await;
    service.event("prints", json!({})).await;
    let execution = service.finished("prints", 1).await.remove(0);
    assert_eq!((&execution["state"], &execution["result"]), (&json!("succeeded"), &json!("printed")), "{execution}");
    assert_eq!(execution["log"]["truncated"], true, "{execution}");
    let log = service.execution_log(execution["id"].as_str().unwrap()).await;
    assert!(log.len() > 200_000 && log.len() < 1_000_000, "{} bytes", log.len());
    let last = log.lines().last().unwrap();
    assert!(last.contains("platform"), "no mark: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_spawned_is_gone_with_its_sandbox_and_its_files_do_not_matter_to_others() {
    let service = Service::start_with("[worker]\nkeep_alive = 1\n");
    let mark = format!("lambda-orphan-{}", uuid::Uuid::new_v4().simple());
    let source = format!(
        "import os, shutil, subprocess\ndef handler(event, context):\n    subprocess.Popen(['/bin/sh', '-c', 'exec sleep 3600 # {mark}'], start_new_session=True)\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            os.execv('/bin/sh', ['{mark}', '-c', 'sleep 3600; true'])\n        os._exit(0)\n    os.wait()\n    shutil.rmtree(os.environ['LAMBDA_TASK_ROOT'], ignore_errors=True)\n    return os.getuid()\n"
    );
    service.function("spawns", &source, json!({})).await;
    let uid = service.ok("POST", "/v1/functions/spawns/invocations", Some(&json!({}))).await;
    if nix::unistd::geteuid().is_root() {
        assert_ne!(uid, 0, "sandboxes of a root service do not run as root");
    }
    service
        .until("nothing of it is left", async || {
            let list = std::process::Command::new("ps").args(["-eo", "args"]).output().unwrap();
            (!String::from_utf8_lossy(&list.stdout).contains(&mark)).then_some(())
        })
        .await;
    // The package was not the sandbox's to delete.
    service.ok("POST", "/v1/functions/spawns/invocations", Some(&json!({}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_sees_its_own_environment_and_nothing_of_the_services() {
    let service = Service::start();
    let source = "import os\ndef handler(event, context):\n    return dict(os.environ), context.function_name, context.memory_limit_in_mb, context.get_remaining_time_in_millis() > 0, context.aws_request_id\n";
    service.function("env", source, json!({"environment": {"GREETING": "hello"}, "memory": 192})).await;
    let answer = service.ok("POST", "/v1/functions/env/invocations", Some(&json!({}))).await;
    let environment = answer[0].as_object().unwrap();
    assert_eq!(environment["GREETING"], "hello");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_NAME"], "env");
    for name in environment.keys() {
        let known = name == "GREETING"
            || name.starts_with("AWS_")
            || name.starts_with("LAMBDA_")
            || matches!(
                name.as_str(),
                "_HANDLER"
                    | "_X_AMZN_TRACE_ID"
                    | "PATH"
                    | "LANG"
                    | "HOME"
                    | "TMPDIR"
                    | "TZ"
                    | "LC_CTYPE"
                    | "PYTHONPATH"
                    | "PYTHONUNBUFFERED"
            );
        assert!(known, "{name} is none of its business");
    }
    assert!(!environment.contains_key("LAMBDA_AGENT_TOKEN"));
    assert_eq!((&answer[1], &answer[3]), (&json!("env"), &json!(true)));
    assert_eq!(answer[2].to_string().trim_matches('"'), "192");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_service_lets_go_of_everything() {
    let service = Service::start_with("[worker]\nkeep_alive = 1\ninstance_keep_alive = 1\n");
    service.function("once", "def handler(event, context):\n    return 1\n", json!({})).await;
    service.ok("POST", "/v1/functions/once/invocations", Some(&json!({}))).await;
    service
        .until("no instance is left", async || {
            let list = service.ok("GET", "/v1/instances", None).await;
            list["instances"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
    let left: Vec<_> =
        std::fs::read_dir(service.data_dir().join("instances")).map(|d| d.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
    tokio::time::timeout(
        Duration::from_secs(60),
        service.ok("POST", "/v1/functions/once/invocations", Some(&json!({}))),
    )
    .await
    .unwrap();
}
