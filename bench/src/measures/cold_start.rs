//! A cold start in a ready instance: the first synchronous call of a function that was just made, whose package the
//! instance has never seen, in an instance that runs another function of the project.
//!
//! From before the request is written until the handler's first statement, which reads the clock: REST, placement, fetching
//! and unpacking the package, fork, import, the event. The peer is `python3 -c pass` from before it is started until it has
//! ended: the least that a fresh interpreter costs, with no service around it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use serde_json::json;

use crate::bench::{Bench, Found, now};
use crate::peers::python_pass;
use crate::report::{Row, Target};
use crate::service::{Standalone, invocations};
use crate::stats::{P50, P95, Rounds, Side, alternating};

const ROUNDS: usize = 5;
const STARTS: usize = 20;
const PEER: &str = "python3 -c pass";

/// The handler tells when it was entered.
pub const STAMP: &str = "import time\ndef handler(event, context):\n    return time.time()\n";

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let service = Standalone::start(bench, "").await?;
    // What keeps the instance.
    service.api.python("resident", STAMP, json!({})).await?;
    let mut connection = service.api.connection();
    connection.post(&invocations("resident"), Bytes::from_static(b"{}")).await?;
    let mut rounds = Rounds::default();
    for (round, side) in alternating(ROUNDS).into_iter().enumerate() {
        let mut samples = Vec::new();
        match side {
            Side::Ours => {
                let name = |start| format!("cold-{round}-{start}");
                for start in 0..STARTS {
                    let source = format!("{STAMP}# {}\n", name(start));
                    service.api.python(&name(start), &source, json!({})).await?;
                }
                for start in 0..STARTS {
                    let asked = now();
                    let answer = connection.post(&invocations(&name(start)), Bytes::from_static(b"{}")).await?;
                    let entered: f64 = serde_json::from_slice(&answer).context("no time")?;
                    samples.push((entered - asked) * 1e3);
                }
                for start in 0..STARTS {
                    service.api.delete(&name(start)).await?;
                }
                // Their sandboxes end before the peer's turn.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Side::Peer => {
                for _ in 0..STARTS {
                    samples.push(python_pass().await?);
                }
            }
        }
        rounds.push(side, samples);
    }
    service.stop().await?;
    let note = format!("{ROUNDS} rounds of {STARTS} functions each; asked → handler entered");
    let rows = vec![
        Row::of("cold start in a ready instance, p50", "ms", &rounds, P50, PEER, Target::AtMost(0.5)).note(note),
        Row::of("cold start in a ready instance, p95", "ms", &rounds, P95, PEER, Target::AtMost(1.0)),
    ];
    Ok(Found::compared("cold start in a ready instance", PEER, rounds, rows))
}
