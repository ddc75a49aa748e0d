//! The shapes of Zun's bodies. What is sent conforms to Zun's own schema, which a test holds; whatever comes is read or
//! refused as [`OpenStackError::Protocol`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::SERVICE;
use crate::openstack::OpenStackError;

/// A container to be made. What is none is left to Zun.
#[derive(Clone, PartialEq, Serialize)]
pub struct NewContainer {
    /// At least two of letters, digits, `.`, `_` and `-`. Not unique.
    pub name: String,
    /// Name and tag, or Glance's name or id.
    pub image: String,
    /// Where the image is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_driver: Option<ImageDriver>,
    /// When it is pulled. By Zun's default policy only an administrator may say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// What is run instead of the image's command; empty: that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// In MiB.
    pub memory: u32,
    /// Its share of the processors, 0.1 to 16. Placement counts whole ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Its labels, on Zun's record and on Docker's.
    pub labels: BTreeMap<String, String>,
    /// Its host name.
    pub hostname: String,
    /// Neutron's network, by id or name; none: Zun takes the project's oldest, or else a shared one.
    #[serde(rename = "nets", skip_serializing_if = "Option::is_none", serialize_with = "nets")]
    pub network: Option<String>,
    /// Security groups, by id or name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    /// Where it has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Whether it has a standard input.
    pub interactive: bool,
    /// Whether Docker forgets it when it ends, and Zun with it why.
    pub auto_remove: bool,
}

/// Not what is in its environment.
impl std::fmt::Debug for NewContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewContainer").field("name", &self.name).field("image", &self.image).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Net<'a> {
    network: &'a str,
}

fn nets<S: Serializer>(network: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(network.iter().map(|network| Net { network }))
}

/// Where an image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageDriver {
    /// On the host, or in a registry.
    Docker,
    /// In Glance, as a tar of `docker save`.
    Glance,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// Before each container.
    Always,
    /// Where it is missing.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// A container as Zun has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Container {
    /// Zun's id.
    pub uuid: String,
    /// Its name; several can have one.
    pub name: String,
    /// What it is in.
    pub status: Status,
    /// Why, mostly for [`Status::Error`].
    #[serde(default)]
    pub status_reason: Option<String>,
    /// `Up 3 seconds`, `Exited(4) 3 seconds ago`: the only place where Zun tells how it ended.
    #[serde(default)]
    pub status_detail: Option<String>,
    /// What is being done with it right now, for example `container_starting`.
    #[serde(default)]
    pub task_state: Option<String>,
    /// Its labels.
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

fn or_default<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a container is in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Status {
    /// Ordered; its host may not have begun.
    Creating,
    /// Made, not started.
    Created,
    /// It runs, or ran when Zun last looked.
    Running,
    /// Its first process has ended.
    Stopped,
    /// Halted.
    Paused,
    /// On its way from stopped to running.
    Restarting,
    /// Being made anew.
    Rebuilding,
    /// Making or removing it failed.
    Error,
    /// On its way out.
    Deleting,
    /// Docker has forgotten it.
    Deleted,
    /// Docker could not remove it.
    Dead,
    /// Zun does not know, or says a word that we do not know.
    Unknown(String),
}

impl From<String> for Status {
    fn from(word: String) -> Self {
        match word.as_str() {
            "Creating" => Self::Creating,
            "Created" => Self::Created,
            "Running" => Self::Running,
            "Stopped" => Self::Stopped,
            "Paused" => Self::Paused,
            "Restarting" => Self::Restarting,
            "Rebuilding" => Self::Rebuilding,
            "Error" => Self::Error,
            "Deleting" => Self::Deleting,
            "Deleted" => Self::Deleted,
            "Dead" => Self::Dead,
            _ => Self::Unknown(word),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "Creating",
            Self::Created => "Created",
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::Paused => "Paused",
            Self::Restarting => "Restarting",
            Self::Rebuilding => "Rebuilding",
            Self::Error => "Error",
            Self::Deleting => "Deleting",
            Self::Deleted => "Deleted",
            Self::Dead => "Dead",
            Self::Unknown(word) => word,
        })
    }
}

/// One answer of a listing.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) containers: Vec<Container>,
    /// Where the next is, if there is one.
    #[serde(default)]
    pub(super) next: Option<String>,
}

/// Says where, but not what: the parser's own words quote the body.
fn unreadable(what: &str, error: &serde_json::Error) -> OpenStackError {
    let detail = format!("{what}: {:?} error at line {} column {}", error.classify(), error.line(), error.column());
    OpenStackError::protocol(SERVICE.name(), detail)
}

pub(super) fn encode(container: &NewContainer) -> Result<Vec<u8>, OpenStackError> {
    serde_json::to_vec(container)
        .map_err(|error| OpenStackError::Invalid(format!("the container cannot be written down: {error}")))
}

pub(super) fn container(body: &[u8]) -> Result<Container, OpenStackError> {
    serde_json::from_slice(body).map_err(|error| unreadable("a container", &error))
}

pub(super) fn page(body: &[u8]) -> Result<Page, OpenStackError> {
    serde_json::from_slice(body).map_err(|error| unreadable("a list of containers", &error))
}
