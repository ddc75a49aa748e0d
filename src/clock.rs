//! The one clock. Pure code gets its time as an argument; everything else asks here.

use crate::model::Timestamp;

/// The present moment by this machine's clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    Timestamp::from_millis(chrono::Utc::now().timestamp_millis())
}
