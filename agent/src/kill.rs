//! Killing a sandbox with everything that it ever started.
//!
//! What is known of a sandbox: its session, its cgroup where there are cgroups, and its user or its mark. A process that
//! leaves the session is still in the group; one in no group still has the user or the mark. Killing is repeated until a
//! look finds nobody, because a process may fork while it is being looked for.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::cgroup::Group;
use crate::confine::Who;
use crate::procfs;

/// How long killing is repeated before we give up. The kernel may be busy taking large processes down.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whom to kill.
#[derive(Clone, Debug)]
pub struct Target {
    /// Leader of the sandbox's session, when it was started.
    pub leader: Option<Pid>,
    /// The sandbox's group, where there are groups.
    pub group: Option<Arc<Group>>,
    /// By what its processes are known.
    pub who: Who,
}

impl Target {
    /// Kills everyone and returns when nobody is left; false when someone still was after a while.
    pub async fn end(self) -> bool {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            let target = self.clone();
            // Looking through all processes takes milliseconds, which others need not wait.
            let alive = tokio::task::spawn_blocking(move || target.kill()).await.unwrap_or(1);
            if alive == 0 {
                return true;
            }
            if tokio::time::Instant::now() > deadline {
                tracing::error!(processes = alive, "processes of a sandbox survive their killing");
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Kills everyone that is found; how many that were.
    fn kill(&self) -> usize {
        if let Some(leader) = self.leader {
            // The whole session leader's process group at once; no such group is a success.
            if !matches!(killpg(leader, Signal::SIGKILL), Ok(()) | Err(Errno::ESRCH)) {
                let _ = kill(leader, Signal::SIGKILL);
            }
        }
        let in_group = self.group.as_ref().and_then(|group| group.kill().ok());
        match (in_group, self.who) {
            // Nobody but root can leave the group: who is not in it is not ours.
            (Some(alive), Who::User(_)) => alive,
            (alive, who) => alive.unwrap_or(0) + kill_known(who, Some(Pid::this())),
        }
    }
}

/// Kills whoever has this user or mark; how many there were. Marks are taken for proof only below `ancestor`, since
/// another agent's could be equal.
pub fn kill_known(who: Who, ancestor: Option<Pid>) -> usize {
    let all = procfs::processes();
    let own = Pid::this();
    let is_descendant = |mut pid: Pid| {
        let Some(ancestor) = ancestor else { return true };
        // As deep as there are processes, at most: the table may change while it is read.
        for _ in 0..all.len() {
            if pid == ancestor {
                return true;
            }
            match all.iter().find(|process| process.pid == pid) {
                Some(process) => pid = process.parent,
                None => return false,
            }
        }
        false
    };
    let mut found = 0;
    for process in all.iter().filter(|process| process.pid != own && !process.is_zombie) {
        let is_it = match who {
            Who::User(user) => procfs::users(process.pid).is_some_and(|users| users.contains(&user)),
            Who::Mark(mark) => is_descendant(process.pid) && mark.is_on(process.pid),
        };
        if is_it {
            found += 1;
            // It may have ended meanwhile.
            let _ = kill(process.pid, Signal::SIGKILL);
        }
    }
    found
}
