//! A cold start that needs a server: a synchronous call of a function with `isolation = vm` whose project has none, until its
//! answer is there, in a server that Nova makes.
//!
//! The answer's way back is counted too, because a guest's clock cannot be compared with ours. The peer is Nova's create →
//! the first line that the guest's own first process writes on its console, for the same image, flavor and network, asked by
//! a bare client; the console is read on the host, every 20 ms, so that nothing is asked of Nova meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use lambda_openstack::model::Timestamp;
use lambda_openstack::openstack::nova::{Client, Hints, NewServer, ServerNetwork};
use lambda_openstack::openstack::{Session, glance, neutron};
use serde_json::json;

use super::cold_start::STAMP;
use crate::bench::{Bench, Found};
use crate::cloud::{Cloud, Deployment};
use crate::report::{Row, Target};
use crate::service::invocations;
use crate::stats::{P50, Rounds, Side, alternating};

const ROUNDS: usize = 3;
const IMAGE: &str = "lambda-python3-vm";
/// What the driver takes for the memory that the configuration below names.
const FLAVOR: &str = "box.512";
const PEER: &str = "Nova's create → guest's init";
const PATIENCE: Duration = Duration::from_secs(180);

fn configuration(cloud: &Cloud, more: &str) -> Result<String> {
    Ok(format!(
        "[api]\ninvocation_patience_seconds = 300\n\
         [worker]\ndrivers = nova\nkeep_alive = 1\ninstance_keep_alive = 1\n\
         [nova]\nimage = {IMAGE}\nnetwork = {network}\ngateway_address = {gateway}:GATEWAY_PORT\n\
         instance_memory_mib = 384\noverhead_memory_mib = 128\nboot_timeout = 150\n{more}\n",
        network = cloud.user.var("BOX_SERVER_NETWORK")?,
        gateway = cloud.user.var("BOX_SERVER_GATEWAY")?,
    ))
}

/// Where the time of a call went, in milliseconds.
struct Call {
    took: f64,
    /// From the server's record until its agent has called.
    boot: f64,
    /// The sandbox's start, in the guest.
    init: f64,
}

