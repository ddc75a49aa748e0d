//! A function and the bounds of each of its attributes.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{FunctionId, ProjectId};
use super::instance::Isolation;
use super::package::PackageRef;
use super::runtime::RuntimeName;
use super::{Invalid, Timestamp};

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The value as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A function's name, unique in its project: 1 to 64 letters, digits, `_`, `-` and `.`, beginning with a letter or a
/// digit. A UUID is refused, because a path names a function by id or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(String);

impl FunctionName {
    /// # Errors
    /// When the text is not such a name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.is_empty()
            || text.len() > 64
            || !text.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !text.chars().all(legal)
        {
            return Err(Invalid::new(
                "name",
                "must be 1 to 64 letters, digits, '_', '-' or '.', beginning with a letter or digit",
            ));
        }
        if uuid::Uuid::try_parse(text).is_ok() {
            return Err(Invalid::new("name", "must not be a UUID"));
        }
        Ok(Self(text.to_owned()))
    }
}
text_type!(FunctionName);

/// What the runtime calls for an event. `python3`: `module.function`, the module's directories separated by `/` or `.`.
/// `provided`: any text, handed on in `_HANDLER`. AWS's bounds: 128 characters, no white space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Handler(String);

impl Handler {
    /// # Errors
    /// When the text is empty, longer than 128 characters, or has white space or control characters.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.chars().count() > 128 || text.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(Invalid::new(
                "handler",
                "must be 1 to 128 characters without white space, such as main.handler",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}
text_type!(Handler);

/// A Zaqar queue's name: 1 to 64 letters, digits, `_`, `-`. Zaqar allows `.` too, but loses messages on the way to a
/// dead letter queue whose name has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueName(String);

impl QueueName {
    /// # Errors
    /// When the text is not such a name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty()
            || text.len() > 64
            || !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        {
            return Err(Invalid::new("queue", "must be 1 to 64 letters, digits, '_' or '-'"));
        }
        Ok(Self(text.to_owned()))
    }
}
text_type!(QueueName);

