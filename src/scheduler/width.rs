//! How many claims on one queue are under way at once. While messages keep coming there are ever more, as far as the queue
//! service bears them: claims that are carried out at the same moment may be after the same messages, and all but one come
//! back empty, each for the price of one that does not.

use std::time::{Duration, Instant};

use super::polls::Look;

/// For how long there are fewer claims after some were in each other's way. Then one more is tried.
const FEWER_FOR: Duration = Duration::from_secs(10);

/// The claims of one queue.
#[derive(Clone, Debug)]
pub struct Width {
    most: usize,
    wanted: usize,
    /// Fewer than `most`, until then.
    fewer: Option<(usize, Instant)>,
    /// So many were under way, that which found nothing included, when one found nothing beside others. The next to come
    /// back knows whether there was something.
    unexplained: Option<usize>,
}

impl Width {
    /// At most so many, which is at least one; at first, one.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { most, wanted: 1, fewer: None, unexplained: None }
    }

    /// How many there should be.
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.wanted
    }

    /// One has come back, while `others` are under way.
    pub fn came(&mut self, look: Look, others: usize, now: Instant) {
        let unexplained = self.unexplained.take();
        match (look, unexplained) {
            (Look::Full, Some(under_way)) => {
                self.wanted = (under_way - 1).max(1);
                self.fewer = Some((self.wanted, now + FEWER_FOR));
            }
            (Look::Full, None) => self.wanted = (self.wanted + 1).min(self.bound(now)),
            (Look::Some, _) => {}
            (Look::Empty, _) if others > 0 => {
                self.wanted = others;
                self.unexplained = Some(unexplained.unwrap_or(others + 1));
            }
            (Look::Empty | Look::Failed, _) => self.wanted = 1,
        }
    }

    fn bound(&self, now: Instant) -> usize {
        match self.fewer {
            Some((fewer, until)) if now < until => fewer,
            Some(_) | None => self.most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_messages_keep_coming_there_are_ever_more_claims_up_to_the_bound() {
        let (mut width, now) = (Width::new(4), Instant::now());
        for expected in [2, 3, 4, 4] {
            width.came(Look::Full, width.wanted() - 1, now);
            assert_eq!(width.wanted(), expected);
        }
        width.came(Look::Some, 3, now);
        assert_eq!(width.wanted(), 4);
        for others in (0..4).rev() {
            width.came(Look::Empty, others, now);
            assert_eq!(width.wanted(), others.max(1), "what is under way is waited for");
        }
    }

    #[test]
    fn claims_that_are_in_each_others_way_become_fewer_for_a_while() {
        let (mut width, mut now) = (Width::new(4), Instant::now());
        // A service that bears two at once.
        let mut empty = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            let under_way = width.wanted();
            if under_way > 2 {
                width.came(Look::Empty, under_way - 1, now);
                empty += 1;
            }
            width.came(Look::Full, 0, now);
        }
        assert_eq!(width.wanted(), 2);
        assert!(empty <= 2, "{empty} claims in ten seconds were for nothing");
        now += FEWER_FOR;
        width.came(Look::Full, 1, now);
        assert_eq!(width.wanted(), 3, "it may be better by now");
    }

    #[test]
    fn the_end_of_a_queue_is_not_taken_for_a_collision() {
        let (mut width, now) = (Width::new(4), Instant::now());
        for _ in 0..3 {
            width.came(Look::Full, width.wanted() - 1, now);
        }
        width.came(Look::Empty, 1, now);
        width.came(Look::Some, 0, now);
        for _ in 0..4 {
            width.came(Look::Full, 0, now);
        }
        assert_eq!(width.wanted(), 4);
    }
}
