//! Under what bounds a sandbox's processes run, and by what they are known again.
//!
//! As root each sandbox has a user of its own, so that it cannot touch another and can be killed by its user. Otherwise
//! its processes carry a mark: two hard resource limits that nobody needs, lowered by a number of this agent and one of
//! the sandbox. Children inherit them whatever they do (setsid, double fork, another environment, closed descriptors) and
//! cannot raise them again.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cgroup::{Group, PROCESSES_MAX};
use crate::private::Private;

/// User ids that one agent takes, from its base on.
pub const UID_RANGE: u32 = 1000;

/// First user id that may be a sandbox's, where no other was named: below are those of the machine's own.
const UID_FIRST: u32 = 200_000;
/// Where a user namespace has fewer, as is usual for containers.
const UID_FIRST_OF_FEW: u32 = 10_000;
/// Ranges that instances are spread over.
const UID_RANGES: u32 = 1_000_000;

/// First user id of the sandboxes of an instance, among those that are mapped. Containers on one host share what the
/// kernel counts per user, so two of them should not have the same; none when there is no room.
#[must_use]
pub fn uid_base(instance: &str, mapped: &[(u32, u32)]) -> Option<u32> {
    let digest = Sha256::digest(instance.as_bytes());
    let chance = digest.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte));
    let (first, count) = *mapped.iter().max_by_key(|(_, count)| *count)?;
    let end = first.saturating_add(count);
    let place = |lowest: u32| {
        let start = lowest.max(first);
        let ranges = (end.checked_sub(start)? / UID_RANGE).min(UID_RANGES);
        (ranges > 0).then(|| start + chance % ranges * UID_RANGE)
    };
    place(UID_FIRST).or_else(|| place(UID_FIRST_OF_FEW))
}

/// How willingly the kernel takes a sandbox when a machine or a container is out of memory: first. The zygote's children
/// have the same.
pub const OOM_SCORE: &str = "1000";

/// Open files of a process, as on AWS Lambda.
const OPEN_FILES: u64 = 1024;
/// Largest file that a process may write, in bytes: the size of AWS Lambda's `/tmp`.
const FILE_SIZE: u64 = 512 << 20;

/// Numbers that make the processes of an agent, and of a sandbox of it, known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Hard limit of the bytes in message queues: the agent's number.
    pub agent: u64,
    /// Hard limit of pending signals: the sandbox's number; 0 for any.
    pub sandbox: u64,
}

/// What marks processes, and where its limits are shown.
const MARK_AGENT: (Resource, &str) = (Resource::RLIMIT_MSGQUEUE, "Max msgqueue size");
const MARK_SANDBOX: (Resource, &str) = (Resource::RLIMIT_SIGPENDING, "Max pending signals");

impl Mark {
    /// Whether a process carries it.
    #[must_use]
    pub fn is_on(&self, pid: nix::unistd::Pid) -> bool {
        let shows = |(_, name): (Resource, &str), value| crate::procfs::hard_limit(pid, name) == Some(value);
        shows(MARK_AGENT, self.agent) && (self.sandbox == 0 || shows(MARK_SANDBOX, self.sandbox))
    }
}

/// As whom the sandboxes of this agent run.
#[derive(Debug)]
pub enum Users {
    /// Each as its own user out of a range.
    Own {
        /// The first of the range.
        base: u32,
        /// Which are in use, and where the search goes on.
        taken: Mutex<(HashSet<u32>, u32)>,
    },
    /// All as the agent's user, known by their marks.
    Same {
        /// The agent's number.
        agent: u64,
        /// The highest number for a sandbox.
        highest: u64,
        /// The last one given.
        last: Mutex<u64>,
    },
}

/// Who a sandbox is. Given back when the value is dropped, which has to be after its last process is gone.
#[derive(Debug)]
pub struct Identity<'a> {
    users: &'a Users,
    who: Who,
}

/// By what the processes of a sandbox are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Their user.
    User(u32),
    /// Their mark.
    Mark(Mark),
}

impl Users {
    /// For an agent that runs as root.
    #[must_use]
    pub fn own(base: u32) -> Self {
        Self::Own { base, taken: Mutex::new((HashSet::new(), 0)) }
    }

    /// For an agent that does not.
    #[must_use]
    pub fn same() -> Self {
        let hard = |(resource, _): (Resource, &str)| getrlimit(resource).map_or(0, |(_, hard)| hard.min(1 << 20));
        let highest = hard(MARK_AGENT);
        Self::Same {
            agent: rand::random_range(highest / 2..=highest),
            highest: hard(MARK_SANDBOX),
            last: Mutex::new(0),
        }
    }

    /// The mark of every process of this agent, where they have one.
    #[must_use]
    pub const fn mark(&self) -> Option<Mark> {
        match self {
            Self::Own { .. } => None,
            Self::Same { agent, .. } => Some(Mark { agent: *agent, sandbox: 0 }),
        }
    }

