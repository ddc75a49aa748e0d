//! What is asked of Zun, and what its words are taken for.

use super::reason::{can_be_removed, failed, never_ran, observed, refused};
use super::*;
use crate::driver::{GatewayAccess, Refusal};
use crate::model::{FunctionId, ProjectId};
use crate::openstack::{NoAuth, Session, SessionOptions};

fn options() -> Options {
    Options {
        deployment: "d".to_owned(),
        image: "lambda-python3:1".to_owned(),
        images: BTreeMap::from([(RuntimeName::parse("provided").unwrap(), "lambda-provided:1".to_owned())]),
        image_driver: None,
        image_pull_policy: Some(PullPolicy::Never),
        command: Vec::new(),
        network: Some("functions".to_owned()),
        security_groups: Vec::new(),
        availability_zone: None,
        cpu_per_gib: Some(1.0),
        overhead_mib: 64,
        labels: BTreeMap::from([
            ("site".to_owned(), "a".to_owned()),
            (DEPLOYMENT_LABEL.to_owned(), "not ours".to_owned()),
        ]),
        boot_timeout: Duration::from_secs(90),
        stop_grace: Duration::from_secs(5),
    }
}

fn driver() -> ZunDriver {
    let auth = NoAuth::new("demo", [("container", "http://127.0.0.1:1")]).unwrap();
    ZunDriver::new(Client::new(Session::new(std::sync::Arc::new(auth), SessionOptions::default()).unwrap()), options())
}

fn spec() -> InstanceSpec {
    InstanceSpec {
        id: InstanceId::generate(),
        project_id: Some(ProjectId::parse("p").unwrap()),
        function_id: Some(FunctionId::generate()),
        runtime: RuntimeName::parse("python3").unwrap(),
        memory_mib: 192,
        gateway: GatewayAccess { address: "10.0.0.1:9071".parse().unwrap(), fingerprint: Some("ab".to_owned()) },
        token: "once".to_owned(),
    }
}

fn container(status: &str, reason: Option<&str>) -> Container {
    Container {
        uuid: "u".to_owned(),
        name: "n".to_owned(),
        status: Status::from(status.to_owned()),
        status_reason: reason.map(str::to_owned),
        status_detail: None,
        task_state: None,
        labels: BTreeMap::new(),
    }
}

#[test]
fn a_container_is_sized_named_and_labelled_for_its_instance() {
    let (driver, spec) = (driver(), spec());
    let asked = driver.container(&spec);
    assert_eq!(asked.name, format!("lambda-{}", spec.id));
    assert_eq!((asked.memory, asked.cpu), (256, Some(0.25)), "the function's memory and what the agent needs");
    assert_eq!(asked.image, "lambda-python3:1");
    let label = |name: &str| asked.labels.get(name).map(String::as_str);
    assert_eq!(label(DEPLOYMENT_LABEL), Some("d"), "an option cannot hide whose it is");
    assert_eq!(label(INSTANCE_LABEL), Some(spec.id.to_string().as_str()));
    assert_eq!((label(PROJECT_LABEL), label("site")), (Some("p"), Some("a")));
    assert_eq!(label(FUNCTION_LABEL), spec.function_id.map(|id| id.to_string()).as_deref());
    assert_eq!(asked.environment.len(), spec.agent_environment().len());
    assert!(!asked.interactive && !asked.auto_remove);
    let provided = InstanceSpec { runtime: RuntimeName::parse("provided").unwrap(), function_id: None, ..spec };
    let asked = driver.container(&provided);
    assert_eq!((asked.image.as_str(), asked.labels.contains_key(FUNCTION_LABEL)), ("lambda-provided:1", false));
}

#[test]
fn cpu_stays_within_what_zun_gives() {
    assert_eq!([cpu(16, 1.0), cpu(1024, 0.5), cpu(8192, 64.0)].map(|cpu| (cpu * 100.0).round()), [10.0, 50.0, 1600.0]);
}

#[test]
fn an_order_that_is_refused_says_for_how_long() {
    let quota = OpenStackError::Forbidden("Quota exceeded for resources: ['memory']".to_owned());
    let policy = "Policy doesn't allow container:create:image_pull_policy to be performed.";
    for (error, refusal) in [
        (quota, Refusal::Quota),
        (OpenStackError::Forbidden(policy.to_owned()), Refusal::Misconfigured),
        (OpenStackError::NotFound("Neutron network x could not be found.".to_owned()), Refusal::Misconfigured),
        (OpenStackError::Invalid("Security group x not found.".to_owned()), Refusal::Misconfigured),
        (OpenStackError::Invalid("something new".to_owned()), Refusal::Misconfigured),
        (OpenStackError::Unauthorized("wrong password".to_owned()), Refusal::Misconfigured),
        (OpenStackError::OverLimit { detail: "Quota exceeded".to_owned(), retry_after: None }, Refusal::Quota),
    ] {
        let text = error.to_string();
        assert!(matches!(refused(error), DriverError::Refused { refusal: r, .. } if r == refusal), "{text}");
    }
    let slow_down = OpenStackError::OverLimit { detail: "Too many requests".to_owned(), retry_after: None };
    assert!(matches!(refused(slow_down), DriverError::Unavailable(_)));
    let refused = refused(OpenStackError::Forbidden(policy.to_owned())).to_string();
    assert!(refused.starts_with("misconfigured: Zun refuses the container: Policy"), "{refused}");
    assert!(refused.ends_with("unset [zun] image_pull_policy"), "{refused}");
}

