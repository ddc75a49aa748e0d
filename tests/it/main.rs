//! The integration tests, in one binary: one module for each area.

mod cli;
