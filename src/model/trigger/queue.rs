//! Triggers on a queue of the project's own: which queue, how many messages at a time, with whose delegation, and how
//! looking at it goes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Invalid, ProjectId, Timestamp};

/// A queue's name as Zaqar allows it: 1 to 64 letters, digits, `_`, `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceQueue(String);

impl SourceQueue {
    /// # Errors
    /// When the text is not such a name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.is_empty() || text.len() > 64 || !text.chars().all(legal) {
            return Err(Invalid::new("queue.name", "must be 1 to 64 letters, digits, '_', '-' or '.'"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SourceQueue {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<SourceQueue> for String {
    fn from(name: SourceQueue) -> Self {
        name.0
    }
}

impl fmt::Display for SourceQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Most messages of one claim: 1 to 20, Zaqar's own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BatchSize(u32);

/// Zaqar's limit.
const BATCH_MAX: u32 = 20;

impl BatchSize {
    /// # Errors
    /// When it is not 1 to 20.
    pub fn new(size: u32) -> Result<Self, Invalid> {
        if (1..=BATCH_MAX).contains(&size) {
            Ok(Self(size))
        } else {
            Err(Invalid::new("queue.batch_size", format!("must be 1 to {BATCH_MAX}")))
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for BatchSize {
    fn default() -> Self {
        Self(BATCH_MAX)
    }
}

impl TryFrom<u32> for BatchSize {
    type Error = Invalid;
    fn try_from(size: u32) -> Result<Self, Invalid> {
        Self::new(size)
    }
}

impl From<BatchSize> for u32 {
    fn from(size: BatchSize) -> Self {
        size.0
    }
}

/// A trigger's hold on a queue of its project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueBinding {
    /// The queue, in the trigger's project.
    pub name: SourceQueue,
    /// Most messages of one claim. Each message becomes an execution of its own.
    #[serde(default)]
    pub batch_size: BatchSize,
    /// The trust through which the service reads the queue; none where there is no Keystone. It is shown to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_id: Option<String>,
    /// How looking at it goes.
    #[serde(default)]
    pub status: QueueStatus,
}

/// How looking at a trigger's queue goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum QueueStatus {
    /// Nobody has looked yet.
    #[default]
    Pending,
    /// The last look succeeded.
    Active {
        /// Since when all have.
        since: Timestamp,
    },
    /// The last looks failed. It is looked at again, less and less often.
    Error {
        /// Since when.
        since: Timestamp,
        /// Why, as a word that never changes its meaning. Each has its entry in docs/errors.md.
        reason: QueueFault,
        /// Why, in words.
        message: String,
    },
}

impl QueueStatus {
    /// Whether it says the same, whenever and in whatever words.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pending, Self::Pending) | (Self::Active { .. }, Self::Active { .. }) => true,
            (Self::Error { reason: a, .. }, Self::Error { reason: b, .. }) => a == b,
            (Self::Pending | Self::Active { .. } | Self::Error { .. }, _) => false,
        }
    }
}

/// Why a trigger's queue cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueFault {
    /// Keystone does not let the service act for whoever made the trigger any more.
    TrustInvalid,
    /// The queue service does not permit it.
    QueueForbidden,
    /// The queue service refuses it for another reason.
    QueueRefused,
    /// The queue service, or Keystone, has not answered several times.
    QueueUnavailable,
}

impl QueueFault {
    /// All of them; documents and tests go through this list.
    pub const ALL: [Self; 4] = [Self::TrustInvalid, Self::QueueForbidden, Self::QueueRefused, Self::QueueUnavailable];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrustInvalid => "trust_invalid",
            Self::QueueForbidden => "queue_forbidden",
            Self::QueueRefused => "queue_refused",
            Self::QueueUnavailable => "queue_unavailable",
        }
    }
}

/// A queue of a project.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueKey {
    /// Whose.
    pub project_id: ProjectId,
    /// Which.
    pub queue: SourceQueue,
}

impl fmt::Display for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No queue's name has a slash.
        write!(f, "{}/{}", self.project_id, self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_as_zaqar_allows_and_its_batch_has_bounds() {
        assert!(SourceQueue::parse("orders.v2_new-1").is_ok());
        for bad in ["", "a/b", "a b", "é", &"q".repeat(65)] {
            assert!(SourceQueue::parse(bad).is_err(), "{bad:?}");
        }
        assert!(BatchSize::new(1).is_ok() && BatchSize::new(20).is_ok());
        assert!(BatchSize::new(0).is_err() && BatchSize::new(21).is_err());
    }

    #[test]
    fn every_fault_is_written_as_its_word() {
        for fault in QueueFault::ALL {
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.as_str());
        }
    }

    #[test]
    fn statuses_are_alike_by_state_and_reason() {
        let error = |reason, message: &str| QueueStatus::Error {
            since: Timestamp::from_millis(1),
            reason,
            message: message.to_owned(),
        };
        let active = QueueStatus::Active { since: Timestamp::from_millis(2) };
        assert!(active.is_like(&QueueStatus::Active { since: Timestamp::from_millis(3) }));
        assert!(!active.is_like(&QueueStatus::Pending));
        assert!(error(QueueFault::TrustInvalid, "a").is_like(&error(QueueFault::TrustInvalid, "b")));
        assert!(!error(QueueFault::TrustInvalid, "a").is_like(&error(QueueFault::QueueRefused, "a")));
    }
}
