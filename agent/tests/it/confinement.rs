//! What a sandbox may see and do, and that nothing of it is left.

use std::time::Duration;

use lambda_agent::wire::FailureKind;
use serde_json::{Value, json};

use crate::gateway::{Gateway, Options, root_or_left_out};
use crate::help::{processes_with, until};

/// All ways in which an agent is run.
const MODES: [Options; 4] = [
    Options { unprivileged: false, without_cgroups: false, shared_tmp: false, contained: false, tls: false },
    Options { unprivileged: false, without_cgroups: true, shared_tmp: true, contained: false, tls: false },
    Options { unprivileged: true, without_cgroups: false, shared_tmp: false, contained: false, tls: false },
    Options { unprivileged: true, without_cgroups: true, shared_tmp: true, contained: false, tls: false },
];

#[tokio::test]
async fn the_environment_has_the_functions_variables_and_the_documented_ones_only() {
    let mut gateway = Gateway::start().await;
    let spec = gateway.function(
        "import os, subprocess\ndef handler(event, context):\n    return [dict(os.environ), subprocess.check_output(['env']).decode()]\n",
    );
    let sandbox = gateway.ready(spec).await;
    let seen = gateway.invoke(sandbox, "{}").await.returned();
    let names: Vec<&str> = seen[0].as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec![
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_TIMEOUT",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "COLOUR",
        "HOME",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_SANDBOX_ID",
        "LAMBDA_TASK_ROOT",
        "LANG",
        "PATH",
        "TMPDIR",
        "TZ",
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    let all = seen.to_string();
    for secret in ["a-secret-token", "a-secret-session", "value-of-the-service", "LAMBDA_AGENT"] {
        assert!(!all.contains(secret), "{secret}");
    }
    gateway.shut_down().await;
}

/// Tells about its process: users, groups, capabilities, no_new_privs, limits.
const ABOUT: &str = r#"
import os, resource, tempfile
def handler(event, context):
    status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
    written = {}
    for name, path in (("home", os.environ["HOME"]), ("temporary", tempfile.gettempdir()), ("task", os.getcwd()),
                       ("packages", os.path.dirname(os.getcwd())), ("runtime", os.environ["LAMBDA_RUNTIME_DIR"])):
        try:
            with open(os.path.join(path, "probe"), "w") as probe:
                probe.write("x")
            written[name] = True
        except OSError:
            written[name] = False
    return {"uid": status["Uid"].split(), "gid": status["Gid"].split(), "groups": status["Groups"].split(),
            "capabilities": status["CapEff"], "no_new_privs": status["NoNewPrivs"], "written": written,
            "sid": os.getsid(0) == os.getpid(), "core": resource.getrlimit(resource.RLIMIT_CORE),
            "umask": status.get("Umask"), "fds": sorted(os.listdir("/proc/self/fd"), key=int)}
"#;

#[tokio::test]
async fn as_root_a_sandbox_is_an_unprivileged_user_of_its_own() {
    if !root_or_left_out() {
        return;
    }
    for without_cgroups in [false, true] {
        let mut gateway = Gateway::start_with(Options { without_cgroups, ..Options::default() }).await;
        let spec = gateway.function(ABOUT);
        let (one, two) = (gateway.ready(spec.clone()).await, gateway.ready(spec).await);
        let (one, two) = (gateway.invoke(one, "{}").await.returned(), gateway.invoke(two, "{}").await.returned());
        for (about, user) in [(&one, gateway.uid_base), (&two, gateway.uid_base + 1)] {
            assert_eq!(about["uid"], json!(vec![user.to_string(); 4]));
            assert_eq!(about["gid"], json!(vec![user.to_string(); 4]));
            assert_eq!(about["groups"], json!([]));
            assert_eq!(about["capabilities"], "0000000000000000");
            assert_eq!(about["no_new_privs"], "1");
            assert_eq!((&about["sid"], &about["core"]), (&json!(true), &json!([0, 0])));
            let written =
                json!({ "home": true, "temporary": true, "task": false, "packages": false, "runtime": false });
            assert_eq!(about["written"], written);
            // Standard streams, the connection to the Runtime API, and the directory that is being listed.
            assert_eq!(about["fds"].as_array().unwrap().len(), 5, "{about}");
        }
        gateway.shut_down().await;
    }
}

#[tokio::test]
async fn as_root_every_sandbox_has_its_own_tmp_and_leaves_nothing_there() {
    if !root_or_left_out() {
        return;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")),
        "this cannot be shown in a plain change of root, where / is no mount: run it on the machine itself or in a container"
    );
    let mut gateway = Gateway::start().await;
    let name = format!("probe-{:016x}", rand::random::<u64>());
    let paths = ["/tmp", "/var/tmp", "/dev/shm"].map(|directory| format!("{directory}/{name}"));
    let spec = gateway.function(
        "import os\ndef handler(event, context):\n    there = [os.path.exists(path) for path in event]\n    for path in event: open(path, 'w').close()\n    return there\n",
    );
    let event = json!(paths).to_string();
    let (one, two) = (gateway.ready(spec.clone()).await, gateway.ready(spec).await);
    let seen = [&one, &two, &one].map(|sandbox| *sandbox);
    for (sandbox, there) in seen.into_iter().zip([false, false, true]) {
        let found = gateway.invoke(sandbox, &event).await.returned();
        assert_eq!(found[0], there, "{found}");
        assert_eq!(found[2], there, "{found}");
    }
    assert!(paths.iter().all(|path| !std::path::Path::new(path).exists()), "the machine's own are untouched");
    gateway.shut_down().await;
}

#[tokio::test]
async fn without_root_everything_works_as_the_agents_own_user() {
    let mut gateway = Gateway::start_with(Options { unprivileged: true, ..Options::default() }).await;
    let spec = gateway.function(ABOUT);
    let sandbox = gateway.ready(spec).await;
    let about = gateway.invoke(sandbox, "{}").await.returned();
    assert_eq!(about["no_new_privs"], "1");
    assert_eq!(about["written"]["home"], true);
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_handler_that_deletes_its_own_files_does_not_harm_the_next_sandbox() {
    for options in [Options::default(), Options { unprivileged: true, ..Options::default() }] {
        let mut gateway = Gateway::start_with(options).await;
        let spec = gateway.function(
            r#"
import os, shutil, sys
def handler(event, context):
    root = os.environ["LAMBDA_TASK_ROOT"]
    try:
        os.chmod(root, 0o777)
    except OSError:
        pass
    shutil.rmtree(root, ignore_errors=True)
    shutil.rmtree(os.environ["HOME"], ignore_errors=True)
    return "deleted"
"#,
        );
        for _ in 0..3 {
            let sandbox = gateway.ready(spec.clone()).await;
            assert_eq!(gateway.invoke(sandbox, "{}").await.returned(), "deleted");
            gateway.stop(sandbox).await;
        }
        gateway.shut_down().await;
    }
}

/// Leaves processes behind in every way: a child, one in a session of its own, a double fork without descriptors, one
/// that closed everything and emptied its environment. Their command lines have the marker.
const LEAVES: &str = r#"
import os, subprocess, sys, time
def daemon(marker):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 256)
            os.chdir("/")
            os.execve("/bin/sh", ["sh", "-c", "while :; do sleep 1; done # " + marker], {})
        os._exit(0)
def forked(marker):
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 256)
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
def handler(event, context):
    marker = event["marker"]
    loop = ["sh", "-c", "while :; do sleep 1; done # " + marker]
    subprocess.Popen(loop)
    subprocess.Popen(loop, start_new_session=True, env={})
    daemon(marker)
    forked(marker)
    while event.get("stay"):
        time.sleep(1)
    return os.getpid()
