//! When to look at which of many queues, few at a time. A queue that just gave something is looked at again at once; an
//! empty one less and less often; a failing one less often still. However many are empty, looking at them costs no more
//! than a fixed rate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How often to look.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The pause after a look that found nothing, shortly after one that did.
    pub min: Duration,
    /// The longest pause between looks at an empty queue, as long as the rate allows it.
    pub max: Duration,
    /// Most looks a second at queues that have been empty for long, over all of them.
    pub idle_rate: f64,
    /// Most looks under way at once.
    pub at_once: usize,
    /// The pause after a failure; it doubles with each further one.
    pub failed_min: Duration,
    /// The longest pause after a failure.
    pub failed_max: Duration,
}

/// What a look at a queue came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As much as was asked for: there is probably more.
    Full,
    /// Something.
    Some,
    /// Nothing.
    Empty,
    /// It failed.
    Failed,
}

#[derive(Clone, Debug)]
struct Queue {
    /// When it is looked at next; none: it is being looked at.
    due: Option<Instant>,
    /// The pause after the next empty look.
    pause: Duration,
    /// Failures in a row.
    failures: u32,
    /// It was said to have something while it was being looked at.
    is_woken: bool,
}

/// The queues that are looked at.
#[derive(Clone, Debug)]
pub struct Polls<K> {
    pace: Pace,
    queues: BTreeMap<K, Queue>,
    due: BTreeSet<(Instant, K)>,
    under_way: usize,
}

impl<K: Ord + Clone> Polls<K> {
    /// None yet.
    #[must_use]
    pub const fn new(pace: Pace) -> Self {
        Self { pace, queues: BTreeMap::new(), due: BTreeSet::new(), under_way: 0 }
    }

    /// Adds a queue that is to be looked at at once; one that is there stays as it is.
    pub fn add(&mut self, key: &K, now: Instant) {
        if !self.queues.contains_key(key) {
            let queue = Queue { due: Some(now), pause: self.pace.min, failures: 0, is_woken: false };
            self.queues.insert(key.clone(), queue);
            self.due.insert((now, key.clone()));
        }
    }

    /// Takes a queue out. A look that is under way ends by itself; see [`Self::looked`].
    pub fn remove(&mut self, key: &K) {
        if let Some(Queue { due: Some(due), .. }) = self.queues.remove(key) {
            self.due.remove(&(due, key.clone()));
        }
    }

