//! A cold start that needs a container: a synchronous call of a function that has none, from before the request is written
//! until the handler's first statement, in a container that Zun makes on Docker.
//!
//! The peer is Zun's own create → Running, asked by a bare client for the same image, memory and network, and looked at every
//! 20 ms; it ends where the container runs, before anything in it has. `docker run` of the same image stands beside it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use lambda_openstack::openstack::zun::{Client, ImageDriver, NewContainer, PullPolicy, Status};
use serde_json::json;

use super::cold_start::STAMP;
use crate::bench::{Bench, Found, now};
use crate::cloud::{Cloud, Deployment};
use crate::program::command;
use crate::report::{Row, Target};
use crate::service::invocations;
use crate::stats::{P50, Rounds, Side, alternating};

const ROUNDS: usize = 5;
const FROM_POOL: usize = 6;
const IMAGE: &str = "lambda-python3:1";
const PEER: &str = "Zun's create → Running";
const PATIENCE: Duration = Duration::from_secs(90);

fn configuration(cloud: &Cloud, more: &str) -> Result<String> {
    Ok(format!(
        "[worker]\ndrivers = zun\nkeep_alive = 1\ninstance_keep_alive = 1\n\
         [zun]\nimage = {IMAGE}\nimage_driver = docker\nimage_pull_policy = never\nnetwork = {network}\n\
         gateway_address = {gateway}:GATEWAY_PORT\nstop_grace = 1\n{more}\n",
        network = cloud.user.var("BOX_CONTAINER_NETWORK")?,
        gateway = cloud.user.var("BOX_CONTAINER_GATEWAY")?,
    ))
}

/// A call of a function that has no sandbox; milliseconds until its handler was entered.
pub async fn cold_call(service: &Deployment, name: &str, more: serde_json::Value) -> Result<f64> {
    service.api.python(name, &format!("{STAMP}# {name}\n"), more).await?;
    let mut connection = service.api.connection();
    let asked = now();
    let answer = connection.post(&invocations(name), Bytes::from_static(b"{}")).await?;
    let entered: f64 = serde_json::from_slice(&answer).context("no time")?;
    service.api.delete(name).await?;
    Ok((entered - asked) * 1e3)
}

/// Waits until the service's project has no container.
async fn until_gone(zun: &Client) -> Result<()> {
    let begun = Instant::now();
    while !zun.list(None).await?.is_empty() {
        ensure!(begun.elapsed() < PATIENCE, "containers are left");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn bare(zun: &Client, cloud: &Cloud) -> Result<f64> {
    let container = NewContainer {
        name: "bench-bare".to_owned(),
        image: IMAGE.to_owned(),
        image_driver: Some(ImageDriver::Docker),
        image_pull_policy: Some(PullPolicy::Never),
        command: vec!["sleep".to_owned(), "300".to_owned()],
        memory: 192,
        cpu: None,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        hostname: "bench-bare".to_owned(),
        network: Some(cloud.user.var("BOX_CONTAINER_NETWORK")?.to_owned()),
        security_groups: Vec::new(),
        availability_zone: None,
        interactive: false,
        auto_remove: false,
    };
    let begun = Instant::now();
    let made = zun.create(&container).await?;
    let took = loop {
        // The list is read from Zun's database; to show one container, Zun would ask its host each time and slow it down.
        let listed = zun.list(Some("bench-bare")).await?;
        let shown = listed.iter().find(|container| container.uuid == made.uuid).context("it is gone")?;
        if shown.status == Status::Running {
            break begun.elapsed().as_secs_f64() * 1e3;
        }
        ensure!(begun.elapsed() < PATIENCE, "it does not run: {shown:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let _ = zun.stop(&made.uuid, Duration::from_secs(1)).await?;
    let _ = zun.delete(&made.uuid).await?;
    until_gone(zun).await?;
    Ok(took)
}

/// `docker run` until the container is started.
async fn docker(bench: &Bench) -> Result<f64> {
    let mut start = command(std::path::Path::new("docker"));
    if let Ok(host) = std::fs::read_to_string(bench.cloud.join("etc/docker-host")) {
        start.env("DOCKER_HOST", host.trim());
    }
    start.args(["run", "--rm", "--detach", "--memory", "192m", "--stop-timeout", "1", IMAGE, "sleep", "3"]);
    let begun = Instant::now();
    let output = start.output().await?;
    ensure!(output.status.success(), "docker run: {}", String::from_utf8_lossy(&output.stderr));
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Takes the measure of cold starts.
pub async fn cold(bench: &Bench) -> Result<Found> {
    let cloud = Cloud::up(bench).await?;
    let service = Deployment::start(bench, &cloud, &configuration(&cloud, "")?).await?;
    let zun = Client::new(cloud.service.session()?);
    let (mut rounds, mut raw_docker) = (Rounds::default(), Vec::new());
    // Whatever is only slow the first time.
    bare(&zun, &cloud).await?;
    for (round, side) in alternating(ROUNDS).into_iter().enumerate() {
        let sample = match side {
            Side::Ours => {
                let took = cold_call(&service, &format!("zun-{round}"), json!({})).await?;
                until_gone(&zun).await?;
                took
            }
            Side::Peer => {
                raw_docker.push(vec![docker(bench).await?]);
                bare(&zun, &cloud).await?
            }
        };
        rounds.push(side, vec![sample]);
    }
    service.stop().await?;
    let beside = Rounds { ours: raw_docker, peer: rounds.peer.clone() };
    let note = format!("{ROUNDS} times each; asked → handler entered");
    let rows = vec![
        Row::of("Zun, cold start", "ms", &rounds, P50, PEER, Target::AtMost(1.1)).note(note),
        Row::of("beside it: docker run --detach", "ms", &beside, P50, PEER, Target::Information)
            .note("the figure under ours is Docker's; with Docker's own bridge, without Neutron and Zun"),
    ];
    Ok(Found::compared("Zun, cold start", PEER, rounds, rows))
}

/// Takes the measure of starts from the pool: the same call where two containers stand ready. Against the same peer, but
/// what is asked for is a time: 50 ms.
pub async fn pool(bench: &Bench) -> Result<Found> {
    let cloud = Cloud::up(bench).await?;
    let service = Deployment::start(bench, &cloud, &configuration(&cloud, "pools = python3/128:2")?).await?;
    let zun = Client::new(cloud.service.session()?);
    let mut rounds = Rounds::default();
    for number in 0..FROM_POOL {
        super::instances(&service, 2).await?;
        // Only seconds after it was made is a container quiet.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let took = cold_call(&service, &format!("pool-{number}"), json!({})).await?;
        // The first finds whatever is only slow the first time.
        if number > 0 {
            rounds.push(Side::Ours, vec![took]);
        }
    }
    service.stop().await?;
    until_gone(&zun).await?;
    let row = Row::of("Zun, start from the pool", "ms", &rounds, P50, "a bound", Target::Bound(50.0));
    let note = format!("{} times; asked → handler entered", FROM_POOL - 1);
    Ok(Found::compared("Zun, start from the pool", "none", rounds, vec![row.note(note)]))
}
