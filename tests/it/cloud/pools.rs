//! Instances that Zun has booted before anybody needs them.

use serde_json::{Value, json};

use super::Account;
use super::stack::Stack;
use super::zun_main_job::{ECHO, configuration, containers};
use crate::service::is_over;

/// The instances of all projects that run, as an administrator sees them.
async fn instances(stack: &Stack, whose: impl Fn(&Value) -> bool) -> Vec<Value> {
    let admin = Account::read("openrc-admin").auth().token().await.unwrap();
    let mut all = stack.ok_as(admin.to_str().unwrap(), "GET", "/v1/instances?all_projects=true", None).await;
    let Value::Array(all) = all["instances"].take() else { panic!("no list: {all}") };
    all.into_iter().filter(|instance| instance["state"] == "active" && whose(&instance["project_id"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_the_pool_takes_the_first_event_belongs_to_its_project_and_is_replaced() {
    let more = configuration("pools = python3/256:1", "keep_alive = 60\nkeep_alive_max = 60");
    let stack = Stack::start(1, &more).await;
    let function = stack.function("sudden", ECHO, json!({"memory": 128})).await;
    let ready = stack.until("one is ready", async || instances(&stack, Value::is_null).await.pop()).await;
    stack.events("sudden", [json!("world")]).await;
    let execution = stack.finished("sudden", 1).await.remove(0);
    assert!(is_over(&execution) && execution["state"] == "succeeded", "{execution}");
    assert_eq!(execution["instance_id"], ready["id"], "it ran where it did not have to wait for a boot");
    let mine = stack
        .until("it belongs to the project", async || {
            instances(&stack, |project| !project.is_null()).await.into_iter().find(|one| one["id"] == ready["id"])
        })
        .await;
    assert_eq!(mine["project_id"], function["project_id"]);
    let next = stack.until("the pool is full again", async || instances(&stack, Value::is_null).await.pop()).await;
    assert_ne!(next["id"], ready["id"]);
    assert_eq!(containers(&function).await, Vec::new(), "the container was booted for nobody");
    stack.end().await;
}
