//! How the service follows its load, seen over whole traces of arrivals: the dispatcher is the real one, the cloud and the
//! time are played.

mod replay;
mod traces;

use std::time::Duration;

use lambda_openstack::model::instance::Isolation;
use lambda_openstack::scheduler::history::KeepAlive;
use lambda_openstack::worker::dispatch::Options;
use replay::{CONTAINERS, Cloud, Outcome, Trace};

const LEARNED: KeepAlive =
    KeepAlive { unknown: Duration::from_secs(300), least: Duration::from_secs(60), most: Duration::from_secs(1800) };

fn options(max_running: u32, keep_alive: KeepAlive) -> Options {
    replay::options(CONTAINERS, Isolation::Container, max_running, keep_alive)
}

fn replayed(trace: &Trace, max_running: u32) -> Outcome {
    let outcome = replay::replay(trace, options(max_running, LEARNED), Cloud::default());
    assert_eq!(outcome.finished, trace.arrivals.len(), "every event is handled");
    assert!(outcome.most <= max_running);
    let arrived: u32 = outcome.samples.iter().map(|sample| sample.arrived).sum();
    assert_eq!(usize::try_from(arrived).unwrap(), trace.arrivals.len());
    outcome
}

fn percentile(outcome: &Outcome, function: usize, share: usize) -> Duration {
    let mut waits: Vec<_> = outcome.waits.iter().filter(|(of, _)| *of == function).map(|(_, wait)| *wait).collect();
    waits.sort_unstable();
    waits[(waits.len() - 1) * share / 100]
}

/// Scale to zero is the rest state.
fn assert_at_rest(outcome: &Outcome) {
    let last = outcome.samples.last().unwrap();
    assert_eq!((last.waiting, last.running, last.sandboxes, last.instances), (0, 0, 0, 0));
}

#[test]
fn a_steady_load_gets_its_sandboxes_once_and_keeps_them() {
    // 20 a second of 200 ms: four at the same time.
    let trace = traces::steady(20.0, Duration::from_millis(200), Duration::from_secs(600));
    let outcome = replayed(&trace, 64);
    let later: Vec<_> = outcome.samples.iter().filter(|s| (120..600).contains(&s.at.as_secs())).collect();
    let (least, most) = later.iter().fold((u32::MAX, 0), |(l, m), s| (l.min(s.sandboxes), m.max(s.sandboxes)));
    assert!(least >= 4 && most <= 16, "{least} to {most} sandboxes for a load that keeps four busy");
    // Less than one event in two hundred is worth another start.
    assert!(outcome.starts * 200 < trace.arrivals.len(), "{} starts", outcome.starts);
    assert!(percentile(&outcome, 0, 99) <= Duration::from_millis(200));
    assert_at_rest(&outcome);
}

#[test]
fn a_noisy_load_does_not_make_it_flap() {
    let trace = traces::noisy(20.0, Duration::from_millis(200), Duration::from_secs(1200));
    let outcome = replayed(&trace, 64);
    // Twenty minutes of a rate that changes every second by up to its double.
    assert!(outcome.starts * 200 < trace.arrivals.len(), "{} starts of sandboxes", outcome.starts);
    assert!(outcome.boots <= 10, "{} boots", outcome.boots);
    assert_at_rest(&outcome);
}

#[test]
fn a_day_is_followed_up_and_down() {
    const HOUR: Duration = Duration::from_secs(3600);
    let trace = traces::daily(20.0, HOUR);
    let outcome = replayed(&trace, 64);
    let mut by_sixth = [0; 6];
    for sample in outcome.samples.iter().filter(|sample| sample.at < HOUR) {
        by_sixth[usize::try_from(sample.at.as_secs() / 600).unwrap()] += sample.sandboxes;
    }
    assert!(by_sixth[0] < by_sixth[1] && by_sixth[1] < by_sixth[2], "{by_sixth:?}");
    assert!(by_sixth[5] < by_sixth[4] && by_sixth[4] < by_sixth[3], "{by_sixth:?}");
    assert!(by_sixth[0] * 3 < by_sixth[2], "{by_sixth:?}");
    assert!(outcome.starts * 100 < trace.arrivals.len(), "{} starts", outcome.starts);
    assert_at_rest(&outcome);
}

#[test]
fn a_burst_out_of_nothing_is_met_within_its_limit_and_everything_goes_again() {
    let trace = traces::burst(1000, Duration::from_millis(100));
    let outcome = replayed(&trace, 50);
    assert!(outcome.most >= 25, "{} at the same time", outcome.most);
    let done = outcome.samples.iter().rev().find(|s| s.waiting + s.running > 0).unwrap().at;
    assert!(done <= Duration::from_secs(30 + 8), "a boot of two seconds included it took until {done:?}");
    assert_at_rest(&outcome);
}

#[test]
fn one_event_of_a_project_waits_for_one_service_time_while_another_floods() {
    let service_time = Duration::from_millis(500);
    let trace = traces::flood(3000, service_time);
    let outcome = replayed(&trace, 32);
    let during: Vec<_> = outcome.waits.iter().filter(|(function, _)| *function == 1).skip(4).collect();
    let longest = during.iter().map(|(_, wait)| *wait).max().unwrap();
    assert!(longest <= service_time, "{longest:?}");
    assert!(percentile(&outcome, 0, 100) > Duration::from_secs(30), "the flood itself waits");
}

#[test]
fn what_was_learned_costs_less_than_any_one_time_for_all() {
    const COLD_START: Duration = LEARNED.unknown;
    let trace = traces::rare(20, Duration::from_secs(5 * 3600));
    let cloud = Cloud { tick: Duration::from_secs(5), sample: Duration::from_secs(60), ..Cloud::default() };
    let cost = |keep_alive| {
        let outcome = replay::replay(&trace, options(64, keep_alive), cloud);
        assert_eq!(outcome.finished, trace.arrivals.len());
        assert_at_rest(&outcome);
        // All sandboxes here have 128 MiB.
        outcome.cold as f64 * COLD_START.as_secs_f64() + outcome.sandbox_gib_seconds * 8.0
    };
    let learned = cost(LEARNED);
    for seconds in [150, 300, 500, 900] {
        let fixed = cost(KeepAlive::fixed(Duration::from_secs(seconds)));
        assert!(learned < 0.9 * fixed, "{learned} idle seconds learned, {fixed} with {seconds} s for all");
    }
}
