//! The main job through Zun, end to end: a function uploaded with a Keystone token, an event posted to Zaqar, a container
//! that Zun boots for it, result and log read back, and the container gone afterwards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lambda_openstack::driver::zun::FUNCTION_LABEL;
use lambda_openstack::openstack::zun::{Client, Container, NewContainer, PullPolicy, Status};
use serde_json::{Value, json};

use super::stack::Stack;

/// What tells when the handler was entered.
pub(super) const ECHO: &str = "import time\n\
                    def handler(event, context):\n    \
                    at = time.time()\n    \
                    print('handled', event.get('data'))\n    \
                    return {'data': event.get('data'), 'at': at}\n";

fn client() -> Client {
    Client::new(super::service().session())
}

/// Configuration of workers with Zun alone.
pub(super) fn configuration(zun: &str, worker: &str) -> String {
    let (gateway, network) = (super::env(), super::env());
    format!(
        "[worker]\ndrivers = zun\nheartbeat_interval = 0.5\ndead_after = 4\n{worker}\n\
         [zun]\nnetwork = {network}\ngateway_address = {gateway}:GATEWAY_PORT\nimage_pull_policy = never\n\
         labels = site:test\nstop_grace = 2\n{zun}\n",
        network = network.var("BOX_CONTAINER_NETWORK"),
        gateway = gateway.var("BOX_CONTAINER_GATEWAY"),
    )
}

/// The containers of a function.
pub(super) async fn containers(function: &Value) -> Vec<Container> {
    let id = function["id"].as_str().unwrap();
    let all = client().list(None).await.unwrap();
    all.into_iter().filter(|container| container.labels.get(FUNCTION_LABEL).is_some_and(|label| label == id)).collect()
}

