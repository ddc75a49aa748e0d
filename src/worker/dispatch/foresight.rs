//! What this worker has learned: of each function, when its events come and how long they take; of each pool, how fast it
//! is used. It outlives the sandboxes that it was learned from, so that a function that comes back is known.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::FunctionId;
use crate::model::instance::Isolation;
use crate::model::runtime::RuntimeName;
use crate::scheduler::history::{Habit, History, KeepAlive};
use crate::scheduler::pool::{Pool, PoolTarget, PoolTerms};

/// Functions that are remembered. A memory takes about 300 bytes; when there are more, those go that have been quiet for
/// longest.
const REMEMBERED: usize = 16_384;
/// Weight of the latest event in the smoothed service time.
const SERVICE_TIME_WEIGHT: f64 = 0.2;
/// A function's habit is looked at anew no more often than this: it is a matter of minutes, and events may come thousands
/// of times a second.
const JUDGED_EVERY: Duration = Duration::from_secs(1);

/// The memory of a worker.
pub(super) struct Foresight {
    pasts: HashMap<FunctionId, Past>,
    pools: Vec<Pool>,
    bounds: KeepAlive,
}

struct Past {
    history: History,
    habit: Habit,
    judged: Instant,
    service_time: Option<Duration>,
}

impl Past {
    fn is_expected(&self, now: Instant) -> bool {
        let (Some(last), Some((from, until))) = (self.history.last(), self.habit.expected) else { return false };
        (last + from..last + until).contains(&now)
    }
}

impl Foresight {
    /// One that knows nothing.
    pub fn new(bounds: KeepAlive, pools: Vec<PoolTerms>) -> Self {
        Self { pasts: HashMap::new(), pools: pools.into_iter().map(Pool::new).collect(), bounds }
    }

    /// Other bounds hold from now on.
    pub fn bound(&mut self, bounds: KeepAlive) {
        self.bounds = bounds;
        for past in self.pasts.values_mut() {
            past.habit = past.history.habit(&bounds);
        }
    }

    /// An event of the function has come.
    pub fn arrived(&mut self, id: FunctionId, now: Instant) {
        if self.pasts.len() >= REMEMBERED && !self.pasts.contains_key(&id) {
            self.forget_the_quiet();
        }
        let bounds = self.bounds;
        let past = self.pasts.entry(id).or_insert_with(|| {
            let history = History::default();
            Past { habit: history.habit(&bounds), judged: now, history, service_time: None }
        });
        past.history.arrived(now);
        if now >= past.judged + JUDGED_EVERY {
            past.habit = past.history.habit(&bounds);
            past.judged = now;
        }
    }

    fn forget_the_quiet(&mut self) {
        let mut arrivals: Vec<_> = self.pasts.values().filter_map(|past| past.history.last()).collect();
        arrivals.sort_unstable();
        let median = arrivals.get(arrivals.len() / 2).copied();
        self.pasts.retain(|_, past| past.history.last() > median);
    }

    /// An event has taken this long.
    pub fn took(&mut self, id: FunctionId, latest: Duration) {
        if let Some(past) = self.pasts.get_mut(&id) {
            past.service_time = Some(past.service_time.map_or(latest, |smoothed| {
                smoothed.mul_f64(1.0 - SERVICE_TIME_WEIGHT) + latest.mul_f64(SERVICE_TIME_WEIGHT)
            }));
        }
    }

    /// How long an event takes, as far as is known.
    pub fn service_time(&self, id: FunctionId) -> Option<Duration> {
        self.pasts.get(&id)?.service_time
    }

    /// How long the function's idle sandboxes are kept.
    pub fn keep_alive(&self, id: FunctionId) -> Duration {
        self.pasts.get(&id).map_or(self.bounds.unknown, |past| past.habit.keep_alive)
    }

    /// Sandboxes that the function will soon need.
    pub fn expected(&self, id: FunctionId, now: Instant) -> u32 {
        let Some(past) = self.pasts.get(&id) else { return 0 };
        past.history.wanted(past.service_time, now).max(u32::from(past.is_expected(now)))
    }

    /// Functions whose next event is expected like clockwork, about now.
    pub fn due(&self, now: Instant) -> Vec<FunctionId> {
        self.pasts.iter().filter(|(_, past)| past.is_expected(now)).map(|(id, _)| *id).collect()
    }

    /// An instance was needed that this pool keeps, whether it had one or not.
    pub fn instance_needed(&mut self, isolation: Isolation, runtime: &RuntimeName, now: Instant) {
        if let Some(pool) = self.pool(isolation, runtime) {
            pool.needed(now);
        }
    }

    /// An instance that this pool could have kept took this long to boot.
    pub fn instance_booted(&mut self, isolation: Isolation, runtime: &RuntimeName, took: Duration) {
        if let Some(pool) = self.pool(isolation, runtime) {
            pool.booted(took);
        }
    }

    fn pool(&mut self, isolation: Isolation, runtime: &RuntimeName) -> Option<&mut Pool> {
        self.pools
            .iter_mut()
            .filter(|pool| pool.key().isolation == isolation && pool.key().runtime == *runtime)
            .min_by_key(|pool| pool.key().memory_mib)
    }

    /// How full the pools should be.
    pub fn pools(&self, now: Instant) -> Vec<PoolTarget> {
        self.pools.iter().map(|pool| PoolTarget { key: pool.key().clone(), target: pool.target(now) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_bounded_and_keeps_who_came_last() {
        let mut foresight = Foresight::new(KeepAlive::fixed(Duration::from_secs(60)), Vec::new());
        let start = Instant::now();
        let ids: Vec<_> = (0..=REMEMBERED).map(|_| FunctionId::generate()).collect();
        for (n, id) in ids.iter().enumerate() {
            foresight.arrived(*id, start + Duration::from_millis(n as u64));
            foresight.took(*id, Duration::from_millis(5));
        }
        assert!(foresight.pasts.len() <= REMEMBERED);
        assert_eq!(foresight.service_time(ids[0]), None);
        assert_eq!(foresight.service_time(ids[REMEMBERED]), Some(Duration::from_millis(5)));
    }
}