"#;

/// Every descendant of a process.
fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while next < found.len() {
        let above = found[next];
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

#[tokio::test]
async fn whatever_a_handler_started_is_gone_when_its_sandbox_is() {
    for options in MODES {
        let mut gateway = Gateway::start_with(options).await;
        let spec = gateway.function(LEAVES);
        let bystander = gateway.ready(spec.clone()).await;
        let before = descendants(gateway.agent.id()).len();
        for stay in [false, true] {
            let marker = format!("marker-{:016x}", rand::random::<u64>());
            let sandbox = gateway.ready(spec.clone()).await;
            let event = json!({ "marker": marker, "stay": stay }).to_string();
            let finished = gateway.invoke_within(sandbox, &event, if stay { 1500 } else { 30_000 }).await;
            if stay {
                assert_eq!(finished.failed().kind, FailureKind::TimedOut);
            } else {
                assert!(finished.returned().is_number());
                until("all were started", || processes_with(&marker).len() == 3).await;
                gateway.stop(sandbox).await;
            }
            assert_eq!(processes_with(&marker), Vec::<String>::new(), "{}", options.unprivileged);
            until("orphans are reaped", || descendants(gateway.agent.id()).len() == before).await;
        }
        assert!(gateway.invoke(bystander, r#"{"marker":"m"}"#).await.outcome.is_some(), "others live on");
        gateway.shut_down().await;
    }
}

#[tokio::test]
async fn a_killed_agent_leaves_nothing_that_clean_does_not_remove() {
    for options in MODES {
        let mut gateway = Gateway::start_with(options).await;
        let spec = gateway.function(LEAVES);
        let sandbox = gateway.ready(spec).await;
        let marker = format!("marker-{:016x}", rand::random::<u64>());
        let pid = gateway.invoke(sandbox, &json!({ "marker": marker }).to_string()).await.returned();
        until("all were started", || processes_with(&marker).len() == 3).await;
        let all = descendants(gateway.agent.id());
        gateway.agent.kill().unwrap();
        gateway.wait();
        let runs = |pid: &Value| std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists();
        until("the sandbox died with its agent", || !runs(&pid)).await;
        let program = gateway.work.path().join("lambda-agent");
        let mut clean = std::process::Command::new(program);
        clean.arg("clean").arg("--work-dir").arg(gateway.work_dir());
        assert!(clean.status().unwrap().success());
        assert_eq!(processes_with(&marker), Vec::<String>::new());
        let left =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
        until("no process is left", || !all.iter().any(left)).await;
        assert!(!gateway.work_dir().exists());
        assert!(clean.status().unwrap().success(), "cleaning again is a success");
    }
}

#[tokio::test]
async fn a_fork_bomb_ends_with_its_sandbox() {
    let mut gateway = Gateway::start().await;
    let spec = gateway.function(
        "import os\ndef handler(event, context):\n    while True:\n        try: os.fork()\n        except OSError: pass\n",
    );
    let sandbox = gateway.ready(spec).await;
    let finished = gateway.invoke_within(sandbox, "{}", 1000).await;
    // With its memory spent on page tables, or in time.
    assert!(matches!(finished.failed().kind, FailureKind::TimedOut | FailureKind::OutOfMemory), "{finished:?}");
    let after = gateway.function("def handler(event, context): return 1");
    let sandbox = gateway.ready(after).await;
    assert_eq!(gateway.invoke(sandbox, "{}").await.returned(), 1);
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_zygote_that_dies_is_started_again() {
    let mut gateway = Gateway::start().await;
    let spec = gateway.function("def handler(event, context): return 1");
    let sandbox = gateway.ready(spec.clone()).await;
    let zygote = descendants(gateway.agent.id())[0];
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(zygote).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let (message, _) = gateway.hear().await;
    let lambda_agent::wire::Message::SandboxEnded { sandbox: ended, failure, .. } = message else {
        panic!("{message:?}")
    };
    assert_eq!((ended, failure.unwrap().kind), (sandbox, FailureKind::Platform), "it is not the function's fault");
    let again = async {
        loop {
            if gateway.begin(spec.clone()).await.failure.is_none() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("a new zygote forks");
    gateway.shut_down().await;
}
