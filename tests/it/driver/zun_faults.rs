//! Faults of a Zun that the real one cannot be made to show without breaking it for others. Everything else is shown on
//! the real Zun.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lambda_openstack::driver::zun::{DEPLOYMENT_LABEL, INSTANCE_LABEL, Options, ZunDriver};
use lambda_openstack::driver::{Driver as _, DriverError, GatewayAccess, InstanceSpec, Observed, Refusal};
use lambda_openstack::model::runtime::RuntimeName;
use lambda_openstack::model::{InstanceId, ProjectId};
use lambda_openstack::openstack::zun::{Client, SERVICE};
use lambda_openstack::openstack::{NoAuth, Session, SessionOptions};
use serde_json::{Value, json};
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

async fn zun(highest: &str) -> MockServer {
    let server = MockServer::start().await;
    let version = ResponseTemplate::new(200).insert_header("openstack-api-maximum-version", highest);
    Mock::given(method("GET")).and(path("/v1")).respond_with(version).mount(&server).await;
    server
}

fn client(address: &str) -> Client {
    let auth = NoAuth::new("service", [(SERVICE.name(), address)]).unwrap();
    Client::new(Session::new(Arc::new(auth), SessionOptions::default()).unwrap())
}

fn driver(address: &str, boot_timeout: Duration) -> ZunDriver {
    let options = Options {
        deployment: "ours".to_owned(),
        image: "lambda-python3:1".to_owned(),
        images: BTreeMap::new(),
        image_driver: None,
        image_pull_policy: None,
        command: Vec::new(),
        network: None,
        security_groups: Vec::new(),
        availability_zone: None,
        cpu_per_gib: None,
        overhead_mib: 64,
        labels: BTreeMap::new(),
        boot_timeout,
        stop_grace: Duration::from_secs(1),
    };
    ZunDriver::new(client(address), options)
}

fn spec() -> InstanceSpec {
    InstanceSpec {
        id: InstanceId::generate(),
        project_id: Some(ProjectId::parse("p").unwrap()),
        function_id: None,
        runtime: RuntimeName::parse("python3").unwrap(),
        memory_mib: 128,
        gateway: GatewayAccess { address: "10.0.0.1:9071".parse().unwrap(), fingerprint: None },
        token: "once".to_owned(),
    }
}

fn container(id: InstanceId, status: &str) -> Value {
    json!({
        "uuid": uuid::Uuid::new_v4(),
        "name": format!("lambda-{id}"),
        "status": status,
        "labels": {DEPLOYMENT_LABEL: "ours", INSTANCE_LABEL: id},
    })
}

fn page(containers: &[Value], next: Option<&str>) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({"containers": containers, "next": next}))
}

#[tokio::test]
async fn a_zun_that_is_too_old_is_the_operators_to_mend() {
    let server = zun("container 1.19").await;
    let refused = driver(&server.uri(), Duration::from_secs(90)).create(&spec()).await;
    let Err(DriverError::Refused { refusal: Refusal::Misconfigured, text }) = refused else { panic!("{refused:?}") };
    assert!(text.contains("up to 1.19, and 1.20 is needed"), "{text}");
}

#[tokio::test]
async fn an_older_zun_is_spoken_to_in_its_own_version() {
    let server = zun("container 1.31").await;
    Mock::given(method("GET"))
        .and(path("/v1/containers"))
        .and(header("openstack-api-version", "container 1.31"))
        .respond_with(page(&[], None))
        .expect(2)
        .mount(&server)
        .await;
    let client = client(&server.uri());
    assert_eq!(client.list(None).await.unwrap(), Vec::new());
    // With the version at its end, as catalogs have it, the address is the same.
    let versioned = self::client(&format!("{}/v1", server.uri()));
    assert_eq!(versioned.list(None).await.unwrap(), Vec::new());
}

