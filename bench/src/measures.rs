//! The measures, each in a file that says what is measured from where to where, against whom, and why that is fair.

mod burst;
mod cold_start;
mod drain;
mod event;
mod nova;
mod provided;
mod records;
mod sandbox_memory;
mod throughput;
mod update;
mod warm_call;
mod zaqar_event;
mod zun;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::bench::{Bench, Found};
use crate::cloud::Deployment;

/// Their names, in the order in which they are taken: what needs no cloud first.
pub const NAMES: [&str; 16] = [
    "warm-call",
    "throughput",
    "provided",
    "cold-start",
    "event",
    "sandbox-memory",
    "burst",
    "update-under-load",
    "records",
    "memory",
    "zaqar-event",
    "drain",
    "zun",
    "zun-pool",
    "nova",
    "nova-pool",
];

/// Takes one.
pub async fn run(name: &str, bench: &Bench) -> Result<Found> {
    match name {
        "warm-call" => warm_call::run(bench).await,
        "throughput" => throughput::run(bench).await,
        "provided" => provided::run(bench).await,
        "cold-start" => cold_start::run(bench).await,
        "event" => event::run(bench).await,
        "sandbox-memory" => sandbox_memory::run(bench).await,
        "burst" => burst::run(bench).await,
        "update-under-load" => update::run(bench).await,
        "records" => records::latency(bench).await,
        "memory" => records::memory(bench).await,
        "zaqar-event" => zaqar_event::run(bench).await,
        "drain" => drain::run(bench).await,
        "zun" => zun::cold(bench).await,
        "zun-pool" => zun::pool(bench).await,
        "nova" => nova::cold(bench).await,
        "nova-pool" => nova::pool(bench).await,
        other => bail!("there is no measure {other}; there are: {}", NAMES.join(", ")),
    }
}

/// Waits until so many instances stand ready in the pool.
async fn instances(service: &Deployment, count: usize) -> Result<()> {
    let ready = |instance: &&Value| instance["state"] == "active" && instance["project_id"].is_null();
    until(service, "the pool is full", |all| all.iter().filter(ready).count() >= count).await
}

/// Waits until there is no instance.
async fn no_instances(service: &Deployment) -> Result<()> {
    until(service, "all instances are gone", <[Value]>::is_empty).await
}

async fn until(service: &Deployment, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Result<()> {
    let begun = Instant::now();
    loop {
        let shown = service.api.ok("GET", "/v1/instances?all_projects=true", None).await?;
        if shown["instances"].as_array().is_some_and(|all| is_so(all)) {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(180), "still waiting until {what}: {shown}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
