//! A view of the file system in which `/tmp` and the like are the sandbox's own: functions write to `/tmp/name` by habit,
//! and two sandboxes with users of their own would meet there. The same is done by the zygote for its children.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use serde::Serialize;

/// Directories that are replaced by the sandbox's own.
pub const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];
/// Where shared memory is.
pub const SHARED_MEMORY: &str = "/dev/shm";

/// What a private view needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Private {
    /// The sandbox's directory for temporary files.
    pub temporary: PathBuf,
    /// The agent's directory, which has to stay where it is, also when it lies below `/tmp`.
    pub work_dir: PathBuf,
}

/// Whether this process can make private views: as root that has not lost the right to mount, and not in a plain change
/// of root, whose `/` is no mount and cannot be cut off from the others.
#[must_use]
pub fn is_possible() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth field is where it is mounted, as seen from our root.
    let root_is_a_mount = mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"));
    Uid::effective().is_root() && capabilities & (1 << CAP_SYS_ADMIN) != 0 && root_is_a_mount
}

impl Private {
    /// Gives this process its private view. Where the machine forbids it after all (a seccomp filter), the view stays
    /// the common one.
    ///
    /// # Errors
    /// When it is left half done.
    pub fn enter(&self) -> Result<(), Errno> {
        match unshare(CloneFlags::CLONE_NEWNS) {
            Err(Errno::EPERM | Errno::ENOSYS) => return Ok(()),
            result => result?,
        }
        let none = None::<&Path>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        for shared in SHARED {
            let Ok(shared) = fs::canonicalize(shared) else { continue };
            if let Ok(below) = self.work_dir.strip_prefix(&shared) {
                // The agent's directory shows through.
                let place = self.temporary.join(below);
                if fs::DirBuilder::new().recursive(true).mode(0o755).create(&place).is_err() {
                    return Err(Errno::ENOENT);
                }
                mount(Some(&self.work_dir), &place, none, bind, none)?;
            }
            mount(Some(&self.temporary), &shared, none, bind, none)?;
        }
        if Path::new(SHARED_MEMORY).is_dir() {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("tmpfs"), SHARED_MEMORY, Some("tmpfs"), flags, Some("mode=1777"))?;
        }
        Ok(())
    }
}
