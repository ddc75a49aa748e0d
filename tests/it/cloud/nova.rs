//! The driver `nova` and its clients on a real Nova, Neutron and Glance, as the service's user, who is no administrator.
//! Guests are few and one test boots at a time: their processors are emulated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambda_openstack::driver::nova::{NovaDriver, Options};
use lambda_openstack::driver::{Driver, DriverError, InstanceSpec, Observed, Refusal};
use lambda_openstack::openstack::keystone::{KeystoneAuth, KeystoneOptions, Named, Scope};
use lambda_openstack::openstack::nova::Client;
use lambda_openstack::openstack::{Request, Service, Session, glance, keystone, neutron, nova};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, MutexGuard};

use super::Account;
use crate::driver::Subject;
use crate::driver::suite::{self, nothing_is_left, until, until_active};

/// Held by whoever boots.
static BOOTING: Mutex<()> = Mutex::const_new(());

pub async fn booting() -> MutexGuard<'static, ()> {
    BOOTING.lock().await
}

fn options() -> Options {
    Options {
        deployment: uuid::Uuid::new_v4().to_string(),
        image: "box-tiny".to_owned(),
        network: super::service().var("BOX_SERVER_NETWORK").to_owned(),
        overhead_mib: 64,
        console_log: true,
        ..Options::default()
    }
}

fn driver_as(session: &Session, options: Options) -> Arc<NovaDriver> {
    Arc::new(NovaDriver::new(options, session.clone(), session.clone(), session.clone()).unwrap())
}

fn driver(options: Options) -> Arc<NovaDriver> {
    driver_as(&super::service().session(), options)
}

fn subject() -> Subject {
    let gateway = format!("{}:9", super::service().var("BOX_SERVER_GATEWAY"));
    let of =
        |deployment: &str| -> Arc<dyn Driver> { driver(Options { deployment: deployment.to_owned(), ..options() }) };
    // Nothing but the cloud's user ends a guest: that is shown below.
    Subject::on_cloud(of, driver(options()), 64, gateway.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_driver_has_to() {
    let _booting = booting().await;
    let subject = subject();
    suite::what_is_asked_for_becomes_active_is_listed_and_goes(&subject).await;
    suite::asking_twice_makes_one(&subject).await;
    suite::what_is_absent_can_be_deleted_and_looked_at(&subject).await;
    suite::each_deployment_sees_its_own(&subject).await;
    suite::what_is_still_booting_can_be_deleted(&subject).await;
    suite::another_process_finds_and_deletes(&subject).await;
    nothing_is_left(&subject).await;
}

/// Waits for the call of a guest; the path that it asked for.
async fn call(listener: &TcpListener, patience: Duration) -> Option<String> {
    let called = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = vec![0; 1024];
        let length = stream.read(&mut text).await.unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&text[..length]).split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    tokio::time::timeout(patience, called).await.ok()
}

/// A guest finds its metadata on the config drive and reaches the gateway; what it prints can be read; when somebody
/// pauses it, it has stopped; and nothing is left of it, in Neutron neither. A guest may come up mute (the network's
/// fault, not ours): then the next one has to call.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_told_where_to_call_and_leaves_no_port() {
    let _booting = booting().await;
    let account = super::service();
    let listener = TcpListener::bind((account.var("BOX_SERVER_GATEWAY"), 0)).await.unwrap();
    let report = format!("http://{}/", listener.local_addr().unwrap());
    let options = Options { metadata: BTreeMap::from([("report".to_owned(), report)]), ..options() };
    let subject = subject().alone(driver(options.clone()));
    let (driver, session) = (driver(options.clone()), account.session());
    let (servers, ports) = (Client::new(session.clone()), neutron::Client::new(session.clone()));
    let mut called = None;
    for boot in 1..=3 {
        let spec = subject.spec();
        let asked = Instant::now();
        driver.create(&spec).await.unwrap();
        until_active(&subject, &*driver, spec.id).await;
        let active = asked.elapsed();
        let tag = format!("lambda-deployment={}", options.deployment);
        let server = servers.servers(&[&tag]).await.unwrap().remove(0);
        called = call(&listener, Duration::from_secs(60)).await;
        let told = driver.explain(spec.id).await;
        if let Some(path) = &called {
            println!("nova: asked → ACTIVE {active:?} → called {:?} (boot {boot})", asked.elapsed());
            assert!(path.contains(&server.id), "{path} is not of {}", server.id);
            assert!(told.is_some_and(|console| console.contains("GUEST")), "the guest prints to its console");
            assert_eq!(ports.ports_of(&server.id).await.unwrap().len(), 1);
            act(&session, &server.id, json!({"pause": null})).await;
            let stopped = until(&subject, &*driver, spec.id, |observed| *observed != Observed::Active).await;
            assert_eq!(stopped, Observed::Stopped("the server is paused".to_owned()));
        } else {
            println!("nova: the guest of boot {boot} came up mute; its console: {told:?}");
        }
        driver.delete(spec.id).await.unwrap();
        driver.delete(spec.id).await.unwrap();
        assert_eq!(servers.server(&server.id).await.unwrap(), None);
        assert_eq!(ports.ports_of(&server.id).await.unwrap(), []);
        if called.is_some() {
            break;
        }
    }
    assert!(called.is_some(), "three guests came up mute");
    nothing_is_left(&subject).await;
}

