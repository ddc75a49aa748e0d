//! The driver `zun` and its client on a real Zun, as the service's user, who is no administrator.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_openstack::driver::zun::{DEPLOYMENT_LABEL, Options, ZunDriver};
use lambda_openstack::driver::{Driver, DriverError, Observed, Refusal};
use lambda_openstack::model::InstanceId;
use lambda_openstack::openstack::zun::{Client, Microversion, NewContainer, PullPolicy, SERVICE, Status};
use lambda_openstack::openstack::{Request, Service, Session, SessionOptions};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::driver::Subject;
use crate::driver::suite::{nothing_is_left, until, until_active};

/// A container that runs until it is removed.
const RUNS: &[&str] = &["sh", "-c", "trap exit TERM; while :; do sleep 1; done"];

fn options(deployment: &str, command: &[&str]) -> Options {
    Options {
        deployment: deployment.to_owned(),
        image: "box-busybox:1".to_owned(),
        images: BTreeMap::new(),
        image_driver: None,
        image_pull_policy: Some(PullPolicy::Never),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        network: Some("containers".to_owned()),
        security_groups: Vec::new(),
        availability_zone: None,
        cpu_per_gib: None,
        overhead_mib: 16,
        labels: BTreeMap::new(),
        boot_timeout: Duration::from_secs(120),
        stop_grace: Duration::from_secs(1),
    }
}

fn client() -> Client {
    Client::new(super::service().session())
}

fn driver_of(options: Options) -> Arc<dyn Driver> {
    Arc::new(ZunDriver::new(client(), options))
}

fn deployment() -> String {
    uuid::Uuid::new_v4().to_string()
}

async fn subject() -> Subject {
    let mortal = driver_of(options(&deployment(), &["sh", "-c", "exit 4"]));
    let gateway = super::env().var("BOX_CONTAINER_GATEWAY").to_owned();
    Subject::on_cloud(|of| driver_of(options(of, RUNS)), mortal, 32, format!("{gateway}:9").parse().unwrap())
}

mod conformance {
    crate::driver::conformance! { super::subject }
}

/// The same service, in which one driver is asked for one instance.
async fn alone(options: Options) -> Subject {
    subject().await.alone(driver_of(options))
}

