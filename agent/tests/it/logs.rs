//! What a function writes: complete, in order, with the attempt it belongs to, and cut at its limit.

use lambda_agent::wire::{HandlerOutcome, Stream};

use crate::gateway::{Finished, Gateway};

#[tokio::test]
async fn a_log_is_complete_and_in_order_when_the_result_comes() {
    let mut gateway = Gateway::start().await;
    let spec = gateway.function(
        r#"
import sys, os, logging
log = logging.getLogger()
log.setLevel(logging.INFO)
print("importing")
def handler(event, context):
    for n in range(2000):
        print(event, n)
    log.info("informed %d", event)
    os.write(1, b"raw\n")
    os.system("echo from a child")
    print("to err", file=sys.stderr)
    context.log("no newline")
"#,
    );
    let begun = gateway.begin(spec).await;
    assert_eq!(begun.logs.len(), 1, "{begun:?}");
    assert_eq!((begun.logs[0].execution.as_ref(), begun.logs[0].text.as_str()), (None, "importing\n"));
    for round in 0..20 {
        let execution = gateway.give(begun.sandbox, &round.to_string(), 10_000).await;
        let finished = gateway.finished(&execution).await;
        assert!(finished.logs.iter().all(|piece| piece.execution.as_ref() == Some(&execution)), "{:?}", finished.logs);
        assert!(finished.logs.is_sorted_by_key(|piece| piece.at_ms) && finished.logs[0].at_ms > 1_600_000_000_000);
        let stdout = finished.text(Stream::Stdout);
        let lines: Vec<&str> = stdout.lines().collect();
        assert!((0..2000).all(|n| lines[n] == format!("{round} {n}")));
        let logged: Vec<&str> = lines[2000].split('\t').collect();
        assert_eq!(
            (logged[0], logged[2], logged[3]),
            ("[INFO]", execution.execution.as_str(), &*format!("informed {round}"))
        );
        assert!(logged[1].ends_with('Z') && logged[1].contains('T'), "{logged:?}");
        assert_eq!(lines[2001..], ["raw", "from a child", "no newline"]);
        assert_eq!(finished.text(Stream::Stderr), "to err\n");
        let sent: usize = finished.logs.iter().map(|piece| piece.text.len()).sum();
        assert_eq!((finished.measures.log_bytes, finished.measures.log_truncated), (sent as u64, false));
        assert_eq!(finished.outcome, Some(HandlerOutcome::Returned));
    }
    gateway.shut_down().await;
}

fn assert_cut(finished: &Finished, limit: usize) {
    let kept = finished.text(Stream::Stdout).len();
    assert_eq!(kept, limit);
    assert_eq!((finished.measures.log_bytes, finished.measures.log_truncated), (limit as u64, true));
    let note = finished.text(Stream::Platform);
    assert!(note.starts_with("log cut: ") && note.contains(&limit.to_string()), "{note}");
}

#[tokio::test]
async fn a_hundred_megabytes_are_cut_and_neither_the_process_nor_the_agent_suffers() {
    let mut gateway = Gateway::start().await;
    let spec = gateway
        .function("def handler(event, context):\n    for _ in range(event): print('x' * 1023)\n    return 'done'\n");
    let sandbox = gateway.ready(spec).await;
    let finished = gateway.invoke_within(sandbox, "102400", 120_000).await;
    assert_cut(&finished, 1 << 20);
    assert_eq!(finished.returned(), "done");
    let peak = std::fs::read_to_string(format!("/proc/{}/status", gateway.agent.id())).unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100 << 10, "the agent used {peak} KiB");
    let next = gateway.invoke(sandbox, "1").await;
    assert_eq!((next.measures.log_bytes, next.measures.log_truncated), (1024, false), "each attempt has its own limit");
    gateway.shut_down().await;
}

#[tokio::test]
async fn what_was_written_before_a_kill_is_kept() {
    let mut gateway = Gateway::start().await;
    let spec =
        gateway.function("import time\ndef handler(event, context):\n    print('last words')\n    time.sleep(60)\n");
    let sandbox = gateway.ready(spec).await;
    let finished = gateway.invoke_within(sandbox, "{}", 500).await;
    assert!(finished.failure.is_some());
    assert_eq!(finished.text(Stream::Stdout), "last words\n");
    assert_eq!(finished.measures.log_bytes, 11);
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_process_that_never_stops_writing_does_not_hold_up_the_result() {
    let mut gateway = Gateway::start().await;
    let spec = gateway.function(
        "import subprocess\ndef handler(event, context):\n    subprocess.Popen(['yes'])\n    return 'done'\n",
    );
    let sandbox = gateway.ready(spec).await;
    assert_eq!(gateway.invoke(sandbox, "{}").await.returned(), "done");
    let late = gateway.stop(sandbox).await;
    assert!(late.iter().all(|piece| piece.execution.is_none()), "it belongs to no attempt");
    gateway.shut_down().await;
}

#[tokio::test]
async fn a_handler_may_replace_or_close_its_streams() {
    let mut gateway = Gateway::start().await;
    let spec = gateway.function(
        "import sys, io\ndef handler(event, context):\n    sys.stdout = io.StringIO()\n    print('lost')\n    sys.stderr.close()\n    return 1\n",
    );
    let sandbox = gateway.ready(spec).await;
    for _ in 0..2 {
        let finished = gateway.invoke(sandbox, "{}").await;
        assert_eq!(finished.text(Stream::Stdout), "");
        // The second call finds a closed stream of its own making; the runtime must not.
        assert!(finished.outcome.is_some());
    }
    gateway.shut_down().await;
}
