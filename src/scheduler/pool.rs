//! Instances that are ready before anybody needs them: how many there should be.

use std::time::{Duration, Instant};

use super::rate::Rate;
use crate::model::instance::Isolation;
use crate::model::runtime::RuntimeName;
use crate::model::{Invalid, function::MemoryMib};

/// Over how long the rate is smoothed at which instances are taken: about what a boot takes, so that a burst is answered
/// with the boots that the next one would need.
const RATE_OVER: Duration = Duration::from_secs(30);
/// What a boot takes until one has been seen.
const BOOT_TIME: Duration = Duration::from_secs(5);
/// Weight of the latest boot in the smoothed time.
const BOOT_TIME_WEIGHT: f64 = 0.3;
/// For how many boot times ahead instances are kept ready.
const AHEAD: f64 = 1.5;

/// What kind of instance a pool keeps ready.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    /// What separates its instances from others: which driver makes them.
    pub isolation: Isolation,
    /// The runtime that they are ready for.
    pub runtime: RuntimeName,
    /// Memory for sandboxes, in MiB: the memory class.
    pub memory_mib: u32,
}

/// One pool as the operator wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTerms {
    /// What it keeps ready.
    pub key: PoolKey,
    /// At least so many.
    pub least: u32,
    /// At most so many, when instances are taken faster than they boot.
    pub most: u32,
}

impl PoolTerms {
    /// Reads one entry of the option `pools`: the name is `runtime/memory_mib`, the value a number or `least-most`.
    ///
    /// # Errors
    /// When it is not of that form.
    pub fn parse(isolation: Isolation, name: &str, size: &str) -> Result<Self, Invalid> {
        let wrong = || {
            let text = "must be runtime/memory_mib:count or runtime/memory_mib:least-most, such as python3/256:2-8";
            Invalid::new("pools", text)
        };
        let (runtime, memory) = name.split_once('/').ok_or_else(wrong)?;
        let memory = MemoryMib::new(memory.trim().parse().map_err(|_| wrong())?)?;
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n <= 10_000).ok_or_else(wrong);
        let (least, most) = match size.split_once('-') {
            Some((least, most)) => (number(least)?, number(most)?),
            None => (number(size)?, number(size)?),
        };
        if least > most {
            return Err(wrong());
        }
        let key = PoolKey { isolation, runtime: RuntimeName::parse(runtime.trim())?, memory_mib: memory.get() };
        Ok(Self { key, least, most })
    }
}

/// One pool and what is known of its use.
#[derive(Clone, Debug)]
pub struct Pool {
    terms: PoolTerms,
    taken: Rate,
    boot_time: Option<Duration>,
}

impl Pool {
    /// One that nobody has used.
    #[must_use]
    pub const fn new(terms: PoolTerms) -> Self {
        Self { terms, taken: Rate::over(RATE_OVER), boot_time: None }
    }

    /// What it keeps ready.
    #[must_use]
    pub const fn key(&self) -> &PoolKey {
        &self.terms.key
    }

    /// The same pool on other terms.
    #[must_use]
    pub fn on(mut self, terms: PoolTerms) -> Self {
        self.terms = terms;
        self
    }

    /// Notes that an instance was needed: one of the pool, or one like it that had to be booted.
    pub fn needed(&mut self, now: Instant) {
        self.taken.add(1.0, now);
    }

    /// Notes how long a boot took.
    pub fn booted(&mut self, took: Duration) {
        self.boot_time = Some(
            self.boot_time
                .map_or(took, |smoothed| smoothed.mul_f64(1.0 - BOOT_TIME_WEIGHT) + took.mul_f64(BOOT_TIME_WEIGHT)),
        );
    }

    /// How many there should be, those that boot included: what is taken while one boots, and somewhat more, so that it is
    /// refilled ahead of need.
    #[must_use]
    pub fn target(&self, now: Instant) -> u32 {
        let boot_time = self.boot_time.unwrap_or(BOOT_TIME).as_secs_f64();
        let ahead = (self.taken.per_second(now) * boot_time * AHEAD).clamp(0.0, f64::from(u16::MAX));
        // Below half an instance it is noise, not need.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 65,535")]
        let ahead = ahead.round() as u32;
        (self.terms.least + ahead).min(self.terms.most)
    }
}

/// A pool at one moment, for the planner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTarget {
    /// What it keeps ready.
    pub key: PoolKey,
    /// How many there should be.
    pub target: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(size: &str) -> Result<PoolTerms, Invalid> {
        PoolTerms::parse(Isolation::Container, "python3/256", size)
    }

    #[test]
    fn terms_are_read_and_nonsense_is_refused() {
        let read = terms("2-8").unwrap();
        assert_eq!((read.key.runtime.as_str(), read.key.memory_mib, read.least, read.most), ("python3", 256, 2, 8));
        assert_eq!(terms("3").unwrap().most, 3);
        for wrong in ["", "x", "3-2", "-1", "1-", "100000"] {
            assert!(terms(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["python3", "python3/", "/256", "python3/1", "python3/x"] {
            assert!(PoolTerms::parse(Isolation::Vm, wrong, "1").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_pool_grows_with_what_is_taken_and_shrinks_again() {
        let (mut pool, mut now) = (Pool::new(terms("1-6").unwrap()), Instant::now());
        assert_eq!(pool.target(now), 1);
        pool.booted(Duration::from_secs(2));
        for _ in 0..60 {
            now += Duration::from_millis(500);
            pool.needed(now);
        }
        assert_eq!(pool.target(now), 5, "about 1.3 a second, 2 s each, half as many again, and the one");
        for _ in 0..600 {
            now += Duration::from_millis(50);
            pool.needed(now);
        }
        assert_eq!(pool.target(now), 6, "never more than the operator allows");
        assert_eq!(pool.target(now + Duration::from_secs(300)), 1);
    }
}