/// What comes of an instance that Nova cannot make, right away or later.
async fn refusal(driver: Arc<NovaDriver>, memory_mib: u32) -> (Refusal, String) {
    let subject = subject().alone(driver.clone());
    let spec = InstanceSpec { memory_mib, ..subject.spec() };
    let refused = match driver.create(&spec).await {
        Err(DriverError::Refused { refusal, text }) => (refusal, text),
        Err(other) => panic!("{other:?}"),
        Ok(()) => match until(&subject, &*driver, spec.id, |observed| *observed != Observed::Building).await {
            Observed::Refused(refusal, text) => (refusal, text),
            other @ (Observed::Absent | Observed::Building | Observed::Active | Observed::Stopped(_)) => {
                panic!("{other:?}")
            }
        },
    };
    driver.delete(spec.id).await.unwrap();
    nothing_is_left(&subject).await;
    println!("{}: {}", refused.0.as_str(), refused.1);
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_told_by_name() {
    let no_id = uuid::Uuid::new_v4().to_string();
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        options
    };
    for (options, word) in [
        (with(&|o| o.image = "no-such-image".to_owned()), "no-such-image"),
        (with(&|o| o.image.clone_from(&no_id)), no_id.as_str()),
        (with(&|o| o.image_owner = Some(no_id.clone())), "box-tiny"),
        (with(&|o| o.network = "no-such-network".to_owned()), "no-such-network"),
        (with(&|o| o.network.clone_from(&no_id)), no_id.as_str()),
        (with(&|o| o.flavor = "no-such-flavor".to_owned()), "no-such-flavor"),
        (with(&|o| (o.flavor, o.overhead_mib) = ("box.128".to_owned(), 100)), "164 MiB"),
        (with(&|o| o.overhead_mib = 1_000_000), "no flavor"),
        (with(&|o| o.availability_zone = Some("no-such-zone".to_owned())), "availability zone"),
    ] {
        let (refusal, text) = refusal(driver(options), 64).await;
        assert_eq!(refusal, Refusal::Misconfigured, "{text}");
        assert!(text.contains(word) && text.len() < 400, "{text}");
    }
}

