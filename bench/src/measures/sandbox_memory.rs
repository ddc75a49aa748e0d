//! The private memory of an idle Python sandbox: what one more of them takes, `Private_Clean + Private_Dirty` of
//! `smaps_rollup`.
//!
//! The instance has run for a while: its zygote, which imports the library while it has nothing else to do, has all of it.
//! Eight sandboxes of eight functions that have been called once, beside eight `python3` that wait for their standard input
//! and have imported nothing but what the interpreter imports by itself: both share what they share with their likes.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use serde_json::json;

use crate::bench::{Bench, Found, PYTHON};
use crate::program::command;
use crate::report::{Row, Target};
use crate::service::{Standalone, invocations};
use crate::stats::{P50, Rounds, Side};

const ROUNDS: usize = 3;
const PROCESSES: usize = 8;
const PEER: &str = "an idle python3";
/// In which a zygote imports the library, several times over.
const IMPORTS: Duration = Duration::from_secs(4);

const PID: &str = "import os\ndef handler(event, context):\n    return os.getpid()\n";

/// Private memory of a process, in KiB.
fn private(pid: i32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).context("no such line")
    };
    Ok(of("Private_Clean:")? + of("Private_Dirty:")?)
}

/// The pid here of a process below `above` that has this pid where it lives.
fn descendant(above: i32, inside: i64) -> Result<i32> {
    let status = |pid: i32, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let parent = |pid| status(pid, "PPid").and_then(|words| words.first()?.parse::<i32>().ok());
    let below =
        |pid| std::iter::successors(Some(pid), |pid| parent(*pid).filter(|parent| *parent > 1)).any(|pid| pid == above);
    let all = std::fs::read_dir("/proc")?;
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = inside.to_string();
    let mut found =
        pids.filter(|pid| below(*pid) && status(*pid, "NSpid").is_some_and(|pids| pids.last() == Some(&inside)));
    found.next().context("the sandbox is not to be found")
}

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let mut rounds = Rounds::default();
    for _ in 0..ROUNDS {
        let service = Standalone::start(bench, "").await?;
        service.api.python("first", PID, json!({})).await?;
        service.api.connection().post(&invocations("first"), Bytes::from_static(b"{}")).await?;
        tokio::time::sleep(IMPORTS).await;
        let mut pids = Vec::new();
        for number in 0..PROCESSES {
            let name = format!("idle-{number}");
            service.api.python(&name, &format!("{PID}# {name}\n"), json!({})).await?;
            let answer = service.api.connection().post(&invocations(&name), Bytes::from_static(b"{}")).await?;
            pids.push(serde_json::from_slice::<i64>(&answer)?);
        }
        let mut interpreters = Vec::new();
        for _ in 0..PROCESSES {
            let mut start = command(std::path::Path::new(PYTHON));
            start.args(["-c", "import sys; sys.stdin.read()"]).stdin(Stdio::piped()).kill_on_drop(true);
            interpreters.push(start.spawn()?);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ours = pids.iter().map(|pid| private(descendant(service.pid(), *pid)?)).collect::<Result<Vec<_>>>()?;
        let pids = interpreters.iter().filter_map(|child| i32::try_from(child.id()?).ok());
        let peer = pids.map(private).collect::<Result<Vec<_>>>()?;
        ensure!(ours.len() == peer.len(), "some are missing");
        rounds.push(Side::Ours, ours);
        rounds.push(Side::Peer, peer);
        for mut child in interpreters {
            child.kill().await?;
        }
        service.stop().await?;
    }
    let row = Row::of("private memory of an idle Python sandbox", "KiB", &rounds, P50, PEER, Target::AtMost(0.4));
    Ok(Found {
        rows: vec![row.note(format!("{ROUNDS} rounds of {PROCESSES} processes each"))],
        raw: vec![("private memory of an idle Python sandbox".to_owned(), serde_json::to_value(&rounds)?)],
        ..Found::default()
    })
}
