//! How a limit that holds over all workers is split between them without asking anybody: each worker computes the same
//! split from the set of live workers.

use crate::model::{FunctionId, WorkerId};

/// How much of `limit` the worker `me` may use for a function. The shares of all live workers add up to the limit; the
/// remainder goes to those that rank first for this function, so that functions with a limit of one are spread.
#[must_use]
pub fn of_limit(limit: u32, function: FunctionId, me: WorkerId, live: &[WorkerId]) -> u32 {
    let workers = u32::try_from(live.len()).unwrap_or(u32::MAX).max(1);
    let mine = rank(function, me);
    let before_me = live.iter().filter(|other| **other != me && rank(function, **other) > mine).count();
    let extra = u32::try_from(before_me).unwrap_or(u32::MAX) < limit % workers;
    limit / workers + u32::from(extra)
}

/// Rendezvous weight of a worker for a function: the highest one is asked first. The API ranks workers for synchronous
/// calls with it too, so that they meet warm sandboxes and, where a limit is small, the worker that has a share.
#[must_use]
pub fn rank(function: FunctionId, worker: WorkerId) -> u128 {
    // A UUID v5 is a SHA-1 of both: well mixed, and the same in every process and release.
    uuid::Uuid::new_v5(&function.as_uuid(), worker.as_uuid().as_bytes()).as_u128()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_add_up_to_the_limit(limit in 0u32..1000, workers in 1usize..12) {
            let live: Vec<_> = (0..workers).map(|_| WorkerId::generate()).collect();
            let function = FunctionId::generate();
            let shares: Vec<_> = live.iter().map(|me| of_limit(limit, function, *me, &live)).collect();
            prop_assert_eq!(shares.iter().sum::<u32>(), limit);
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn a_worker_that_does_not_see_itself_yet_takes_at_most_a_share() {
        let live = [WorkerId::generate()];
        assert!(of_limit(1, FunctionId::generate(), WorkerId::generate(), &live) <= 1);
        assert_eq!(of_limit(5, FunctionId::generate(), WorkerId::generate(), &[]), 5);
    }
}
