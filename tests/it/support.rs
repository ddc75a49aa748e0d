//! What the tests of several areas share.

pub mod databases;
pub mod isolation;
pub mod samples;
