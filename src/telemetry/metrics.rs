//! stub
use crate::model::ExecutionState;
use crate::model::execution::{Reason, Start};
use crate::model::time::Millis;
use std::time::Duration;
/// stub
#[derive(Clone, Debug, Default)]
pub struct Metrics;
#[allow(missing_docs)]
impl Metrics {
    pub fn set_load(&self, _w: u32, _r: u32, _s: u32, _i: u32) {}
    pub fn observe_init(&self, _d: Duration) {}
    pub fn observe_start(&self, _s: Start, _d: Duration) {}
    pub fn observe_outcome(&self, _s: ExecutionState, _r: Option<Reason>, _d: Option<Millis>) {}
    pub fn observe_retry(&self, _r: Reason) {}
    pub fn count_fenced_write(&self) {}
    pub fn agent_connected(&self, _first: bool) {}
    pub fn agent_disconnected(&self) {}
    pub fn count_empty_claim(&self) {}
    pub fn observe_message(&self, _age: Duration) {}
    pub fn count_dead_letter(&self, _r: &'static str) {}
    pub fn count_inserted(&self, _new: usize, _known: usize) {}
}
