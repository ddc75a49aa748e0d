//! Instances as child processes of this one: the agent is started beside the worker. For a laptop and for tests. What
//! separates projects here is user ids, where the service runs as root; it is no security boundary.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use lambda_agent::args;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::Mutex;

use super::{Driver, DriverError, InstanceSpec, Observed};
use crate::model::InstanceId;
use crate::task::Tasks;

/// User ids that one instance takes: as many as it may have sandboxes.
const USERS_PER_INSTANCE: u32 = 1000;
/// Ranges of user ids on one machine.
const SLOTS: u32 = 1000;
/// Time that an agent has to end its sandboxes after SIGTERM, before it is killed.
const END_WITHIN: Duration = Duration::from_secs(3);
/// Time for cleaning up after an agent that was killed.
const CLEAN_WITHIN: Duration = Duration::from_secs(20);
/// File in an instance's directory that keeps its place in the range of user ids.
const SLOT_FILE: &str = "slot";

/// How the local driver works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The agent's program.
    pub agent: PathBuf,
    /// Directory of the instances. Where the service runs as root, every directory above must be open for everybody.
    pub work_dir: PathBuf,
    /// The Python that runs python3 functions.
    pub python: PathBuf,
    /// First of the user ids for sandboxes.
    pub uid_base: u32,
}

/// The driver.
#[derive(Debug)]
pub struct LocalDriver {
    options: Options,
    tasks: Tasks,
    children: Mutex<Children>,
}

#[derive(Debug, Default)]
struct Children {
    running: HashMap<InstanceId, Child>,
    users: HashMap<InstanceId, Users>,
}

/// A range of user ids that no other service on this machine uses for as long as this lives. A sandbox's end kills
/// everything that runs as its user, so a range must not be shared, not even by services that do not know each other.
#[derive(Debug)]
struct Users {
    slot: u32,
    /// Locked while it is open.
    _lock: File,
}

impl Users {
    /// Takes the first range that is free.
    fn take(dir: &Path) -> io::Result<Self> {
        (0..SLOTS)
            .find_map(|slot| Self::take_slot(dir, slot).transpose())
            .unwrap_or_else(|| Err(io::Error::other("every range of user ids is in use")))
    }

