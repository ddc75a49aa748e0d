//! From the names of the configuration to the ids that Nova takes: image, flavor, network, security groups, server group.
//! What was found is kept for a minute, so that a boot costs no more than its own request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::future::Cache;
use uuid::Uuid;

use super::{Options, choose, classify};
use crate::driver::DriverError;
use crate::openstack::Session;
use crate::openstack::glance::{self, By, Image};
use crate::openstack::neutron::{self, Network, SECURITY_GROUPS, SecurityGroup};
use crate::openstack::nova::{self, Flavor, ServerGroup};

/// How long what was found is believed. A new image, flavor or network of the same name is used after that.
const BELIEVED: Duration = Duration::from_secs(60);

/// What a server is made of.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) image: String,
    pub(super) flavor: String,
    pub(super) network: String,
    pub(super) security_groups: Vec<String>,
    pub(super) server_group: Option<String>,
}

/// What the cloud has, as far as it does not depend on the instance.
#[derive(Debug)]
struct Found {
    image: Image,
    flavors: Vec<Flavor>,
    network: Network,
    security_groups: Vec<String>,
    server_group: Option<String>,
}

/// The ways to the services other than Nova.
#[derive(Debug)]
pub(super) struct Resolver {
    nova: nova::Client,
    neutron: neutron::Client,
    glance: glance::Client,
    /// Of one element: whoever asks first finds out, others wait for it.
    found: Cache<(), Arc<Found>>,
    /// Whether it was logged that servers have no security group.
    is_told: AtomicBool,
}

impl Resolver {
    pub(super) fn new(nova: nova::Client, neutron: Session, glance: Session) -> Self {
        let found = Cache::builder().max_capacity(1).time_to_live(BELIEVED).build();
        Self {
            nova,
            neutron: neutron::Client::new(neutron),
            glance: glance::Client::new(glance),
            found,
            is_told: AtomicBool::new(false),
        }
    }

    /// What a server with this memory in all is made of.
    pub(super) async fn resolve(&self, options: &Options, memory_mib: u32) -> Result<Resolved, DriverError> {
        let found = self.found.try_get_with((), self.find(options)).await.map_err(|error| again(&error))?;
        let flavor = choose::flavor(&found.flavors, &options.flavor, memory_mib, &found.image)
            .map_err(|none| DriverError::misconfigured(none.to_string()))?;
        Ok(Resolved {
            image: found.image.id.clone(),
            flavor: flavor.id.clone(),
            network: found.network.id.clone(),
            security_groups: found.security_groups.clone(),
            server_group: found.server_group.clone(),
        })
    }

    /// Looks everything up anew with the next server: something of it seems to be gone.
    pub(super) fn forget(&self) {
        self.found.invalidate_all();
    }

    async fn find(&self, options: &Options) -> Result<Arc<Found>, DriverError> {
        let image = self.image(options).await?;
        let network = self.network(&options.network).await?;
        let security_groups = self.security_groups(options, &network).await?;
        let server_group = self.server_group(options).await?;
        let flavors = self.nova.flavors().await.map_err(classify::refused)?;
        tracing::debug!(
            image.id = image.id,
            network.id = network.id,
            security_groups = ?security_groups,
            server_group.id = server_group,
            "servers are made from image {} on network {}",
            image.id,
            network.id,
        );
        Ok(Arc::new(Found { image, flavors, network, security_groups, server_group }))
    }

    /// By id, else the newest of that name, else the newest with that tag.
    async fn image(&self, options: &Options) -> Result<Image, DriverError> {
        let (wanted, owner) = (options.image.as_str(), options.image_owner.as_deref());
        let missing = || DriverError::misconfigured(format!("there is no active image '{wanted}' that we may use"));
        if is_id(wanted) {
            let image = self.glance.image(wanted).await.map_err(classify::refused)?;
            return image.filter(|image| image.status == "active").ok_or_else(missing);
        }
        for by in [By::Name(wanted), By::Tag(wanted)] {
            if let Some(image) = self.glance.newest(by, owner).await.map_err(classify::refused)? {
                return Ok(image);
            }
        }
        Err(missing())
    }

    async fn network(&self, wanted: &str) -> Result<Network, DriverError> {
        let missing = || DriverError::misconfigured(format!("there is no network '{wanted}' that we may use"));
        if is_id(wanted) {
            return self.neutron.network(wanted).await.map_err(classify::refused)?.ok_or_else(missing);
        }
        one(self.neutron.networks(wanted).await.map_err(classify::refused)?, "networks", wanted)?.ok_or_else(missing)
    }

