//! Memory limits and complete killing by cgroups, where this machine lets us: version 2 with the memory controller, or
//! the memory hierarchy of version 1. Where neither can be written, sandboxes live with resource limits only.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::procfs;

/// Processes and threads of one sandbox, as on AWS Lambda.
pub const PROCESSES_MAX: u64 = 1024;

/// The group below which every sandbox gets its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    directory: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The group of one sandbox.
#[derive(Debug)]
pub struct Group {
    directory: PathBuf,
    version: Version,
    peak: Option<File>,
    events: File,
}

impl Parent {
    /// Makes the group of this instance where one can be made, and says why not where none can.
    ///
    /// # Errors
    /// With what stood in the way of the last place tried.
    pub fn make(instance: &str) -> io::Result<Self> {
        let name = format!("lambda-{instance}");
        match Self::version_two(&name) {
            Ok(parent) => Ok(parent),
            Err(two) => {
                Self::version_one(&name).map_err(|one| io::Error::other(format!("version 2: {two}; version 1: {one}")))
            }
        }
    }

    /// The group that an agent made before; whether it still is there does not matter.
    #[must_use]
    pub fn existing(directory: PathBuf) -> Self {
        let version = if directory.join("cgroup.kill").exists() { Version::Two } else { Version::One };
        Self { directory, version }
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn version_one(name: &str) -> io::Result<Self> {
        let mounts = procfs::mounts("cgroup");
        let mount = mounts.iter().find(|(_, _, options)| options.split(',').any(|option| option == "memory"));
        let (root, place, _) = mount.ok_or_else(|| io::Error::other("no memory hierarchy is mounted"))?;
        let own = procfs::own_cgroup("memory").unwrap_or_default();
        let below = own.strip_prefix(root.as_str()).unwrap_or("").trim_start_matches('/');
        let directory = Path::new(place).join(below).join(name);
        make_directory(&directory)?;
        let parent = Self { directory, version: Version::One };
        parent.probe().inspect_err(|_| parent.remove())?;
        Ok(parent)
    }

    fn version_two(name: &str) -> io::Result<Self> {
        let mounts = procfs::mounts("cgroup2");
        let (root, place, _) = mounts.first().ok_or_else(|| io::Error::other("not mounted"))?;
        let own = procfs::own_cgroup("").unwrap_or_default();
        let below = own.strip_prefix(root.as_str()).unwrap_or("").trim_start_matches('/');
        let own = Path::new(place).join(below);
        // A group delegated to us, or else the top: a group with processes in it cannot have groups with limits.
        let delegated = Self::delegated(&own).and_then(|()| Self::below(&own, name));
        delegated
            .or_else(|error| if own == Path::new(place) { Err(error) } else { Self::below(Path::new(place), name) })
    }

    /// Moves this process out of the way, into a leaf, when it is alone in its group.
    fn delegated(own: &Path) -> io::Result<()> {
        if !own.join("cgroup.type").exists() {
            return Ok(()); // The top, which is exempt.
        }
        if members(own)?.iter().any(|pid| *pid != Pid::this()) {
            return Err(io::Error::other("other processes share this group"));
        }
        let leaf = own.join("agent");
        make_directory(&leaf)?;
        fs::write(leaf.join("cgroup.procs"), "0")
    }

    fn below(above: &Path, name: &str) -> io::Result<Self> {
        let enable = |directory: &Path| {
            let enabled = fs::read_to_string(directory.join("cgroup.subtree_control"))?;
            if !enabled.split_ascii_whitespace().any(|controller| controller == "memory") {
                fs::write(directory.join("cgroup.subtree_control"), "+memory")?;
            }
            // A limit of processes is welcome, not needed: there is one per user as well.
            let _ = fs::write(directory.join("cgroup.subtree_control"), "+pids");
            Ok(())
        };
        enable(above)?;
        let directory = above.join(name);
        make_directory(&directory)?;
        let parent = Self { directory, version: Version::Two };
        enable(&parent.directory).and_then(|()| parent.probe()).inspect_err(|_| parent.remove())?;
        Ok(parent)
    }

    /// Tries a limit, so that what does not work is known at start.
    fn probe(&self) -> io::Result<()> {
        self.sandbox(0, 64).and_then(|group| group.remove())
    }

    /// Makes the group of a sandbox with its memory limit.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sandbox(&self, number: u64, memory_mib: u32) -> io::Result<Group> {
        let directory = self.directory.join(number.to_string());
        make_directory(&directory)?;
        let bytes = (u64::from(memory_mib) << 20).to_string();
        let set = |file: &str, value: &str| fs::write(directory.join(file), value);
        let (peak, events) = match self.version {
            Version::One => {
                set("memory.limit_in_bytes", &bytes)?;
                // There where swap is accounted for.
                let _ = set("memory.memsw.limit_in_bytes", &bytes);
                ("memory.max_usage_in_bytes", "memory.oom_control")
            }
            Version::Two => {
                set("memory.max", &bytes)?;
                let _ = set("memory.swap.max", "0");
                // One process less would leave a sandbox in pieces.
                let _ = set("memory.oom.group", "1");
                let _ = set("pids.max", &PROCESSES_MAX.to_string());
                ("memory.peak", "memory.events")
            }
        };
        let events = File::open(directory.join(events))?;
        Ok(Group { peak: File::open(directory.join(peak)).ok(), events, version: self.version, directory })
    }

