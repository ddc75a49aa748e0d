//! One type per kind of id, so that none can be given where another is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Invalid, Timestamp};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id, ordered by the time of its making (UUID version 7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Takes a UUID that is known to be of this kind.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Uuid::try_parse(text).map(Self).map_err(|_| Invalid::new($field, "is not a UUID"))
            }
        }
    };
}

uuid_id!(
    /// A function, for as long as it lives; its name may be given to another one after its deletion.
    FunctionId, "function_id"
);
uuid_id!(
    /// A binding of events to a function.
    TriggerId, "trigger_id"
);
uuid_id!(
    /// One event handled by one function.
    ExecutionId, "execution_id"
);
uuid_id!(
    /// One run of a `lambda-worker` process. A process that starts again is another worker.
    WorkerId, "worker_id"
);
uuid_id!(
    /// One booted instance.
    InstanceId, "instance_id"
);
uuid_id!(
    /// All that share one store: what they boot is told from others' by it.
    DeploymentId, "deployment_id"
);

/// Namespace of the ids that are derived from a queue message and a function.
const EXECUTION_NAMESPACE: Uuid = Uuid::from_u128(0x8d0f_6c0e_5b7a_4b8e_9d3a_6f5e_2c41_a7d9);

impl ExecutionId {
    /// The id of the execution of one queue message by one function. It depends on nothing else, so a message that is
    /// delivered twice, or to two workers, names the same execution both times.
    #[must_use]
    pub fn derive(queue: &str, message_id: &str, function: FunctionId) -> Self {
        Self(Uuid::new_v5(&EXECUTION_NAMESPACE, format!("{queue}\n{message_id}\n{function}").as_bytes()))
    }
}

/// Longest project id taken. Keystone's are 32 hexadecimal characters, its column holds 64.
const PROJECT_ID_MAX: usize = 64;

/// The Keystone project that owns a resource.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectId(std::sync::Arc<str>);

impl ProjectId {
    /// Takes 1 to 64 letters, digits, `_`, `.` and `-`.
    ///
    /// # Errors
    /// When the text has another character or length.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if text.is_empty() || text.len() > PROJECT_ID_MAX || !text.chars().all(legal) {
            return Err(Invalid::new("project_id", "must be 1 to 64 letters, digits, '_', '.' or '-'"));
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProjectId {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<ProjectId> for String {
    fn from(id: ProjectId) -> Self {
        id.0.to_string()
    }
}

impl FromStr for ProjectId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id by which a request is found in answers, logs and records: `req-` and a UUID, OpenStack's form.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// A fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(format!("req-{}", Uuid::new_v4()))
    }

    /// The request id of an execution: derived from it, so that a record, its log and its failure name the same one.
    #[must_use]
    pub fn of_execution(id: ExecutionId) -> Self {
        Self(format!("req-{id}"))
    }

    /// Takes `req-` followed by a UUID, the form that oslo.middleware accepts as a global request id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = text.strip_prefix("req-")?;
        (uuid.len() == 36 && Uuid::try_parse(uuid).is_ok()).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ExecutionId {
    /// When it was made, by the clock of whoever made it, as far as it says so.
    #[must_use]
    pub fn made_at(&self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        let millis = i64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(i64::from(nanos / 1_000_000))?;
        Some(Timestamp::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_message_and_function_name_the_same_execution() {
        let function = FunctionId::generate();
        let one = ExecutionId::derive("lambda-events", "m1", function);
        assert_eq!(one, ExecutionId::derive("lambda-events", "m1", function));
        assert_ne!(one, ExecutionId::derive("lambda-events", "m2", function));
        assert_ne!(one, ExecutionId::derive("other", "m1", function));
        assert_ne!(one, ExecutionId::derive("lambda-events", "m1", FunctionId::generate()));
    }

    #[test]
    fn a_project_id_is_short_and_plain() {
        assert!(ProjectId::parse("demo").is_ok());
        for bad in ["", "a/b", "ünïcode", &"x".repeat(65), "a b", "a\n"] {
            assert!(ProjectId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_request_id_is_req_and_a_uuid() {
        assert!(RequestId::parse(RequestId::generate().as_str()).is_some());
        for bad in ["", "req-", "req-1", "x", "req-67e5504410b1426f9247bb680e5fe0c8"] {
            assert!(RequestId::parse(bad).is_none(), "{bad:?}");
        }
    }
}
