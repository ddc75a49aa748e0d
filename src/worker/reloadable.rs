//! What may change while a worker runs.

use std::time::Duration;

use super::dispatch::{self, IsolationRules};
use crate::config::WorkerOptions;
use crate::model::function::QueueName;
use crate::scheduler::offer::Offers;
use crate::scheduler::plan::Limits;
use crate::scheduler::pool::PoolTerms;
use crate::scheduler::retry::Backoff;

/// How long an event may wait for a busy sandbox before another one is worth its start: about what a start costs.
const TARGET_WAIT: Duration = Duration::from_millis(50);

/// What options are made from again on SIGHUP.
pub(super) struct Reloadable {
    pub offers: Offers,
    pub pools: Vec<PoolTerms>,
    pub isolation: IsolationRules,
    pub dead_letter_queue: QueueName,
}

impl Reloadable {
    /// The options of the dispatcher, with what is configured now.
    pub fn options(&self, o: &WorkerOptions) -> dispatch::Options {
        dispatch::Options {
            limits: Limits {
                starting: o.max_starting,
                keep_alive: dispatch::keep_alive(o),
                instance_keep_alive: Duration::from_secs(o.instance_keep_alive),
                offers: self.offers.clone(),
                target_wait: TARGET_WAIT,
            },
            pools: self.pools.clone(),
            max_running: o.max_running,
            max_running_per_project: if o.max_running_per_project == 0 {
                o.max_running
            } else {
                o.max_running_per_project
            },
            max_sandboxes_per_function: o.max_sandboxes_per_function,
            init_timeout: Duration::from_secs(o.init_timeout),
            isolation: self.isolation.clone(),
            log_limit_bytes: o.log_limit_kib * 1024,
            backoff: Backoff { base: Duration::from_secs_f64(o.retry_base), max: Duration::from_secs_f64(o.retry_max) },
            dead_letter_queue: self.dead_letter_queue.clone(),
        }
    }
}
