//! A function that tries to get at what is not its own, in a container of Zun and in a server of Nova that it shares with
//! another function of its project. On one host with everything else it would find more than on a cloud.

use serde_json::{Value, json};

use super::stack::Stack;
use crate::support::isolation;

/// What the other function hides in its environment, its package and its log, and in its memory and files.
const SECRETS: [&str; 2] = ["kept-in-environment-package-and-log", "kept-in-memory-and-files"];

/// Lets both meet in one instance and asserts that the one learns nothing of the other, nor of the service.
async fn nothing_is_reached(more: &str, isolation: &str, gateway: &str) {
    let stack = Stack::start(1, more).await;
    let make = async |mut function: Value| {
        function["isolation"] = json!(isolation);
        stack.ok("POST", "/v1/functions", Some(&function)).await;
    };
    let call = async |function: &str, event: Value| {
        stack.ok("POST", &format!("/v1/functions/{function}/invocations"), Some(&event)).await
    };
    make(isolation::victim("victim", SECRETS[0])).await;
    assert_eq!(call("victim", json!({ "secret": SECRETS[1] })).await, true);
    let gateway = format!("{gateway}:{}", stack.gateways[0]);
    make(isolation::function("spy", "python3")).await;
    let report = call("spy", json!({ "gateway": gateway, "files": [] })).await;
    isolation::assert_kept(&report, &SECRETS);
    // The other is as it was.
    assert_eq!(call("victim", json!({ "secret": SECRETS[1] })).await, true);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reached_from_a_container() {
    let user = super::env();
    let more = format!(
        "[worker]\ndrivers = zun\n[zun]\nsharing = project\ninstance_memory_mib = 512\nimage_pull_policy = never\n\
         network = {network}\ngateway_address = {gateway}:GATEWAY_PORT\nstop_grace = 2\n",
        network = user.var("BOX_CONTAINER_NETWORK"),
        gateway = user.var("BOX_CONTAINER_GATEWAY"),
    );
    nothing_is_reached(&more, "container", user.var("BOX_CONTAINER_GATEWAY")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reached_from_a_server() {
    let user = super::env();
    let more = format!(
        "[api]\ninvocation_patience_seconds = 280\n[worker]\ndrivers = nova\n[nova]\ninstance_memory_mib = 384\n\
         network = {network}\ngateway_address = {gateway}:GATEWAY_PORT\n",
        network = user.var("BOX_SERVER_NETWORK"),
        gateway = user.var("BOX_SERVER_GATEWAY"),
    );
    nothing_is_reached(&more, "vm", user.var("BOX_SERVER_GATEWAY")).await;
}
