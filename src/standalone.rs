//! What a laptop has instead of a cloud: the Zaqar-v2 queue on SQLite, and the wiring of all programs in one process.
//! Nothing here is used by a real cloud, and nothing else of the service knows that it is here: the worker speaks Zaqar
//! over HTTP to it as it would to the real one.

pub mod queue;
