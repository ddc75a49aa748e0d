//! What many records cost: a service whose MongoDB holds 100,000 functions and 1,000,000 executions, beside one of 1,000 and
//! 1,000, by how long a look takes; and one of 10,000 and 100,000 by the memory it needs once all of them were listed.
//!
//! Both sides are this service, so the ratio says how it grows. API and worker are one process here (`lambda-standalone` on
//! MongoDB); they are the same code as the two programs. The records are made in the store's own form, see `mongo`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use serde_json::json;

use crate::bench::{Bench, Found};
use crate::mongo::{Mongo, Records, serve};
use crate::report::{Row, Target};
use crate::service::{Standalone, invocations};
use crate::stats::{P50, P99, Rounds, Side, alternating};

const ROUNDS: usize = 5;
const LOOKS: usize = 200;
/// Longest that a side's turn takes, however slow it is.
const TURN: Duration = Duration::from_secs(4);
const PEER: &str = "the same with 1,000 and 1,000";

/// What is looked at: a name for it, and the path of the look of this number.
fn path(what: &str, records: &Records, number: usize) -> Result<String> {
    let some = |ids: &[String]| ids.get(number * 7919 % ids.len().max(1)).cloned().context("there are no records");
    Ok(match what {
        "list of functions" => "/v1/functions?limit=100".to_owned(),
        "one function" => format!("/v1/functions/{}", some(&records.functions)?),
        "list of executions" => "/v1/executions?limit=100".to_owned(),
        _ => format!("/v1/executions/{}", some(&records.executions)?),
    })
}

/// Takes the measure of looks.
pub async fn latency(bench: &Bench) -> Result<Found> {
    let mongo = Mongo::up(bench).await?;
    let few = mongo.records(bench, "bench_few", 1000, 1000).await?;
    let many = mongo.records(bench, "bench_many", 100_000, 1_000_000).await?;
    let (small, large) = (serve(bench, &few).await?, serve(bench, &many).await?);
    let mut found = Found::default();
    for what in ["list of functions", "one function", "list of executions", "one execution"] {
        let mut rounds = Rounds::default();
        for side in alternating(ROUNDS) {
            let (service, records) = if side == Side::Ours { (&large, &many) } else { (&small, &few) };
            let mut connection = service.api.connection();
            let mut samples = Vec::new();
            let turn = Instant::now();
            for number in (0..LOOKS).take_while(|_| turn.elapsed() < TURN) {
                let path = path(what, records, number)?;
                let begun = Instant::now();
                connection.json("GET", &path, None).await?;
                samples.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            rounds.push(side, samples);
        }
        let title = format!("{what}, with 100,000 functions and 1,000,000 executions");
        let note = format!("{ROUNDS} rounds of {LOOKS} looks each, or of 4 s; lists of 100, without a filter");
        let rows = vec![
            Row::of(&format!("{title}, p99"), "ms", &rounds, P99, PEER, Target::AtMost(1.5)).note(note),
            Row::of(&format!("{title}, p50"), "ms", &rounds, P50, PEER, Target::Information),
        ];
        found = found.and(Found::compared(what, PEER, rounds, rows));
    }
    small.stop().await?;
    large.stop().await?;
    mongo.drop("bench_few").await?;
    mongo.drop("bench_many").await?;
    Ok(found)
}

/// Lists everything, calls some functions, and tells the resident memory then, in MiB.
async fn used(service: &Standalone, records: &Records) -> Result<f64> {
    let mut connection = service.api.connection();
    for what in ["functions", "executions"] {
        let mut path = format!("/v1/{what}?limit=1000");
        loop {
            let page = connection.json("GET", &path, None).await?;
            match page[format!("{what}_links")][0]["href"].as_str() {
                Some(link) => path = link[link.find("/v1/").context("a strange link")?..].to_owned(),
                None => break,
            }
        }
    }
    for id in records.functions.iter().take(20) {
        connection.post(&invocations(id), Bytes::from_static(b"{}")).await?;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib / 1024.0)
}

/// Takes the measure of memory.
pub async fn memory(bench: &Bench) -> Result<Found> {
    let mongo = Mongo::up(bench).await?;
    let few = mongo.records(bench, "bench_few", 1000, 1000).await?;
    let many = mongo.records(bench, "bench_many", 10_000, 100_000).await?;
    let mut rounds = Rounds::default();
    for side in alternating(3) {
        let records = if side == Side::Ours { &many } else { &few };
        let service = serve(bench, records).await?;
        rounds.push(side, vec![used(&service, records).await?]);
        service.stop().await?;
    }
    mongo.drop("bench_few").await?;
    mongo.drop("bench_many").await?;
    let title = "memory of API and worker, with 10,000 functions and 100,000 executions";
    let row = Row::of(title, "MiB", &rounds, P50, PEER, Target::AtMost(1.5));
    let note = "resident, once all records were listed and 20 functions called; 3 processes each";
    Ok(Found { rows: vec![row.note(note)], raw: vec![(title.to_owned(), json!(rounds))], ..Found::default() })
}
