//! The decisions of a worker, apart from their doing: who is next, where it runs, what is started, kept and stopped,
//! when a failed event is tried again. Plain functions and plain state: no async, no clock, no randomness.

pub mod fair;
pub mod fleet;
pub mod history;
pub mod offer;
pub mod ownership;
pub mod plan;
pub mod polls;
pub mod pool;
pub mod rate;
pub mod retry;
pub mod share;
pub mod width;
