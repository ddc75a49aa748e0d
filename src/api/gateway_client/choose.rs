//! Which worker a call goes to: rendezvous hashing finds the one that has the function's sandboxes warm, bounded load
//! keeps a popular function from piling up there. No I/O, no clock.

use sha2::{Digest as _, Sha256};

use crate::model::{FunctionId, WorkerId};

/// How far over its fair share a worker may be loaded before a call goes elsewhere.
const OVERLOAD: f64 = 1.25;

/// A worker that takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Which.
    pub id: WorkerId,
    /// Most executions it runs at the same time; at least 1.
    pub capacity: u32,
    /// Executions it has.
    pub load: u32,
}

impl Candidate {
    /// How full it is; 1 is full.
    pub fn relative_load(&self) -> f64 {
        f64::from(self.load) / f64::from(self.capacity.max(1))
    }

    /// Whether it takes more without being over its share. Up to half of its capacity nothing is a burden: warm
    /// sandboxes are worth more than an even spread.
    fn has_room(&self, fair: f64) -> bool {
        let share = (OVERLOAD * fair * f64::from(self.capacity)).ceil();
        f64::from(self.load) < share.max(f64::from(self.capacity) / 2.0)
    }
}

/// All candidates, the best first: by their rank for the function, those over their share behind the others.
pub(super) fn order(function: FunctionId, candidates: &[Candidate]) -> Vec<WorkerId> {
    let capacity: f64 = candidates.iter().map(|candidate| f64::from(candidate.capacity)).sum();
    let load: f64 = candidates.iter().map(|candidate| f64::from(candidate.load)).sum();
    let fair = (load + 1.0) / capacity.max(1.0);
    let mut ranked: Vec<_> = candidates
        .iter()
        .map(|candidate| (!candidate.has_room(fair), std::cmp::Reverse(rank(function, candidate.id)), candidate.id))
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, _, id)| id).collect()
}

fn rank(function: FunctionId, worker: WorkerId) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(function.as_uuid());
    hash.update(worker.as_uuid());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn worker(n: u128) -> WorkerId {
        WorkerId::from_uuid(Uuid::from_u128(n))
    }

    fn function(n: u128) -> FunctionId {
        FunctionId::from_uuid(Uuid::from_u128(n))
    }

    fn idle(count: u128) -> Vec<Candidate> {
        (0..count).map(|n| Candidate { id: worker(n), capacity: 64, load: 0 }).collect()
    }

    #[test]
    fn a_worker_that_leaves_moves_only_its_own_functions() {
        let all = idle(10);
        let without: Vec<_> = all.iter().filter(|candidate| candidate.id != worker(3)).copied().collect();
        for n in 0..200 {
            let before = order(function(n), &all);
            let after = order(function(n), &without);
            let kept: Vec<_> = before.iter().filter(|id| **id != worker(3)).copied().collect();
            assert_eq!(after, kept);
        }
    }

    #[test]
    fn functions_spread_over_the_workers() {
        let all = idle(4);
        let mut counts = std::collections::HashMap::new();
        for n in 0..4000 {
            *counts.entry(order(function(n), &all)[0]).or_insert(0) += 1;
        }
        assert!(counts.len() == 4 && counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_worker_over_its_share_comes_last() {
        let mut all = idle(3);
        let first = order(function(1), &all)[0];
        for candidate in &mut all {
            candidate.load = if candidate.id == first { 60 } else { 10 };
        }
        assert_eq!(order(function(1), &all).last(), Some(&first));
        // Half full is no burden.
        for candidate in &mut all {
            candidate.load = if candidate.id == first { 31 } else { 0 };
        }
        assert_eq!(order(function(1), &all)[0], first);
    }

    proptest! {
        #[test]
        fn every_worker_is_named_once_and_the_first_has_room_if_any_has(
            loads in proptest::collection::vec((1_u32..100, 0_u32..200), 1..12), n: u128
        ) {
            let candidates: Vec<_> = loads
                .iter()
                .zip(0..)
                .map(|((capacity, load), n)| Candidate { id: worker(n), capacity: *capacity, load: *load })
                .collect();
            let order = order(function(n), &candidates);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(sorted.len(), candidates.len());
            let least = candidates.iter().map(Candidate::relative_load).fold(f64::INFINITY, f64::min);
            let first = candidates.iter().find(|candidate| candidate.id == order[0]).unwrap();
            let total: u32 = candidates.iter().map(|candidate| candidate.load).sum();
            let capacity: u32 = candidates.iter().map(|candidate| candidate.capacity).sum();
            let fair = f64::from(total + 1) / f64::from(capacity);
            prop_assert!(first.has_room(fair) || candidates.iter().all(|candidate| !candidate.has_room(fair)));
            prop_assert!(least <= fair);
        }
    }
}
