//! The plots, as SVG: ratios against their targets, and how latencies are distributed. Pure.
//!
//! Two plots of two shapes need no library; what a reader sees in a browser is these few lines and texts.

use std::fmt::Write as _;

use crate::bench::Distribution;
use crate::report::{Row, short};
use crate::stats::Statistic;

const OURS: &str = "#0072b2";
const PEER: &str = "#d55e00";
const QUIET: &str = "#777777";

/// Text as it stands in XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

struct Svg(String);

impl Svg {
    fn new(width: f64, height: f64) -> Self {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
        );
        Self(text)
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.0,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" stroke-width=\"{width}\"/>"
        );
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, color: &str, text: &str) {
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{}</text>",
            escape(text)
        );
    }

    fn dot(&mut self, (x, y): (f64, f64), color: &str) {
        let _ = writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{color}\"/>");
    }

    fn path(&mut self, points: &[(f64, f64)], color: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.0,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Values on a logarithmic axis.
struct Logarithmic {
    low: f64,
    high: f64,
    left: f64,
    right: f64,
}

impl Logarithmic {
    /// One that has all of these, from `left` to `right`.
    fn over(values: impl Iterator<Item = f64>, left: f64, right: f64) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite() && *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low.is_finite() { (low / 1.2, high * 1.2) } else { (0.1, 10.0) };
        Self { low, high, left, right }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln());
        self.left + share * (self.right - self.left)
    }

    /// 1, 2 and 5 of each decade.
    fn marks(&self) -> Vec<f64> {
        let decades = -6..9;
        decades
            .flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(decade)))
            .filter(|mark| (self.low..=self.high).contains(mark))
            .collect()
    }
}

/// Every ratio as a dot beside its target.
pub fn ratios(rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().filter_map(|row| Some((row, row.ratio?, row.bound?))).collect();
    let (left, right, top, step) = (420.0, 900.0, 50.0, 26.0);
    #[allow(clippy::cast_precision_loss)]
    let bottom = top + step * rows.len() as f64;
    let axis = Logarithmic::over(rows.iter().flat_map(|(_, ratio, bound)| [*ratio, *bound, 1.0]), left, right);
    let mut svg = Svg::new(960.0, bottom + 50.0);
    svg.text(
        (20.0, 24.0),
        "start",
        "black",
        "Ours by the peer's: a dot is measured, a bar is the target (◂ at most, ▸ at least)",
    );
    for mark in axis.marks() {
        let x = axis.place(mark);
        svg.line((x, top - 10.0), (x, bottom), if mark == 1.0 { QUIET } else { "#e5e5e5" }, 1.0);
        svg.text((x, bottom + 18.0), "middle", QUIET, &mark.to_string());
    }
    let mut y = top + step / 2.0;
    for (row, ratio, bound) in rows {
        svg.text((left - 14.0, y + 4.0), "end", "black", &row.measure);
        let x = axis.place(bound);
        svg.line((x, y - 9.0), (x, y + 9.0), "black", 3.0);
        let (arrow, anchor, aside) = if row.more_is_better { ("▸", "start", 3.0) } else { ("◂", "end", -3.0) };
        svg.text((x + aside, y + 4.0), anchor, "black", arrow);
        let color = if row.reached == Some(true) { OURS } else { PEER };
        svg.dot((axis.place(ratio), y), color);
        svg.text((right + 10.0, y + 4.0), "start", color, &short(ratio));
        y += step;
    }
    svg.text((right, bottom + 36.0), "end", OURS, "reached");
    svg.text((right - 60.0, bottom + 36.0), "end", PEER, "not reached");
    svg.end()
}

/// The share of calls that took at most so long, of both sides, all rounds together.
pub fn distribution(distribution: &Distribution) -> String {
    let (left, right, top, bottom) = (60.0, 700.0, 60.0, 360.0);
    let rounds = &distribution.rounds;
    let all = |rounds: &[Vec<f64>]| rounds.iter().flatten().copied().collect::<Vec<_>>();
    let sides = [(all(&rounds.ours), OURS, "ours"), (all(&rounds.peer), PEER, distribution.peer.as_str())];
    let axis = Logarithmic::over(sides.iter().flat_map(|(samples, _, _)| samples.iter().copied()), left, right);
    let height = |percent: f64| bottom - percent / 100.0 * (bottom - top);
    let mut svg = Svg::new(760.0, 420.0);
    svg.text((left, 24.0), "start", "black", &distribution.title);
    for percent in [0.0, 25.0, 50.0, 75.0, 90.0, 99.0] {
        svg.line((left, height(percent)), (right, height(percent)), "#e5e5e5", 1.0);
        svg.text((left - 8.0, height(percent) + 4.0), "end", QUIET, &format!("{percent} %"));
    }
    for mark in axis.marks() {
        let x = axis.place(mark);
        svg.line((x, top), (x, bottom), "#e5e5e5", 1.0);
        svg.text((x, bottom + 18.0), "middle", QUIET, &mark.to_string());
    }
    svg.text((right, bottom + 36.0), "end", QUIET, "milliseconds");
    let mut x = left;
    for (samples, color, name) in sides {
        let points: Vec<_> = (0..=200_u32)
            .map(|half| f64::from(half) / 2.0)
            .filter_map(|percent| Some((axis.place(Statistic::Percentile(percent).of(&samples)?), height(percent))))
            .collect();
        svg.path(&points, color);
        svg.text((x, 44.0), "start", color, name);
        x += 80.0;
    }
    svg.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Target;
    use crate::stats::Rounds;

    #[test]
    fn a_ratio_and_its_target_are_drawn_with_the_measures_name() {
        let rows = [
            Row::new("a < b", "ms", (Some(1.0), Some(2.0)), "peer", Target::AtMost(1.0)),
            Row::failed("broken", "why"),
        ];
        let svg = ratios(&rows);
        assert!(svg.contains("a &lt; b") && svg.contains(">0.500<") && svg.ends_with("</svg>\n"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 1);
    }

    #[test]
    fn a_distribution_has_a_curve_for_each_side() {
        let rounds = Rounds { ours: vec![vec![1.0, 2.0], vec![3.0]], peer: vec![vec![4.0]] };
        let svg = distribution(&Distribution { title: "calls".to_owned(), peer: "peer".to_owned(), rounds });
        assert_eq!(svg.matches("<polyline").count(), 2);
    }

    #[test]
    fn nothing_measured_is_an_empty_plot() {
        assert!(ratios(&[]).ends_with("</svg>\n"));
    }
}