    /// Those that are configured, or else one of our own that lets nothing in.
    async fn security_groups(&self, options: &Options, network: &Network) -> Result<Vec<String>, DriverError> {
        if !self.neutron.has_extension(SECURITY_GROUPS).await.map_err(classify::refused)? {
            if !options.security_groups.is_empty() {
                return Err(DriverError::misconfigured("Neutron has no security groups, but [nova] names some"));
            }
            if !self.is_told.swap(true, Ordering::Relaxed) {
                tracing::info!("Neutron has no security groups here: what reaches servers is up to their network");
            }
            return Ok(Vec::new());
        }
        if network.port_security_enabled == Some(false) {
            if !self.is_told.swap(true, Ordering::Relaxed) {
                tracing::info!(network.id = network.id, "network {} takes no security groups", network.id);
            }
            return Ok(Vec::new());
        }
        let mut ids = Vec::new();
        for wanted in &options.security_groups {
            let missing = || DriverError::misconfigured(format!("there is no security group '{wanted}'"));
            let group = if is_id(wanted) {
                self.neutron.security_group(wanted).await.map_err(classify::refused)?
            } else {
                one(self.neutron.security_groups(wanted).await.map_err(classify::refused)?, "security groups", wanted)?
            };
            ids.push(group.ok_or_else(missing)?.id);
        }
        if ids.is_empty() {
            ids.push(self.own_security_group(options).await?.id);
        }
        Ok(ids)
    }

    /// Workers that start at the same time may both make it: the least id is used by all, and whoever made another takes
    /// it away.
    async fn own_security_group(&self, options: &Options) -> Result<SecurityGroup, DriverError> {
        let name = options.own_name();
        let mut groups = self.neutron.security_groups(&name).await.map_err(classify::refused)?;
        let mut made = None;
        if groups.is_empty() {
            let group = self
                .neutron
                .create_security_group(&name, "Instances of functions: everything out, nothing in")
                .await
                .map_err(classify::refused)?;
            // An operator can have other rules in every new group.
            for rule in group.security_group_rules.iter().filter(|rule| rule.direction == "ingress") {
                self.neutron.delete_security_group_rule(&rule.id).await.map_err(classify::refused)?;
            }
            made = Some(group.id);
            groups = self.neutron.security_groups(&name).await.map_err(classify::refused)?;
        }
        let least = groups.into_iter().min_by(|a, b| a.id.cmp(&b.id));
        let group = least.ok_or_else(|| DriverError::Unavailable("a security group is gone at once".into()))?;
        if let Some(made) = made.filter(|made| *made != group.id) {
            self.neutron.delete_security_group(&made).await.map_err(classify::refused)?;
        }
        if group.security_group_rules.iter().any(|rule| rule.direction == "ingress") {
            tracing::warn!(
                security_group.id = group.id,
                "security group {} of instances lets something in; they need nothing",
                group.id
            );
        }
        Ok(group)
    }

    async fn server_group(&self, options: &Options) -> Result<Option<String>, DriverError> {
        let Some(policy) = &options.server_group_policy else { return Ok(None) };
        let name = format!("{}-{policy}", options.own_name());
        let of_that_name = |groups: Vec<ServerGroup>| {
            groups.into_iter().filter(|group| group.name == name).map(|group| group.id).min()
        };
        if let Some(id) = of_that_name(self.nova.server_groups().await.map_err(classify::refused)?) {
            return Ok(Some(id));
        }
        let made = self.nova.create_server_group(&name, policy).await.map_err(classify::refused)?;
        let least = of_that_name(self.nova.server_groups().await.map_err(classify::refused)?);
        let id = least.unwrap_or_else(|| made.id.clone());
        if id != made.id {
            self.nova.delete_server_group(&made.id).await.map_err(classify::refused)?;
        }
        Ok(Some(id))
    }
}

/// Names and tags that look like ids are taken for ids.
fn is_id(text: &str) -> bool {
    Uuid::try_parse(text).is_ok()
}

/// The only one of that name; none: there is none.
fn one<T>(found: Vec<T>, what: &str, name: &str) -> Result<Option<T>, DriverError> {
    if found.len() > 1 {
        let count = found.len();
        return Err(DriverError::misconfigured(format!("{count} {what} are called '{name}': give an id")));
    }
    Ok(found.into_iter().next())
}

/// An error that several boots wait for, for one of them.
fn again(error: &Arc<DriverError>) -> DriverError {
    match error.as_ref() {
        DriverError::Refused { refusal, text } => DriverError::Refused { refusal: *refusal, text: text.clone() },
        DriverError::Unavailable(_) => DriverError::Unavailable(Arc::clone(error).into()),
    }
}
