//! What a function's own past says about its future: how often its events come, how long they are apart, and so how many
//! sandboxes it will want, how long an idle one is worth keeping, and when one should be ready before it is asked for.
//!
//! The gaps between arrivals are counted in bins that grow geometrically, so that seconds and hours fit into a few dozen
//! small numbers, as in Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020). How long to keep is then the question
//! of renting or buying: an idle sandbox costs its memory for every second, a cold start costs as much as so many idle
//! seconds. Nothing being known, keeping for just that time is never worse than twice the best. With the gaps known, what
//! would have cost least so far is taken; where the gaps are long and alike, that is to let go and be ready again in time.

use std::time::{Duration, Instant};

use super::rate::Rate;

/// Bins for each doubling of the gap.
const BINS_PER_DOUBLING: usize = 4;
/// Doublings that are told apart, from one second on: the last bin begins at four and a half hours.
const DOUBLINGS: usize = 14;
const BINS: usize = BINS_PER_DOUBLING * DOUBLINGS + 2;
/// Gaps that must have been seen before they are believed.
const ENOUGH: u32 = 10;
/// When so many gaps are counted, all counts are halved: a function's habits may change.
const FORGET_AT: u32 = 1024;
/// The share of gaps on either side that the time in which an event is expected leaves out.
const TAIL: f64 = 0.05;
/// Gaps are rounded to bins, and nothing is punctual: one is ready so much of the gap earlier, and kept so much longer.
const SLACK: f64 = 0.05;
/// How much cheaper it must be to let go and be ready again than to keep.
const WORTH_EXPECTING: f64 = 0.8;
/// Over how long the rate of arrivals is smoothed: long enough not to follow every gust, short enough for a burst.
const RATE_OVER: Duration = Duration::from_secs(10);
/// Below so much expected work at the same time, what is kept from the last event is enough.
const STEADY: f64 = 0.5;

/// The bounds within which keeping is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// For a function of which too little is known: for how many idle seconds a cold start makes up.
    pub unknown: Duration,
    /// At least so long. Equal to `most`: nothing is learned.
    pub least: Duration,
    /// At most so long.
    pub most: Duration,
}

impl KeepAlive {
    /// One time for all functions.
    #[must_use]
    pub const fn fixed(time: Duration) -> Self {
        Self { unknown: time, least: time, most: time }
    }
}

/// How a function's idle sandboxes are to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habit {
    /// How long an idle one is kept.
    pub keep_alive: Duration,
    /// For events that come like clockwork and far apart: when, counted from the last arrival, one should be ready, and
    /// until when it is worth waiting for the event.
    pub expected: Option<(Duration, Duration)>,
}

/// The past of one function in one worker.
#[derive(Clone, Debug)]
pub struct History {
    gaps: [u16; BINS],
    seen: u32,
    last: Option<Instant>,
    rate: Rate,
}

impl Default for History {
    fn default() -> Self {
        Self { gaps: [0; BINS], seen: 0, last: None, rate: Rate::over(RATE_OVER) }
    }
}

impl History {
    /// Notes that an event of the function has come.
    pub fn arrived(&mut self, now: Instant) {
        if let Some(last) = self.last {
            self.count(now.saturating_duration_since(last));
        }
        self.last = Some(now);
        self.rate.add(1.0, now);
    }

    /// When the last event came.
    #[must_use]
    pub const fn last(&self) -> Option<Instant> {
        self.last
    }

    fn count(&mut self, gap: Duration) {
        if self.seen >= FORGET_AT {
            for count in &mut self.gaps {
                *count /= 2;
            }
            self.seen = self.gaps.iter().map(|count| u32::from(*count)).sum();
        }
        self.gaps[bin(gap)] += 1;
        self.seen += 1;
    }

    /// How many sandboxes the present rate of arrivals keeps busy, with some to spare for its fluctuation (the square root
    /// of the mean, as in the staffing of telephone exchanges); 0 where so few are busy that the last one suffices.
    #[must_use]
    pub fn wanted(&self, service_time: Option<Duration>, now: Instant) -> u32 {
        let busy = self.rate.per_second(now) * service_time.unwrap_or_default().as_secs_f64();
        if busy < STEADY {
            return 0;
        }
        let wanted = (busy + busy.sqrt()).ceil().min(f64::from(u16::MAX));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 65,535")]
        let wanted = wanted as u32;
        wanted
    }

