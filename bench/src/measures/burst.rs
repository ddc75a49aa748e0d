//! A burst: 1,000 events of 100 ms each for a function that may run 50 at a time, standalone, from the first post until the
//! last handler has returned.
//!
//! Held against arithmetic: 1,000 × 100 ms / 50 = 2 s. Posting takes part of it: 20 events a request, on four connections.
//! Once from nothing, with no sandbox and, in the first round, no instance; once more with what the first burst has left.

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use serde_json::json;

use crate::bench::{Bench, Found, now};
use crate::report::{Row, Target};
use crate::service::{PATIENCE, QUEUE, Standalone, messages, posts};
use crate::stats::{P50, Rounds, Side};

const ROUNDS: usize = 3;
const EVENTS: usize = 1000;
const IDEAL: f64 = 2.0;
const PEER: &str = "the ideal: 1,000 × 100 ms / 50";
const SLEEP: &str =
    "import time\ndef handler(event, context):\n    time.sleep(0.1)\n    return [event['data'], time.time()]\n";

/// Seconds from the first post until the last handler has returned.
async fn burst(service: &Standalone, name: &str, earlier: usize) -> Result<f64> {
    let data: Vec<_> = (earlier..earlier + EVENTS).collect();
    let begun = now();
    try_join_all(data.chunks(EVENTS / 4).map(async |part| {
        let mut poster = service.poster();
        for some in part.chunks(20) {
            poster.post(&posts(QUEUE), messages(name, None, some.iter().map(|number| json!(number)))).await?;
        }
        Ok::<_, anyhow::Error>(())
    }))
    .await?;
    // Looked at when it should be over: reading a thousand records must not take from what is measured.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let ends = super::event::entered(&service.api.finished(name, earlier + EVENTS, PATIENCE).await?);
    let last = ends.values().copied().reduce(f64::max).context("nothing ran")?;
    Ok(last - begun)
}

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let (mut cold, mut warm) = (Rounds::default(), Rounds::default());
    let service = Standalone::start(bench, "[worker]\nmax_sandboxes_per_function = 50\n").await?;
    for round in 0..ROUNDS {
        let name = format!("burst-{round}");
        service.api.python(&name, &format!("{SLEEP}# {name}\n"), json!({"max_concurrency": 50, "memory": 64})).await?;
        for (rounds, earlier) in [(&mut cold, 0), (&mut warm, EVENTS)] {
            rounds.push(Side::Ours, vec![burst(&service, &name, earlier).await?]);
            rounds.push(Side::Peer, vec![IDEAL]);
        }
        service.api.delete(&name).await?;
    }
    service.stop().await?;
    let note = format!("{ROUNDS} rounds; from no sandbox at all");
    let rows = vec![
        Row::of("burst of 1,000 events of 100 ms, limit 50", "s", &cold, P50, PEER, Target::AtMost(1.2)).note(note),
        Row::of("the same burst, sandboxes warm", "s", &warm, P50, PEER, Target::Information),
    ];
    let raw = vec![
        ("burst".to_owned(), serde_json::to_value(&cold)?),
        ("burst, warm".to_owned(), serde_json::to_value(&warm)?),
    ];
    Ok(Found { rows, raw, ..Found::default() })
}
