//! `lambda-agent clean`: takes away what a killed agent left behind.
//!
//! Most of it has ended by itself: the zygote and the sandboxes get SIGKILL when their parent dies. What has left them
//! is found by its cgroup, its user, or its mark.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Parent;
use crate::confine::{UID_RANGE, Who};
use crate::work_dir::{Owner, remove_tree};
use crate::{kill, procfs};

/// How long killing is repeated.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills whatever the last agent in this directory started, the agent included, and removes the directory. Nothing to
/// do is a success. `uid_base` is for a directory that no longer tells.
///
/// # Errors
/// When something survives or cannot be removed.
pub fn clean(work_dir: &Path, uid_base: Option<u32>) -> io::Result<()> {
    let owner = Owner::of(work_dir);
    if let Some(owner) = &owner {
        leftovers(owner, true)?;
    }
    if let Some(base) = uid_base.filter(|base| owner.as_ref().and_then(|owner| owner.uid_base) != Some(*base)) {
        repeat(|| kill_range(base))?;
    }
    remove_tree(work_dir)
}

/// Kills whatever an agent started, and the agent too when it still runs and `also_agent` says so.
///
/// # Errors
/// When something survives.
pub fn leftovers(owner: &Owner, also_agent: bool) -> io::Result<()> {
    if also_agent {
        // First the agent: it would start the zygote again.
        repeat(|| owner.running().map_or(0, |pid| usize::from(kill(pid, Signal::SIGKILL).is_ok())))?;
    }
    if let Some(base) = owner.uid_base {
        repeat(|| kill_range(base))?;
    }
    if let Some(mark) = owner.mark {
        // The agent is gone, its processes have init for a parent: no ancestor tells them from another agent's.
        repeat(|| kill::kill_known(Who::Mark(mark), None))?;
    }
    if let Some(cgroup) = &owner.cgroup {
        let parent = Parent::existing(cgroup.clone());
        repeat(|| usize::from(!parent.kill_and_remove()))?;
    }
    Ok(())
}

fn kill_range(base: u32) -> usize {
    let is_in_range = |user: &u32| (base..base.saturating_add(UID_RANGE)).contains(user);
    let mut found = 0;
    for process in procfs::processes().into_iter().filter(|process| !process.is_zombie && process.pid != Pid::this()) {
        if procfs::users(process.pid).is_some_and(|users| users.iter().any(is_in_range)) {
            found += 1;
            // It may have ended meanwhile.
            let _ = kill(process.pid, Signal::SIGKILL);
        }
    }
    found
}

#[expect(clippy::disallowed_methods, reason = "this program does nothing else, or has not begun to")]
fn repeat(mut kill: impl FnMut() -> usize) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while kill() > 0 {
        if Instant::now() > deadline {
            return Err(io::Error::other("processes survive their killing"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
