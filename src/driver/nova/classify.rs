//! What Nova's words mean: which refusal it is, what a server's status says of the instance.

use crate::driver::{DriverError, Observed, Refusal};
use crate::openstack::OpenStackError;
use crate::openstack::nova::{Fault, Server, ServerStatus};

/// Of servers that are being deleted, in `task_state`.
pub(super) const DELETING: &str = "deleting";

/// What a refused order means.
pub(super) fn refused(error: OpenStackError) -> DriverError {
    let refusal = match &error {
        OpenStackError::Unavailable { .. } | OpenStackError::OverLimit { .. } | OpenStackError::Protocol { .. } => None,
        // Nova names what it does not find, and what it finds not to fit, by a 400; and a used up quota by a 403.
        OpenStackError::Invalid(text)
        | OpenStackError::Forbidden(text)
        | OpenStackError::Conflict(text)
        | OpenStackError::NotFound(text) => Some(by_words(text).unwrap_or(Refusal::Misconfigured)),
        OpenStackError::Unauthorized(_) => Some(Refusal::Misconfigured),
    };
    match refusal {
        Some(refusal) => DriverError::Refused { refusal, text: error.to_string() },
        None => DriverError::Unavailable(error.into()),
    }
}

/// What a server in this state is as an instance; none: Nova cannot tell at present.
pub(super) fn observed(server: &Server) -> Option<Observed> {
    Some(match &server.status {
        ServerStatus::Active | ServerStatus::Busy(_) => Observed::Active,
        ServerStatus::Build => Observed::Building,
        ServerStatus::Halted(status) => Observed::Stopped(format!("the server is {}", status.to_ascii_lowercase())),
        ServerStatus::Deleted | ServerStatus::SoftDeleted => Observed::Stopped("the server was deleted".to_owned()),
        ServerStatus::Error => in_error(server.fault.as_ref()),
        ServerStatus::Unknown(_) => return None,
    })
}

fn in_error(fault: Option<&Fault>) -> Observed {
    let words = fault.map_or("", |fault| fault.message.trim());
    let text = if words.is_empty() { "the server is in error" } else { words };
    match by_words(words) {
        Some(refusal) => Observed::Refused(refusal, text.to_owned()),
        None => Observed::Stopped(text.to_owned()),
    }
}

/// Nova has no codes for why it could not build a server: its sentences are all there is. They are those of the releases
/// from Yoga to 2026.2; a sentence that is not known here costs a less exact reason, nothing else.
fn by_words(text: &str) -> Option<Refusal> {
    const QUOTA: [&str; 4] =
        ["quota exceeded", "maximum number of ports exceeded", "quota_exceeded", "too many servers in group"];
    const CAPACITY: [&str; 8] = [
        "no valid host",
        "exhausted all hosts",
        "exceeded maximum number of retries",
        "insufficient compute resources",
        "no fixed ip",
        "no more ip addresses",
        "no more available ip addresses",
        "zero fixed ips available",
    ];
    const MISCONFIGURED: [&str; 8] = [
        "could not be found",
        "can not find requested image",
        "could not find",
        "is not active",
        "is unacceptable",
        "is too small",
        "is not valid",
        "requires a subnet",
    ];
    let text = text.to_ascii_lowercase();
    let says = |sentences: &[&str]| sentences.iter().any(|sentence| text.contains(sentence));
    if says(&QUOTA) {
        Some(Refusal::Quota)
    } else if says(&CAPACITY) {
        Some(Refusal::Capacity)
    } else if says(&MISCONFIGURED) {
        Some(Refusal::Misconfigured)
    } else {
        None
    }
}

