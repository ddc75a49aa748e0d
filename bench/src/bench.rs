//! What every measure is given: where the programs are, and a directory that goes with it.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;

use crate::report::Row;
use crate::stats::Rounds;

/// The Python that functions and peers run on: the system's, as the service's default is.
pub const PYTHON: &str = "/usr/bin/python3";

/// The places of a run.
pub struct Bench {
    /// Of the release programs: `lambda-standalone` and the others, and `examples/`.
    pub programs: PathBuf,
    /// Of the peers' programs: the `bin` of their Python environment.
    pub peers: PathBuf,
    /// The clone.
    pub root: PathBuf,
    /// Of the cloud's files, `openrc` among them.
    pub cloud: PathBuf,
    /// The connection string of a MongoDB, without a database; none: the cloud's is taken, or one is started.
    pub mongodb: Option<String>,
    /// Set once the cloud runs.
    pub cloud_up: tokio::sync::OnceCell<()>,
}

/// Latencies of both sides, to be plotted.
pub struct Distribution {
    /// What was measured.
    pub title: String,
    /// Who the peer is.
    pub peer: String,
    /// In milliseconds.
    pub rounds: Rounds,
}

/// What a measure found.
#[derive(Default)]
pub struct Found {
    /// Lines of the table.
    pub rows: Vec<Row>,
    /// Latencies.
    pub distributions: Vec<Distribution>,
    /// Whatever else was measured, by round.
    pub raw: Vec<(String, Value)>,
}

impl Found {
    /// Rows of one comparison, with its samples.
    pub fn compared(title: &str, peer: &str, rounds: Rounds, rows: Vec<Row>) -> Self {
        let raw = serde_json::to_value(&rounds).unwrap_or_default();
        Self {
            rows,
            distributions: vec![Distribution { title: title.to_owned(), peer: peer.to_owned(), rounds }],
            raw: vec![(title.to_owned(), raw)],
        }
    }

    /// Both together.
    pub fn and(mut self, more: Self) -> Self {
        self.rows.extend(more.rows);
        self.distributions.extend(more.distributions);
        self.raw.extend(more.raw);
        self
    }
}

/// A directory for a measure, which users that sandboxes run as may pass through.
pub fn directory() -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::Builder::new().prefix("lambda-bench").tempdir()?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))?;
    Ok(directory)
}

/// Now, in seconds since the epoch: the clock that handlers stamp with.
pub fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
