//! What Zun's words mean. Zun says most of its failures only as text, some of which are Docker's, Neutron's or
//! Placement's; a text that is not known here is a passing fault.

use std::time::Duration;

use super::super::{DriverError, Observed, Refusal};
use crate::openstack::OpenStackError;
use crate::openstack::zun::{Container, Status};

/// Words that say why, in lower case, and what they mean. The first that is found counts.
const REASONS: [(Refusal, &[&str]); 3] = [
    (Refusal::Quota, &["quota exceeded", "exceeds quota", "over quota"]),
    (
        Refusal::Capacity,
        &[
            // Placement found none.
            "not enough hosts",
            "no valid host",
            // The host that was chosen has filled up meanwhile.
            "insufficient compute resources",
            // Neutron's pool is used up.
            "no more ip addresses",
            "no more fixed ips",
        ],
    ),
    (
        Refusal::Misconfigured,
        &[
            // Images: `never` and it is not there; no registry; no such name; no right.
            "not present with pull policy",
            "cannot download image",
            "error on pulling image",
            "could not be found",
            "no such image",
            "pull access denied",
            "manifest unknown",
            "manifest for",
            "repository does not exist",
            "invalid reference format",
            // The image's command.
            "executable file not found",
            "no such file or directory",
            "permission denied",
            "oci runtime create failed",
            "no command specified",
            // Networks.
            "multiple neutron subnets",
            "multiple neutron networks",
            "no neutron network available",
            "multiple security group",
            "security group",
            // What this host cannot do.
            "disk quota feature",
            "unknown runtime",
            "minimum memory limit",
        ],
    ),
];

/// What the cloud's words mean; none: nothing that lasts.
fn meaning(text: &str) -> Option<Refusal> {
    let text = text.to_lowercase();
    REASONS.iter().find(|(_, words)| words.iter().any(|word| text.contains(word))).map(|(refusal, _)| *refusal)
}

/// Why an order was not taken.
pub(super) fn refused(error: OpenStackError) -> DriverError {
    let Some(text) = detail(&error) else { return DriverError::Unavailable(error.into()) };
    // Zun refuses an order at once for what will not change; the exceptions say so in words.
    let refusal = meaning(text).unwrap_or(Refusal::Misconfigured);
    let advice = advice(text).map(|advice| format!("; {advice}")).unwrap_or_default();
    DriverError::Refused { refusal, text: format!("Zun refuses the container: {text}{advice}") }
}

/// Why a question or another order failed.
pub(super) fn failed(error: OpenStackError) -> DriverError {
    match &error {
        OpenStackError::Unauthorized(text) | OpenStackError::Forbidden(text) | OpenStackError::Invalid(text) => {
            DriverError::misconfigured(format!("Zun cannot be used: {text}"))
        }
        OpenStackError::NotFound(_)
        | OpenStackError::Conflict(_)
        | OpenStackError::OverLimit { .. }
        | OpenStackError::Unavailable { .. }
        | OpenStackError::Protocol { .. } => DriverError::Unavailable(error.into()),
    }
}

/// What Zun said, where it is an answer to what was asked; none: it had no answer.
fn detail(error: &OpenStackError) -> Option<&str> {
    match error {
        OpenStackError::NotFound(text)
        | OpenStackError::Unauthorized(text)
        | OpenStackError::Forbidden(text)
        | OpenStackError::Conflict(text)
        | OpenStackError::Invalid(text) => Some(text),
        // Too many requests will pass; a quota that is told with this status will not.
        OpenStackError::OverLimit { detail, .. } => (meaning(detail) == Some(Refusal::Quota)).then_some(detail),
        OpenStackError::Unavailable { .. } | OpenStackError::Protocol { .. } => None,
    }
}

/// What the operator can do about it.
fn advice(text: &str) -> Option<&'static str> {
    [
        ("image_pull_policy", "allow it in Zun's policy or unset [zun] image_pull_policy"),
        ("field 'image_driver'", "see image_driver_list in zun.conf"),
        ("field 'memory'", "a container of Zun has at most 8192 MiB, the overhead included"),
    ]
    .into_iter()
    .find_map(|(word, advice)| text.contains(word).then_some(advice))
}

/// What a container's record says about the instance.
pub(super) fn observed(container: &Container) -> Observed {
    match &container.status {
        Status::Creating | Status::Created | Status::Rebuilding => Observed::Building,
        Status::Running | Status::Paused | Status::Restarting => Observed::Active,
        // Its host is away, or Zun is newer than we are: time will tell, or the gateway.
        Status::Unknown(_) => Observed::Active,
        Status::Stopped => Observed::Stopped(format!("the container has ended: {}", ended(container))),
        Status::Dead => Observed::Stopped("Docker has given the container up".to_owned()),
        Status::Deleting | Status::Deleted => Observed::Stopped("the container is removed".to_owned()),
        Status::Error => {
            let text = container.status_reason.as_deref().unwrap_or("no reason is given");
            let said = format!("Zun could not start the container: {}", short(text));
            match meaning(text) {
                Some(refusal) => Observed::Refused(refusal, said),
                None => Observed::Stopped(said),
            }
        }
    }
}

/// How it ended: `Exited(4) 3 seconds ago`.
fn ended(container: &Container) -> String {
    let parts = [container.status_detail.as_deref(), container.status_reason.as_deref()];
    let said: Vec<_> = parts.into_iter().flatten().filter(|text| !text.is_empty()).map(short).collect();
    if said.is_empty() { "Zun does not say how".to_owned() } else { said.join("; ") }
}

/// Docker's client puts an address and an id before what matters; no more of a text than a line.
fn short(text: &str) -> String {
    const MAX: usize = 400;
    let text = match text.find("Client Error for http") {
        Some(start) => text.get(start..).and_then(|rest| rest.split_once(": ")).map_or(text, |(_, rest)| rest),
        None => text,
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX).collect()
}

/// What to say of a container that Zun has not brought up in time.
pub(super) fn never_ran(container: &Container, after: Duration) -> String {
    let doing = container.task_state.as_deref().map(|task| format!(" ({task})")).unwrap_or_default();
    format!(
        "Zun has not started the container within {} s, it is still {}{doing}; is zun-compute alive, and is the image there?",
        after.as_secs(),
        container.status,
    )
}

/// What to say of a container that does not go.
pub(super) fn never_left(container: &Container) -> String {
    let doing = container.task_state.as_deref().map(|task| format!(" ({task})")).unwrap_or_default();
    let why = container.status_reason.as_deref().map(|why| format!(": {}", short(why))).unwrap_or_default();
    format!("Zun does not remove container {}, which is {}{doing}{why}", container.uuid, container.status)
}

/// Whether an order to remove it has an effect now. Zun refuses it for a container that is being made, and takes it but
/// fails while one is being started.
pub(super) fn can_be_removed(container: &Container) -> bool {
    match container.status {
        Status::Creating | Status::Deleting => false,
        Status::Created
        | Status::Running
        | Status::Stopped
        | Status::Paused
        | Status::Restarting
        | Status::Rebuilding
        | Status::Error
        | Status::Deleted
        | Status::Dead
        | Status::Unknown(_) => container.task_state.is_none(),
    }
}
