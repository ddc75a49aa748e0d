//! Thin typed clients of the OpenStack services. One [`Session`] sends every request: it finds the endpoint, shows who
//! we are, bounds the time, repeats what may be repeated and measures. The clients on top of it know paths and shapes.
//! They decide nothing, and they know none of our domain's types.

mod error;
pub mod glance;
mod json;
pub mod neutron;
mod noauth;
pub mod nova;
mod session;
pub mod zaqar;
pub mod zun;

pub use error::OpenStackError;
pub use noauth::NoAuth;
pub use session::{Answer, CallObservation, Observer, Request, Service, Session, SessionOptions};
