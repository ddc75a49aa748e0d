//! The server that is asked for: how its tags, metadata and user data are made of an instance's spec.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::resolve::Resolved;
use crate::driver::{DriverError, InstanceSpec};
use crate::model::InstanceId;
use crate::openstack::nova::{NewServer, SecurityGroupName, ServerNetwork, USER_DATA_MAX};

/// First line of the user data, by which the guest's init knows that it is for the agent.
const FIRST_LINE: &str = "#lambda-agent";
/// Before the instance's id, in a tag.
const INSTANCE_TAG: &str = "lambda-instance=";

/// The tag of every server of a deployment.
pub(super) fn deployment_tag(deployment: &str) -> String {
    format!("lambda-deployment={deployment}")
}

/// The tag of an instance's server.
pub(super) fn instance_tag(id: InstanceId) -> String {
    format!("{INSTANCE_TAG}{id}")
}

/// Whose server it is, by its tags; none: it is not ours.
pub(super) fn instance_of(tags: &[String]) -> Option<InstanceId> {
    tags.iter().find_map(|tag| tag.strip_prefix(INSTANCE_TAG)?.parse().ok())
}

/// What the guest finds as its user data: the agent's environment, a line for each variable.
fn user_data(spec: &InstanceSpec) -> Result<String, DriverError> {
    let mut text = format!("{FIRST_LINE}\n");
    for (name, value) in spec.agent_environment() {
        if value.contains(['\n', '\r', '\0']) {
            return Err(DriverError::misconfigured(format!("{name} has a line break in it")));
        }
        text.push_str(&format!("{name}={value}\n"));
    }
    let encoded = STANDARD.encode(text);
    if encoded.len() > USER_DATA_MAX {
        return Err(DriverError::misconfigured("what the agent is told does not fit into a server's user data"));
    }
    Ok(encoded)
}

/// The server for an instance.
pub(super) fn server(
    spec: &InstanceSpec,
    deployment: &str,
    availability_zone: Option<&str>,
    metadata: &BTreeMap<String, String>,
    resolved: &Resolved,
) -> Result<NewServer, DriverError> {
    let name = format!("lambda-{}", spec.id);
    let mut metadata = metadata.clone();
    let mut tell = |key: &str, value: String| {
        metadata.insert(key.to_owned(), value);
    };
    tell("lambda_deployment", deployment.to_owned());
    tell("lambda_instance", spec.id.to_string());
    if let Some(project) = &spec.project_id {
        tell("lambda_project", project.as_str().to_owned());
    }
    tell("lambda_runtime", spec.runtime.to_string());
    if let Some(function) = spec.function_id {
        tell("lambda_function", function.to_string());
    }
    Ok(NewServer {
        hostname: Some(name.clone()),
        name,
        image: resolved.image.clone(),
        flavor: resolved.flavor.clone(),
        networks: vec![ServerNetwork { uuid: resolved.network.clone() }],
        security_groups: resolved.security_groups.iter().map(|name| SecurityGroupName { name: name.clone() }).collect(),
        availability_zone: availability_zone.map(str::to_owned),
        metadata,
        tags: vec![deployment_tag(deployment), instance_tag(spec.id)],
        user_data: Some(user_data(spec)?),
        config_drive: true,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::driver::GatewayAccess;
    use crate::model::runtime::RuntimeName;
    use crate::model::{FunctionId, ProjectId};
    use crate::openstack::nova::{Hints, order_body};

    /// Nova's own schema of the request.
    const SCHEMA: &str = include_str!("../../../tests/fixtures/nova-34.0.0-server-create-2.94.json");

    fn spec() -> InstanceSpec {
        InstanceSpec {
            id: InstanceId::generate(),
            project_id: Some(ProjectId::parse("5a1f0e9c8b7d4e6fa1b2c3d4e5f60718").unwrap()),
            function_id: Some(FunctionId::generate()),
            runtime: RuntimeName::parse("python3").unwrap(),
            memory_mib: 384,
            gateway: GatewayAccess { address: "10.0.0.1:9071".parse().unwrap(), fingerprint: Some("ab".repeat(32)) },
            token: "one-time".to_owned(),
        }
    }

    fn resolved() -> Resolved {
        let id = |n: u128| uuid::Uuid::from_u128(n).to_string();
        Resolved {
            image: id(1),
            flavor: "256".to_owned(),
            network: id(2),
            security_groups: vec![id(3)],
            server_group: Some(id(4)),
        }
    }

    fn decoded(server: &NewServer) -> String {
        String::from_utf8(STANDARD.decode(server.user_data.as_ref().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn novas_own_schema_takes_the_body() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let deployment = uuid::Uuid::new_v4().to_string();
        let extra = BTreeMap::from([("cost-center".to_owned(), "7".to_owned())]);
        let full = server(&spec(), &deployment, Some("az1"), &extra, &resolved()).unwrap();
        let bare = InstanceSpec { function_id: None, ..spec() };
        let none = Resolved { security_groups: Vec::new(), server_group: None, ..resolved() };
        let bare = server(&bare, &deployment, None, &BTreeMap::new(), &none).unwrap();
        for (server, group) in [(full, resolved().server_group), (bare, None)] {
            let body = order_body(&server, &Hints { group });
            let complaints: Vec<_> = validator.iter_errors(&body).map(|error| error.to_string()).collect();
            assert!(complaints.is_empty(), "{complaints:?}");
        }
        // And it does look.
        let mut wrong =
            order_body(&server(&spec(), &deployment, None, &extra, &resolved()).unwrap(), &Hints::default());
        wrong["server"]["tags"][0] = "a,b".into();
        assert!(!validator.is_valid(&wrong));
    }

    #[test]
    fn an_instance_is_found_again_by_its_tags() {
        let spec = spec();
        let server = server(&spec, "d", None, &BTreeMap::new(), &resolved()).unwrap();
        assert_eq!(server.tags, ["lambda-deployment=d".to_owned(), format!("lambda-instance={}", spec.id)]);
        assert_eq!(instance_of(&server.tags), Some(spec.id));
        assert_eq!(instance_of(&["lambda-deployment=d".to_owned(), "lambda-instance=x".to_owned()]), None);
        let longest = deployment_tag(&"d".repeat(42));
        assert!(longest.len() <= 60 && server.tags[1].len() <= 60, "{longest}");
    }

    #[test]
    fn the_agent_is_told_all_it_needs_and_the_operator_no_secret() {
        let spec = spec();
        let server = server(&spec, "d", None, &BTreeMap::new(), &resolved()).unwrap();
        let text = decoded(&server);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#lambda-agent"));
        let told: Vec<(String, String)> = lines
            .map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
            .collect();
        let expected: Vec<(String, String)> =
            spec.agent_environment().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(told, expected);
        assert!(text.ends_with('\n') && text.contains("one-time"));
        assert!(server.metadata.values().all(|value| !value.contains("one-time") && value.len() <= 255));
        assert_eq!(server.metadata["lambda_project"], spec.project_id.unwrap().as_str());
    }

    #[test]
    fn nothing_can_add_a_line_to_what_the_agent_is_told() {
        let spec = InstanceSpec { token: "t\nLAMBDA_AGENT_GATEWAY=192.0.2.1:1".to_owned(), ..spec() };
        assert!(matches!(server(&spec, "d", None, &BTreeMap::new(), &resolved()), Err(DriverError::Refused { .. })));
    }
}
