//! The real agent program with real Python, seen from the gateway's side.

#[path = "it/gateway.rs"]
mod gateway;

#[path = "it/confinement.rs"]
mod confinement;
#[path = "it/connection.rs"]
mod connection;
#[path = "it/handlers.rs"]
mod handlers;
#[path = "it/logs.rs"]
mod logs;
#[path = "it/measure.rs"]
mod measure;
#[path = "it/packages.rs"]
mod packages;
#[path = "it/provided.rs"]
mod provided;
