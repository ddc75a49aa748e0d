//! The conformance suite of `trait Driver`: what the worker builds on, whatever makes the instances. [`conformance`] makes
//! of each test one for a driver; those of clouds are in `cloud::` and need one.

pub mod suite;
mod zun_faults;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lambda_openstack::driver::local::{LocalDriver, Options};
use lambda_openstack::driver::{Driver, GatewayAccess, InstanceSpec};
use lambda_openstack::model::runtime::RuntimeName;
use lambda_openstack::model::{FunctionId, InstanceId, ProjectId};
use lambda_openstack::task::Tasks;
use tempfile::TempDir;

/// A driver under test, as several processes of one deployment have it.
pub struct Subject {
    /// The driver.
    pub driver: Arc<dyn Driver>,
    /// The same in another process of the deployment; none where instances are children of the process.
    pub other: Option<Arc<dyn Driver>>,
    /// The same in another deployment, on the same cloud.
    pub stranger: Arc<dyn Driver>,
    /// One whose instances end by themselves at once.
    pub mortal: Arc<dyn Driver>,
    /// Memory of an instance, in MiB.
    pub memory_mib: u32,
    /// Whom agents dial; nobody has to be there.
    pub gateway: SocketAddr,
    /// How long the slowest step may take.
    pub patience: Duration,
    /// Directories that have to be there until the test ends.
    _kept: Vec<TempDir>,
}

impl Subject {
    /// One on a cloud: `driver` makes a driver of the deployment of this name, `mortal` one whose instances end.
    pub fn on_cloud(
        driver: impl Fn(&str) -> Arc<dyn Driver>,
        mortal: Arc<dyn Driver>,
        memory_mib: u32,
        gateway: SocketAddr,
    ) -> Self {
        let (ours, theirs) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
        Self {
            driver: driver(&ours),
            other: Some(driver(&ours)),
            stranger: driver(&theirs),
            mortal,
            memory_mib,
            gateway,
            patience: Duration::from_secs(180),
            _kept: Vec::new(),
        }
    }

    /// The same cloud, on which this one driver is tried.
    pub fn alone(self, driver: Arc<dyn Driver>) -> Self {
        Self { driver: Arc::clone(&driver), stranger: Arc::clone(&driver), mortal: driver, ..self }
    }

    /// An instance to be asked for.
    pub fn spec(&self) -> InstanceSpec {
        InstanceSpec {
            id: InstanceId::generate(),
            project_id: Some(ProjectId::parse("conformance").unwrap()),
            function_id: Some(FunctionId::generate()),
            runtime: RuntimeName::parse("python3").unwrap(),
            memory_mib: self.memory_mib,
            gateway: GatewayAccess { address: self.gateway.into(), fingerprint: None },
            token: "used-once".to_owned(),
        }
    }
}

/// Makes of each test of the suite one for the driver that `$subject` makes. At its end nothing of it may be left.
macro_rules! conformance {
    ($subject:path: $( $test:ident ),+ $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let subject = $subject().await;
            $crate::driver::suite::$test(&subject).await;
            $crate::driver::suite::nothing_is_left(&subject).await;
        }
    )+ };
    ($subject:path) => {
        $crate::driver::conformance! { $subject:
            what_is_asked_for_becomes_active_is_listed_and_goes,
            asking_twice_makes_one,
            what_is_absent_can_be_deleted_and_looked_at,
            each_deployment_sees_its_own,
            what_is_still_booting_can_be_deleted,
            many_at_once_are_seen_and_go,
            what_has_ended_is_told_with_how,
            another_process_finds_and_deletes,
        }
    };
}
pub(crate) use conformance;

/// The agent's program, which the workspace's build puts beside the others.
fn agent() -> PathBuf {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_lambda-standalone")).with_file_name("lambda-agent");
    assert!(agent.is_file(), "{} is missing: cargo build -p lambda-agent", agent.display());
    agent
}

/// An agent that ends as soon as it is to run.
fn mortal_agent(directory: &TempDir) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let script = directory.path().join("mortal");
    let text = format!("#!/bin/sh\n[ \"$1\" = run ] && exit 4\nexec {} \"$@\"\n", agent().display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

async fn local() -> Subject {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let driver = |directory: &TempDir, agent: PathBuf| -> Arc<dyn Driver> {
        let options = Options {
            agent,
            work_dir: directory.path().join("instances"),
            python: PathBuf::from("/usr/bin/python3"),
            uid_base: 300_000,
        };
        Arc::new(LocalDriver::new(options, Tasks::new()).unwrap())
    };
    Subject {
        driver: driver(&directories[0], agent()),
        other: None,
        stranger: driver(&directories[1], agent()),
        mortal: driver(&directories[2], mortal_agent(&directories[2])),
        memory_mib: 128,
        gateway: "127.0.0.1:9".parse().unwrap(),
        patience: Duration::from_secs(60),
        _kept: Vec::from(directories),
    }
}

mod on_local {
    // No other process can have its instances: they are children. What is left of a process that is gone is shown with the
    // whole service.
    super::conformance! { super::local:
        what_is_asked_for_becomes_active_is_listed_and_goes,
        asking_twice_makes_one,
        what_is_absent_can_be_deleted_and_looked_at,
        each_deployment_sees_its_own,
        what_is_still_booting_can_be_deleted,
        many_at_once_are_seen_and_go,
        what_has_ended_is_told_with_how,
    }
}
