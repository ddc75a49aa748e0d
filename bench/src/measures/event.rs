//! An event on an idle service: from before it is posted to the queue until the handler's first statement, standalone.
//!
//! Nothing has happened for a second or so, and a sandbox is warm. The peer is ministack, an emulator of AWS in one process:
//! a message sent to its SQS queue, whose event source mapping gives it to a Lambda function with one warm process. Ours
//! writes the message and the record to disk on the way; the peer keeps both in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::bench::{Bench, Found, now};
use crate::peers::{Listener, MINISTACK, Ministack};
use crate::report::{Row, Target};
use crate::service::{Api, PATIENCE, QUEUE, Standalone, messages, posts};
use crate::stats::{P50, P95, Rounds, Side, alternating};

const ROUNDS: usize = 5;
const EVENTS: usize = 8;

/// The handler tells which event it got and when it was entered.
pub const STAMP: &str =
    "import time\ndef handler(event, context):\n    at = time.time()\n    return [event['data'], at]\n";

/// How long nothing happens before the event of this number: never in step with whoever looks regularly.
fn pause(number: usize) -> Duration {
    Duration::from_millis(700 + (number as u64 * 137) % 500)
}

/// When the handler was entered, by the number of the event.
pub fn entered(executions: &[Value]) -> BTreeMap<usize, f64> {
    let of = |execution: &Value| Some((execution["result"][0].as_u64()?, execution["result"][1].as_f64()?));
    executions.iter().filter_map(of).filter_map(|(number, at)| Some((usize::try_from(number).ok()?, at))).collect()
}

/// Rounds of single events on a service that has handled one event of the function `event`, whose handler is [`STAMP`]:
/// `post` posts the event of a number, `peer` has the peer handle one and says how many milliseconds that took.
pub async fn rounds(
    api: &Api,
    mut post: impl AsyncFnMut(usize) -> Result<()>,
    mut peer: impl AsyncFnMut(usize) -> Result<f64>,
) -> Result<Rounds> {
    let mut rounds = Rounds::default();
    let (mut number, mut ours) = (0, 1);
    for side in alternating(ROUNDS) {
        let mut samples = Vec::new();
        let mut posted = BTreeMap::new();
        for _ in 0..EVENTS {
            number += 1;
            tokio::time::sleep(pause(number)).await;
            match side {
                Side::Ours => {
                    posted.insert(number, now());
                    post(number).await?;
                }
                Side::Peer => samples.push(peer(number).await?),
            }
        }
        if side == Side::Ours {
            ours += posted.len();
            let times = entered(&api.finished("event", ours, PATIENCE).await?);
            for (number, asked) in posted {
                samples.push((times.get(&number).context("an event is lost")? - asked) * 1e3);
            }
        }
        rounds.push(side, samples);
    }
    Ok(rounds)
}

/// How [`rounds`] went, for the table.
pub fn note() -> String {
    format!("{ROUNDS} rounds of {EVENTS} events each, 0.7 to 1.2 s apart; posted → handler entered")
}

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let listener = Listener::open().await?;
    let source = format!(
        "import socket, time\ndef handler(event, context):\n    at = time.time()\n    \
         tell = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    for record in event['Records']:\n        \
         tell.sendto(f'{{at:.6f}} {{record[\"body\"]}}'.encode(), ('127.0.0.1', {}))\n",
        listener.port()?
    );
    let service = Standalone::start(bench, "").await?;
    let mut ministack = Ministack::start(bench, &source).await?;
    service.api.python("event", STAMP, json!({})).await?;
    let mut poster = service.poster();
    // A warm sandbox on both sides.
    poster.post(&posts(QUEUE), messages("event", None, [json!(0)])).await?;
    service.api.finished("event", 1, PATIENCE).await?;
    ministack.post("warm").await?;
    listener.entered("warm").await?;
    let rounds = rounds(
        &service.api,
        async |number| {
            poster.post(&posts(QUEUE), messages("event", None, [json!(number)])).await?;
            Ok(())
        },
        async |number| {
            let text = number.to_string();
            let asked = now();
            ministack.post(&text).await?;
            Ok((listener.entered(&text).await? - asked) * 1e3)
        },
    )
    .await?;
    ministack.stop().await?;
    service.stop().await?;
    let rows = vec![
        Row::of("event on an idle service, standalone, p50", "ms", &rounds, P50, MINISTACK, Target::AtMost(0.3))
            .note(note()),
        Row::of("event on an idle service, standalone, p95", "ms", &rounds, P95, MINISTACK, Target::Information),
    ];
    Ok(Found::compared("event on an idle service, standalone", MINISTACK, rounds, rows))
}
