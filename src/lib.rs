//! Functions as a service for OpenStack.
//!
//! The way of an event through these files: a poster puts it on a Zaqar queue ([`standalone`] brings one for a laptop);
//! [`worker`]'s intake claims it and inserts executions into the [`store`]; its dispatch finds a sandbox by the pure
//! decisions of [`scheduler`], in an instance that a [`driver`] booted; its gateway talks to the agent there; its record
//! writes what came out. [`api`] is what users and operators see of it, [`cli`] how they ask.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod driver;
pub mod health;
pub mod manage;
pub mod model;
pub mod openstack;
pub mod policy;
pub mod program;
pub mod scheduler;
pub mod service;
pub mod standalone;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod worker;