    /// What the gaps so far say: of the ways to treat an idle sandbox the one that would have cost least.
    #[must_use]
    pub fn habit(&self, bounds: &KeepAlive) -> Habit {
        if bounds.least >= bounds.most || self.seen < ENOUGH {
            return Habit { keep_alive: bounds.unknown, expected: None };
        }
        let cold_start = bounds.unknown.as_secs_f64();
        let (mut keep_alive, mut least_cost) = (bounds.least, f64::INFINITY);
        for edge in (0..BINS).map(|bin| lower_edge(bin + 1).mul_f64(1.0 + SLACK)) {
            let kept = edge.clamp(bounds.least, bounds.most);
            let cost = self.cost(|gap| if gap <= kept.as_secs_f64() { gap } else { kept.as_secs_f64() + cold_start });
            if cost < least_cost {
                (keep_alive, least_cost) = (kept, cost);
            }
        }
        let from = lower_edge(self.bin_at(TAIL)).mul_f64(1.0 - SLACK);
        let until = lower_edge(self.bin_at(1.0 - TAIL) + 1).mul_f64(1.0 + SLACK);
        let (kept, ready) = (bounds.least.as_secs_f64(), from.as_secs_f64()..=until.as_secs_f64());
        let cost = self.cost(|gap| {
            if gap <= kept {
                gap
            } else if ready.contains(&gap) {
                kept + gap - ready.start()
            } else {
                kept + if gap > *ready.end() { ready.end() - ready.start() } else { 0.0 } + cold_start
            }
        });
        if from > bounds.least && cost < least_cost * WORTH_EXPECTING {
            return Habit { keep_alive: bounds.least, expected: Some((from, until)) };
        }
        Habit { keep_alive, expected: None }
    }

    /// What all gaps together would have cost, in idle seconds, if one costs this much.
    fn cost(&self, of: impl Fn(f64) -> f64) -> f64 {
        let seen = self.gaps.iter().enumerate().filter(|(_, count)| **count > 0);
        seen.map(|(bin, count)| f64::from(*count) * of(middle(bin))).sum()
    }

    /// The bin up to which this share of the gaps lies.
    fn bin_at(&self, share: f64) -> usize {
        let (wanted, mut below) = (share * f64::from(self.seen), 0.0);
        for (bin, count) in self.gaps.iter().enumerate() {
            below += f64::from(*count);
            if below >= wanted && *count > 0 {
                return bin;
            }
        }
        BINS - 1
    }
}

