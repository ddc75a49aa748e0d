//! How long the two things take that users wait for. Not a test: run with `--ignored --nocapture`.

use std::time::{Duration, Instant};

use crate::gateway::Gateway;

fn spread(mut times: Vec<Duration>) -> (Duration, Duration, Duration) {
    times.sort();
    (times[0], times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::test]
#[ignore = "a measurement"]
async fn warm_round_trip_and_cold_start() {
    let mut gateway = Gateway::start().await;
    let spec = gateway.function("def handler(event, context): return event");
    let sandbox = gateway.ready(spec.clone()).await;
    let mut warm = Vec::new();
    for _ in 0..3000 {
        let begun = Instant::now();
        let finished = gateway.invoke(sandbox, r#"{"a":1}"#).await;
        warm.push(begun.elapsed());
        assert!(finished.outcome.is_some());
    }
    let (mut cold, mut init) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let begun = Instant::now();
        let started = gateway.begin(spec.clone()).await;
        cold.push(begun.elapsed());
        init.push(Duration::from_micros(started.init_us));
        assert!(started.failure.is_none());
        gateway.stop(started.sandbox).await;
    }
    println!("warm round trip (least, median, p99): {:?}", spread(warm));
    println!("cold start (least, median, p99): {:?}, of it fork to ready: {:?}", spread(cold), spread(init));
    gateway.shut_down().await;
}