/// Only where Neutron has none: naming one is a mistake of the configuration then.
#[tokio::test(flavor = "multi_thread")]
async fn security_groups_are_refused_where_there_are_none() {
    let neutron = neutron::Client::new(super::service().session());
    assert!(!neutron.has_extension(neutron::SECURITY_GROUPS).await.unwrap(), "this cloud has security groups");
    assert!(neutron.has_extension("net-mtu").await.unwrap());
    let options = Options { security_groups: vec!["default".to_owned()], ..options() };
    let (refusal, text) = refusal(driver(options), 64).await;
    assert!(refusal == Refusal::Misconfigured && text.contains("security groups"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_is_told_as_that() {
    let _booting = booting().await;
    let admin = Account::read("openrc-admin").session();
    let name = format!("nova-test-{}", uuid::Uuid::new_v4());
    let flavor = json!({"flavor": {"id": name, "name": name, "ram": 4_000_000, "vcpus": 1, "disk": 1}});
    ask(&admin, nova::SERVICE, Method::POST, "v2.1/flavors", Some(flavor)).await;
    let refused = refusal(driver(Options { flavor: name.clone(), ..options() }), 64).await;
    ask(&admin, nova::SERVICE, Method::DELETE, &format!("v2.1/flavors/{name}"), None).await;
    assert_eq!(refused.0, Refusal::Capacity, "{}", refused.1);
}

/// In a project of its own, which goes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_quota_is_told_as_that() {
    let (admin, account) = (Account::read("openrc-admin").session(), super::service());
    let name = format!("nova-test-{}", uuid::Uuid::new_v4());
    let project = json!({"project": {"name": name, "domain_id": "default"}});
    let made = ask(&admin, keystone::SERVICE, Method::POST, "v3/projects", Some(project)).await;
    let project = made["project"]["id"].as_str().unwrap().to_owned();
    let users = ask(&admin, keystone::SERVICE, Method::GET, "v3/users", None).await;
    let is_ours = |user: &&Value| user["name"] == account.var("OS_USERNAME");
    let user = users["users"].as_array().unwrap().iter().find(is_ours).unwrap()["id"].as_str().unwrap().to_owned();
    let roles = ask(&admin, keystone::SERVICE, Method::GET, "v3/roles", None).await;
    let member = roles["roles"].as_array().unwrap().iter().find(|role| role["name"] == "member").unwrap();
    let role = member["id"].as_str().unwrap();
    ask(&admin, keystone::SERVICE, Method::PUT, &format!("v3/projects/{project}/users/{user}/roles/{role}"), None)
        .await;
    let quota = json!({"quota_set": {"instances": 0}});
    ask(&admin, nova::SERVICE, Method::PUT, &format!("v2.1/os-quota-sets/{project}"), Some(quota)).await;
    let scope = Scope::Project(Named::Id(project.clone()));
    let auth = KeystoneAuth::new(KeystoneOptions { scope, ..account.options() }).unwrap();
    let session = Session::new(Arc::new(auth), account.session_options()).unwrap();
    let refused = refusal(driver_as(&session, options()), 64).await;
    ask(&admin, nova::SERVICE, Method::DELETE, &format!("v2.1/os-quota-sets/{project}"), None).await;
    ask(&admin, keystone::SERVICE, Method::DELETE, &format!("v3/projects/{project}"), None).await;
    assert_eq!(refused.0, Refusal::Quota, "{}", refused.1);
}

/// Servers apart: one group for the deployment, made once.
#[tokio::test(flavor = "multi_thread")]
async fn servers_are_placed_apart_in_one_group() {
    let _booting = booting().await;
    let options = Options { server_group_policy: Some("soft-anti-affinity".to_owned()), ..options() };
    let subject = subject().alone(driver(options.clone()));
    let servers = Client::new(super::service().session());
    let spec = subject.spec();
    subject.driver.create(&spec).await.unwrap();
    until_active(&subject, &*subject.driver, spec.id).await;
    subject.driver.delete(spec.id).await.unwrap();
    // Another process finds it.
    let other = subject.spec();
    let second = driver(options.clone());
    second.create(&other).await.unwrap();
    second.delete(other.id).await.unwrap();
    let groups: Vec<_> = servers
        .server_groups()
        .await
        .unwrap()
        .into_iter()
        .filter(|group| group.name.contains(&options.deployment))
        .collect();
    for group in &groups {
        servers.delete_server_group(&group.id).await.unwrap();
        servers.delete_server_group(&group.id).await.unwrap();
    }
    assert_eq!(groups.iter().map(|group| group.policy.as_str()).collect::<Vec<_>>(), ["soft-anti-affinity"]);
    nothing_is_left(&subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_found_by_id_name_and_nothing_else() {
    let glance = glance::Client::new(super::service().session());
    let by_name = glance.newest(glance::By::Name("box-tiny"), None).await.unwrap().unwrap();
    assert_eq!(glance.image(&by_name.id).await.unwrap(), Some(by_name.clone()));
    let owner = by_name.owner.clone().unwrap();
    assert_eq!(glance.newest(glance::By::Name("box-tiny"), Some(&owner)).await.unwrap(), Some(by_name));
    assert_eq!(glance.newest(glance::By::Tag("box-tiny"), None).await.unwrap(), None);
    assert_eq!(glance.image(&uuid::Uuid::new_v4().to_string()).await.unwrap(), None);
}

/// Something that is done to a server behind the driver's back.
pub async fn act(session: &Session, server: &str, action: Value) {
    ask(session, nova::SERVICE, Method::POST, &format!("v2.1/servers/{server}/action"), Some(action)).await;
}

/// A request that no client of ours has.
pub async fn ask(session: &Session, service: Service, method: Method, path: &str, body: Option<Value>) -> Value {
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
