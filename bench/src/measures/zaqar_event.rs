//! An event on an idle service on the cloud: from before it is posted to the real Zaqar until the handler's first statement.
//!
//! As in `event`. The peer is a bare client that posts one message and, as soon as that is answered, claims it: what Zaqar
//! itself takes for both, with nothing waited for, nothing written down, and no handler.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lambda_openstack::openstack::zaqar;
use serde_json::json;

use super::event::{self, STAMP};
use crate::bench::{Bench, Found};
use crate::cloud::{Cloud, Deployment, message};
use crate::program::free_port;
use crate::report::{Row, Target};
use crate::service::PATIENCE;
use crate::stats::{P50, P95};

const PEER: &str = "a bare post + claim";

/// How long a claim hides its messages: Zaqar's least.
pub const TTL: Duration = Duration::from_secs(60);

/// Takes the measure.
pub async fn run(bench: &Bench) -> Result<Found> {
    let cloud = Cloud::up(bench).await?;
    // As an operator sets it up who wants events in time: Zaqar tells the worker of each message.
    let notification = format!("[zaqar]\nnotification_bind = 127.0.0.1:{}\n", free_port()?);
    let service = Deployment::start(bench, &cloud, &notification).await?;
    let zaqar = zaqar::Client::new(cloud.service.session()?);
    service.api.python("event", STAMP, json!({})).await?;
    zaqar.post(&service.queue, &[message("event", &service.project, &json!(0))?]).await?;
    service.api.finished("event", 1, PATIENCE).await?;
    let bare = format!("bare-{}", uuid::Uuid::new_v4().simple());
    let rounds = event::rounds(
        &service.api,
        async |number| {
            zaqar.post(&service.queue, &[message("event", &service.project, &json!(number))?]).await?;
            Ok(())
        },
        async |number| {
            let message = message("event", &service.project, &json!(number))?;
            let begun = Instant::now();
            zaqar.post(&bare, &[message]).await?;
            let claim = zaqar.claim(&bare, 1, TTL, TTL).await?.context("nothing to claim")?;
            let took = begun.elapsed().as_secs_f64() * 1e3;
            let ids: Vec<_> = claim.messages.into_iter().map(|message| message.id).collect();
            let _ = zaqar.delete_claimed(&bare, &ids, &claim.id).await?;
            Ok(took)
        },
    )
    .await?;
    zaqar.delete_queue(&bare).await?;
    service.stop().await?;
    let rows = vec![
        Row::of("event on an idle service, real Zaqar, p50", "ms", &rounds, P50, PEER, Target::AtMost(1.5))
            .note(event::note()),
        Row::of("event on an idle service, real Zaqar, p95", "ms", &rounds, P95, PEER, Target::Information),
    ];
    Ok(Found::compared("event on an idle service, real Zaqar", PEER, rounds, rows))
}
