//! The shapes of Nova's bodies.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A server to be built. What is empty or none is left out, and Nova's default holds.
#[derive(Clone, Default, Serialize)]
pub struct NewServer {
    /// Its name, not unique.
    pub name: String,
    /// Its host name inside, without a domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The image's id.
    #[serde(rename = "imageRef")]
    pub image: String,
    /// The flavor's id.
    #[serde(rename = "flavorRef")]
    pub flavor: String,
    /// Networks that it gets a port of its own on.
    pub networks: Vec<ServerNetwork>,
    /// Security groups of those ports, by name or id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<SecurityGroupName>,
    /// Where it is built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// At most 128, keys and values of at most 255 characters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// At most 50, of at most 60 characters, without comma and slash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What the guest finds as its user data, in base64; at most [`USER_DATA_MAX`](super::USER_DATA_MAX) characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Whether metadata and user data are on a disk of the guest.
    pub config_drive: bool,
}

/// User data may hold secrets.
impl fmt::Debug for NewServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewServer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A network of a new server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerNetwork {
    /// Its id.
    pub uuid: String,
}

/// A security group of a new server.
#[derive(Clone, Debug, Serialize)]
pub struct SecurityGroupName {
    /// Its name or id.
    pub name: String,
}

/// What the scheduler should heed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Hints {
    /// The id of the server group that the server joins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// A server as Nova shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Server {
    /// Its id.
    pub id: String,
    /// What it is doing.
    pub status: ServerStatus,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// When it was asked for, as text that can be ordered.
    #[serde(default)]
    pub created: String,
    /// Why it is in [`ServerStatus::Error`].
    #[serde(default)]
    pub fault: Option<Fault>,
    /// What Nova is doing with it, for example `deleting`.
    #[serde(default, rename = "OS-EXT-STS:task_state")]
    pub task_state: Option<String>,
}

/// What a server is doing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum ServerStatus {
    /// It runs.
    Active,
    /// It is being built.
    Build,
    /// It runs, and somebody has it moved, resized, rebuilt or started anew.
    Busy(String),
    /// It does not run: somebody stopped, paused, suspended, shelved or rescued it.
    Halted(String),
    /// It is deleted, and Nova keeps it for a while.
    SoftDeleted,
    /// It is deleted.
    Deleted,
    /// Building it, or something that was done with it later, has failed.
    Error,
    /// Something that this client has not heard of, or `UNKNOWN`: nothing is known of it at present.
    Unknown(String),
}

impl From<String> for ServerStatus {
    fn from(text: String) -> Self {
        match text.as_str() {
            "ACTIVE" => Self::Active,
            "BUILD" => Self::Build,
            "ERROR" => Self::Error,
            "DELETED" => Self::Deleted,
            "SOFT_DELETED" => Self::SoftDeleted,
            "SHUTOFF" | "PAUSED" | "SUSPENDED" | "SHELVED" | "SHELVED_OFFLOADED" | "RESCUE" => Self::Halted(text),
            "REBOOT" | "HARD_REBOOT" | "REBUILD" | "RESIZE" | "VERIFY_RESIZE" | "REVERT_RESIZE" | "MIGRATING"
            | "PASSWORD" => Self::Busy(text),
            _ => Self::Unknown(text),
        }
    }
}

/// Why a server is in error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// As in HTTP.
    #[serde(default)]
    pub code: u16,
    /// In words.
    #[serde(default)]
    pub message: String,
}

/// A size of server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Flavor {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Memory, in MiB.
    pub ram: u32,
    /// Processors.
    pub vcpus: u32,
    /// The root disk, in GiB; 0: as large as the image.
    pub disk: u32,
    /// Whether it is closed for new servers.
    #[serde(default, rename = "OS-FLV-DISABLED:disabled")]
    pub is_disabled: bool,
    /// What else it asks for and gives.
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
}

/// Servers that are placed with regard to each other.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerGroup {
    /// Its id.
    pub id: String,
    /// Its name, not unique.
    pub name: String,
    /// How its servers are placed.
    #[serde(default)]
    pub policy: String,
}

#[derive(Deserialize)]
pub(super) struct Created {
    pub(super) server: CreatedServer,
}

#[derive(Deserialize)]
pub(super) struct CreatedServer {
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(super) struct Shown {
    pub(super) server: Server,
}

#[derive(Deserialize)]
pub(super) struct Servers {
    pub(super) servers: Vec<Server>,
    #[serde(default, rename = "servers_links")]
    pub(super) links: Vec<Link>,
}

#[derive(Deserialize)]
pub(super) struct Flavors {
    pub(super) flavors: Vec<Flavor>,
    #[serde(default, rename = "flavors_links")]
    pub(super) links: Vec<Link>,
}

#[derive(Deserialize)]
pub(super) struct Link {
    #[serde(default)]
    rel: String,
}

/// Whether there is another page.
pub(super) fn has_next(links: &[Link]) -> bool {
    links.iter().any(|link| link.rel == "next")
}

#[derive(Deserialize)]
pub(super) struct Console {
    pub(super) output: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ServerGroups {
    pub(super) server_groups: Vec<ServerGroup>,
}

#[derive(Deserialize)]
pub(super) struct MadeGroup {
    pub(super) server_group: ServerGroup,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_nova_is_known_and_a_new_one_is_kept() {
        let status = |text: &str| ServerStatus::from(text.to_owned());
        assert_eq!(status("ACTIVE"), ServerStatus::Active);
        assert_eq!(status("SHUTOFF"), ServerStatus::Halted("SHUTOFF".to_owned()));
        assert_eq!(status("REBOOT"), ServerStatus::Busy("REBOOT".to_owned()));
        assert_eq!(status("UNKNOWN"), ServerStatus::Unknown("UNKNOWN".to_owned()));
        assert_eq!(status("FROBBED"), ServerStatus::Unknown("FROBBED".to_owned()));
    }

    #[test]
    fn a_server_of_a_cell_that_is_down_can_be_read() {
        // At 2.69 and later it is shown with these alone.
        let text =
            r#"{"server":{"id":"i","status":"UNKNOWN","created":"2026-01-01T00:00:00Z","tenant_id":"t","links":[]}}"#;
        let shown: Shown = serde_json::from_str(text).unwrap();
        assert_eq!(shown.server.status, ServerStatus::Unknown("UNKNOWN".to_owned()));
    }

    #[test]
    fn neither_a_token_in_user_data_nor_other_bodies_are_in_debug_output() {
        let server = NewServer { user_data: Some("c2VjcmV0".to_owned()), ..NewServer::default() };
        assert!(!format!("{server:?}").contains("c2VjcmV0"));
    }
}
