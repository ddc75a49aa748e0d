//! An update under load: the code of a function is replaced while it is called 100 times a second, and every call must be
//! answered as if nothing had happened.
//!
//! The load is open: a call is due each 10 ms, whatever became of those before it, and its time runs from when it was due.
//! Compared are the three seconds from the upload on with the three seconds before it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::Mutex;

use crate::bench::{Bench, Found};
use crate::http::Connection;
use crate::report::{Row, Target};
use crate::service::{Standalone, invocations};
use crate::stats::{P50, P99, Rounds, Side};

const ROUNDS: usize = 5;
const CALLS: u32 = 300;
const EVERY: Duration = Duration::from_millis(10);
const PEER: &str = "the same function before its update";

fn source(version: usize) -> String {
    format!("VERSION = {version}\ndef handler(event, context):\n    return VERSION\n")
}

/// What became of a call: its time in milliseconds, and which version answered; none: it failed.
type Call = (f64, Option<u64>);

/// Calls that are due one after the other; connections are used again.
async fn load(address: &str, pool: &Arc<Mutex<Vec<Connection>>>) -> Result<Vec<Call>> {
    let begun = Instant::now();
    let mut calls = Vec::new();
    for number in 0..CALLS {
        let due = begun + EVERY * number;
        tokio::time::sleep_until(due.into()).await;
        let (pool, address) = (Arc::clone(pool), address.to_owned());
        calls.push(tokio::spawn(async move {
            let idle = pool.lock().await.pop();
            let mut connection = idle.unwrap_or_else(|| Connection::new(&address));
            let answer = connection.post(&invocations("updated"), Bytes::from_static(b"{}")).await;
            let took = due.elapsed().as_secs_f64() * 1e3;
            pool.lock().await.push(connection);
            (took, answer.ok().and_then(|answer| serde_json::from_slice(&answer).ok()))
        }));
    }
    Ok(futures::future::try_join_all(calls).await?)
}

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let service = Standalone::start(bench, "").await?;
    service.api.python("updated", &source(0), json!({})).await?;
    let (address, pool) = (service.api.url.clone(), Arc::new(Mutex::new(Vec::new())));
    load(&address, &pool).await?;
    let (mut rounds, mut errors) = (Rounds::default(), Rounds::default());
    for version in 1..=ROUNDS {
        let before = load(&address, &pool).await?;
        let upload = async {
            let source = Bytes::from(source(version));
            let mut connection = service.api.connection();
            connection.send("PUT", "/v1/functions/updated/code", "text/x-python", source).await?.json()
        };
        let (during, uploaded) = tokio::join!(load(&address, &pool), upload);
        uploaded?;
        let during = during?;
        let last = during.last().and_then(|(_, version)| *version).context("the last call failed")?;
        ensure!(usize::try_from(last)? == version, "three seconds after the update the old code answers");
        for (side, calls) in [(Side::Peer, before), (Side::Ours, during)] {
            let failed = calls.iter().filter(|(_, version)| version.is_none()).count();
            errors.push(side, vec![f64::from(u32::try_from(failed)?)]);
            rounds.push(side, calls.into_iter().map(|(took, _)| took).collect());
        }
    }
    service.stop().await?;
    let total = errors.ours.iter().flatten().sum();
    let note = format!("{ROUNDS} updates, {CALLS} calls before and {CALLS} from each on, 100 a second");
    let rows = vec![
        Row::new("update under load, failed calls", "calls", (Some(total), None), PEER, Target::Bound(0.0)).note(note),
        Row::of("update under load, p99", "ms", &rounds, P99, PEER, Target::AtMost(2.0)),
        Row::of("update under load, p50", "ms", &rounds, P50, PEER, Target::Information),
    ];
    Ok(Found::compared("update under load", PEER, rounds, rows))
}
