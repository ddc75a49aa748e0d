//! What the kernel tells about processes.

use std::fs;
use std::path::Path;

use nix::unistd::Pid;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its parent.
    pub parent: Pid,
    /// Whether it has ended and only its exit status is left.
    pub is_zombie: bool,
    /// When it started, in clock ticks since boot: with the id, a name that is not used twice.
    pub started: u64,
}

/// Looks at one process; none when it is gone.
#[must_use]
pub fn process(pid: Pid) -> Option<Process> {
    // `pid (name) state parent …`; the name may hold anything, parentheses too.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Process {
        pid,
        parent: Pid::from_raw(fields.get(1)?.parse().ok()?),
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        started: fields.get(19)?.parse().ok()?,
    })
}

/// Every process that can be seen.
#[must_use]
pub fn processes() -> Vec<Process> {
    let Ok(directory) = fs::read_dir("/proc") else { return Vec::new() };
    directory
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| process(Pid::from_raw(pid)))
        .collect()
}

/// Real, effective, saved and file-system user of a process.
#[must_use]
pub fn users(pid: Pid) -> Option<[u32; 4]> {
    let line = status_line(pid, "Uid:")?;
    let mut users = line.split_ascii_whitespace().map(str::parse);
    let mut next = || users.next()?.ok();
    Some([next()?, next()?, next()?, next()?])
}

/// The ranges of user ids that exist for this process: the first and how many. All, outside of a user namespace.
#[must_use]
pub fn mapped_users() -> Vec<(u32, u32)> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let range = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
    };
    map.lines().filter_map(range).collect()
}

/// Highest resident memory of a process so far, in bytes.
#[must_use]
pub fn peak_memory(pid: Pid) -> Option<u64> {
    let line = status_line(pid, "VmHWM:")?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// A hard limit of a process by the name that the kernel shows, such as `Max pending signals`.
#[must_use]
pub fn hard_limit(pid: Pid, name: &str) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Where this process's cgroup is in the hierarchy with this controller; the empty name is version 2.
#[must_use]
pub fn own_cgroup(controller: &str) -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = if controller.is_empty() {
            id == "0" && controllers.is_empty()
        } else {
            controllers.split(',').any(|name| name == controller)
        };
        is_it.then(|| path.to_owned())
    })
}

/// A mounted file system of a type: its root within that file system and its place.
#[must_use]
pub fn mounts(kind: &str) -> Vec<(String, String, String)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let mut back = back.split(' ');
            if back.next()? != kind {
                return None;
            }
            let options = back.nth(1)?.to_owned();
            let mut front = front.split(' ');
            Some((front.nth(3)?.to_owned(), front.next()?.to_owned(), options))
        })
        .collect()
}

/// The first directory on the way to a path, the path included, that others may not pass or read.
#[must_use]
pub fn unreachable_for_others(path: &Path) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let whole = fs::canonicalize(path).ok()?;
    whole
        .ancestors()
        .find(|part| fs::metadata(part).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0))
        .map(Path::to_owned)
}

fn status_line(pid: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_as_it_is() {
        let own = process(Pid::this()).unwrap();
        assert_eq!(own.parent, Pid::parent());
        assert!(!own.is_zombie && own.started > 0);
        assert!(processes().contains(&own));
        assert_eq!(users(Pid::this()).unwrap()[0], nix::unistd::getuid().as_raw());
        assert!(peak_memory(Pid::this()).unwrap() > 1 << 20);
        let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_SIGPENDING).unwrap();
        assert_eq!(hard_limit(Pid::this(), "Max pending signals"), Some(hard));
    }

    #[test]
    fn a_directory_that_others_cannot_pass_is_found() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(unreachable_for_others(&inner), Some(fs::canonicalize(directory.path()).unwrap()));
    }
}