/// Zun takes orders for a host that is dead, and nothing comes of them.
#[tokio::test]
async fn a_container_that_is_never_made_is_told_as_that() {
    let (server, spec) = (zun("container 1.40").await, spec());
    let creating = container(spec.id, "Creating");
    Mock::given(method("GET"))
        .and(query_param("name", format!("lambda-{}", spec.id)))
        .respond_with(page(&[], None))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    let ordered = ResponseTemplate::new(202).set_body_json(&creating);
    Mock::given(method("POST")).and(path("/v1/containers")).respond_with(ordered).expect(1).mount(&server).await;
    Mock::given(method("GET"))
        .and(path("/v1/containers"))
        .respond_with(page(std::slice::from_ref(&creating), None))
        .mount(&server)
        .await;
    let driver = driver(&server.uri(), Duration::from_millis(200));
    driver.create(&spec).await.unwrap();
    assert_eq!(driver.list().await.unwrap(), [spec.id]);
    tokio::time::sleep(Duration::from_millis(250)).await;
    let seen = driver.observe_all(&[spec.id]).await.unwrap();
    let [(_, Observed::Stopped(why))] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(why.contains("still Creating; is zun-compute alive"), "{why}");
}

/// Zun asks the host for a single container, and a dead host keeps the answer for a minute.
#[tokio::test]
async fn a_dead_host_does_not_keep_the_watch_from_its_work() {
    let (server, id) = (zun("container 1.40").await, InstanceId::generate());
    let running = container(id, "Running");
    let late = ResponseTemplate::new(500).set_delay(Duration::from_secs(60));
    let one = format!("/v1/containers/{}", running["uuid"].as_str().unwrap());
    Mock::given(method("GET")).and(path(one)).respond_with(late).expect(1).mount(&server).await;
    Mock::given(method("GET"))
        .and(path("/v1/containers"))
        .respond_with(page(std::slice::from_ref(&running), None))
        .mount(&server)
        .await;
    let driver = driver(&server.uri(), Duration::from_secs(90));
    let absent = InstanceId::generate();
    let seen = driver.observe_all(&[id, absent]).await.unwrap();
    assert_eq!(seen, [(id, Observed::Active), (absent, Observed::Absent)]);
    assert_eq!(driver.observe(id).await.unwrap(), Observed::Active, "what the list says holds");
}

#[tokio::test]
async fn a_zun_that_is_away_is_a_passing_fault() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let driver = driver(&format!("http://{closed}"), Duration::from_secs(90));
    for failed in [driver.create(&spec()).await, driver.delete(InstanceId::generate()).await] {
        assert!(matches!(failed, Err(DriverError::Unavailable(_))), "{failed:?}");
    }
    assert!(matches!(driver.list().await, Err(DriverError::Unavailable(_))));
}

#[tokio::test]
async fn a_listing_goes_over_all_pages_and_begins_anew_when_its_place_is_gone() {
    let server = zun("container 1.40").await;
    let ids = [InstanceId::generate(), InstanceId::generate()];
    let pages = ids.map(|id| container(id, "Running"));
    let marker = pages[0]["uuid"].as_str().unwrap();
    let gone = ResponseTemplate::new(404).set_body_json(json!({"errors": [{"title": "gone", "detail": "gone"}]}));
    for (answer, times) in [(gone, 1), (page(&pages[1..], None), 1)] {
        Mock::given(method("GET"))
            .and(path("/v1/containers"))
            .and(query_param("marker", marker))
            .respond_with(answer)
            .up_to_n_times(times)
            .expect(times)
            .mount(&server)
            .await;
    }
    Mock::given(method("GET"))
        .and(path("/v1/containers"))
        .respond_with(page(&pages[..1], Some("http://h/v1/containers?marker=u")))
        .expect(2)
        .mount(&server)
        .await;
    let mut listed = driver(&server.uri(), Duration::from_secs(90)).list().await.unwrap();
    listed.sort_unstable();
    let mut expected = ids.to_vec();
    expected.sort_unstable();
    assert_eq!(listed, expected);
}
