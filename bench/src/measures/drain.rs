//! Draining 10,000 events from the real Zaqar with a handler that does nothing.
//!
//! The worker is stopped (SIGSTOP) while they are posted; measured is from when it goes on until the record of the last one
//! says that it succeeded. The peer is a bare client with as many claims under way at once (4): it claims 20 messages and
//! deletes them, until the queue is empty. It writes nothing down and runs nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use lambda_openstack::openstack::zaqar;
use mongodb::bson::{Document, doc};
use nix::sys::signal::Signal;
use serde_json::json;

use super::zaqar_event::TTL;
use crate::bench::{Bench, Found};
use crate::cloud::{Cloud, Deployment, message};
use crate::report::{Row, Target};
use crate::stats::{P50, Rounds, Side, alternating};

const ROUNDS: usize = 3;
const EVENTS: usize = 10_000;
/// As many as `[zaqar] claims` is by default.
const CLAIMS: usize = 4;
const PEER: &str = "a bare claim + delete client";
const NOTHING: &str = "def handler(event, context):\n    pass\n";

async fn post(zaqar: &zaqar::Client, queue: &str, project: &str) -> Result<()> {
    let numbers: Vec<_> = (0..EVENTS).collect();
    try_join_all(numbers.chunks(EVENTS / 4).map(async |part| {
        let messages = part.iter().map(|n| message("drain", project, &json!(n))).collect::<Result<Vec<_>>>()?;
        zaqar.post(queue, &messages).await?;
        Ok::<_, anyhow::Error>(())
    }))
    .await?;
    Ok(())
}

/// Claims and deletes until there is nothing left; events in a second.
async fn bare(zaqar: &zaqar::Client, queue: &str) -> Result<f64> {
    let begun = Instant::now();
    let taken = try_join_all((0..CLAIMS).map(async |_| {
        let mut taken = 0;
        while let Some(claim) = zaqar.claim(queue, 20, TTL, TTL).await? {
            let ids: Vec<_> = claim.messages.into_iter().map(|message| message.id).collect();
            let _ = zaqar.delete_claimed(queue, &ids, &claim.id).await?;
            taken += ids.len();
        }
        Ok::<_, anyhow::Error>(taken)
    }))
    .await?;
    let took = begun.elapsed().as_secs_f64();
    let taken: usize = taken.into_iter().sum();
    ensure!(taken == EVENTS, "of {EVENTS} messages the bare client took {taken}");
    Ok(f64::from(u32::try_from(taken)?) / took)
}

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let cloud = Cloud::up(bench).await?;
    // It is silent while it is stopped, and nobody is to take it for dead.
    let service = Deployment::start(bench, &cloud, "[worker]\ndead_after = 300\n[api]\nworker_silence = 300\n").await?;
    let zaqar = zaqar::Client::new(cloud.service.session()?);
    service.api.python("drain", NOTHING, json!({})).await?;
    let client = mongodb::Client::with_uri_str(&service.connection).await?;
    let executions = client.database(&service.database).collection::<Document>("executions");
    let queue = format!("bare-{}", uuid::Uuid::new_v4().simple());
    let mut rounds = Rounds::default();
    let mut done = 0;
    for side in alternating(ROUNDS) {
        match side {
            Side::Ours => {
                service.worker.signal(Signal::SIGSTOP)?;
                post(&zaqar, &service.queue, &service.project).await?;
                let begun = Instant::now();
                service.worker.signal(Signal::SIGCONT)?;
                done += EVENTS as u64;
                while executions.count_documents(doc! { "state": "succeeded" }).await? < done {
                    ensure!(
                        begun.elapsed() < Duration::from_secs(120),
                        "two minutes were not enough for {EVENTS} events"
                    );
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                #[allow(clippy::cast_precision_loss)]
                rounds.push(side, vec![EVENTS as f64 / begun.elapsed().as_secs_f64()]);
            }
            Side::Peer => {
                post(&zaqar, &queue, &service.project).await?;
                rounds.push(side, vec![bare(&zaqar, &queue).await?]);
            }
        }
    }
    zaqar.delete_queue(&queue).await?;
    service.stop().await?;
    let row =
        Row::of("draining 10,000 events from the real Zaqar", "events/s", &rounds, P50, PEER, Target::AtLeast(0.9));
    Ok(Found {
        rows: vec![row.note(format!("{ROUNDS} rounds; {CLAIMS} claims at once on both sides"))],
        raw: vec![("draining 10,000 events".to_owned(), serde_json::to_value(&rounds)?)],
        ..Found::default()
    })
}
