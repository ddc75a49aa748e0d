//! Which worker looks at which queue. The queues are spread over the live workers by rendezvous hashing, so that a worker
//! that comes or goes moves only its share; what is written in the store decides, so that two that see different workers
//! do not both look.
//!
//! A claim has no time of its own: it holds while its worker lives, which one heartbeat a worker shows, and not one write a
//! queue. An idle queue costs no write at all.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::model::WorkerId;
use crate::model::trigger::queue::QueueKey;

/// What a worker shall do about the queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// These are mine, and stay so.
    pub keep: Vec<QueueKey>,
    /// To be claimed from whom the store names, if it names somebody.
    pub take: Vec<(QueueKey, Option<WorkerId>)>,
    /// To be given up: they are another's now, or nobody listens to them any more.
    pub give_up: Vec<QueueKey>,
    /// Claims of the dead on queues that nobody listens to.
    pub forget: Vec<(QueueKey, WorkerId)>,
}

/// Decides for `me`. `wanted` are all queues that somebody listens to, `live` all workers that take work; `me` counts as
/// one of them.
#[must_use]
pub fn assign(
    me: WorkerId,
    live: &BTreeSet<WorkerId>,
    wanted: &BTreeSet<QueueKey>,
    owners: &BTreeMap<QueueKey, WorkerId>,
) -> Assignment {
    let mut assignment = Assignment::default();
    for queue in wanted {
        let owner = owners.get(queue).copied();
        let is_for_me = best(queue, live, me) == me;
        match owner {
            Some(owner) if owner == me && is_for_me => assignment.keep.push(queue.clone()),
            Some(owner) if owner == me => assignment.give_up.push(queue.clone()),
            // Whoever lives gives up by itself what is not for it.
            Some(owner) if live.contains(&owner) => {}
            owner if is_for_me => assignment.take.push((queue.clone(), owner)),
            Some(_) | None => {}
        }
    }
    for (queue, owner) in owners.iter().filter(|(queue, _)| !wanted.contains(queue)) {
        if *owner == me {
            assignment.give_up.push(queue.clone());
        } else if !live.contains(owner) && best(queue, live, me) == me {
            assignment.forget.push((queue.clone(), *owner));
        }
    }
    assignment
}

/// The worker that ranks first for a queue.
fn best(queue: &QueueKey, live: &BTreeSet<WorkerId>, me: WorkerId) -> WorkerId {
    let name = queue.to_string();
    let rank = |worker: &WorkerId| (Uuid::new_v5(&worker.as_uuid(), name.as_bytes()), *worker);
    live.iter().chain([&me]).max_by_key(|worker| rank(worker)).copied().unwrap_or(me)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ProjectId;
    use crate::model::trigger::queue::SourceQueue;

    fn worker(n: u8) -> WorkerId {
        WorkerId::from_uuid(Uuid::from_u128(n.into()))
    }

    fn queue(n: u16) -> QueueKey {
        QueueKey {
            project_id: ProjectId::parse(&format!("p{}", n % 7)).unwrap(),
            queue: SourceQueue::parse(&format!("q{n}")).unwrap(),
        }
    }

    /// Lets each live worker act once, in order, on what the store says; the claims afterwards.
    fn round(
        live: &BTreeSet<WorkerId>,
        wanted: &BTreeSet<QueueKey>,
        mut owners: BTreeMap<QueueKey, WorkerId>,
    ) -> BTreeMap<QueueKey, WorkerId> {
        for me in live {
            let assignment = assign(*me, live, wanted, &owners);
            for queue in assignment.give_up {
                assert_eq!(owners.remove(&queue), Some(*me), "gives up what it has not");
            }
            for (queue, owner) in assignment.forget {
                assert_eq!(owners.remove(&queue), Some(owner));
            }
            for (queue, from) in assignment.take {
                assert_eq!(owners.get(&queue).copied(), from);
                assert!(from.is_none_or(|from| !live.contains(&from)), "takes from the living");
                owners.insert(queue, *me);
            }
        }
        owners
    }

    proptest! {
        #[test]
        fn after_two_rounds_every_queue_has_one_live_owner_and_nothing_moves(
            before in proptest::collection::btree_set(0u8..6, 1..6),
            after in proptest::collection::btree_set(0u8..6, 1..6),
            queues in proptest::collection::btree_set(0u16..60, 0..40),
            gone in proptest::collection::btree_set(0u16..60, 0..10),
        ) {
            let before: BTreeSet<_> = before.into_iter().map(worker).collect();
            let live: BTreeSet<_> = after.into_iter().map(worker).collect();
            let all: BTreeSet<_> = queues.iter().copied().map(queue).collect();
            let wanted: BTreeSet<_> = queues.difference(&gone).copied().map(queue).collect();
            let owners = round(&before, &all, round(&before, &all, BTreeMap::new()));
            let owners = round(&live, &wanted, round(&live, &wanted, owners));
            prop_assert_eq!(owners.keys().cloned().collect::<BTreeSet<_>>(), wanted.clone());
            prop_assert!(owners.values().all(|owner| live.contains(owner)));
            prop_assert_eq!(round(&live, &wanted, owners.clone()), owners);
        }
    }

    #[test]
    fn a_worker_that_dies_moves_only_its_queues() {
        let wanted: BTreeSet<_> = (0..1000).map(queue).collect();
        let four: BTreeSet<_> = (0..4).map(worker).collect();
        let owners = round(&four, &wanted, BTreeMap::new());
        for n in 0..4 {
            let count = owners.values().filter(|owner| **owner == worker(n)).count();
            assert!((150..350).contains(&count), "worker {n} has {count} of 1000");
        }
        let three: BTreeSet<_> = (0..3).map(worker).collect();
        let next = round(&three, &wanted, owners.clone());
        for (queue, owner) in owners {
            assert!(next[&queue] == owner || owner == worker(3));
        }
    }
}