/// The bin of a gap: one for all below a second, then [`BINS_PER_DOUBLING`] for each doubling.
fn bin(gap: Duration) -> usize {
    let seconds = gap.as_secs_f64();
    if seconds < 1.0 {
        return 0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a small constant")]
    let bin = seconds.log2() * BINS_PER_DOUBLING as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not below 0, and cut to the last bin")]
    let bin = bin as usize + 1;
    bin.min(BINS - 1)
}

/// Where a bin begins.
fn lower_edge(bin: usize) -> Duration {
    if bin == 0 {
        return Duration::ZERO;
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let doublings = (bin - 1) as f64 / BINS_PER_DOUBLING as f64;
    Duration::from_secs_f64(doublings.exp2())
}

/// The middle of a bin, in seconds: what a gap in it is taken for.
fn middle(bin: usize) -> f64 {
    f64::midpoint(lower_edge(bin).as_secs_f64(), lower_edge(bin + 1).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: KeepAlive = KeepAlive {
        unknown: Duration::from_secs(300),
        least: Duration::from_secs(30),
        most: Duration::from_secs(3600),
    };

    fn after(gaps: impl IntoIterator<Item = u64>) -> (History, Instant) {
        let (mut history, mut now) = (History::default(), Instant::now());
        history.arrived(now);
        for gap in gaps {
            now += Duration::from_secs(gap);
            history.arrived(now);
        }
        (history, now)
    }

    #[test]
    fn little_knowledge_keeps_what_the_operator_says() {
        let (history, _) = after([10; 5]);
        assert_eq!(history.habit(&BOUNDS).keep_alive, BOUNDS.unknown);
        let (history, _) = after([1000; 50]);
        let fixed = KeepAlive::fixed(Duration::from_secs(7));
        assert_eq!(history.habit(&fixed), Habit { keep_alive: Duration::from_secs(7), expected: None });
    }

    #[test]
    fn a_busy_function_is_let_go_soon_and_one_that_pauses_is_kept_over_its_pauses() {
        let (history, _) = after([1; 100]);
        assert_eq!(history.habit(&BOUNDS).keep_alive, BOUNDS.least);
        // A pause of four minutes is shorter than what a cold start is worth.
        let (history, _) = after((0..100).map(|n| if n % 3 == 0 { 240 } else { 5 }));
        let habit = history.habit(&BOUNDS);
        assert!((240..330).contains(&habit.keep_alive.as_secs()), "{habit:?}");
        // One of a quarter of an hour is not, however often it comes.
        let (history, _) = after((0..100).map(|n| if n % 3 == 0 { 900 } else { 5 }));
        assert_eq!(history.habit(&BOUNDS), Habit { keep_alive: BOUNDS.least, expected: None });
        // But many short pauses pay for keeping over a longer one.
        let (history, _) = after((0..100).map(|n| 40 + n * 5));
        assert!(history.habit(&BOUNDS).keep_alive > Duration::from_secs(400), "{:?}", history.habit(&BOUNDS));
    }

    #[test]
    fn what_comes_like_clockwork_is_expected_and_what_comes_too_rarely_is_not_kept() {
        let (history, _) = after([900; 20]);
        let habit = history.habit(&BOUNDS);
        let (from, until) = habit.expected.unwrap();
        assert!(from < Duration::from_secs(900) && from > Duration::from_secs(700), "{from:?}");
        assert!(until > Duration::from_secs(900) && until < Duration::from_secs(1200), "{until:?}");
        assert_eq!(habit.keep_alive, BOUNDS.least);
        let (history, _) = after((0..40).map(|n| 4000 + n * 300));
        assert_eq!(history.habit(&BOUNDS), Habit { keep_alive: BOUNDS.least, expected: None });
    }

    #[test]
    fn habits_change() {
        let (mut history, mut now) = after((0..1000).map(|n| 100 + n % 100));
        let before = history.habit(&BOUNDS);
        assert!(before.keep_alive > BOUNDS.least || before.expected.is_some(), "{before:?}");
        for _ in 0..20_000 {
            now += Duration::from_secs(2);
            history.arrived(now);
        }
        assert_eq!(history.habit(&BOUNDS), Habit { keep_alive: BOUNDS.least, expected: None });
    }

    #[test]
    fn steady_work_wants_what_it_keeps_busy_and_a_little_more() {
        let (mut history, mut now) = (History::default(), Instant::now());
        for _ in 0..10_000 {
            now += Duration::from_millis(10);
            history.arrived(now);
        }
        let service_time = Some(Duration::from_millis(160));
        assert!((20..=21).contains(&history.wanted(service_time, now)), "16 busy and 4 to spare");
        assert_eq!(history.wanted(Some(Duration::from_millis(1)), now), 0, "one that is kept is enough");
        assert_eq!(history.wanted(service_time, now + Duration::from_secs(120)), 0, "and it passes");
    }

    proptest! {
        #[test]
        fn keeping_stays_within_its_bounds(gaps in prop::collection::vec(0u64..40_000, 0..300)) {
            let (history, _) = after(gaps.iter().copied());
            let habit = history.habit(&BOUNDS);
            prop_assert!(habit.keep_alive >= BOUNDS.least && habit.keep_alive <= BOUNDS.most);
            if let Some((from, until)) = habit.expected {
                prop_assert!(from < until && from > BOUNDS.least);
            }
        }

        #[test]
        fn a_gap_lies_between_the_edges_of_its_bin(millis in 0u64..40_000_000) {
            let gap = Duration::from_millis(millis);
            let at = bin(gap);
            prop_assert!(lower_edge(at) <= gap + Duration::from_millis(1));
            prop_assert!(at == BINS - 1 || gap <= lower_edge(at + 1) + Duration::from_millis(1));
        }
    }
}