impl Call {
    /// The medians, in words.
    fn parts(calls: &[Self]) -> String {
        let median = |of: fn(&Self) -> f64| {
            let mut all: Vec<f64> = calls.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        let (boot, init) = (median(|call| call.boot), median(|call| call.init));
        format!("ordered → agent has called {boot:.0} ms; start of the sandbox in the guest {init:.0} ms")
    }
}

/// A call of a function that has no sandbox, until its answer.
async fn call(service: &Deployment, name: &str) -> Result<Call> {
    let more = json!({"isolation": "vm", "memory": 64, "timeout": 60});
    service.api.python(name, &format!("{STAMP}# {name}\n"), more).await?;
    let mut connection = service.api.connection();
    let begun = Instant::now();
    connection.post(&invocations(name), Bytes::from_static(b"{}")).await?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    // The record is written after the answer.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let instances = service.api.ok("GET", "/v1/instances?all_projects=true", None).await?;
    let executions = service.api.ok("GET", &format!("/v1/executions?function={name}"), None).await?;
    let at = |name: &str| -> Option<Timestamp> { instances["instances"][0][name].as_str()?.parse().ok() };
    let boot = at("created_at").zip(at("ready_at")).and_then(|(created, ready)| {
        let millis = ready.as_millis() - created.as_millis();
        i32::try_from(millis).ok().map(f64::from)
    });
    let init = executions["executions"][0]["init_ms"].as_f64();
    service.api.delete(name).await?;
    Ok(Call { took, boot: boot.unwrap_or_default(), init: init.unwrap_or_default() })
}

async fn bare(bench: &Bench, session: &Session, cloud: &Cloud) -> Result<f64> {
    let nova = Client::new(session.clone());
    let flavors = nova.flavors().await?;
    let flavor = flavors.iter().find(|flavor| flavor.name == FLAVOR).context("the flavor is missing")?;
    let networks = neutron::Client::new(session.clone()).networks(cloud.user.var("BOX_SERVER_NETWORK")?).await?;
    let network = networks.first().context("the network is missing")?.id.clone();
    let image = glance::Client::new(session.clone()).newest(glance::By::Name(IMAGE), None).await?;
    let server = NewServer {
        name: "bench-bare".to_owned(),
        hostname: None,
        image: image.context("the image is missing")?.id,
        flavor: flavor.id.clone(),
        networks: vec![ServerNetwork { uuid: network }],
        security_groups: Vec::new(),
        availability_zone: None,
        metadata: BTreeMap::new(),
        tags: Vec::new(),
        user_data: None,
        config_drive: true,
    };
    let begun = Instant::now();
    let id = nova.create_server(&server, &Hints::default()).await?;
    let console = bench.cloud.join("data/nova/instances").join(&id).join("console.log");
    let took = loop {
        if std::fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains(INIT)) {
            break begun.elapsed().as_secs_f64() * 1e3;
        }
        ensure!(begun.elapsed() < PATIENCE, "its first process is not seen in {}", console.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    nova.delete_server(&id).await?;
    while nova.server(&id).await?.is_some() {
        ensure!(begun.elapsed() < PATIENCE, "it is not deleted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(took)
}

/// What the guest's first process says where nobody has told it what it is for: the first that it says at all.
const INIT: &str = "lambda: ";

/// Takes the measure of cold starts.
pub async fn cold(bench: &Bench) -> Result<Found> {
    let cloud = Cloud::up(bench).await?;
    let session = cloud.service.session()?;
    let service = Deployment::start(bench, &cloud, &configuration(&cloud, "")?).await?;
    let (mut rounds, mut calls) = (Rounds::default(), Vec::new());
    // The first guest of a host is slower than all that follow.
    bare(bench, &session, &cloud).await?;
    for (round, side) in alternating(ROUNDS).into_iter().enumerate() {
        let sample = match side {
            Side::Ours => {
                let call = call(&service, &format!("nova-{round}")).await?;
                super::no_instances(&service).await?;
                let took = call.took;
                calls.push(call);
                took
            }
            Side::Peer => bare(bench, &session, &cloud).await?,
        };
        rounds.push(side, vec![sample]);
    }
    service.stop().await?;
    let row = Row::of("Nova, cold start", "ms", &rounds, P50, PEER, Target::AtMost(1.1));
    let parts = Call::parts(&calls);
    let note = format!("{ROUNDS} times each; asked → answered; {parts}. Guests run on emulated processors");
    Ok(Found::compared("Nova, cold start", PEER, rounds, vec![row.note(note)]))
}

/// Takes the measure of starts from the pool: the same call where a server stands ready. What is asked for is a time: 50 ms.
pub async fn pool(bench: &Bench) -> Result<Found> {
    let cloud = Cloud::up(bench).await?;
    let service = Deployment::start(bench, &cloud, &configuration(&cloud, "pools = python3/64:1")?).await?;
    let (mut rounds, mut calls) = (Rounds::default(), Vec::new());
    for round in 0..ROUNDS {
        super::instances(&service, 1).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        calls.push(call(&service, &format!("pool-{round}")).await?);
        rounds.push(Side::Ours, calls.last().map(|call| vec![call.took]).unwrap_or_default());
        // The server goes with its last function, and the pool gets another one.
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    service.stop().await?;
    let row = Row::of("Nova, start from the pool", "ms", &rounds, P50, "a bound", Target::Bound(50.0));
    let parts = Call::parts(&calls);
    let note = format!("{ROUNDS} times; asked → answered; {parts}. Guests run on emulated processors");
    Ok(Found::compared("Nova, start from the pool", "none", rounds, vec![row.note(note)]))
}
