//! The REST service on a real store in a temporary file, with a queue and workers that answer as each test says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail as tests do, and their futures are run once"
)]

mod bad_input;
mod bodies;
mod broken_store;
mod conventions;
mod events;
mod executions;
mod functions;
mod gateway;
pub mod harness;
mod invocations;
mod keystone_faults;
mod policy;
mod serving;
mod tokens;
