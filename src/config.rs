//! Every option of every program: one file per group, whose doc comments are the operator's help.

#[macro_use]
mod macros;

pub mod api;
pub mod database;
pub mod default;
pub mod local;
pub mod standalone;
pub mod worker;
pub mod zaqar;

pub use macros::OptionHelp;

pub use api::ApiOptions;
pub use database::DatabaseOptions;
pub use default::DefaultOptions;
pub use local::LocalOptions;
pub use standalone::StandaloneOptions;
pub use worker::WorkerOptions;
pub use zaqar::ZaqarOptions;
