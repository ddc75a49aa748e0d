//! How many synchronous calls a second 16 clients get answered, each on its own connection and asking again as soon as it
//! has its answer.
//!
//! The same echo and the same peer as in `warm_call`, with 16 processes: as many as sandboxes of ours run at once. Ours
//! keeps a record of each call; the peer keeps nothing.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde_json::json;

use super::warm_call::{BODY, ECHO};
use crate::bench::{Bench, Found};
use crate::load;
use crate::peers::{FRAMEWORK, Framework};
use crate::report::{Row, Target};
use crate::service::{Standalone, invocations};
use crate::stats::{P50, Rounds, Side, alternating};

const ROUNDS: usize = 5;
const CLIENTS: usize = 16;
const TIME: Duration = Duration::from_secs(4);

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let service = Standalone::start(bench, "[worker]\nmax_sandboxes_per_function = 16\n").await?;
    let framework = Framework::start(bench, CLIENTS).await?;
    service.api.python("echo", ECHO, json!({})).await?;
    let body = Bytes::from_static(BODY);
    let ours = load::Target { address: service.api.url.clone(), path: invocations("echo"), body: body.clone() };
    let peer = load::Target { address: framework.address.clone(), path: "/".to_owned(), body };
    for target in [&ours, &peer] {
        target.rate(CLIENTS, Duration::from_secs(2)).await?;
    }
    let mut rounds = Rounds::default();
    for side in alternating(ROUNDS) {
        let target = if side == Side::Ours { &ours } else { &peer };
        rounds.push(side, vec![target.rate(CLIENTS, TIME).await?]);
    }
    framework.stop().await?;
    service.stop().await?;
    let peer = format!("{FRAMEWORK}, {CLIENTS} processes");
    let row = Row::of("throughput, 16 clients, Python echo", "calls/s", &rounds, P50, &peer, Target::AtLeast(1.0));
    let raw = vec![("throughput".to_owned(), serde_json::to_value(&rounds)?)];
    Ok(Found { rows: vec![row.note(format!("{ROUNDS} rounds of {} s each", TIME.as_secs()))], raw, ..Found::default() })
}
