//! What the figures were measured on.

use std::process::Command;

use serde::Serialize;

/// A machine, and which code ran on it when.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    system: String,
    date: String,
    commit: String,
}

/// What a command prints, without the end of the line; empty where it fails.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The value after the first line's colon or equals sign that begins with this name.
fn value(file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    let value = line.split_once([':', '=']).map_or("", |(_, value)| value);
    value.trim().trim_matches('"').to_owned()
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let memory: u64 =
            value("/proc/meminfo", "MemTotal").split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
        let mut commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
        if !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() {
            commit.push_str(" and changes");
        }
        Self {
            cpu: value("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_gib: memory.div_ceil(1 << 20),
            kernel: output("uname", &["-r"]),
            system: value("/etc/os-release", "PRETTY_NAME"),
            date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            commit,
        }
    }

    /// In one sentence.
    pub fn sentence(&self) -> String {
        format!(
            "On {}, {} cores, {} GiB, {}, Linux {}, {}, commit {}.",
            self.cpu, self.cores, self.memory_gib, self.system, self.kernel, self.date, self.commit
        )
    }
}