/// Whether an order was refused because its server group is full.
pub(super) fn group_is_full(error: &OpenStackError) -> bool {
    matches!(error, OpenStackError::Forbidden(text) if text.contains("too many servers in group"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(status: &str, fault: Option<&str>) -> Server {
        Server {
            id: "s".to_owned(),
            status: status.to_owned().into(),
            tags: Vec::new(),
            created: String::new(),
            fault: fault.map(|message| Fault { code: 500, message: message.to_owned() }),
            task_state: None,
        }
    }

    #[test]
    fn what_the_real_nova_says_to_an_order_is_understood() {
        let invalid = |text: &str| OpenStackError::Invalid(text.to_owned());
        let forbidden = |text: &str| OpenStackError::Forbidden(text.to_owned());
        let conflict = |text: &str| OpenStackError::Conflict(text.to_owned());
        for (error, expected) in [
            (invalid("Can not find requested image"), Refusal::Misconfigured),
            (invalid("Flavor nope could not be found."), Refusal::Misconfigured),
            (invalid("Network 1 could not be found."), Refusal::Misconfigured),
            (invalid("The requested availability zone is not available"), Refusal::Misconfigured),
            (invalid("Flavor's disk is too small for requested image."), Refusal::Misconfigured),
            (forbidden("Quota exceeded for instances: Requested 1, but already used 0 of 0 instances"), Refusal::Quota),
            (forbidden("Quota exceeded, too many servers in group"), Refusal::Quota),
            (forbidden("Maximum number of ports exceeded"), Refusal::Quota),
            (forbidden("Policy doesn't allow os_compute_api:servers:create to be performed."), Refusal::Misconfigured),
            (conflict("No fixed IP addresses available for network: n"), Refusal::Capacity),
            (OpenStackError::Unauthorized("no".to_owned()), Refusal::Misconfigured),
        ] {
            let text = error.to_string();
            let DriverError::Refused { refusal, text: told } = refused(error) else { panic!("{text}") };
            assert_eq!((refusal, told.as_str()), (expected, text.as_str()));
        }
        let passing = OpenStackError::OverLimit { detail: "slow down".to_owned(), retry_after: None };
        assert!(matches!(refused(passing), DriverError::Unavailable(_)));
    }

    #[test]
    fn every_state_of_a_server_says_something_of_the_instance() {
        let stopped = |text: &str| Some(Observed::Stopped(text.to_owned()));
        for (status, fault, expected) in [
            ("BUILD", None, Some(Observed::Building)),
            ("ACTIVE", None, Some(Observed::Active)),
            ("MIGRATING", None, Some(Observed::Active)),
            ("SHUTOFF", None, stopped("the server is shutoff")),
            ("PAUSED", None, stopped("the server is paused")),
            ("DELETED", None, stopped("the server was deleted")),
            ("SOFT_DELETED", None, stopped("the server was deleted")),
            ("UNKNOWN", None, None),
            ("ERROR", None, stopped("the server is in error")),
            ("ERROR", Some("libvirtError: it broke"), stopped("libvirtError: it broke")),
            (
                "ERROR",
                Some("No valid host was found. "),
                Some(Observed::Refused(Refusal::Capacity, "No valid host was found.".to_owned())),
            ),
            (
                "ERROR",
                Some("Exhausted all hosts available for retrying build failures for instance i."),
                Some(Observed::Refused(
                    Refusal::Capacity,
                    "Exhausted all hosts available for retrying build failures for instance i.".to_owned(),
                )),
            ),
            (
                "ERROR",
                Some("Build of instance i aborted: Image x could not be found."),
                Some(Observed::Refused(
                    Refusal::Misconfigured,
                    "Build of instance i aborted: Image x could not be found.".to_owned(),
                )),
            ),
            (
                "ERROR",
                Some("Build of instance i aborted: Quota exceeded for resources: ['port']."),
                Some(Observed::Refused(
                    Refusal::Quota,
                    "Build of instance i aborted: Quota exceeded for resources: ['port'].".to_owned(),
                )),
            ),
        ] {
            assert_eq!(observed(&server(status, fault)), expected, "{status} {fault:?}");
        }
    }

    #[test]
    fn only_a_full_group_is_one() {
        assert!(group_is_full(&OpenStackError::Forbidden("Quota exceeded, too many servers in group".to_owned())));
        assert!(!group_is_full(&OpenStackError::Forbidden("Quota exceeded for cores".to_owned())));
    }
}