/// What comes of an instance that Zun cannot make, right away or later.
async fn refusal(options: Options) -> (Refusal, String) {
    let subject = alone(options).await;
    let spec = subject.spec();
    let refused = match subject.driver.create(&spec).await {
        Err(DriverError::Refused { refusal, text }) => (refusal, text),
        Err(other) => panic!("{other:?}"),
        Ok(()) => match until(&subject, &*subject.driver, spec.id, |observed| *observed != Observed::Building).await {
            Observed::Refused(refusal, text) => (refusal, text),
            other @ (Observed::Absent | Observed::Building | Observed::Active | Observed::Stopped(_)) => {
                panic!("{other:?}")
            }
        },
    };
    subject.driver.delete(spec.id).await.unwrap();
    nothing_is_left(&subject).await;
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_told_by_name() {
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = options(&deployment(), RUNS);
        change(&mut options);
        options
    };
    for (options, word) in [
        (with(&|o| o.image = "box-nowhere:1".to_owned()), "box-nowhere"),
        (with(&|o| o.network = Some("no-such-network".to_owned())), "no-such-network"),
        (with(&|o| o.security_groups = vec!["no-such-group".to_owned()]), "no-such-group"),
        (with(&|o| o.command = vec!["/no-such-program".to_owned()]), "/no-such-program"),
        // No registry can be reached from here.
        (with(&|o| (o.image, o.image_pull_policy) = ("box-nowhere:1".to_owned(), None)), "box-nowhere"),
        (with(&|o| o.overhead_mib = 9000), "at most 8192 MiB"),
        (with(&|o| o.image_driver = Some(lambda_openstack::openstack::zun::ImageDriver::Glance)), "image_driver_list"),
    ] {
        let (refusal, text) = refusal(options).await;
        assert_eq!(refusal, Refusal::Misconfigured, "{text}");
        assert!(text.contains(word) && text.len() < 600, "{text}");
        println!("misconfigured: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_is_told_as_that() {
    let options = Options { cpu_per_gib: Some(64.0), overhead_mib: 8000, ..options(&deployment(), RUNS) };
    let (refusal, text) = refusal(options).await;
    assert_eq!(refusal, Refusal::Capacity, "{text}");
    println!("capacity: {text}");
}

/// A request of the administrator.
async fn asked(session: &Session, service: Service, method: Method, path: &str, body: Option<Value>) -> Value {
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    let request = Request {
        service,
        operation: "test",
        method,
        path: path.split('/').map(str::to_owned).collect(),
        query: Vec::new(),
        headers,
        body: body.map(|body| body.to_string().into()),
        is_idempotent: true,
    };
    let answer = session.send(&request).await.unwrap();
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_is_told_as_that() {
    let admin = super::Account::read("openrc-admin").session();
    let account = super::Account::read("openrc-other");
    let ours = Client::new(account.session());
    let project = account.auth().project_id().await.unwrap().unwrap();
    let path = format!("v1/quotas/{project}");
    asked(&admin, SERVICE, Method::PUT, &path, Some(json!({"containers": 0}))).await;
    let driver = ZunDriver::new(ours, options(&deployment(), RUNS));
    let spec = subject().await.spec();
    let refused = driver.create(&spec).await;
    asked(&admin, SERVICE, Method::DELETE, &path, None).await;
    let Err(DriverError::Refused { refusal: Refusal::Quota, text }) = refused else { panic!("{refused:?}") };
    assert!(text.contains("containers"), "{text}");
    println!("quota: {text}");
    assert_eq!(driver.list().await.unwrap(), Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_version_of_both_is_spoken() {
    assert_eq!(client().version().await.unwrap(), Microversion(40));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_hear_is_killed_after_its_grace() {
    let subject = alone(options(&deployment(), &["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])).await;
    let spec = subject.spec();
    subject.driver.create(&spec).await.unwrap();
    until_active(&subject, &*subject.driver, spec.id).await;
    let begun = Instant::now();
    subject.driver.delete(spec.id).await.unwrap();
    println!("killed and gone after {:?}", begun.elapsed());
    nothing_is_left(&subject).await;
}

fn container(name: &str, deployment: &str, id: InstanceId) -> NewContainer {
    NewContainer {
        name: name.to_owned(),
        image: "box-busybox:1".to_owned(),
        image_driver: None,
        image_pull_policy: Some(PullPolicy::Never),
        command: RUNS.iter().map(|word| (*word).to_owned()).collect(),
        memory: 32,
        cpu: None,
        environment: BTreeMap::new(),
        labels: BTreeMap::from([
            (DEPLOYMENT_LABEL.to_owned(), deployment.to_owned()),
            ("lambda-instance".to_owned(), id.to_string()),
        ]),
        hostname: name.to_owned(),
        network: Some("containers".to_owned()),
        security_groups: Vec::new(),
        availability_zone: None,
        interactive: false,
        auto_remove: false,
    }
}

/// Zun lets two containers have one name. Whatever made them, they are one instance and go together.
#[tokio::test(flavor = "multi_thread")]
async fn two_containers_of_one_instance_are_one_and_go_together() {
    let deployment = deployment();
    let subject = alone(options(&deployment, RUNS)).await;
    let (client, id) = (client(), InstanceId::generate());
    let name = format!("lambda-{id}");
    for _ in 0..2 {
        client.create(&container(&name, &deployment, id)).await.unwrap();
    }
    assert_eq!(client.list(Some(&name)).await.unwrap().len(), 2);
    assert_eq!(subject.driver.list().await.unwrap(), [id]);
    subject.driver.delete(id).await.unwrap();
    assert_eq!(client.list(Some(&name)).await.unwrap(), Vec::new());
}

/// Passes requests on to Zun, one a connection, and keeps the answers to orders to itself.
async fn forgetful_proxy(zun: &str) -> String {
    let target = zun.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    #[allow(clippy::disallowed_methods, reason = "a test's own server ends with the test")]
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(&target).await.unwrap();
            #[allow(clippy::disallowed_methods, reason = "a test's own server ends with the test")]
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                let read = client.read(&mut request).await.unwrap();
                let is_order = request.starts_with(b"POST /v1/containers?");
                server.write_all(&request[..read]).await.unwrap();
                if is_order {
                    let mut answer = Vec::new();
                    let _ = server.read_to_end(&mut answer).await;
                    assert!(answer.starts_with(b"HTTP/1.1 202"), "{}", String::from_utf8_lossy(&answer));
                } else {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_makes_no_second_container() {
    let account = super::service();
    let catalog = asked(&account.session(), Service(&["identity"]), Method::GET, "v3/auth/catalog", None).await;
    let entry = catalog["catalog"].as_array().unwrap().iter().find(|entry| entry["type"] == "container").unwrap();
    let endpoint = forgetful_proxy(entry["endpoints"][0]["url"].as_str().unwrap()).await;
    let options_there = SessionOptions { endpoint: Some(endpoint), ..account.session_options() };
    let proxied = Session::new(Arc::new(account.auth()), options_there).unwrap();
    let subject = subject().await;
    let deployment = deployment();
    let driver = ZunDriver::new(Client::new(proxied), options(&deployment, RUNS));
    let spec = subject.spec();
    driver.create(&spec).await.unwrap();
    driver.create(&spec).await.unwrap();
    let name = format!("lambda-{}", spec.id);
    assert_eq!(client().list(Some(&name)).await.unwrap().len(), 1);
    until_active(&subject, &driver, spec.id).await;
    driver.delete(spec.id).await.unwrap();
    assert_eq!(driver.list().await.unwrap(), Vec::new());
}

/// What is known beside Zun: Docker's containers of a deployment, and Neutron's ports of a container.
fn in_docker(deployment: &str) -> String {
    let host = std::fs::read_to_string(super::directory().join("etc/docker-host")).unwrap();
    let output = Command::new("docker")
        .env("DOCKER_HOST", host.trim())
        .args(["ps", "--all", "--quiet", "--filter", &format!("label={DEPLOYMENT_LABEL}={deployment}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn ports(of: &str) -> usize {
    let answer = asked(&super::service().session(), Service(&["network"]), Method::GET, "v2.0/ports", None).await;
    answer["ports"].as_array().unwrap().iter().filter(|port| port["device_id"] == of).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_docker_nor_neutron_keeps_anything() {
    let deployment = deployment();
    let subject = alone(options(&deployment, RUNS)).await;
    let (spec, ends) = (subject.spec(), subject.spec());
    subject.driver.create(&spec).await.unwrap();
    until_active(&subject, &*subject.driver, spec.id).await;
    let uuid = client().list(Some(&format!("lambda-{}", spec.id))).await.unwrap().remove(0).uuid;
    assert_eq!((in_docker(&deployment).lines().count(), ports(&uuid).await), (1, 1));
    // One that cannot be started has a port too.
    let broken = alone(options(&deployment, &["/no-such-program"])).await;
    broken.driver.create(&ends).await.unwrap();
    until(&broken, &*broken.driver, ends.id, |observed| matches!(observed, Observed::Refused(..))).await;
    let failed = client().list(Some(&format!("lambda-{}", ends.id))).await.unwrap().remove(0);
    assert_eq!(failed.status, Status::Error);
    subject.driver.delete(spec.id).await.unwrap();
    subject.driver.delete(ends.id).await.unwrap();
    assert_eq!(in_docker(&deployment), "");
    assert_eq!((ports(&uuid).await, ports(&failed.uuid).await), (0, 0));
    nothing_is_left(&subject).await;
}