    /// Kills what is in any sandbox's group and removes all groups; whether all are gone.
    pub fn kill_and_remove(&self) -> bool {
        let sandboxes = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for directory in sandboxes.map(|entry| entry.path()).filter(|path| path.is_dir()) {
            let _ = kill_members(&directory, self.version);
            let _ = fs::remove_dir(directory);
        }
        self.remove();
        !self.directory.exists()
    }

    /// Removes the group, which has no sandboxes any more.
    pub fn remove(&self) {
        let _ = fs::remove_dir(&self.directory);
    }
}

impl Group {
    /// The file into which a process writes `0` to enter.
    #[must_use]
    pub fn entrance(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// Highest memory so far, in bytes, where the kernel keeps it.
    #[must_use]
    pub fn peak_memory(&self) -> Option<u64> {
        read_at_start(self.peak.as_ref()?)?.trim().parse().ok()
    }

    /// How many processes were killed at the limit so far.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let events = read_at_start(&self.events).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Kills every process in the group; how many there were.
    ///
    /// # Errors
    /// When the group cannot be read.
    pub fn kill(&self) -> io::Result<usize> {
        kill_members(&self.directory, self.version)
    }

    /// Removes the group. Its last processes may be dead but not yet out of it.
    ///
    /// # Errors
    /// When there still is one.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir(&self.directory)
    }

    /// Removes the group as soon as its last dead process has left it.
    ///
    /// # Errors
    /// When one is still there after a while.
    pub async fn removed(&self) -> io::Result<()> {
        let mut pause = Duration::from_millis(1);
        loop {
            match self.remove() {
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && pause < Duration::from_secs(1) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => return result,
            }
        }
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn read_at_start(file: &File) -> Option<String> {
    let mut buffer = [0; 1024];
    let read = file.read_at(&mut buffer, 0).ok()?;
    Some(String::from_utf8_lossy(buffer.get(..read)?).into_owned())
}

fn members(directory: &Path) -> io::Result<Vec<Pid>> {
    let pids = fs::read_to_string(directory.join("cgroup.procs"))?;
    Ok(pids.lines().filter_map(|line| line.parse().ok().map(Pid::from_raw)).collect())
}

fn kill_members(directory: &Path, version: Version) -> io::Result<usize> {
    let alive: Vec<Pid> = members(directory)?
        .into_iter()
        .filter(|pid| procfs::process(*pid).is_some_and(|process| !process.is_zombie))
        .collect();
    // Version 2 kills all at once, also those that are just being forked; older kernels do not have it.
    if alive.is_empty() || (version == Version::Two && fs::write(directory.join("cgroup.kill"), "1").is_ok()) {
        return Ok(alive.len());
    }
    for pid in &alive {
        // It may have ended meanwhile.
        let _ = kill(*pid, Signal::SIGKILL);
    }
    Ok(alive.len())
}
