//! Neutron v2.0: networks and security groups.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::json::{Operation, found};
use super::{OpenStackError, Service, Session};

/// In catalogs.
pub const SERVICE: Service = Service(&["network"]);

/// The extension that brings security groups.
pub const SECURITY_GROUPS: &str = "security-group";

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name, not unique.
    #[serde(default)]
    pub name: String,
    /// Whether its ports are filtered; none: Neutron does not say.
    #[serde(default)]
    pub port_security_enabled: Option<bool>,
}

/// What may reach a port and what it may reach.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SecurityGroup {
    /// Its id.
    pub id: String,
    /// Its name, not unique.
    #[serde(default)]
    pub name: String,
    /// Its rules; what none allows is dropped.
    #[serde(default)]
    pub security_group_rules: Vec<SecurityGroupRule>,
}

/// A rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SecurityGroupRule {
    /// Its id.
    #[serde(default)]
    pub id: String,
    /// `ingress` or `egress`.
    pub direction: String,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Port {
    /// Its id.
    pub id: String,
    /// What it belongs to: a server's id.
    #[serde(default)]
    pub device_id: String,
}

#[derive(Deserialize)]
struct Networks {
    networks: Vec<Network>,
}

#[derive(Deserialize)]
struct OneNetwork {
    network: Network,
}

#[derive(Deserialize)]
struct SecurityGroups {
    security_groups: Vec<SecurityGroup>,
}

#[derive(Deserialize)]
struct OneSecurityGroup {
    security_group: SecurityGroup,
}

#[derive(Deserialize)]
struct Ports {
    ports: Vec<Port>,
}

#[derive(Serialize)]
struct NewSecurityGroup<'a> {
    name: &'a str,
    description: &'a str,
}

/// Talks to Neutron.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
}

impl Client {
    /// On this session.
    #[must_use]
    pub const fn new(session: Session) -> Self {
        Self { session }
    }

    /// The networks of that name that may be used.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn networks(&self, name: &str) -> Result<Vec<Network>, OpenStackError> {
        let operation = operation("networks");
        let answer: Networks = operation.get(&self.session, &["v2.0", "networks"], &[("name", name)]).await?;
        Ok(answer.networks)
    }

    /// A network by its id; none: there is no such network for us.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn network(&self, id: &str) -> Result<Option<Network>, OpenStackError> {
        let answer = operation("network").get(&self.session, &["v2.0", "networks", id], &[]).await;
        Ok(found(answer)?.map(|answer: OneNetwork| answer.network))
    }

    /// Whether Neutron has an extension, by its alias.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn has_extension(&self, alias: &str) -> Result<bool, OpenStackError> {
        let request = operation("extension").request(reqwest::Method::GET, &["v2.0", "extensions", alias]);
        Ok(found(self.session.send(&request).await)?.is_some())
    }

    /// The security groups of that name.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn security_groups(&self, name: &str) -> Result<Vec<SecurityGroup>, OpenStackError> {
        let operation = operation("security_groups");
        let path = ["v2.0", "security-groups"];
        let answer: SecurityGroups = operation.get(&self.session, &path, &[("name", name)]).await?;
        Ok(answer.security_groups)
    }

    /// A security group by its id; none: there is no such group for us.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn security_group(&self, id: &str) -> Result<Option<SecurityGroup>, OpenStackError> {
        let answer = operation("security_group").get(&self.session, &["v2.0", "security-groups", id], &[]).await;
        Ok(found(answer)?.map(|answer: OneSecurityGroup| answer.security_group))
    }

    /// Makes a security group. Neutron lets a new one out and nothing in, unless its operator has other default rules.
    ///
    /// # Errors
    /// See [`OpenStackError`]; [`OpenStackError::Conflict`] when the quota is used up.
    pub async fn create_security_group(&self, name: &str, description: &str) -> Result<SecurityGroup, OpenStackError> {
        let operation = operation("create_security_group");
        let body = json!({"security_group": NewSecurityGroup { name, description }});
        let answer = operation.post(&self.session, &["v2.0", "security-groups"], &body).await?;
        let made: OneSecurityGroup = operation.read(&answer)?;
        Ok(made.security_group)
    }

    /// Removes a security group. Succeeds when it is not there.
    ///
    /// # Errors
    /// See [`OpenStackError`]; [`OpenStackError::Conflict`] when a port uses it.
    pub async fn delete_security_group(&self, id: &str) -> Result<(), OpenStackError> {
        operation("delete_security_group").delete(&self.session, &["v2.0", "security-groups", id]).await
    }

    /// Takes a rule out of a security group. Succeeds when it is not there.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn delete_security_group_rule(&self, id: &str) -> Result<(), OpenStackError> {
        operation("delete_security_group_rule").delete(&self.session, &["v2.0", "security-group-rules", id]).await
    }

    /// The ports of a server.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn ports_of(&self, server_id: &str) -> Result<Vec<Port>, OpenStackError> {
        let query = [("device_id", server_id)];
        let answer: Ports = operation("ports").get(&self.session, &["v2.0", "ports"], &query).await?;
        Ok(answer.ports)
    }
}

const fn operation(name: &'static str) -> Operation {
    Operation { service: SERVICE, microversion: None, name }
}
