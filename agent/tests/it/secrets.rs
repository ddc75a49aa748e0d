//! What a sandbox cannot learn about its agent, and how the agent lives as process 1.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::gateway::{Gateway, Options, TOKEN, root_or_left_out};

/// Tries everything by which one process looks into another; says what came of each try.
const SPY: &str = r#"
import ctypes, os
PTRACE_ATTACH, PROCESS_VM_READV = 16, 310
def handler(event, context):
    found = {}
    for process in event:
        for name in ("environ", "mem", "maps", "auxv", "stack", "syscall", "personality"):
            try:
                with open("/proc/%d/%s" % (process, name), "rb", buffering=0) as file:
                    found["%d/%s" % (process, name)] = file.read(64).decode("latin-1")
            except OSError as error:
                found["%d/%s" % (process, name)] = error.errno
        for name in ("fd", "map_files", "root", "cwd", "exe"):
            try:
                path = "/proc/%d/%s" % (process, name)
                found[name] = os.listdir(path) if name in ("fd", "map_files") else os.readlink(path)
            except OSError as error:
                found["%d/%s" % (process, name)] = error.errno
        libc = ctypes.CDLL(None, use_errno=True)
        found["%d/ptrace" % process] = ctypes.get_errno() if libc.ptrace(PTRACE_ATTACH, process, 0, 0) else "attached"
    cmdline = {process: open("/proc/%d/cmdline" % process).read() for process in event}
    return {"found": found, "cmdline": cmdline, "zombies": zombies()}

def zombies():
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = open("/proc/%s/stat" % process).read()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] == "Z":
            found.append(stat)
    return found
"#;

#[tokio::test]
async fn a_sandbox_cannot_look_into_its_agent() {
    let unprivileged = Options { unprivileged: true, ..Options::default() };
    let mut modes = vec![Options::default(), unprivileged];
    if root_or_left_out() {
        modes.push(Options { contained: true, ..Options::default() });
    }
    for options in modes {
        let mut gateway = Gateway::start_with(options).await;
        let agent = gateway.agent_pid();
        let environment = std::fs::read(format!("/proc/{agent}/environ"));
        if let Ok(environment) = environment {
            let environment = String::from_utf8_lossy(&environment).into_owned();
            assert!(environment.contains("LAMBDA_AGENT_TOKEN=-"), "{environment}");
            assert!(!environment.contains(TOKEN), "the token is shown to whoever may look: {environment}");
        }
        let spec = gateway.function(SPY);
        let sandbox = gateway.ready(spec).await;
        let seen_as = if options.contained { 1 } else { agent };
        let about = gateway.invoke(sandbox, &json!([seen_as]).to_string()).await.returned();
        let found = about["found"].as_object().unwrap();
        assert!(found.len() >= 13, "{about}");
        for (what, came) in found {
            let refused = [nix::libc::EACCES, nix::libc::EPERM].map(Value::from);
            assert!(refused.contains(came), "{what}: {came}");
        }
        assert!(!about["cmdline"].to_string().contains(TOKEN));
        gateway.shut_down().await;
    }
}

/// Leaves a process whose parent has ended and that ends itself soon after.
const ORPHANS: &str = r#"
import os, time
def handler(event, context):
    for _ in range(20):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(0.05)
            os._exit(0)
        os.wait()
    while True:
        states = []
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                stat = open("/proc/%s/stat" % process).read()
            except OSError:
                continue
            states.append(stat.rpartition(")")[2].split()[:2])
        # The agent, the zygote, this process, and nobody else: neither living nor dead.
        if len(states) == 3:
            return states
        time.sleep(0.01)
"#;

#[tokio::test]
async fn as_process_1_it_buries_orphans_and_ends_when_asked() {
    if !root_or_left_out() {
        return;
    }
    let mut gateway = Gateway::start_with(Options { contained: true, ..Options::default() }).await;
    let spec = gateway.function(ORPHANS);
    let sandbox = gateway.ready(spec.clone()).await;
    let states = gateway.invoke(sandbox, "{}").await.returned();
    assert_eq!(states.as_array().unwrap().len(), 3, "{states}");
    // Also in the middle of work.
    let spinning = gateway.function("def handler(event, context):\n    while True: pass\n");
    let sandbox = gateway.ready(spinning).await;
    gateway.give(sandbox, "{}", 60_000).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.agent_pid())).unwrap();
    assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
    kill(Pid::from_raw(gateway.agent_pid()), Signal::SIGTERM).unwrap();
    let acknowledge = tokio::time::timeout(crate::gateway::PATIENCE, async {
        while !matches!(gateway.hear().await, (lambda_agent::wire::Message::SandboxEnded { sandbox: ended, .. }, _) if ended == sandbox)
        {
        }
    });
    acknowledge.await.unwrap();
    gateway.hang_up();
    assert_eq!(gateway.wait().code(), Some(0));
}
