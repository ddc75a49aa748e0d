//! What becomes of an execution whose attempt failed.

use std::time::Duration;

use crate::model::Timestamp;
use crate::model::execution::{Execution, MAX_INTERRUPTIONS, Reason};
use crate::model::function::RetryPolicy;

/// How the pauses between attempts grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Before the second attempt.
    pub base: Duration,
    /// At most.
    pub max: Duration,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another attempt, not before this time.
    Retry {
        /// When it may begin.
        not_before: Timestamp,
    },
    /// No further attempt.
    GiveUp,
}

/// Decides on an execution after a failed attempt that is already counted in `attempts_made`. `luck` in 0..1 spreads
/// the attempts of events that failed together: the pause is between half of its nominal length and all of it.
#[must_use]
pub fn after_failure(
    attempts_made: u32,
    reason: Reason,
    policy: &RetryPolicy,
    deadline: Timestamp,
    now: Timestamp,
    backoff: Backoff,
    luck: f64,
) -> Verdict {
    if !reason.retryable() || attempts_made >= policy.max_attempts.get() {
        return Verdict::GiveUp;
    }
    let doublings = attempts_made.saturating_sub(1).min(30);
    let nominal = backoff.base.saturating_mul(1 << doublings).min(backoff.max);
    let not_before = now + nominal.mul_f64(0.5 + 0.5 * luck.clamp(0.0, 1.0));
    if not_before >= deadline { Verdict::GiveUp } else { Verdict::Retry { not_before } }
}

/// Whether an execution whose worker or instance was lost under it is let go back to the inbox: not for ever, because
/// it may be what kills them.
#[must_use]
pub const fn survives_loss(execution: &Execution) -> bool {
    execution.interruptions < MAX_INTERRUPTIONS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(300) };
    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn verdict(attempts: u32, reason: Reason, luck: f64) -> Verdict {
        let deadline = NOW + Duration::from_secs(3600);
        after_failure(attempts, reason, &RetryPolicy::default(), deadline, NOW, BACKOFF, luck)
    }

    #[test]
    fn pauses_double_and_attempts_end() {
        let after = |seconds| Verdict::Retry { not_before: NOW + Duration::from_secs(seconds) };
        assert_eq!(verdict(1, Reason::HandlerError, 1.0), after(1));
        assert_eq!(verdict(2, Reason::HandlerError, 1.0), after(2));
        assert_eq!(verdict(3, Reason::HandlerError, 1.0), Verdict::GiveUp);
    }

    #[test]
    fn what_cannot_get_better_is_given_up_at_once() {
        assert_eq!(verdict(1, Reason::SyntaxError, 0.5), Verdict::GiveUp);
        assert_eq!(verdict(1, Reason::FunctionDeleted, 0.5), Verdict::GiveUp);
    }

    #[test]
    fn an_attempt_that_would_come_after_the_deadline_is_not_waited_for() {
        let soon = NOW + Duration::from_millis(400);
        let verdict = after_failure(1, Reason::HandlerError, &RetryPolicy::default(), soon, NOW, BACKOFF, 0.0);
        assert_eq!(verdict, Verdict::GiveUp);
    }

    proptest! {
        #[test]
        fn a_pause_is_within_its_bounds(attempts in 1u32..19, luck in 0.0f64..1.0) {
            let policy = RetryPolicy {
                max_attempts: crate::model::function::MaxAttempts::new(20).unwrap(), ..RetryPolicy::default()
            };
            let deadline = NOW + Duration::from_secs(86_400);
            match after_failure(attempts, Reason::HandlerError, &policy, deadline, NOW, BACKOFF, luck) {
                Verdict::Retry { not_before } => {
                    prop_assert!(not_before >= NOW + BACKOFF.base / 2);
                    prop_assert!(not_before <= NOW + BACKOFF.max);
                }
                Verdict::GiveUp => prop_assert!(false, "given up too early"),
            }
        }
    }
}
