//! Against a stand-in for Nova, Neutron and Glance: only what the real ones cannot be made to do when a test wants it. The
//! rest is in `tests/it/cloud/nova.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use wiremock::matchers::{body_partial_json, method, path, query_param};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::*;
use crate::driver::GatewayAccess;
use crate::model::ProjectId;
use crate::model::runtime::RuntimeName;
use crate::openstack::{NoAuth, SessionOptions};

const IMAGE: &str = "00000000-0000-0000-0000-000000000001";
const NETWORK: &str = "00000000-0000-0000-0000-000000000002";

fn spec() -> InstanceSpec {
    InstanceSpec {
        id: InstanceId::generate(),
        project_id: Some(ProjectId::parse("p").unwrap()),
        function_id: None,
        runtime: RuntimeName::parse("python3").unwrap(),
        memory_mib: 256,
        gateway: GatewayAccess { address: "10.0.0.1:9071".parse().unwrap(), fingerprint: None },
        token: "t".to_owned(),
    }
}

fn driver(cloud: &MockServer, options: Options) -> NovaDriver {
    let session = || {
        let services = ["compute", "network", "image"].map(|service| (service, cloud.uri()));
        let endpoints = services.iter().map(|(service, uri)| (*service, uri.as_str()));
        let auth = NoAuth::new("service", endpoints).unwrap();
        let options = SessionOptions { repeats: 0, ..SessionOptions::default() };
        Session::new(Arc::new(auth), options).unwrap()
    };
    let options =
        Options { deployment: "d".to_owned(), image: IMAGE.to_owned(), network: NETWORK.to_owned(), ..options };
    let mut driver = NovaDriver::new(options, session(), session(), session()).unwrap();
    driver.look_pause = Duration::from_millis(1);
    driver.gone_pause = (Duration::from_millis(1), Duration::from_millis(1));
    driver
}

async fn get(cloud: &MockServer, at: &str, body: Value) {
    Mock::given(method("GET"))
        .and(path(at))
        .respond_with(ResponseTemplate::new(200).set_body_json(body))
        .mount(cloud)
        .await;
}

/// A cloud that has what a server is made of, but no security groups.
async fn cloud() -> MockServer {
    let cloud = MockServer::start().await;
    get(&cloud, &format!("/v2/images/{IMAGE}"), json!({"id": IMAGE, "status": "active"})).await;
    get(&cloud, &format!("/v2.0/networks/{NETWORK}"), json!({"network": {"id": NETWORK, "name": "n"}})).await;
    get(
        &cloud,
        "/v2.1/flavors/detail",
        json!({"flavors": [{"id": "f", "name": "f", "ram": 512, "vcpus": 1, "disk": 1}]}),
    )
    .await;
    cloud
}

fn server(id: &str, instance: InstanceId, status: &str) -> Value {
    json!({"id": id, "status": status, "created": "2026-01-01T00:00:00Z",
           "tags": ["lambda-deployment=d", format!("lambda-instance={instance}")]})
}

/// Lists of servers, one after the other; the last one stays.
async fn lists(cloud: &MockServer, lists: Vec<Vec<Value>>) {
    let calls = AtomicUsize::new(0);
    Mock::given(method("GET"))
        .and(path("/v2.1/servers/detail"))
        .respond_with(move |_: &Request| {
            let call = calls.fetch_add(1, Ordering::SeqCst).min(lists.len() - 1);
            ResponseTemplate::new(200).set_body_json(json!({"servers": lists[call]}))
        })
        .mount(cloud)
        .await;
}

