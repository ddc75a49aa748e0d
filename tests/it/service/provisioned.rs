//! Provisioned concurrency on the real thing.

use serde_json::json;

use super::Service;

const HANDLER: &str = "import os\ndef handler(event, context):\n    return os.getpid()\n";

async fn sandboxes(service: &Service) -> u64 {
    service.ok("GET", "/v1/workers", None).await["workers"][0]["sandboxes"].as_u64().unwrap()
}

async fn come_to(service: &Service, count: u64) {
    let what = format!("{count} sandboxes are kept");
    service.until(&what, async || (sandboxes(service).await == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_provisioned_is_warm_at_the_first_call_and_stays_until_it_is_given_up() {
    let service = Service::start_with("[worker]\nkeep_alive = 1\nkeep_alive_max = 1\nheartbeat_interval = 0.2\n");
    let function = service.function("kept", HANDLER, json!({"provisioned_concurrency": 2})).await;
    assert_eq!(function["provisioned_concurrency"], 2);
    come_to(&service, 2).await;
    service.ok("POST", "/v1/functions/kept/invocations", Some(&json!({}))).await;
    let first = service.finished("kept", 1).await;
    assert_eq!(first[0]["start"], "warm", "{first:?}");
    // A function whose sandbox does go with age shows when it would have gone.
    service.function("aging", HANDLER, json!({})).await;
    service.ok("POST", "/v1/functions/aging/invocations", Some(&json!({}))).await;
    come_to(&service, 3).await;
    come_to(&service, 2).await;
    service.ok("PATCH", "/v1/functions/kept", Some(&json!({"provisioned_concurrency": 0}))).await;
    come_to(&service, 0).await;
    service.ok("PATCH", "/v1/functions/kept", Some(&json!({"provisioned_concurrency": 1}))).await;
    come_to(&service, 1).await;
    service.ok("DELETE", "/v1/functions/kept", None).await;
    come_to(&service, 0).await;
}
