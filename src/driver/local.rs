//! Instances as child processes of this one: the agent is started beside the worker. For a laptop and for tests. What
//! separates projects here is user ids, where the service runs as root; it is no security boundary.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::{Driver, DriverError, InstanceSpec, Observed};
use crate::model::InstanceId;

/// User ids that one instance takes: as many as it may have sandboxes.
const USERS_PER_INSTANCE: u32 = 1000;
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
    children: Mutex<Children>,
}

#[derive(Debug, Default)]
struct Children {
    running: HashMap<InstanceId, Child>,
    slots: BTreeSet<u32>,
}

impl LocalDriver {
    /// A driver whose directory is there and can be written to.
    ///
    /// # Errors
    /// When the agent's program is missing or the directory cannot be made.
    pub fn new(options: Options) -> Result<Self, DriverError> {
        if !options.agent.is_file() {
            let text = format!("the agent's program {} is not there; set [local] agent_path", options.agent.display());
            return Err(DriverError::Misconfigured(text));
        }
        std::fs::create_dir_all(&options.work_dir).map_err(|error| {
            DriverError::Misconfigured(format!("{} cannot be made: {error}", options.work_dir.display()))
        })?;
        open_for_search(&options.work_dir).map_err(|error| DriverError::Unavailable(error.into()))?;
        Ok(Self { options, children: Mutex::default() })
    }

    fn dir(&self, id: InstanceId) -> PathBuf {
        self.options.work_dir.join(id.to_string())
    }

    async fn clean(&self, dir: &Path, uid_base: u32) -> Result<(), DriverError> {
        let mut command = Command::new(&self.options.agent);
        command.arg("clean").arg("--work-dir").arg(dir).args(["--uid-base", &uid_base.to_string()]);
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
        let slot = (0..).find(|slot| !children.slots.contains(slot)).unwrap_or_default();
        let dir = self.dir(spec.id);
        let unavailable = |error: io::Error| DriverError::Unavailable(error.into());
        std::fs::create_dir_all(&dir).map_err(unavailable)?;
        open_for_search(&dir).map_err(unavailable)?;
        std::fs::write(dir.join(SLOT_FILE), slot.to_string()).map_err(unavailable)?;
        let uid_base = self.options.uid_base + slot * USERS_PER_INSTANCE;
        let mut command = Command::new(&self.options.agent);
        command
            .arg("run")
            .args(["--gateway", &spec.gateway.to_string()])
            .args(["--instance", &spec.id.to_string()])
            .arg("--work-dir")
            .arg(&dir)
            .args(["--memory-mib", &spec.memory_mib.to_string()])
            .arg("--python")
            .arg(&self.options.python)
            .args(["--uid-base", &uid_base.to_string()])
            .arg("--die-with-parent")
            .env_clear()
            .env("LAMBDA_AGENT_TOKEN", &spec.token)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let child = command.spawn().map_err(|error| {
            DriverError::Misconfigured(format!("{} cannot be started: {error}", self.options.agent.display()))
        })?;
        children.slots.insert(slot);
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
        let child = self.children.lock().await.running.remove(&id);
        if let Some(mut child) = child {
            end(&mut child).await.map_err(|error| DriverError::Unavailable(error.into()))?;
        }
        let dir = self.dir(id);
        if dir.exists() {
            let slot =
                std::fs::read_to_string(dir.join(SLOT_FILE)).ok().and_then(|text| text.trim().parse::<u32>().ok());
            let slot = slot.unwrap_or_default();
            self.clean(&dir, self.options.uid_base + slot * USERS_PER_INSTANCE).await?;
            self.children.lock().await.slots.remove(&slot);
        }
        Ok(())
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