async fn until_gone(stack: &Stack, function: &Value) {
    stack.until("its containers are gone", async || containers(function).await.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_boots_a_container_and_leaves_nothing_behind() {
    let more = configuration("", "keep_alive = 2\ninstance_keep_alive = 1");
    let stack = Stack::start(1, &more).await;
    let function = stack.function("hello", ECHO, json!({"memory": 128})).await;
    assert_eq!(containers(&function).await, Vec::new());
    stack.events("hello", [json!("world")]).await;
    let execution = stack.finished("hello", 1).await.remove(0);
    assert_eq!((&execution["state"], &execution["attempts"]), (&json!("succeeded"), &json!(1)), "{execution}");
    assert_eq!(execution["result"]["data"], "world", "{execution}");
    let log = stack.execution_log(execution["id"].as_str().unwrap()).await;
    assert!(log.contains("handled world"), "{log}");
    // Scale to zero.
    until_gone(&stack, &function).await;
    stack
        .until("its instance is forgotten", async || {
            stack.ok("GET", "/v1/instances", None).await["instances"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
    assert!(!stack.log("worker-0").contains("is lost"), "that it goes is no news: {}", stack.log("worker-0"));
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_events_at_once_and_an_update_under_load_lose_nothing() {
    let more = configuration("max_instances = 6\ninstance_memory_mib = 256", "keep_alive = 5\ninstance_keep_alive = 2");
    let stack = Stack::start(1, &more).await;
    let function = stack.function("many", ECHO, json!({"memory": 64})).await;
    stack.events("many", (0..50).map(|n| json!(n))).await;
    stack
        .until("some are done", async || {
            let all = stack.executions("many").await;
            (all.iter().filter(|execution| crate::service::is_over(execution)).count() >= 5).then_some(())
        })
        .await;
    let newer = ECHO.replace("'data': event", "'newer': True, 'data': event");
    stack.ok("PATCH", "/v1/functions/many", Some(&json!({"code": {"source": newer}}))).await;
    stack.events("many", (50..60).map(|n| json!(n))).await;
    let all = stack.finished("many", 60).await;
    let unlike: Vec<_> = all.iter().filter(|e| e["state"] != "succeeded" || e["attempts"] != 1).collect();
    assert!(unlike.is_empty(), "{unlike:?}");
    let results: BTreeMap<_, _> = all.iter().map(|e| (e["result"]["data"].as_i64().unwrap(), &e["result"])).collect();
    assert_eq!(results.len(), 60);
    assert!((50..60).all(|n| results[&n]["newer"] == true), "what came after the update ran the new code");
    until_gone(&stack, &function).await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_worker_removes_the_containers_of_one_that_was_killed() {
    let more = configuration("", "keep_alive = 600\ninstance_keep_alive = 600");
    let mut stack = Stack::start(1, &more).await;
    let slow = "import time\ndef handler(event, context):\n    time.sleep(event['data'])\n    return 'done'\n";
    let function = stack.function("slow", slow, json!({"memory": 64})).await;
    stack.events("slow", [json!(0)]).await;
    stack.finished("slow", 1).await;
    let left: Vec<_> = containers(&function).await.into_iter().map(|container| container.uuid).collect();
    assert_eq!(left.len(), 1);
    // One is running when its worker dies.
    stack.events("slow", [json!(20)]).await;
    stack
        .until("it runs", async || stack.executions("slow").await.iter().any(|e| e["state"] == "running").then_some(()))
        .await;
    stack.kill_worker(0);
    stack.start_worker().await;
    stack
        .until("the dead worker's container is gone", async || {
            containers(&function).await.iter().all(|container| !left.contains(&container.uuid)).then_some(())
        })
        .await;
    let all = stack.finished("slow", 2).await;
    assert!(all.iter().all(|e| e["state"] == "succeeded"), "{all:?}");
    // A worker that ends in order takes its own along.
    assert!(!containers(&function).await.is_empty(), "it keeps its container for the next event");
    assert_eq!(stack.stop_worker(1), Some(0), "{}", stack.log("worker-1"));
    assert_eq!(containers(&function).await, Vec::new());
    stack.end().await;
}

/// What an execution waits for, once it is this, and what the worker's log says of why.
async fn waits_for(name: &str, zun: &str, memory_mib: u32, waiting_for: &str, said: &str) {
    let stack = Stack::start(1, &configuration(zun, "keep_alive = 1\ninstance_keep_alive = 1")).await;
    let function = stack.function(name, ECHO, json!({"memory": memory_mib})).await;
    stack.events(name, [json!(1)]).await;
    let execution = stack
        .until(&format!("it waits for {waiting_for}"), async || {
            let execution = stack.executions(name).await.pop()?;
            (execution["waiting_for"] == waiting_for).then_some(execution)
        })
        .await;
    assert_eq!(execution["state"], "queued", "{execution}");
    stack.until("the log says why", async || stack.log("worker-0").contains(said).then_some(())).await;
    println!("{waiting_for}: {said}");
    let id = execution["id"].as_str().unwrap();
    stack.call("POST", &format!("/v1/executions/{id}/cancel"), None).await;
    until_gone(&stack, &function).await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_missing_is_for_the_operator() {
    waits_for("noimage", "image = box-nowhere:1", 64, "operator", "Image box-nowhere not present").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_security_group_that_is_missing_is_for_the_operator() {
    waits_for("nogroup", "security_groups = no-such-group", 64, "operator", "no-such-group").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_without_room_is_waited_for() {
    waits_for("noroom", "cpu_per_gib = 64\noverhead_memory_mib = 4000", 64, "capacity", "not enough hosts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_at_once_is_told_with_how() {
    waits_for("ends", "command = /bin/false", 64, "cloud", "Exited(1)").await;
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn now() -> f64 {
    seconds(&json!(lambda_openstack::clock::now().to_string()))
}

fn seconds(time: &Value) -> f64 {
    let time: chrono::DateTime<chrono::Utc> = time.as_str().unwrap().parse().unwrap();
    time.timestamp_micros() as f64 / 1e6
}

/// How long Zun takes by itself for the same image: order → Running.
async fn alone(client: &Client) -> f64 {
    let name = format!("beside-{}", uuid::Uuid::new_v4());
    let asked = NewContainer {
        name: name.clone(),
        image: "lambda-python3:1".to_owned(),
        image_driver: None,
        image_pull_policy: Some(PullPolicy::Never),
        command: vec!["sleep".to_owned(), "600".to_owned()],
        memory: 320,
        cpu: None,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        hostname: name.clone(),
        network: Some(super::env().var("BOX_CONTAINER_NETWORK").to_owned()),
        security_groups: Vec::new(),
        availability_zone: None,
        interactive: false,
        auto_remove: false,
    };
    let begun = Instant::now();
    let uuid = client.create(&asked).await.unwrap().uuid;
    loop {
        let seen = client.list(Some(&name)).await.unwrap().remove(0);
        if seen.status == Status::Running {
            break;
        }
        assert_ne!(seen.status, Status::Error, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    let _ = client.stop(&uuid, Duration::from_secs(1)).await.unwrap();
    while !client.list(Some(&name)).await.unwrap().is_empty() {
        let _ = client.delete(&uuid).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    took
}

/// Printed, not judged: what a cold start through Zun costs beside what Zun takes by itself, in turns.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cold_start_costs_is_measured_beside_zuns_own() {
    const ROUNDS: usize = 5;
    let stack = Stack::start(1, &configuration("", "keep_alive = 0\ninstance_keep_alive = 0")).await;
    let client = client();
    let (mut own, mut called, mut entered, mut whole) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        own.push(alone(&client).await);
        let name = format!("cold-{round}");
        let function = stack.function(&name, ECHO, json!({"memory": 64})).await;
        let posted = now();
        stack.events(&name, [json!(round)]).await;
        let instance = stack
            .until("its agent has called", async || {
                let answer = stack.ok("GET", "/v1/instances", None).await;
                let found = answer["instances"].as_array().unwrap().first()?.clone();
                found["ready_at"].is_string().then_some(found)
            })
            .await;
        let execution = stack.finished(&name, 1).await.remove(0);
        assert_eq!(execution["state"], "succeeded", "{execution}");
        let asked = seconds(&instance["created_at"]);
        called.push(seconds(&instance["ready_at"]) - asked);
        entered.push(execution["result"]["at"].as_f64().unwrap() - asked);
        whole.push(execution["result"]["at"].as_f64().unwrap() - posted);
        until_gone(&stack, &function).await;
    }
    println!(
        "medians of {ROUNDS}, in s: Zun's own create to Running {:.2}; asked to agent called {:.2}, to handler entered {:.2}; \
         event posted to handler entered {:.2}",
        median(own),
        median(called),
        median(entered),
        median(whole),
    );
    stack.end().await;
}
