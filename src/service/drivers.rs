//! From options to drivers, each with the terms on which the fleet uses it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lambda_agent::address::GatewayAddress;

use super::ServiceError;
use super::cloud::Cloud;
use crate::config::{Config, LocalOptions, NovaOptions, ZunOptions};
use crate::driver::local::{self, LocalDriver};
use crate::driver::nova::{self, NovaDriver};
use crate::driver::zun::{self, ZunDriver};
use crate::model::function::MemoryMib;
use crate::model::instance::Isolation;
use crate::model::runtime::RuntimeName;
use crate::model::{DeploymentId, Invalid};
use crate::openstack::zun as zun_client;
use crate::scheduler::offer::{Offer, Sharing};
use crate::scheduler::pool::PoolTerms;
use crate::task::Tasks;
use crate::telemetry::metrics::Service;
use crate::worker::fleet::DriverSetup;

/// How often a cloud is asked what became of instances. An agent that calls is heard of at once, a connection that breaks
/// too: this finds what ended without a word.
const WATCH_CLOUD: Duration = Duration::from_secs(2);
/// Time for the agent of a container that runs to call: what Zun itself took too long for is told first, and better.
const CALL_WITHIN: Duration = Duration::from_secs(20);
/// The same for processes of our own.
const WATCH_PROCESSES: Duration = Duration::from_secs(1);
/// Largest container that Zun makes, in MiB: its default `maximum_memory`.
const ZUN_MEMORY_MAX: u32 = 8192;

/// What separates the instances of a driver from others, by its name in `[worker] drivers`.
#[must_use]
pub fn isolation(name: &str) -> Option<Isolation> {
    match name {
        "local" => Some(Isolation::Process),
        "zun" => Some(Isolation::Container),
        "nova" => Some(Isolation::Vm),
        _ => None,
    }
}

/// The drivers that `[worker] drivers` names, in its order.
///
/// # Errors
/// When it names none, or an option does not do. No cloud is asked.
pub fn drivers(
    config: &Config,
    cloud: &Cloud,
    deployment: DeploymentId,
    state_dir: &Path,
    tasks: &Tasks,
) -> Result<Vec<DriverSetup>, ServiceError> {
    let names = &config.worker.drivers;
    if names.is_empty() {
        return Err(Invalid::new("[worker] drivers", "must name at least one").into());
    }
    names
        .iter()
        .map(|name| match isolation(name) {
            Some(Isolation::Process) => local(&config.local, state_dir, tasks),
            Some(Isolation::Container) => zun(&config.zun, cloud, deployment),
            Some(Isolation::Vm) => nova(&config.nova, cloud, deployment),
            None => Err(Invalid::new("[worker] drivers", format!("there is no driver '{name}'")).into()),
        })
        .collect()
}

fn zun(options: &ZunOptions, cloud: &Cloud, deployment: DeploymentId) -> Result<DriverSetup, ServiceError> {
    let images = options.images.iter().map(|(runtime, image)| Ok((RuntimeName::parse(runtime)?, image.clone())));
    let driver = zun::Options {
        deployment: deployment.to_string(),
        image: options.image.clone(),
        images: images.collect::<Result<_, Invalid>>()?,
        image_driver: options.image_driver.as_deref().map(image_driver),
        image_pull_policy: options.image_pull_policy.as_deref().map(pull_policy),
        command: options.command.clone(),
        network: options.network.clone(),
        security_groups: options.security_groups.clone(),
        availability_zone: options.availability_zone.clone(),
        cpu_per_gib: (options.cpu_per_gib > 0.0).then_some(options.cpu_per_gib),
        overhead_mib: options.overhead_memory_mib,
        labels: options.labels.clone(),
        boot_timeout: Duration::from_secs(options.boot_timeout),
        stop_grace: Duration::from_secs(options.stop_grace),
    };
    let client = zun_client::Client::new(cloud.session(Service::Zun)?);
    Ok(DriverSetup {
        isolation: Isolation::Container,
        driver: Arc::new(ZunDriver::new(client, driver)),
        offer: Offer {
            sharing: sharing(&options.sharing),
            memory_mib: options.instance_memory_mib,
            memory_max_mib: ZUN_MEMORY_MAX.saturating_sub(options.overhead_memory_mib),
            instances: options.max_instances,
            booting: options.max_booting,
            boot_timeout: Duration::from_secs(options.boot_timeout) + CALL_WITHIN,
        },
        pools: pools("[zun] pools", Isolation::Container, &options.pools)?,
        gateway: address("[zun] gateway_address", options.gateway_address.as_deref())?,
        watch: WATCH_CLOUD,
    })
}

