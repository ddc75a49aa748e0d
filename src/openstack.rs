//! stub
pub mod zaqar;
