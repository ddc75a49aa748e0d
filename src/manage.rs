//! What an operator asks of a machine of the service while no program of it needs to run: whether this release can start
//! here. It reads; it changes nothing.

pub mod checks;
pub mod upgrade_check;

pub use upgrade_check::{Finding, Report, Verdict};
