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
use crate::service::{PATIENCE, QUEUE, Standalone, messages, posts};
use crate::stats::{P50, P95, Rounds, Side, alternating};

const ROUNDS: usize = 5;
const EVENTS: usize = 8;

/// The handler tells which event it got and when it was entered.
pub const STAMP: &str =
    "import time\ndef handler(event, context):\n    at = time.time()\n    return [event['data'], at]\n";

/// How long nothing happens before the event of this number: never in step with whoever looks regularly.
pub fn pause(number: usize) -> Duration {
    Duration::from_millis(700 + (number as u64 * 137) % 500)
}

/// When the handler was entered, by the number of the event.
pub fn entered(executions: &[Value]) -> BTreeMap<u64, f64> {
    let of = |execution: &Value| Some((execution["result"][0].as_u64()?, execution["result"][1].as_f64()?));
    executions.iter().filter_map(of).collect()
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
                    let body = messages("event", None, [json!(number)]);
                    posted.insert(number as u64, now());
                    poster.post(&posts(QUEUE), body).await?;
                }
                Side::Peer => {
                    let text = number.to_string();
                    let asked = now();
                    ministack.post(&text).await?;
                    samples.push((listener.entered(&text).await? - asked) * 1e3);
                }
            }
        }
        if side == Side::Ours {
            ours += posted.len();
            let times = entered(&service.api.finished("event", ours, PATIENCE).await?);
            for (number, asked) in posted {
                samples.push((times.get(&number).context("an event is lost")? - asked) * 1e3);
            }
        }
        rounds.push(side, samples);
    }
    ministack.stop().await?;
    service.stop().await?;
    let note = format!("{ROUNDS} rounds of {EVENTS} events each, 0.7 to 1.2 s apart; posted → handler entered");
    let rows = vec![
        Row::of("event on an idle service, standalone, p50", "ms", &rounds, P50, MINISTACK, Target::AtMost(0.3))
            .note(note),
        Row::of("event on an idle service, standalone, p95", "ms", &rounds, P95, MINISTACK, Target::Information),
    ];
    Ok(Found::compared("event on an idle service, standalone", MINISTACK, rounds, rows))
}