    /// Someone for a new sandbox; none when all are taken.
    pub fn identity(&self) -> Option<Identity<'_>> {
        let who = match self {
            Self::Own { base, taken } => {
                let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
                let (used, next) = &mut *taken;
                // Round and round, so that a user id rests for as long as possible before it is used again.
                let free = (0..UID_RANGE).map(|step| (*next + step) % UID_RANGE).find(|slot| !used.contains(slot))?;
                used.insert(free);
                *next = free + 1;
                Who::User(base + free)
            }
            Self::Same { agent, highest, last } => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                // At most half of the limit is given away.
                *last = *last % (highest / 2).max(1) + 1;
                Who::Mark(Mark { agent: *agent, sandbox: (highest - *last).max(1) })
            }
        };
        Some(Identity { users: self, who })
    }
}

impl Identity<'_> {
    /// By what its processes are known.
    #[must_use]
    pub const fn who(&self) -> Who {
        self.who
    }
}

impl Drop for Identity<'_> {
    fn drop(&mut self) {
        if let (Users::Own { base, taken }, Who::User(user)) = (self.users, self.who) {
            taken.lock().unwrap_or_else(PoisonError::into_inner).0.remove(&(user - base));
        }
    }
}

/// What a sandbox's first process puts on before it runs anything of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confinement {
    /// User and group to become.
    pub user: Option<u32>,
    /// The cgroup's file to write `0` into.
    pub entrance: Option<PathBuf>,
    /// What its private view of the file system needs; none where it has the common one.
    pub private: Option<Private>,
    /// Resource limits, soft and hard: name without `RLIMIT_`, in lower case, and value.
    pub limits: Vec<(&'static str, u64)>,
}

impl Confinement {
    /// For a sandbox with this much memory. Without a group, memory is limited by the size of its data.
    #[must_use]
    pub fn new(who: Who, group: Option<&Group>, private: Option<Private>, memory_mib: u32) -> Self {
        let mut limits = vec![("core", 0), ("nofile", OPEN_FILES), ("fsize", FILE_SIZE)];
        if group.is_none() {
            limits.push(("data", u64::from(memory_mib) << 20));
        }
        let user = match who {
            Who::User(user) => {
                limits.push(("nproc", PROCESSES_MAX));
                Some(user)
            }
            Who::Mark(mark) => {
                limits.extend([("msgqueue", mark.agent), ("sigpending", mark.sandbox)]);
                None
            }
        };
        Self { user, entrance: group.map(Group::entrance), private, limits }
    }
}

/// The resource with one of the names in a [`Confinement`].
#[must_use]
pub fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "core" => Resource::RLIMIT_CORE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "fsize" => Resource::RLIMIT_FSIZE,
        "data" => Resource::RLIMIT_DATA,
        "nproc" => Resource::RLIMIT_NPROC,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sandboxes_have_the_same_user_at_the_same_time() {
        let users = Users::own(200_000);
        let all: Vec<_> = (0..UID_RANGE).map(|_| users.identity().unwrap()).collect();
        let distinct: HashSet<_> = all.iter().map(|identity| format!("{:?}", identity.who())).collect();
        assert_eq!(distinct.len(), UID_RANGE as usize);
        assert!(users.identity().is_none());
        drop(all);
        let first = users.identity().unwrap().who();
        assert_ne!(users.identity().unwrap().who(), first, "a user id rests before it is used again");
    }

    #[test]
    fn instances_get_users_that_exist_and_seldom_the_same() {
        let everywhere = [(0, u32::MAX)];
        let bases: HashSet<_> = (0..100).map(|n| uid_base(&format!("i-{n}"), &everywhere).unwrap()).collect();
        assert!(bases.len() > 95 && bases.iter().all(|base| *base >= UID_FIRST && *base < 2_000_000_000));
        assert_eq!(uid_base("i", &everywhere), uid_base("i", &everywhere));
        let base = uid_base("i", &[(0, 65_536)]).unwrap();
        assert!((UID_FIRST_OF_FEW..65_536 - UID_RANGE).contains(&base), "{base}");
        assert_eq!(uid_base("i", &[(0, 1)]), None);
        assert_eq!(uid_base("i", &[]), None);
    }

    #[test]
    fn marks_differ_and_can_be_set_by_anyone() {
        let users = Users::same();
        let (one, two) = (users.identity().unwrap(), users.identity().unwrap());
        assert_ne!(one.who(), two.who());
        let Who::Mark(mark) = one.who() else { panic!("a mark") };
        assert!(mark.sandbox <= getrlimit(Resource::RLIMIT_SIGPENDING).unwrap().1);
        assert!(mark.agent <= getrlimit(Resource::RLIMIT_MSGQUEUE).unwrap().1);
    }

    #[test]
    fn every_limit_has_a_resource() {
        let mark = Mark { agent: 1, sandbox: 2 };
        for who in [Who::User(1), Who::Mark(mark)] {
            for (name, _) in Confinement::new(who, None, None, 128).limits {
                assert!(resource(name).is_some(), "{name}");
            }
        }
    }
}
