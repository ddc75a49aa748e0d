//! What a running program says of itself: logs in oslo's line or JSON, and metrics for Prometheus.

pub mod logs;
pub mod metrics;

mod line;
mod output;

pub use logs::{LogError, Logs};
pub use metrics::{Metrics, metrics_router};
