//! What is under all clients of the cloud, against servers that are played: connections, and a Keystone that is away.

mod away;
pub mod tls;
