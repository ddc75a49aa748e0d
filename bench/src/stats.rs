//! Numbers from samples. Pure.

use serde::Serialize;

/// What is taken from the samples of one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// The value below which this share of the samples lies, in per cent.
    Percentile(f64),
}

/// The median.
pub const P50: Statistic = Statistic::Percentile(50.0);
/// The 95th percentile.
pub const P95: Statistic = Statistic::Percentile(95.0);
/// The 99th percentile.
pub const P99: Statistic = Statistic::Percentile(99.0);

impl Statistic {
    /// Of these samples, by the nearest rank; none of none.
    pub fn of(self, samples: &[f64]) -> Option<f64> {
        let Self::Percentile(percent) = self;
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = ((percent / 100.0 * sorted.len() as f64).ceil() as usize).max(1);
        sorted.get(rank - 1).copied()
    }
}

/// The median of values, the mean of the middle two where their number is even.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => sorted.get(middle).copied(),
        _ => Some(f64::midpoint(*sorted.get(middle - 1)?, *sorted.get(middle)?)),
    }
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This service.
    Ours,
    /// What it is held against.
    Peer,
}

/// Samples of both sides, by rounds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rounds {
    /// Of this service.
    pub ours: Vec<Vec<f64>>,
    /// Of the peer.
    pub peer: Vec<Vec<f64>>,
}

impl Rounds {
    /// Adds a round of one side.
    pub fn push(&mut self, side: Side, samples: Vec<f64>) {
        match side {
            Side::Ours => self.ours.push(samples),
            Side::Peer => self.peer.push(samples),
        }
    }

    /// The median over the rounds of a statistic of each, for both sides.
    pub fn both(&self, statistic: Statistic) -> (Option<f64>, Option<f64>) {
        let of = |rounds: &[Vec<f64>]| {
            median(&rounds.iter().filter_map(|samples| statistic.of(samples)).collect::<Vec<_>>())
        };
        (of(&self.ours), of(&self.peer))
    }
}

/// Both sides for each of some rounds, the order alternated: who comes first in one round comes last in the next.
pub fn alternating(rounds: usize) -> Vec<Side> {
    (0..rounds)
        .flat_map(|round| if round % 2 == 0 { [Side::Ours, Side::Peer] } else { [Side::Peer, Side::Ours] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_sample_at_the_nearest_rank() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([P50, P95, P99].map(|statistic| statistic.of(&samples)), [Some(50.0), Some(95.0), Some(99.0)]);
        assert_eq!(P99.of(&[3.0, 1.0]), Some(3.0));
        assert_eq!(P50.of(&[]), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn who_is_first_alternates() {
        assert_eq!(alternating(2), [Side::Ours, Side::Peer, Side::Peer, Side::Ours]);
    }

    #[test]
    fn one_bad_round_does_not_move_the_figure() {
        let mut rounds = Rounds::default();
        for value in [1.0, 1.0, 100.0] {
            rounds.push(Side::Ours, vec![value; 10]);
        }
        assert_eq!(rounds.both(P50), (Some(1.0), None));
    }
}