macro_rules! bounded_number {
    ($(#[$doc:meta])* $name:ident, $field:literal, $range:expr, $unit:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name(u32);

        impl $name {
            /// The largest.
            pub const MAX: u32 = *$range.end();

            /// Takes a number within the bounds.
            ///
            /// # Errors
            /// When it is outside them.
            pub fn new(value: u32) -> Result<Self, Invalid> {
                if $range.contains(&value) {
                    Ok(Self(value))
                } else {
                    Err(Invalid::new($field, format!("must be {} to {} {}", $range.start(), $range.end(), $unit)))
                }
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl TryFrom<u32> for $name {
            type Error = Invalid;
            fn try_from(value: u32) -> Result<Self, Invalid> {
                Self::new(value)
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

bounded_number!(
    /// Memory of one sandbox, in MiB. AWS Lambda's upper bound; the lower one lets a bare interpreter start.
    MemoryMib, "memory", 64..=10_240, "MiB"
);
bounded_number!(
    /// Time that one event may take, in seconds; its clock starts when the code gets the event. AWS Lambda's bounds.
    TimeoutSeconds, "timeout", 1..=900, "seconds"
);
bounded_number!(
    /// How often the code may be given the same event, the first time included.
    MaxAttempts, "retry.max_attempts", 1..=20, "attempts"
);
bounded_number!(
    /// How old an event may become before it is given up, in seconds. Zaqar keeps a message for at most 14 days.
    MaxEventAgeSeconds, "retry.max_event_age", 10..=1_209_600, "seconds"
);

impl Default for MemoryMib {
    fn default() -> Self {
        Self(128)
    }
}

impl Default for TimeoutSeconds {
    fn default() -> Self {
        Self(30)
    }
}

impl TimeoutSeconds {
    /// As a duration.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

/// When a failed event is given up. Defaults are AWS Lambda's for asynchronous invocation: 3 attempts, 6 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts, the first included.
    pub max_attempts: MaxAttempts,
    /// Age of the event, counted from the moment it was received.
    pub max_event_age: MaxEventAgeSeconds,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: MaxAttempts(3), max_event_age: MaxEventAgeSeconds(21_600) }
    }
}

impl RetryPolicy {
    /// The age at which an event is given up.
    #[must_use]
    pub const fn max_age(&self) -> Duration {
        Duration::from_secs(self.max_event_age.0 as u64)
    }
}

/// Environment variables of a function. Their values are secrets: `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Environment(BTreeMap<String, String>);

/// Sum of names and values, in bytes. AWS Lambda's limit.
const ENVIRONMENT_MAX_BYTES: usize = 4096;

/// Names that the runtime sets itself, beside everything that begins with `AWS_LAMBDA_` or `LAMBDA_`.
const RESERVED: [&str; 5] = ["_HANDLER", "_X_AMZN_TRACE_ID", "AWS_EXECUTION_ENV", "AWS_REGION", "AWS_DEFAULT_REGION"];

impl Environment {
    /// Takes names of letters, digits and `_` that do not begin with a digit and are not reserved.
    ///
    /// # Errors
    /// When a name is not legal, a value has a NUL, or all together are larger than 4 KiB.
    pub fn parse(variables: BTreeMap<String, String>) -> Result<Self, Invalid> {
        let mut bytes = 0;
        for (name, value) in &variables {
            let shown: String = name.chars().take(64).collect();
            let legal = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !legal {
                return Err(Invalid::new(
                    "environment",
                    format!("'{}' is not a variable's name: letters, digits and '_' only", shown.escape_debug()),
                ));
            }
            if RESERVED.contains(&name.as_str()) || name.starts_with("AWS_LAMBDA_") || name.starts_with("LAMBDA_") {
                return Err(Invalid::new("environment", format!("'{shown}' is reserved for the runtime")));
            }
            if value.contains('\0') {
                return Err(Invalid::new("environment", format!("the value of '{shown}' has a NUL character")));
            }
            bytes += name.len() + value.len();
        }
        if bytes > ENVIRONMENT_MAX_BYTES {
            return Err(Invalid::new(
                "environment",
                format!("is {bytes} bytes of names and values; at most {ENVIRONMENT_MAX_BYTES} are allowed"),
            ));
        }
        Ok(Self(variables))
    }

    /// Names and values.
    #[must_use]
    pub const fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl TryFrom<BTreeMap<String, String>> for Environment {
    type Error = Invalid;
    fn try_from(variables: BTreeMap<String, String>) -> Result<Self, Invalid> {
        Self::parse(variables)
    }
}

impl From<Environment> for BTreeMap<String, String> {
    fn from(environment: Environment) -> Self {
        environment.0
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Longest description, in characters.
pub const DESCRIPTION_MAX: usize = 256;

/// A function. Every change makes a new `revision`; sandboxes serve exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its id.
    pub id: FunctionId,
    /// The owner.
    pub project_id: ProjectId,
    /// Its name, unique in the project.
    pub name: FunctionName,
    /// Free text for people, at most [`DESCRIPTION_MAX`] characters.
    #[serde(default)]
    pub description: String,
    /// What runs the code.
    pub runtime: RuntimeName,
    /// What is called for an event.
    pub handler: Handler,
    /// Memory of a sandbox.
    pub memory: MemoryMib,
    /// Time for one event.
    pub timeout: TimeoutSeconds,
    /// Variables of the process.
    #[serde(default)]
    pub environment: Environment,
    /// Most events handled at the same time, over all workers; none: as the service allows.
    #[serde(default)]
    pub max_concurrency: Option<NonZeroU32>,
    /// Sandboxes that are kept started over all workers, whether events come or not; none: as events need them. At most
    /// `max_concurrency`. Not written when there is none, so that those who have it are found by an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned_concurrency: Option<NonZeroU32>,
    /// How strongly it must be separated from others, at least; none: as the service does by itself.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// When an event is given up.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// Where events go that were given up; none: the platform's dead letter queue.
    #[serde(default)]
    pub dead_letter_queue: Option<QueueName>,
    /// The code; none until the first upload.
    #[serde(default)]
    pub package: Option<PackageRef>,
    /// Counts the changes, from 1. Compare-and-set is on this.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_never_a_uuid() {
        for good in ["a", "thumb-nail_2", "A.b", "0", &"x".repeat(64)] {
            assert!(FunctionName::parse(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a/b", "../x", ".a", "-a", "naïve", "a b", "a\0", &"x".repeat(65), &"é".repeat(5_000_000)] {
            assert!(FunctionName::parse(bad).is_err());
        }
        assert!(FunctionName::parse("67e55044-10b1-426f-9247-bb680e5fe0c8").is_err());
        assert!(FunctionName::parse("67e5504410b1426f9247bb680e5fe0c8").is_err());
    }

    #[test]
    fn numbers_outside_their_bounds_say_the_bounds() {
        assert_eq!(MemoryMib::new(63).unwrap_err().to_string(), "memory: must be 64 to 10240 MiB");
        assert!(TimeoutSeconds::new(0).is_err());
        assert!(TimeoutSeconds::new(900).is_ok());
        assert!(serde_json::from_str::<MemoryMib>("10241").is_err());
    }

    #[test]
    fn an_environment_keeps_its_values_out_of_debug() {
        let environment = Environment::parse([("TOKEN".to_owned(), "hunter2".to_owned())].into()).unwrap();
        assert_eq!(format!("{environment:?}"), "[\"TOKEN\"]");
    }

    #[test]
    fn a_reserved_or_malformed_variable_is_refused() {
        for bad in ["_HANDLER", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_X", "1A", "A-B", "", "A=B", "É"] {
            assert!(Environment::parse([(bad.to_owned(), String::new())].into()).is_err(), "{bad:?}");
        }
        assert!(Environment::parse([("A".to_owned(), "x".repeat(4096))].into()).is_err());
        assert!(Environment::parse([("A".to_owned(), "\0".to_owned())].into()).is_err());
    }
}
