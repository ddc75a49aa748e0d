//! The integration tests, in one binary: one module for each area.

mod api;
mod cli;