fn nova(options: &NovaOptions, cloud: &Cloud, deployment: DeploymentId) -> Result<DriverSetup, ServiceError> {
    let driver = nova::Options {
        deployment: deployment.to_string(),
        image: options.image.clone(),
        image_owner: options.image_owner.clone(),
        flavor: options.flavor.clone().unwrap_or_default(),
        overhead_mib: options.overhead_memory_mib,
        network: options.network.clone().unwrap_or_default(),
        security_groups: options.security_groups.clone(),
        availability_zone: options.availability_zone.clone(),
        server_group_policy: options.server_group_policy.clone(),
        metadata: options.metadata.clone(),
        console_log: options.console_log,
    };
    let session = |service| cloud.session(service);
    let driver =
        NovaDriver::new(driver, session(Service::Nova)?, session(Service::Neutron)?, session(Service::Glance)?)?;
    Ok(DriverSetup {
        isolation: Isolation::Vm,
        driver: Arc::new(driver),
        offer: Offer {
            sharing: sharing(&options.sharing),
            memory_mib: options.instance_memory_mib,
            memory_max_mib: options.instance_memory_mib.max(MemoryMib::MAX),
            instances: options.max_instances,
            booting: options.max_booting,
            boot_timeout: Duration::from_secs(options.boot_timeout),
        },
        pools: pools("[nova] pools", Isolation::Vm, &options.pools)?,
        gateway: address("[nova] gateway_address", options.gateway_address.as_deref())?,
        watch: WATCH_CLOUD,
    })
}

/// As the configuration's words have it, which were checked. The same holds for the next two.
fn image_driver(word: &str) -> zun_client::ImageDriver {
    if word == "glance" { zun_client::ImageDriver::Glance } else { zun_client::ImageDriver::Docker }
}

fn pull_policy(word: &str) -> zun_client::PullPolicy {
    match word {
        "never" => zun_client::PullPolicy::Never,
        "ifnotpresent" => zun_client::PullPolicy::IfNotPresent,
        _ => zun_client::PullPolicy::Always,
    }
}

fn sharing(word: &str) -> Sharing {
    if word == "project" { Sharing::Project } else { Sharing::Function }
}

/// The option `pools` of a driver.
fn pools(
    option: &'static str,
    isolation: Isolation,
    entries: &BTreeMap<String, String>,
) -> Result<Vec<PoolTerms>, Invalid> {
    let read = entries.iter().map(|(name, size)| PoolTerms::parse(isolation, name, size));
    read.collect::<Result<_, _>>().map_err(|invalid| Invalid::new(option, invalid.to_string()))
}

fn address(option: &str, text: Option<&str>) -> Result<Option<GatewayAddress>, Invalid> {
    let invalid = || Invalid::new(option, "must be an IP address and a port");
    text.map(|text| text.parse().map(GatewayAddress::Network).map_err(|_| invalid())).transpose()
}

/// Half of the machine's memory, unless the operator says otherwise.
fn instance_memory_mib(options: &LocalOptions) -> u32 {
    const FALLBACK_MIB: u32 = 1024;
    if options.instance_memory_mib > 0 {
        return options.instance_memory_mib;
    }
    let total_kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    total_kib.and_then(|kib| u32::try_from(kib / 2048).ok()).unwrap_or(FALLBACK_MIB)
}

fn local(options: &LocalOptions, state_dir: &Path, tasks: &Tasks) -> Result<DriverSetup, ServiceError> {
    let memory_mib = instance_memory_mib(options);
    Ok(DriverSetup {
        isolation: Isolation::Process,
        driver: Arc::new(local_driver(options, state_dir, tasks)?),
        offer: Offer {
            sharing: Sharing::Project,
            memory_mib,
            memory_max_mib: memory_mib,
            instances: options.max_instances,
            booting: options.max_instances,
            boot_timeout: Duration::from_secs(options.boot_timeout),
        },
        pools: pools("[local] pools", Isolation::Process, &options.pools)?,
        gateway: Some(GatewayAddress::Local(state_dir.join("gateway.sock"))),
        watch: WATCH_PROCESSES,
    })
}

fn local_driver(options: &LocalOptions, state_dir: &Path, tasks: &Tasks) -> Result<LocalDriver, ServiceError> {
    let agent = match &options.agent_path {
        Some(path) => PathBuf::from(path),
        None => beside_this_program("lambda-agent")?,
    };
    let work_dir = match &options.work_dir {
        Some(path) => PathBuf::from(path),
        None => work_dir(state_dir),
    };
    let options =
        local::Options { agent, work_dir, python: PathBuf::from(&options.python), uid_base: options.sandbox_uid_base };
    Ok(LocalDriver::new(options, tasks.clone())?)
}

fn beside_this_program(name: &str) -> Result<PathBuf, ServiceError> {
    let this = std::env::current_exe().map_err(|source| ServiceError::Path {
        path: PathBuf::from(name),
        why: "cannot be found, because this program does not know where it is",
        source,
    })?;
    Ok(this.with_file_name(name))
}

/// Where instances live: below the state directory, unless sandboxes, which run as other users, could not get there.
fn work_dir(state_dir: &Path) -> PathBuf {
    let everybody_may_pass =
        |dir: &Path| std::fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0);
    let below = state_dir.join("instances");
    if !nix::unistd::geteuid().is_root() || state_dir.ancestors().skip(1).all(everybody_may_pass) {
        return below;
    }
    // One that is found again by the next run of the same state directory, which cleans it up.
    let mark = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, state_dir.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("lambda-instances-{}", mark.simple()))
}
