//! `lambda-manage status upgrade-check`: whether this release can start with this configuration, in the table and with the
//! exit codes that oslo.upgradecheck has: 0 yes, 1 yes with a warning, 2 no.

use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use crate::task::chain;

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How wide a line of the table is inside its frame, at least.
const WIDTH: usize = 60;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is as it should be.
    Success,
    /// The service starts, but something of it will not work or needs a look.
    Warning,
    /// The service does not start, or does nothing.
    Failure,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Warning => "Warning",
            Self::Failure => "Failure",
        }
    }

    /// The exit code of the command when this is the worst that it has found.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Warning => 1,
            Self::Failure => 2,
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen, and of what is not as it should be, what to do.
    pub details: String,
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn success(details: impl Into<String>) -> Self {
        Self { verdict: Verdict::Success, details: details.into() }
    }

    /// Needs a look.
    #[must_use]
    pub fn warning(details: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, details: details.into() }
    }

    /// Must be changed.
    #[must_use]
    pub fn failure(details: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failure, details: details.into() }
    }

    /// Must be changed; with what went wrong behind it.
    #[must_use]
    pub fn error(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::failure(format!("{what}: {}", chain(error)))
    }
}

/// All findings, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<(&'static str, Finding)>,
}

impl Report {
    /// Adds what a check found.
    pub fn add(&mut self, check: &'static str, finding: Finding) {
        self.findings.push((check, finding));
    }

    /// Makes a check, for a minute at most, and adds what it found.
    pub async fn check(&mut self, check: &'static str, finding: impl Future<Output = Finding>) -> Verdict {
        let finding = tokio::time::timeout(PATIENCE, finding)
            .await
            .unwrap_or_else(|_| Finding::failure(format!("no answer within {} s", PATIENCE.as_secs())));
        let verdict = finding.verdict;
        self.add(check, finding);
        verdict
    }

    /// The worst of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.findings.iter().map(|(_, finding)| finding.verdict).max().unwrap_or(Verdict::Success)
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut blocks = vec![vec!["Upgrade Check Results".to_owned()]];
        for (check, finding) in &self.findings {
            let mut block = vec![format!("Check: {check}"), format!("Result: {}", finding.verdict.word())];
            block.extend(wrapped(&format!("Details: {}", finding.details.replace('\n', " "))));
            blocks.push(block);
        }
        let width = blocks.iter().flatten().map(|line| line.chars().count()).max().unwrap_or(0).max(WIDTH);
        let rule = format!("+{}+\n", "-".repeat(width + 2));
        let mut table = rule.clone();
        for block in blocks {
            for line in block {
                let _ = writeln!(table, "| {line:width$} |");
            }
            table.push_str(&rule);
        }
        table
    }
}

/// Lines of at most [`WIDTH`] characters, broken between words where that is possible.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::take(&mut line));
            line.push(' ');
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_worst_finding_decides_and_the_table_is_as_oslo_draws_it() {
        let mut report = Report::default();
        assert_eq!(report.verdict().exit_code(), 0);
        report.add("Configuration", Finding::success("None"));
        report
            .check("Store", async { Finding::failure("nobody listens, start it and try again, or name another one") })
            .await;
        report.add("Policy", Finding::warning("old"));
        assert_eq!(report.verdict().exit_code(), 2);
        let expected = "\
+--------------------------------------------------------------+
| Upgrade Check Results                                        |
+--------------------------------------------------------------+
| Check: Configuration                                         |
| Result: Success                                              |
| Details: None                                                |
+--------------------------------------------------------------+
| Check: Store                                                 |
| Result: Failure                                              |
| Details: nobody listens, start it and try again, or name     |
|   another one                                                |
+--------------------------------------------------------------+
| Check: Policy                                                |
| Result: Warning                                              |
| Details: old                                                 |
+--------------------------------------------------------------+
";
        assert_eq!(report.table(), expected);
    }
}
