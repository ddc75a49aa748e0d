//! The REST service on a real store in a temporary file, with a queue and workers that answer as each test says.

mod bad_input;
mod bodies;
mod broken_store;
mod conventions;
mod events;
mod executions;
mod functions;
mod gateway;
mod harness;
mod invocations;
