//! A warm synchronous call: one client on one connection, from before the request is written until the answer is read.
//!
//! Ours goes through everything that a call goes through: REST with its checks, the choice of a worker, dispatch, the gateway,
//! the agent, the Runtime API, the sandbox, and back, with the record written besides. The peer is functions-framework,
//! which runs the same echo in the process that took the request: no isolation, no record, one hop. That is the least that a
//! Python handler behind HTTP costs with a production server, and so the hardest peer that there is.

use anyhow::Result;
use bytes::Bytes;
use serde_json::json;

use crate::bench::{Bench, Found};
use crate::http::Connection;
use crate::load;
use crate::peers::{FRAMEWORK, Framework};
use crate::report::{Row, Target};
use crate::service::{Standalone, invocations};
use crate::stats::{P50, P99, Rounds, Side, alternating};

/// The echo, as functions of ours are written.
pub const ECHO: &str = "def handler(event, context):\n    return event\n";

/// What is echoed.
pub const BODY: &[u8] = br#"{"data": {"name": "a.txt", "text": "to be, or not to be, that is the question"}}"#;

const ROUNDS: usize = 7;
const CALLS: usize = 1500;

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let service = Standalone::start(bench, "").await?;
    let framework = Framework::start(bench, 1).await?;
    service.api.python("echo", ECHO, json!({})).await?;
    let body = Bytes::from_static(BODY);
    let ours = load::Target { address: service.api.url.clone(), path: invocations("echo"), body: body.clone() };
    let peer = load::Target { address: framework.address.clone(), path: "/".to_owned(), body };
    let mut rounds = Rounds::default();
    for side in alternating(ROUNDS) {
        let target = if side == Side::Ours { &ours } else { &peer };
        let mut connection = Connection::new(&target.address);
        target.calls(&mut connection, 200).await?;
        rounds.push(side, target.calls(&mut connection, CALLS).await?);
    }
    framework.stop().await?;
    service.stop().await?;
    let note = format!("{ROUNDS} rounds of {CALLS} calls each, after 200 that do not count");
    let rows = vec![
        Row::of("warm call, 1 client, p50", "ms", &rounds, P50, FRAMEWORK, Target::AtMost(1.0)).note(note),
        Row::of("warm call, 1 client, p99", "ms", &rounds, P99, FRAMEWORK, Target::AtMost(1.5)),
    ];
    Ok(Found::compared("warm call", FRAMEWORK, rounds, rows))
}
