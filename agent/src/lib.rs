//! What runs inside an instance. It dials the gateway that it was told of, fetches packages, and runs sandboxes that
//! speak the AWS Lambda Runtime API. It knows nothing of OpenStack, of stores or of projects other than its own.
//!
//! Everything runs on the program's main thread, the blocking file work of packages and scans excepted: the signal that a
//! child gets when its parent dies is bound to the thread that started it.

pub mod address;
pub mod agent;
pub mod archive;
pub mod args;
mod cgroup;
pub mod clean;
mod clock;
mod confine;
mod connect;
pub mod guest;
mod kill;
pub mod launch;
mod link;
mod package;
mod peer;
mod private;
mod procfs;
mod reap;
mod runtime_api;
mod runtime_error;
mod runtime_state;
mod sandbox;
pub mod secret;
pub mod tls;
pub mod wire;
mod work_dir;
mod zygote;

pub use confine::UID_RANGE;
pub use connect::ConnectError;
pub use work_dir::WorkDirError;
