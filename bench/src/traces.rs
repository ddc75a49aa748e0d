//! Plots of how the service follows its load: each trace is replayed in virtual time through the real dispatcher, and what
//! arrived, what waited, and the sandboxes and instances that there were are drawn over the same time.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use lambda_openstack::model::instance::Isolation;
use lambda_openstack::scheduler::history::KeepAlive;
use plotters::prelude::*;

#[allow(clippy::unwrap_used, reason = "the world is played as in the tests")]
#[path = "../../tests/it/elastic/traces.rs"]
mod recorded;
#[allow(clippy::unwrap_used, clippy::panic, reason = "the world is played as in the tests")]
#[path = "../../tests/it/elastic/replay.rs"]
pub mod replay;

use replay::{CONTAINERS, Cloud, Outcome, Sample, Trace};

/// As `[worker]` has it by default.
const LEARNED: KeepAlive =
    KeepAlive { unknown: Duration::from_secs(300), least: Duration::from_secs(60), most: Duration::from_secs(1800) };

/// A trace, the most executions at the same time, and how the cloud is played.
struct Case {
    name: &'static str,
    title: &'static str,
    trace: Trace,
    max_running: u32,
    cloud: Cloud,
}

/// What a replay came to, for the report.
pub struct Summary {
    /// The trace.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Events.
    pub events: usize,
    /// Milliseconds that half of the events, and all but one in a hundred, waited for a sandbox.
    pub wait_ms: (f64, f64),
    /// Events that waited for a start of their sandbox.
    pub cold: usize,
    /// Sandboxes started and instances booted.
    pub started: (usize, usize),
}

fn cases() -> Vec<Case> {
    let hour = Duration::from_secs(3600);
    let coarse = Cloud { tick: Duration::from_secs(1), sample: Duration::from_secs(60), ..Cloud::default() };
    let fine = Cloud { sample: Duration::from_millis(100), ..Cloud::default() };
    let ms = Duration::from_millis;
    vec![
        Case {
            name: "steady",
            title: "steady: 20 events a second of 200 ms",
            trace: Trace { rest: Duration::from_secs(300), ..recorded::steady(20.0, ms(200), hour / 6) },
            max_running: 64,
            cloud: Cloud::default(),
        },
        Case {
            name: "noisy",
            title: "noisy: a rate that changes every second between nothing and 40 events of 200 ms",
            trace: Trace { rest: Duration::from_secs(300), ..recorded::noisy(20.0, ms(200), hour / 6) },
            max_running: 64,
            cloud: Cloud::default(),
        },
        Case {
            name: "daily",
            title: "daily: 24 hours, at noon 5 events a second of 200 ms",
            trace: recorded::daily(5.0, hour * 24),
            max_running: 64,
            cloud: coarse,
        },
        Case {
            name: "burst",
            title: "burst: 1,000 events of 100 ms within a second, out of nothing, at most 50 at the same time",
            trace: Trace { rest: Duration::from_secs(30), ..recorded::burst(1000, ms(100)) },
            max_running: 50,
            cloud: fine,
        },
        Case {
            name: "rare",
            title: "rare: 1,000 functions, each called once in 1 to 128 minutes on average",
            trace: Trace { rest: hour / 2, ..recorded::rare(1000, hour * 2) },
            max_running: 64,
            cloud: Cloud { tick: Duration::from_secs(5), ..coarse },
        },
        Case {
            name: "flood",
            title: "flood: 3,000 events of 500 ms of one project, single events of another, at most 32 at the same time",
            trace: recorded::flood(3000, ms(500)),
            max_running: 32,
            cloud: Cloud::default(),
        },
    ]
}