#[test]
fn a_question_that_fails_is_no_answer() {
    assert!(matches!(failed(OpenStackError::Conflict("x".to_owned())), DriverError::Unavailable(_)));
    let old = OpenStackError::Invalid("this Zun speaks the container API up to 1.19, and 1.20 is needed".to_owned());
    assert!(matches!(failed(old), DriverError::Refused { refusal: Refusal::Misconfigured, .. }));
}

#[test]
fn every_status_says_where_the_instance_is() {
    for (status, expected) in [
        ("Creating", Observed::Building),
        ("Created", Observed::Building),
        ("Rebuilding", Observed::Building),
        ("Running", Observed::Active),
        ("Paused", Observed::Active),
        ("Restarting", Observed::Active),
        ("Unknown", Observed::Active),
        ("Some new word", Observed::Active),
    ] {
        assert_eq!(observed(&container(status, None)), expected, "{status}");
    }
    for status in ["Stopped", "Error", "Dead", "Deleting", "Deleted"] {
        assert!(matches!(observed(&container(status, None)), Observed::Stopped(_)), "{status}");
    }
}

/// The texts are those of Zun 18 on Docker 20.10.
#[test]
fn why_a_container_never_ran_is_told_apart() {
    for (reason, refusal) in [
        ("There are not enough hosts available.", Refusal::Capacity),
        ("Insufficient compute resources: Free memory 100.00 MB < requested 4096 MB.", Refusal::Capacity),
        ("No more IP addresses available on network 3.", Refusal::Capacity),
        ("Quota exceeded for resources: ['port'].", Refusal::Quota),
        ("Image nope not present with pull policy of Never", Refusal::Misconfigured),
        ("Cannot download image from docker: Error on pulling image: nope:1", Refusal::Misconfigured),
        (
            r#"Docker internal error: 400 Client Error for http+docker://localhost/v1.41/containers/06/start: Bad Request ("failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "/nope": stat /nope: no such file or directory: unknown")."#,
            Refusal::Misconfigured,
        ),
    ] {
        assert!(
            matches!(observed(&container("Error", Some(reason))), Observed::Refused(r, _) if r == refusal),
            "{reason}"
        );
    }
    let broken = observed(&container("Error", Some("Container failed to create correctly")));
    assert!(matches!(broken, Observed::Stopped(text) if text.ends_with("Container failed to create correctly")));
}

#[test]
fn dockers_own_text_is_told_without_its_address() {
    let reason = "Docker internal error: 400 Client Error for http+docker://localhost/v1.41/containers/06/start: Bad Request (\"x\")";
    let Observed::Stopped(text) = observed(&container("Error", Some(reason))) else { panic!("stopped") };
    assert_eq!(text, "Zun could not start the container: Bad Request (\"x\")");
}

#[test]
fn how_it_ended_is_told() {
    let mut ended = container("Stopped", None);
    ended.status_detail = Some("Exited(4) 3 seconds ago ".to_owned());
    let expected = "the container has ended: Exited(4) 3 seconds ago ";
    assert_eq!(observed(&ended), Observed::Stopped(expected.to_owned()));
    let silent = observed(&container("Stopped", None));
    assert_eq!(silent, Observed::Stopped("the container has ended: Zun does not say how".to_owned()));
}

#[test]
fn a_boot_that_never_ends_is_told_with_where_it_stands() {
    let driver = ZunDriver { options: Options { boot_timeout: Duration::ZERO, ..options() }, ..driver() };
    let id = InstanceId::generate();
    let mut creating = container("Creating", None);
    creating.task_state = Some("image_pulling".to_owned());
    assert_eq!(driver.judge(id, &[&creating]), Observed::Building, "asked for by another process: nobody knows when");
    driver.asked.lock().unwrap().insert(id, Asked { at: Instant::now(), looks: 0 });
    assert_eq!(driver.judge(id, &[&creating]), Observed::Stopped(never_ran(&creating, Duration::ZERO)));
    assert!(
        never_ran(&creating, Duration::from_secs(90)).contains("within 90 s, it is still Creating (image_pulling)")
    );
    assert_eq!(driver.judge(id, &[&container("Running", None)]), Observed::Active);
}

#[test]
fn of_two_containers_the_one_that_runs_speaks() {
    let (failed, runs) = (container("Error", None), container("Running", None));
    assert_eq!(driver().judge(InstanceId::generate(), &[&failed, &runs]), Observed::Active);
    assert_eq!(driver().judge(InstanceId::generate(), &[]), Observed::Absent);
}

#[test]
fn nothing_is_ordered_while_something_is_done_with_it() {
    let mut starting = container("Created", None);
    assert!(can_be_removed(&starting));
    starting.task_state = Some("container_starting".to_owned());
    assert!(!can_be_removed(&starting), "Zun takes the order, fails, and the container stays");
    assert!(!can_be_removed(&container("Creating", None)));
    assert!(can_be_removed(&container("Error", None)));
}

#[test]
fn a_close_look_is_taken_a_few_times_and_no_more() {
    let (driver, id) = (driver(), InstanceId::generate());
    assert!(!driver.is_due(id), "asked for by another process");
    let now = Instant::now();
    let asked = |ago: u64| Asked { at: now.checked_sub(Duration::from_secs(ago)).unwrap_or(now), looks: 0 };
    driver.asked.lock().unwrap().insert(id, asked(0));
    assert!(!driver.is_due(id));
    driver.asked.lock().unwrap().insert(id, asked(20));
    assert_eq!([driver.is_due(id), driver.is_due(id), driver.is_due(id)], [true, true, false]);
}