    /// Takes this range; none if somebody has it.
    fn take_slot(dir: &Path, slot: u32) -> io::Result<Option<Self>> {
        use std::os::unix::fs::DirBuilderExt as _;
        if !dir.exists() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let lock = File::create(dir.join(slot.to_string()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { slot, _lock: lock })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl LocalDriver {
    /// A driver whose directory is there and can be written to.
    ///
    /// # Errors
    /// When the agent's program is missing or the directory cannot be made.
    pub fn new(options: Options, tasks: Tasks) -> Result<Self, DriverError> {
        if !options.agent.is_file() {
            let text = format!("the agent's program {} is not there; set [local] agent_path", options.agent.display());
            return Err(DriverError::misconfigured(text));
        }
        std::fs::create_dir_all(&options.work_dir).map_err(|error| {
            DriverError::misconfigured(format!("{} cannot be made: {error}", options.work_dir.display()))
        })?;
        open_for_search(&options.work_dir).map_err(|error| DriverError::Unavailable(error.into()))?;
        Ok(Self { options, tasks, children: Mutex::default() })
    }

    fn dir(&self, id: InstanceId) -> PathBuf {
        self.options.work_dir.join(id.to_string())
    }

    fn users_dir() -> PathBuf {
        std::env::temp_dir().join(format!("lambda-sandbox-users-{}", nix::unistd::geteuid()))
    }

    fn uid_base(&self, users: &Users) -> u32 {
        self.options.uid_base + users.slot * USERS_PER_INSTANCE
    }

    async fn clean(&self, dir: &Path, users: Option<&Users>) -> Result<(), DriverError> {
        let mut command = Command::new(&self.options.agent);
        command.arg("clean").arg("--work-dir").arg(dir);
        if let Some(users) = users {
            command.args(["--uid-base", &self.uid_base(users).to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let status = tokio::time::timeout(CLEAN_WITHIN, command.status())
            .await
            .map_err(|_| DriverError::Unavailable("cleaning up took too long".into()))?
            .map_err(|error| DriverError::Unavailable(error.into()))?;
        if status.success() {
            Ok(())
        } else {
            Err(DriverError::Unavailable(format!("cleaning up ended with {status}").into()))
        }
    }
}

/// Lets everybody pass through a directory, but not list it: sandboxes run as other users.
fn open_for_search(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711))
}

#[async_trait]
impl Driver for LocalDriver {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn create(&self, spec: &InstanceSpec) -> Result<(), DriverError> {
        let mut children = self.children.lock().await;
        if children.running.contains_key(&spec.id) {
            return Ok(());
        }
        let dir = self.dir(spec.id);
        let unavailable = |error: io::Error| DriverError::Unavailable(error.into());
        std::fs::create_dir_all(&dir).map_err(unavailable)?;
        open_for_search(&dir).map_err(unavailable)?;
        let users = Users::take(&Self::users_dir()).map_err(unavailable)?;
        std::fs::write(dir.join(SLOT_FILE), users.slot.to_string()).map_err(unavailable)?;
        let uid_base = self.uid_base(&users);
        let mut command = Command::new(&self.options.agent);
        command
            .arg("run")
            .args(["--gateway", &spec.gateway.address.to_string()])
            .args(["--instance", &spec.id.to_string()])
            .arg("--work-dir")
            .arg(&dir)
            .args(["--memory-mib", &spec.memory_mib.to_string()])
            .arg("--python")
            .arg(&self.options.python)
            .args(["--uid-base", &uid_base.to_string()])
            .arg("--die-with-parent")
            .env_clear()
            .env(args::TOKEN, &spec.token)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // What is typed at our terminal is for us: we tell the agent ourselves.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(fingerprint) = &spec.gateway.fingerprint {
            command.args(["--fingerprint", fingerprint]);
        }
        let mut child = command.spawn().map_err(|error| {
            DriverError::misconfigured(format!("{} cannot be started: {error}", self.options.agent.display()))
        })?;
        if let Some(stderr) = child.stderr.take() {
            self.tasks.run("agent log", keep_log(spec.id, stderr));
        }
        children.users.insert(spec.id, users);
        children.running.insert(spec.id, child);
        Ok(())
    }

    async fn observe(&self, id: InstanceId) -> Result<Observed, DriverError> {
        let mut children = self.children.lock().await;
        Ok(match children.running.get_mut(&id).map(Child::try_wait) {
            None => Observed::Absent,
            Some(Ok(None)) => Observed::Active,
            Some(Ok(Some(status))) => Observed::Stopped(format!("the agent has ended: {status}")),
            Some(Err(error)) => return Err(DriverError::Unavailable(error.into())),
        })
    }

    async fn list(&self) -> Result<Vec<InstanceId>, DriverError> {
        let entries =
            std::fs::read_dir(&self.options.work_dir).map_err(|error| DriverError::Unavailable(error.into()))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    async fn delete(&self, id: InstanceId) -> Result<(), DriverError> {
        let (child, users) = {
            let mut children = self.children.lock().await;
            (children.running.remove(&id), children.users.remove(&id))
        };
        if let Some(mut child) = child {
            end(&mut child).await.map_err(|error| DriverError::Unavailable(error.into()))?;
        }
        let dir = self.dir(id);
        if dir.exists() {
            // Of a former run: its range is cleaned unless somebody else has it by now.
            let users = users.or_else(|| {
                let slot = std::fs::read_to_string(dir.join(SLOT_FILE)).ok()?.trim().parse().ok()?;
                Users::take_slot(&Self::users_dir(), slot).ok().flatten()
            });
            self.clean(&dir, users.as_ref()).await?;
        }
        Ok(())
    }
}

/// Takes an agent's log into ours, so that there is one log in one form.
async fn keep_log(instance: InstanceId, stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let (level, text) = level_and_text(&line);
        match level {
            "ERROR" => tracing::error!(instance.id = %instance, "agent: {text}"),
            "WARN" => tracing::warn!(instance.id = %instance, "agent: {text}"),
            "DEBUG" | "TRACE" => tracing::debug!(instance.id = %instance, "agent: {text}"),
            _ => tracing::info!(instance.id = %instance, "agent: {text}"),
        }
    }
}

/// An agent's line is `TIME LEVEL text`; whatever else comes is text.
fn level_and_text(line: &str) -> (&str, &str) {
    let mut parts = line.splitn(2, ' ');
    let is_time = parts.next().is_some_and(|time| time.parse::<crate::model::Timestamp>().is_ok());
    match parts.next().map(str::trim_start).and_then(|rest| rest.split_once(' ')) {
        Some((level, text)) if is_time => (level, text),
        Some(_) | None => ("INFO", line),
    }
}

/// Ends an agent: politely, then not.
async fn end(child: &mut Child) -> io::Result<()> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended by itself: then there is nothing to signal.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
    if tokio::time::timeout(END_WITHIN, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_line_is_taken_apart_and_any_other_is_kept() {
        let line = "2026-11-22T15:38:54.278420Z  WARN lambda_agent::agent: it ends";
        assert_eq!(level_and_text(line), ("WARN", "lambda_agent::agent: it ends"));
        for other in ["", "Traceback (most recent call last):", "2026 WARN x"] {
            assert_eq!(level_and_text(other), ("INFO", other));
        }
    }
}
