//! The traces that are replayed. They are made up, each from a seed, so that everybody has the same; their shapes are
//! those that are known of services like this one: a load that goes on, one that follows the day, one that comes out of
//! nothing, and the many functions that hardly anybody calls.

use std::f64::consts::TAU;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::replay::{Subject, Trace};

fn subject(project: &str, service_time: Duration) -> Subject {
    Subject { project: project.to_owned(), service_time, memory_mib: 128 }
}

/// The time to the next of so many arrivals a second that know nothing of each other.
fn gap(rng: &mut StdRng, per_second: f64) -> Duration {
    let chance: f64 = rng.random_range(f64::EPSILON..1.0);
    Duration::from_secs_f64(-chance.ln() / per_second)
}

/// One function at a steady rate, whose arrivals know nothing of each other.
pub fn steady(per_second: f64, service_time: Duration, length: Duration) -> Trace {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut at, mut arrivals) = (Duration::ZERO, Vec::new());
    loop {
        at += gap(&mut rng, per_second);
        if at >= length {
            break;
        }
        arrivals.push((at, 0));
    }
    Trace { functions: vec![subject("steady", service_time)], arrivals, rest: Duration::from_secs(600) }
}

/// One function whose rate jumps about from one second to the next, between nothing and twice its mean.
pub fn noisy(per_second: f64, service_time: Duration, length: Duration) -> Trace {
    let mut rng = StdRng::seed_from_u64(2);
    let mut arrivals = Vec::new();
    for second in 0..length.as_secs() {
        let (mut at, end) = (Duration::from_secs(second), Duration::from_secs(second + 1));
        let rate: f64 = rng.random_range(0.01..2.0) * per_second;
        loop {
            at += gap(&mut rng, rate);
            if at >= end {
                break;
            }
            arrivals.push((at, 0));
        }
    }
    Trace { functions: vec![subject("noisy", service_time)], arrivals, rest: Duration::from_secs(600) }
}

/// One function that follows the day: `peak` events a second at noon, next to none at night.
pub fn daily(peak: f64, day: Duration) -> Trace {
    let mut rng = StdRng::seed_from_u64(3);
    let (mut at, mut arrivals) = (Duration::ZERO, Vec::new());
    loop {
        // Thinned out from the peak's rate.
        at += gap(&mut rng, peak);
        if at >= day {
            break;
        }
        let wave = (1.0 - (TAU * at.as_secs_f64() / day.as_secs_f64()).cos()) / 2.0;
        if rng.random_bool(wave.powi(3)) {
            arrivals.push((at, 0));
        }
    }
    Trace { functions: vec![subject("daily", Duration::from_millis(200))], arrivals, rest: Duration::from_secs(3600) }
}

/// A thousand events within one second, out of nothing.
pub fn burst(events: u32, service_time: Duration) -> Trace {
    let mut rng = StdRng::seed_from_u64(4);
    let begin = Duration::from_secs(30);
    let mut arrivals: Vec<_> =
        (0..events).map(|_| (begin + Duration::from_secs_f64(rng.random_range(0.0..1.0)), 0)).collect();
    arrivals.sort_unstable();
    Trace { functions: vec![subject("burst", service_time)], arrivals, rest: Duration::from_secs(600) }
}

/// Many functions that are called rarely: a third of them by the clock, a third now and then, a third in little groups
/// with long pauses between them.
pub fn rare(functions: usize, length: Duration) -> Trace {
    let mut rng = StdRng::seed_from_u64(5);
    let mut arrivals = Vec::new();
    for function in 0..functions {
        let mean = 60.0 * 2f64.powf(rng.random_range(0.0..7.0));
        let mut at = Duration::from_secs_f64(rng.random_range(0.0..mean));
        while at < length {
            arrivals.push((at, function));
            at += match function % 3 {
                0 => Duration::from_secs_f64(mean * rng.random_range(0.98..1.02)),
                1 => gap(&mut rng, 1.0 / mean),
                _ if rng.random_bool(0.8) => gap(&mut rng, 0.1),
                _ => gap(&mut rng, 0.2 / mean),
            };
        }
    }
    arrivals.sort_unstable();
    let functions =
        (0..functions).map(|n| subject(&format!("project{}", n % 50), Duration::from_millis(100))).collect();
    Trace { functions, arrivals, rest: Duration::from_secs(4000) }
}

/// One project floods the service; another has a function that is called now and then.
pub fn flood(events: u32, service_time: Duration) -> Trace {
    let mut arrivals: Vec<_> =
        (0..events).map(|n| (Duration::from_secs(5) + Duration::from_micros(n.into()), 0)).collect();
    arrivals.extend((1..60).map(|second| (Duration::from_secs(second) + Duration::from_millis(333), 1)));
    arrivals.sort_unstable();
    let functions = vec![subject("flood", service_time), subject("single", service_time)];
    Trace { functions, arrivals, rest: Duration::from_secs(60) }
}
