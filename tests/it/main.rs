//! The integration tests: one binary, one module per area.

// clippy.toml allows these in tests, but knows only functions that are marked as tests, not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(missing_docs, reason = "a test's name is its documentation")]

mod store;
mod support;
