//! The agent's directory: who works in it, and where things are.
//!
//! ```text
//! agent.json      who works here, for `clean` after a kill
//! lock            held while an agent works here
//! runtime/        the Python runtime's files
//! packages/SHA/   unpacked packages; the agent's, readable for sandboxes that know the digest
//! sandboxes/N/    what a sandbox may write; its own and nobody else's
//! ```

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::confine::Mark;
use crate::procfs;

/// The directory of a running agent.
#[derive(Debug)]
pub struct WorkDir {
    root: PathBuf,
    _lock: Flock<fs::File>,
}

/// Who works in a directory, and by what everything that it started is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The instance.
    pub instance: String,
    /// The agent's process.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
    /// First of its range of users.
    pub uid_base: Option<u32>,
    /// The group that holds the groups of its sandboxes.
    pub cgroup: Option<PathBuf>,
    /// The mark of its sandboxes.
    pub mark: Option<Mark>,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkDirError {
    /// Another agent works in it.
    #[error("another agent works in {0}")]
    Busy(PathBuf),
    /// Sandboxes could not reach what is in it.
    #[error("the sandboxes' users cannot pass {blocker}, so {work_dir} cannot be used; it needs mode o+x")]
    Unreachable {
        /// The directory.
        work_dir: PathBuf,
        /// What stands in the way.
        blocker: PathBuf,
    },
    /// It cannot be read or written.
    #[error("{path} cannot be used")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

const OWNER: &str = "agent.json";
const LOCK: &str = "lock";

impl WorkDir {
    /// Takes a directory for this process; it is made if need be. `unprivileged` says that sandboxes are other users.
    ///
    /// # Errors
    /// When it is taken, or of no use.
    pub fn open(root: &Path, unprivileged: bool) -> Result<Self, WorkDirError> {
        let io = |source| WorkDirError::Io { path: root.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o711).create(root).map_err(io)?;
        let root = fs::canonicalize(root).map_err(io)?;
        let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(root.join(LOCK));
        let lock = Flock::lock(lock.map_err(io)?, FlockArg::LockExclusiveNonblock)
            .map_err(|_| WorkDirError::Busy(root.clone()))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).map_err(io)?;
        if let Some(blocker) = procfs::unreachable_for_others(&root).filter(|_| unprivileged) {
            return Err(WorkDirError::Unreachable { work_dir: root, blocker });
        }
        Ok(Self { root, _lock: lock })
    }

    /// Makes everything empty and writes down who works here.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn begin(&self, owner: &Owner) -> io::Result<()> {
        for (part, mode) in [("runtime", 0o755), ("packages", 0o711), ("sandboxes", 0o711)] {
            let directory = self.root.join(part);
            remove_tree(&directory)?;
            fs::create_dir(&directory)?;
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode))?;
        }
        let partial = self.root.join(".agent.json");
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
        file.write_all(&serde_json::to_vec(owner)?)?;
        fs::rename(partial, self.root.join(OWNER))
    }

    /// The directory itself, without links on the way.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Files of the Python runtime.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.root.join("runtime")
    }

    /// Unpacked packages.
    #[must_use]
    pub fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    /// What a sandbox may write.
    #[must_use]
    pub fn sandbox(&self, number: u64) -> PathBuf {
        self.root.join("sandboxes").join(number.to_string())
    }

    /// Removes everything in it. The directory itself stays: whoever gave it removes it.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        for part in ["runtime", "packages", "sandboxes"] {
            remove_tree(&self.root.join(part))?;
        }
        match fs::remove_file(self.root.join(OWNER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Owner {
    /// This process.
    #[must_use]
    pub fn this(instance: &str, uid_base: Option<u32>, cgroup: Option<PathBuf>, mark: Option<Mark>) -> Self {
        let pid = Pid::this();
        let started = procfs::process(pid).map_or(0, |process| process.started);
        Self { instance: instance.to_owned(), pid: pid.as_raw(), started, uid_base, cgroup, mark }
    }

    /// Who worked in a directory last, if that was written down and not cleared.
    #[must_use]
    pub fn of(root: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(root.join(OWNER)).ok()?).ok()
    }

    /// The agent's process, if it still runs.
    #[must_use]
    pub fn running(&self) -> Option<Pid> {
        let pid = Pid::from_raw(self.pid);
        procfs::process(pid).filter(|process| process.started == self.started && !process.is_zombie).map(|_| pid)
    }
}

/// Removes a directory with all that is in it, also where its owner took away our right to; its absence is a success.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_tree(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(root)?;
            fs::remove_dir_all(root)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_agent_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = WorkDir::open(directory.path(), false).unwrap();
        assert!(matches!(WorkDir::open(directory.path(), false), Err(WorkDirError::Busy(_))));
        drop(first);
        WorkDir::open(directory.path(), false).unwrap();
    }

    #[test]
    fn a_directory_that_sandboxes_cannot_reach_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let opened = WorkDir::open(&directory.path().join("work"), true);
        assert!(matches!(opened, Err(WorkDirError::Unreachable { .. })));
    }

    #[test]
    fn the_owner_is_known_until_the_directory_is_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let work_dir = WorkDir::open(directory.path(), false).unwrap();
        let owner = Owner::this("i", Some(1), None, Some(Mark { agent: 1, sandbox: 0 }));
        work_dir.begin(&owner).unwrap();
        let found = Owner::of(directory.path()).unwrap();
        assert_eq!(found, owner);
        assert_eq!(found.running(), Some(Pid::this()));
        assert_eq!(Owner { started: 1, ..owner }.running(), None, "another process with the same id");
        work_dir.clear().unwrap();
        assert_eq!(Owner::of(directory.path()), None);
    }

    #[test]
    fn a_tree_is_removed_though_its_directories_are_closed() {
        let directory = tempfile::tempdir().unwrap();
        let closed = directory.path().join("a/b");
        fs::create_dir_all(&closed).unwrap();
        fs::write(closed.join("file"), "x").unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&directory.path().join("a")).unwrap();
        assert!(!directory.path().join("a").exists());
        remove_tree(&directory.path().join("a")).unwrap();
    }
}
