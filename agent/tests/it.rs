//! The real agent program with real Python, seen from the gateway's side.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "it/gateway.rs"]
mod gateway;
#[path = "it/help.rs"]
mod help;

#[path = "it/confinement.rs"]
mod confinement;
#[path = "it/connection.rs"]
mod connection;
#[path = "it/handlers.rs"]
mod handlers;
#[path = "it/logs.rs"]
mod logs;
#[path = "it/packages.rs"]
mod packages;
#[path = "it/provided.rs"]
mod provided;
#[path = "it/secrets.rs"]
mod secrets;