async fn orders(cloud: &MockServer, answer: ResponseTemplate, times: u64) {
    Mock::given(method("POST")).and(path("/v2.1/servers")).respond_with(answer).expect(times).mount(cloud).await;
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_is_not_given_again() {
    let (cloud, spec) = (cloud().await, spec());
    lists(&cloud, vec![vec![], vec![], vec![server("s", spec.id, "BUILD")]]).await;
    orders(&cloud, ResponseTemplate::new(504), 1).await;
    let driver = driver(&cloud, Options::default());
    driver.create(&spec).await.unwrap();
    driver.create(&spec).await.unwrap();
    assert_eq!(driver.observe(spec.id).await.unwrap(), Observed::Building);
}

#[tokio::test]
async fn a_lost_order_of_which_nothing_came_is_a_passing_fault() {
    let (cloud, spec) = (cloud().await, spec());
    lists(&cloud, vec![vec![]]).await;
    orders(&cloud, ResponseTemplate::new(504), 1).await;
    let error = driver(&cloud, Options::default()).create(&spec).await.unwrap_err();
    assert!(matches!(error, DriverError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn all_servers_of_an_instance_are_deleted_and_what_is_only_marked_too() {
    let (cloud, spec) = (cloud().await, spec());
    lists(&cloud, vec![vec![server("a", spec.id, "ACTIVE"), server("b", spec.id, "BUILD")]]).await;
    for id in ["a", "b"] {
        let at = format!("/v2.1/servers/{id}");
        Mock::given(method("DELETE"))
            .and(path(&at))
            .respond_with(ResponseTemplate::new(204))
            .expect(1)
            .mount(&cloud)
            .await;
        let marked = json!({"server": server(id, spec.id, "SOFT_DELETED")});
        Mock::given(method("GET"))
            .and(path(&at))
            .respond_with(ResponseTemplate::new(200).set_body_json(marked))
            .up_to_n_times(1)
            .mount(&cloud)
            .await;
        Mock::given(method("POST"))
            .and(path(format!("{at}/action")))
            .and(body_partial_json(json!({"forceDelete": null})))
            .respond_with(ResponseTemplate::new(202))
            .expect(1)
            .mount(&cloud)
            .await;
    }
    driver(&cloud, Options::default()).delete(spec.id).await.unwrap();
}

#[tokio::test]
async fn a_server_whose_cell_is_out_of_reach_is_not_taken_for_gone() {
    let (cloud, spec) = (cloud().await, spec());
    lists(&cloud, vec![vec![server("s", spec.id, "ACTIVE")], vec![]]).await;
    get(&cloud, "/v2.1/servers/s", json!({"server": {"id": "s", "status": "UNKNOWN", "created": "2026"}})).await;
    let driver = driver(&cloud, Options::default());
    assert_eq!(driver.list().await.unwrap(), [spec.id]);
    assert!(matches!(driver.observe(spec.id).await, Err(DriverError::Unavailable(_))));
    let other = InstanceId::generate();
    assert_eq!(driver.observe_all(&[spec.id, other]).await.unwrap(), [(other, Observed::Absent)]);
}

#[tokio::test]
async fn a_list_of_many_pages_is_read_to_its_end() {
    let cloud = MockServer::start().await;
    let ids = [InstanceId::generate(), InstanceId::generate()];
    let next = json!([{"rel": "next", "href": "http://elsewhere"}]);
    Mock::given(method("GET"))
        .and(path("/v2.1/servers/detail"))
        .and(query_param("marker", "a"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"servers": [server("b", ids[1], "ACTIVE")]})))
        .expect(1)
        .mount(&cloud)
        .await;
    let first = json!({"servers": [server("a", ids[0], "ACTIVE")], "servers_links": next});
    get(&cloud, "/v2.1/servers/detail", first).await;
    let mut listed = driver(&cloud, Options::default()).list().await.unwrap();
    listed.sort();
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn a_wish_for_servers_apart_is_given_up_when_the_group_is_full() {
    let (cloud, spec) = (cloud().await, spec());
    lists(&cloud, vec![vec![]]).await;
    let group = json!({"id": "g", "name": "lambda-d-soft-anti-affinity", "policy": "soft-anti-affinity"});
    get(&cloud, "/v2.1/os-server-groups", json!({"server_groups": [group]})).await;
    Mock::given(method("POST"))
        .and(path("/v2.1/servers"))
        .and(body_partial_json(json!({"os:scheduler_hints": {"group": "g"}})))
        .respond_with(
            ResponseTemplate::new(403).set_body_json(
                json!({"forbidden": {"code": 403, "message": "Quota exceeded, too many servers in group"}}),
            ),
        )
        .expect(1)
        .mount(&cloud)
        .await;
    orders(&cloud, ResponseTemplate::new(202).set_body_json(json!({"server": {"id": "s"}})), 1).await;
    let options = Options { server_group_policy: Some("soft-anti-affinity".to_owned()), ..Options::default() };
    driver(&cloud, options).create(&spec).await.unwrap();
}

/// Servers are made in a security group of ours that lets nothing in, also where the operator's rules for new groups do,
/// and also when two workers make it at once.
#[tokio::test]
async fn our_security_group_lets_nothing_in_and_is_one() {
    let (cloud, spec) = (cloud().await, spec());
    lists(&cloud, vec![vec![]]).await;
    get(&cloud, "/v2.0/extensions/security-group", json!({"extension": {}})).await;
    let lists = AtomicUsize::new(0);
    Mock::given(method("GET"))
        .and(path("/v2.0/security-groups"))
        .and(query_param("name", "lambda-d"))
        .respond_with(move |_: &Request| {
            let groups = match lists.fetch_add(1, Ordering::SeqCst) {
                0 => json!([]),
                _ => json!([{"id": "ours"}, {"id": "another"}]),
            };
            ResponseTemplate::new(200).set_body_json(json!({"security_groups": groups}))
        })
        .mount(&cloud)
        .await;
    let made = json!({"security_group": {"id": "ours", "security_group_rules": [
        {"id": "out", "direction": "egress"}, {"id": "in", "direction": "ingress"}]}});
    Mock::given(method("POST"))
        .and(path("/v2.0/security-groups"))
        .respond_with(ResponseTemplate::new(201).set_body_json(made))
        .expect(1)
        .mount(&cloud)
        .await;
    for gone in ["/v2.0/security-group-rules/in", "/v2.0/security-groups/ours"] {
        Mock::given(method("DELETE"))
            .and(path(gone))
            .respond_with(ResponseTemplate::new(204))
            .expect(1)
            .mount(&cloud)
            .await;
    }
    Mock::given(method("POST"))
        .and(path("/v2.1/servers"))
        .and(body_partial_json(json!({"server": {"security_groups": [{"name": "another"}]}})))
        .respond_with(ResponseTemplate::new(202).set_body_json(json!({"server": {"id": "s"}})))
        .expect(1)
        .mount(&cloud)
        .await;
    driver(&cloud, Options::default()).create(&spec).await.unwrap();
}

#[test]
fn the_end_of_a_console_is_clean_and_bounded() {
    assert_eq!(tail("a\r\n\n\x1b[0mb  \n"), Some("a\n[0mb".to_owned()));
    assert_eq!(tail("\n \n"), None);
    let long = tail(&"x\u{e9}\n".repeat(5000)).unwrap();
    assert!(long.chars().count() <= CONSOLE_MAX && long.ends_with("x\u{e9}"));
}
