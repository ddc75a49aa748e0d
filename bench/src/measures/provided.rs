//! A warm synchronous call of a handler in Rust (`examples/provided-rust`), one client, as in `warm_call`.
//!
//! The peer is cargo-lambda's emulator with one process of the very same program. Both speak the Lambda Runtime API to it;
//! neither builds it during the measure.

use anyhow::Result;
use bytes::Bytes;

use crate::bench::{Bench, Found};
use crate::http::Connection;
use crate::load;
use crate::peers::{CARGO_LAMBDA, CargoLambda};
use crate::report::{Row, Target};
use crate::service::{Standalone, invocations};
use crate::stats::{P50, P99, Rounds, Side, alternating};

const ROUNDS: usize = 5;
const CALLS: usize = 1000;

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let handler = bench.programs.join("bench-provided-rust");
    let service = Standalone::start(bench, "").await?;
    let emulator = CargoLambda::start(bench, &handler).await?;
    service.api.provided("words", &handler).await?;
    let body = Bytes::from_static(br#"{"text": "to be, or not to be, that is the question"}"#);
    let ours = load::Target { address: service.api.url.clone(), path: invocations("words"), body: body.clone() };
    let peer = load::Target { address: emulator.address.clone(), path: emulator.path.to_owned(), body };
    let mut rounds = Rounds::default();
    for side in alternating(ROUNDS) {
        let target = if side == Side::Ours { &ours } else { &peer };
        let mut connection = Connection::new(&target.address);
        target.calls(&mut connection, 100).await?;
        rounds.push(side, target.calls(&mut connection, CALLS).await?);
    }
    emulator.stop().await?;
    service.stop().await?;
    let note = format!("{ROUNDS} rounds of {CALLS} calls each, after 100 that do not count");
    let rows = vec![
        Row::of("runtime provided in Rust, warm call, p50", "ms", &rounds, P50, CARGO_LAMBDA, Target::AtMost(0.5))
            .note(note),
        Row::of("runtime provided in Rust, warm call, p99", "ms", &rounds, P99, CARGO_LAMBDA, Target::Information),
    ];
    Ok(Found::compared("runtime provided in Rust", CARGO_LAMBDA, rounds, rows))
}