    /// Somebody says that there is something: look at once.
    pub fn wake(&mut self, key: &K, now: Instant) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.pause = self.pace.min;
        match queue.due {
            // One that fails keeps its distance, whatever it is said to have.
            Some(_) if queue.failures > 0 => {}
            Some(due) => {
                self.due.remove(&(due, key.clone()));
                queue.due = Some(now.min(due));
                self.due.insert((now.min(due), key.clone()));
            }
            None => queue.is_woken = true,
        }
    }

    /// The queue to be looked at now, if one is due and there is room for another look. The caller looks and then says
    /// what it came to.
    pub fn next(&mut self, now: Instant) -> Option<K> {
        if self.under_way >= self.pace.at_once || self.due.first().is_none_or(|(due, _)| *due > now) {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.due = None;
        }
        self.under_way += 1;
        Some(key)
    }

    /// When the next queue is due; none when nothing can be looked at before something else happens.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        if self.under_way >= self.pace.at_once {
            return None;
        }
        self.due.first().map(|(due, _)| *due)
    }

    /// What a look came to; how many in a row have failed.
    pub fn looked(&mut self, key: &K, look: Look, now: Instant) -> u32 {
        self.under_way = self.under_way.saturating_sub(1);
        let idle_max = self.idle_max();
        let pace = self.pace;
        // It may have been taken out, or taken out and added again, in between.
        let Some(queue) = self.queues.get_mut(key).filter(|queue| queue.due.is_none()) else { return 0 };
        let wait = match look {
            Look::Full => {
                queue.pause = pace.min;
                Duration::ZERO
            }
            Look::Some => {
                queue.pause = pace.min;
                pace.min
            }
            Look::Empty => {
                let wait = queue.pause.min(idle_max);
                queue.pause = (queue.pause * 2).min(idle_max);
                wait
            }
            Look::Failed => {
                let doubled = pace.failed_min.saturating_mul(2u32.saturating_pow(queue.failures.min(16)));
                doubled.min(pace.failed_max)
            }
        };
        queue.failures = if look == Look::Failed { queue.failures.saturating_add(1) } else { 0 };
        let wait = if std::mem::take(&mut queue.is_woken) && look != Look::Failed { Duration::ZERO } else { wait };
        queue.due = Some(now + wait);
        self.due.insert((now + wait, key.clone()));
        queue.failures
    }

    /// The longest pause of an empty queue: longer with more of them, so that all together are looked at no more often
    /// than the rate says.
    fn idle_max(&self) -> Duration {
        let count = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
        let fair = f64::from(count) / self.pace.idle_rate.max(0.01);
        self.pace.max.max(Duration::try_from_secs_f64(fair).unwrap_or(self.pace.max))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace {
        min: Duration::from_millis(100),
        max: Duration::from_secs(2),
        idle_rate: 20.0,
        at_once: 3,
        failed_min: Duration::from_secs(1),
        failed_max: Duration::from_secs(60),
    };

    fn looks(
        polls: &mut Polls<u32>,
        start: Instant,
        during: Duration,
        look: impl Fn(u32) -> Look,
    ) -> Vec<(u32, Instant)> {
        let mut made = Vec::new();
        let mut now = start;
        while now < start + during {
            while let Some(key) = polls.next(now) {
                made.push((key, now));
                polls.looked(&key, look(key), now);
            }
            now += Duration::from_millis(10);
        }
        made
    }

    #[test]
    fn an_empty_queue_is_looked_at_less_and_less_often() {
        let (mut polls, start) = (Polls::new(PACE), Instant::now());
        polls.add(&1, start);
        let made = looks(&mut polls, start, Duration::from_secs(60), |_| Look::Empty);
        assert!((30..=40).contains(&made.len()), "{}", made.len());
        polls.wake(&1, start + Duration::from_secs(60));
        assert_eq!(polls.next_due(), Some(start + Duration::from_secs(60)));
    }

    #[test]
    fn a_thousand_empty_queues_cost_the_rate_and_no_more() {
        let (mut polls, start) = (Polls::new(PACE), Instant::now());
        for key in 0..1000 {
            polls.add(&key, start);
        }
        looks(&mut polls, start, Duration::from_secs(120), |_| Look::Empty);
        let made = looks(&mut polls, start + Duration::from_secs(120), Duration::from_secs(100), |_| Look::Empty);
        assert!(made.len() <= 2200, "{} looks in 100 s", made.len());
        // And a busy one among them does not wait for them.
        let later = start + Duration::from_secs(220);
        polls.add(&5000, later);
        let of_busy =
            looks(&mut polls, later, Duration::from_secs(1), |key| if key == 5000 { Look::Some } else { Look::Empty });
        assert!(of_busy.iter().filter(|(key, _)| *key == 5000).count() >= 9);
    }

    #[test]
    fn a_failing_queue_backs_off_and_disturbs_nobody() {
        let (mut polls, start) = (Polls::new(PACE), Instant::now());
        polls.add(&1, start);
        polls.add(&2, start);
        let made =
            looks(&mut polls, start, Duration::from_secs(200), |key| if key == 1 { Look::Failed } else { Look::Some });
        let failed = made.iter().filter(|(key, _)| *key == 1).count();
        assert!((7..=10).contains(&failed), "{failed}");
        assert!(made.len() - failed > 1500);
        // Nobody can make us look at a failing queue more often.
        let due = polls.queues[&1].due;
        polls.wake(&1, start + Duration::from_secs(200));
        assert_eq!(polls.queues[&1].due, due);
    }

    #[test]
    fn what_wakes_a_queue_that_is_being_looked_at_is_not_lost() {
        let (mut polls, start) = (Polls::new(PACE), Instant::now());
        polls.add(&1, start);
        assert_eq!(polls.next(start), Some(1));
        polls.wake(&1, start);
        polls.looked(&1, Look::Empty, start);
        assert_eq!(polls.next(start), Some(1));
    }

    proptest! {
        #[test]
        fn no_more_than_allowed_are_under_way_and_none_is_forgotten(
            steps in proptest::collection::vec((0u8..5, 0u32..6, 0u64..500), 1..200),
        ) {
            let (mut polls, mut now) = (Polls::new(PACE), Instant::now());
            let mut under_way = Vec::new();
            let mut there = BTreeSet::new();
            for (step, key, pause) in steps {
                now += Duration::from_millis(pause);
                match step {
                    0 => { polls.add(&key, now); there.insert(key); }
                    1 => { polls.remove(&key); there.remove(&key); }
                    2 => polls.wake(&key, now),
                    3 => under_way.extend(polls.next(now)),
                    _ => if let Some(key) = under_way.pop() {
                        let look = [Look::Full, Look::Some, Look::Empty, Look::Failed][usize::try_from(pause % 4).unwrap()];
                        polls.looked(&key, look, now);
                    },
                }
                prop_assert!(under_way.len() <= PACE.at_once);
                prop_assert_eq!(polls.queues.keys().copied().collect::<BTreeSet<_>>(), there.clone());
            }
            for key in std::mem::take(&mut under_way) {
                polls.looked(&key, Look::Empty, now);
            }
            let later = now + Duration::from_secs(120);
            let seen: BTreeSet<_> = looks(&mut polls, later, Duration::from_millis(10), |_| Look::Empty)
                .into_iter().map(|(key, _)| key).collect();
            prop_assert_eq!(seen, there);
        }
    }
}
