//! How often something happens, smoothed.

use std::time::{Duration, Instant};

/// A rate that forgets: what happened one time constant ago counts for a third of what happens now.
#[derive(Clone, Debug)]
pub struct Rate {
    per_second: f64,
    at: Option<Instant>,
    over: Duration,
}

impl Rate {
    /// One that is smoothed over about this long.
    #[must_use]
    pub const fn over(time: Duration) -> Self {
        Self { per_second: 0.0, at: None, over: time }
    }

    /// Notes that it happened so many times.
    pub fn add(&mut self, times: f64, now: Instant) {
        self.per_second = self.per_second(now) + times / self.over.as_secs_f64();
        self.at = Some(now);
    }

    /// Times a second.
    #[must_use]
    pub fn per_second(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        let since = now.saturating_duration_since(at).as_secs_f64() / self.over.as_secs_f64();
        self.per_second * (-since).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_close_to_what_happens_and_forgets_it() {
        let (mut rate, mut now) = (Rate::over(Duration::from_secs(10)), Instant::now());
        assert!(rate.per_second(now).abs() < f64::EPSILON);
        for _ in 0..1000 {
            now += Duration::from_millis(100);
            rate.add(1.0, now);
        }
        assert!((rate.per_second(now) - 10.0).abs() < 0.2);
        assert!(rate.per_second(now + Duration::from_secs(60)) < 0.1);
    }
}
