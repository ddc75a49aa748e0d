//! The integration tests, in one binary: one module for each area.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "what a test measured is for whoever reads its output")]

mod api;
mod architecture;
mod cli;
mod cloud;
mod config;
mod driver;
mod elastic;
mod operator;
mod policy;
mod program;
mod queue;
mod service;
mod session;
mod store;
mod support;
