//! What a run has found, in the forms that it is kept in: rows as JSON, and a table in Markdown. Pure.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::{Rounds, Statistic};

/// What a figure should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Ours is at most this many times the peer's.
    AtMost(f64),
    /// Ours is at least this many times the peer's.
    AtLeast(f64),
    /// Ours is at most this, in its unit, whatever the peer's is.
    Bound(f64),
    /// Nothing is asked: the row is there to be read beside others.
    Information,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What is measured.
    pub measure: String,
    /// This service's figure, or none where the measure failed.
    pub ours: Option<f64>,
    /// The peer's.
    pub peer: Option<f64>,
    /// Ours by the peer's.
    pub ratio: Option<f64>,
    /// What is to be reached, as it is read: `≤ 1.5 ×`.
    pub target: String,
    /// Whether it is; none where nothing is asked.
    pub reached: Option<bool>,
    /// Of both figures.
    pub unit: String,
    /// Who the peer is.
    pub peer_name: String,
    /// What was done how often, or why it failed.
    pub note: String,
    /// What the ratio is compared with, for the plot; none where it is not.
    pub bound: Option<f64>,
    /// Whether more is better.
    pub more_is_better: bool,
}

impl Row {
    /// A row from both figures.
    pub fn new(measure: &str, unit: &str, figures: (Option<f64>, Option<f64>), peer: &str, target: Target) -> Self {
        let (ours, peer_figure) = figures;
        let ratio = ours.zip(peer_figure).map(|(ours, peer)| ours / peer);
        let reached = match target {
            Target::AtMost(most) => Some(ratio.is_some_and(|ratio| ratio <= most)),
            Target::AtLeast(least) => Some(ratio.is_some_and(|ratio| ratio >= least)),
            Target::Bound(most) => Some(ours.is_some_and(|ours| ours <= most)),
            Target::Information => None,
        };
        Self {
            measure: measure.to_owned(),
            ours,
            peer: peer_figure,
            ratio,
            target: target.shown(unit),
            reached,
            unit: unit.to_owned(),
            peer_name: peer.to_owned(),
            note: String::new(),
            bound: match target {
                Target::AtMost(bound) | Target::AtLeast(bound) => Some(bound),
                Target::Bound(_) | Target::Information => None,
            },
            more_is_better: matches!(target, Target::AtLeast(_)),
        }
    }

    /// A row of a statistic of samples.
    pub fn of(measure: &str, unit: &str, rounds: &Rounds, statistic: Statistic, peer: &str, target: Target) -> Self {
        Self::new(measure, unit, rounds.both(statistic), peer, target)
    }

    /// The same with a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// A measure that could not be taken.
    pub fn failed(measure: &str, why: &str) -> Self {
        let mut row = Self::new(measure, "", (None, None), "", Target::Information).note(format!("FAILED: {why}"));
        row.reached = Some(false);
        row
    }
}

impl Target {
    fn shown(self, unit: &str) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {most} ×"),
            Self::AtLeast(least) => format!("≥ {least} ×"),
            Self::Bound(most) => format!("≤ {most} {unit}"),
            Self::Information => "–".to_owned(),
        }
    }
}

/// A number with three digits that count.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        large if large >= 10.0 => 1,
        large if large >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The table, with the machine it was made on.
pub fn markdown(machine: &Machine, rows: &[Row]) -> String {
    let mut text = String::from("# Measured\n\n");
    let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), short);
    let _ = writeln!(text, "{}\n", machine.sentence());
    text.push_str(
        "| measure | ours | peer | unit | ratio | target | reached | against |\n|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let reached = match row.reached {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {reached} | {} |",
            row.measure,
            figure(row.ours),
            figure(row.peer),
            row.unit,
            figure(row.ratio),
            row.target,
            row.peer_name,
        );
    }
    text.push_str("\n## Notes\n\n");
    for row in rows.iter().filter(|row| !row.note.is_empty()) {
        let _ = writeln!(text, "* **{}**: {}", row.measure, row.note);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: Target) -> Row {
        Row::new("calls", "ms", (Some(3.0), Some(2.0)), "somebody", target)
    }

    #[test]
    fn a_target_is_reached_or_not() {
        assert_eq!(row(Target::AtMost(1.5)).reached, Some(true));
        assert_eq!(row(Target::AtMost(1.4)).reached, Some(false));
        assert_eq!(row(Target::AtLeast(1.5)).reached, Some(true));
        assert_eq!(row(Target::AtLeast(1.6)).reached, Some(false));
        assert_eq!(row(Target::Bound(2.9)).reached, Some(false));
        assert_eq!(row(Target::Information).reached, None);
        assert_eq!(Row::new("calls", "ms", (None, None), "somebody", Target::AtMost(9.0)).reached, Some(false));
    }

    #[test]
    fn the_json_has_the_keys_that_readers_know() {
        let value = serde_json::to_value(row(Target::AtMost(1.5)).note("how")).unwrap();
        for key in ["measure", "ours", "peer", "ratio", "target", "reached", "unit", "peer_name"] {
            assert!(value.get(key).is_some(), "{key}: {value}");
        }
        assert_eq!((&value["ratio"], &value["target"]), (&1.5.into(), &"≤ 1.5 ×".into()));
    }

    #[test]
    fn a_failed_measure_is_in_the_table_by_its_name() {
        let text =
            markdown(&Machine::default(), &[row(Target::AtMost(2.0)), Row::failed("boot", "there is no Docker")]);
        assert!(text.contains("| calls | 3.00 | 2.00 | ms | 1.50 | ≤ 2 × | yes | somebody |"), "{text}");
        assert!(text.contains("| boot | – | – |  | – | – | **no** |"), "{text}");
        assert!(text.contains("* **boot**: FAILED: there is no Docker"), "{text}");
    }
}