/// Replays all traces and draws each into the directory.
///
/// # Errors
/// When a plot cannot be written.
pub fn draw_all(directory: &Path) -> Result<Vec<Summary>, Box<dyn Error + Send + Sync>> {
    cases()
        .into_iter()
        .map(|case| {
            let options = replay::options(CONTAINERS, Isolation::Container, case.max_running, LEARNED);
            let outcome = replay::replay(&case.trace, options, case.cloud);
            draw(&directory.join(format!("trace-{}.svg", case.name)), case.title, &outcome.samples)?;
            Ok(summary(&case, &outcome))
        })
        .collect()
}

fn summary(case: &Case, outcome: &Outcome) -> Summary {
    let mut waits: Vec<_> = outcome.waits.iter().map(|(_, wait)| wait.as_secs_f64() * 1000.0).collect();
    waits.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| waits.get(waits.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0);
    Summary {
        name: case.name,
        title: case.title,
        events: case.trace.arrivals.len(),
        wait_ms: (at(50), at(99)),
        cold: outcome.cold,
        started: (outcome.starts, outcome.boots),
    }
}

/// The summaries as a part of the report.
pub fn markdown(summaries: &[Summary]) -> String {
    let mut text = "\n## Traces\n\nReplayed in virtual time through the real dispatcher; boots take 2 s, starts of sandboxes 20 ms.\n\n\
                    | trace | events | waited, p50 / p99 (ms) | waited for a start | sandboxes / instances started |\n|---|---|---|---|---|\n"
        .to_owned();
    for s in summaries {
        let (p50, p99) = s.wait_ms;
        let _ = writeln!(
            text,
            "| [{}](trace-{}.svg) | {} | {p50:.0} / {p99:.0} | {} | {} / {} |",
            s.title, s.name, s.events, s.cold, s.started.0, s.started.1
        );
    }
    text
}

type Value = fn(&Sample) -> u32;

/// Four panels, one above the other, over the same time.
fn draw(path: &Path, title: &str, samples: &[Sample]) -> Result<(), Box<dyn Error + Send + Sync>> {
    let root = SVGBackend::new(path, (900, 720)).into_drawing_area();
    root.fill(&WHITE)?;
    let end = samples.last().map_or(1.0, |sample| sample.at.as_secs_f64());
    let (unit, scale) = if end > 7200.0 { ("hours", 3600.0) } else { ("seconds", 1.0) };
    let every = samples.get(1).map_or(1.0, |sample| sample.at.as_secs_f64());
    let (top, rest) = root.split_vertically(30);
    top.draw(&Text::new(title, (10, 8), ("sans-serif", 16)))?;
    let arrived = format!("arrived / {}", if every < 1.0 { format!("{every} s") } else { format!("{every:.0} s") });
    let panels: [(&str, Value, RGBColor); 4] = [
        (&arrived, |sample| sample.arrived, RGBColor(90, 90, 90)),
        ("waiting", |sample| sample.waiting, RGBColor(200, 80, 40)),
        ("sandboxes", |sample| sample.sandboxes, RGBColor(30, 110, 180)),
        ("instances", |sample| sample.instances, RGBColor(40, 140, 90)),
    ];
    for (area, (name, value, colour)) in rest.split_evenly((4, 1)).iter().zip(panels) {
        let most = samples.iter().map(value).max().unwrap_or(0).max(1);
        let mut chart = ChartBuilder::on(area)
            .margin_right(20)
            .x_label_area_size(28)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end / scale, 0.0..f64::from(most) * 1.1)?;
        chart.configure_mesh().disable_x_mesh().y_labels(4).y_desc(name).x_desc(unit).draw()?;
        let points = samples.iter().map(|sample| (sample.at.as_secs_f64() / scale, f64::from(value(sample))));
        chart.draw_series(AreaSeries::new(points, 0.0, colour.mix(0.25)).border_style(colour))?;
        if name == "sandboxes" {
            // Those of them that were at work.
            let busy = samples.iter().map(|sample| (sample.at.as_secs_f64() / scale, f64::from(sample.running)));
            chart.draw_series(LineSeries::new(busy, BLACK))?;
        }
    }
    root.present()?;
    Ok(())
}
