//! What a laptop has instead of a cloud: the Zaqar-v2 queue on SQLite. (All programs in one process is a matter of
//! wiring: `service.rs`, `bin/lambda-standalone.rs`.) Nothing here is used by a real cloud, and nothing else of the service knows that it is here: the worker speaks Zaqar
//! over HTTP to it as it would to the real one.

pub mod queue;
