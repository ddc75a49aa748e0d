//! Thin typed clients of the OpenStack services. One [`Session`] sends every request: it finds the endpoint, shows who
//! we are, bounds the time, repeats what may be repeated and measures. The clients on top of it know paths and shapes.
//! They decide nothing, and they know none of our domain's types.

mod auth;
mod error;
pub mod glance;
mod http;
mod json;
pub mod keystone;
pub mod neutron;
mod noauth;
pub mod nova;
mod session;
pub mod zaqar;
pub mod zun;

pub use auth::Auth;
pub use error::OpenStackError;
pub use http::TlsOptions;
pub use noauth::NoAuth;
pub use session::{Answer, CallObservation, Interface, Observer, Request, Service, Session, SessionOptions};
