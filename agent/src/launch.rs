//! `lambda-agent launch`: what stands between the agent and the first program of a `provided` sandbox. It puts on the
//! bounds and becomes the program; the agent itself must not, and code between fork and exec would have to be unsafe.
//!
//! Standard input is a socket to the agent. From there comes the program's environment, as JSON; back goes a text when
//! the program cannot be run, or just the end of the connection when it runs.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::resource::{getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{self, Gid, Pid, Uid};

use crate::confine;
use crate::private::Private;

/// What to put on and what to become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The agent, which must still be our parent.
    pub parent: i32,
    /// User and group to become.
    pub user: Option<u32>,
    /// The cgroup's file to write `0` into.
    pub entrance: Option<PathBuf>,
    /// What a private view of the file system needs.
    pub private: Option<Private>,
    /// Resource limits by the names of [`confine::resource`].
    pub limits: Vec<(String, u64)>,
    /// Where to run.
    pub directory: PathBuf,
    /// What to run.
    pub program: PathBuf,
}

impl Launch {
    /// Becomes the program. Comes back only when that cannot be done, after the agent has been told.
    #[must_use]
    pub fn become_program(&self) -> u8 {
        let Ok(told) = unistd::dup(std::io::stdin()) else { return 125 };
        let failed = match environment().and_then(|environment| self.prepare(&told).map(|()| environment)) {
            Ok(environment) => {
                let program = CString::new(self.program.as_os_str().as_bytes()).unwrap_or_default();
                match unistd::execve(&program, std::slice::from_ref(&program), &environment) {
                    Ok(never) => match never {},
                    Err(error) => format!("{}: {}", self.program.display(), error.desc()),
                }
            }
            Err(failed) => format!("{PLATFORM}{failed}"),
        };
        // The agent reads this; when it is gone, so are we.
        let _ = fs::File::from(told).write_all(failed.as_bytes());
        126
    }

    fn prepare(&self, told: &std::os::fd::OwnedFd) -> Result<(), String> {
        let step = |what: &'static str| move |error: nix::Error| format!("{what}: {}", error.desc());
        let close = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
        nix::fcntl::fcntl(told, close).map_err(step("close-on-exec"))?;
        let null = fs::File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
        unistd::dup2_stdin(&null).map_err(step("standard input"))?;
        nix::sys::stat::umask(nix::sys::stat::Mode::S_IWGRP | nix::sys::stat::Mode::S_IWOTH);
        unistd::setsid().map_err(step("session"))?;
        if let Some(entrance) = &self.entrance {
            fs::write(entrance, "0").map_err(|error| format!("cgroup: {error}"))?;
        }
        if let Some(private) = &self.private {
            private.enter().map_err(step("private view"))?;
        }
        for (name, value) in &self.limits {
            let resource = confine::resource(name).ok_or_else(|| format!("limit {name}: unknown"))?;
            let (_, hard) = getrlimit(resource).map_err(step("limit"))?;
            let value = (*value).min(hard);
            setrlimit(resource, value, value).map_err(step("limit"))?;
        }
        // Where memory runs out, a function goes before the agent that has to tell of it. Nothing depends on it.
        let _ = fs::write("/proc/self/oom_score_adj", confine::OOM_SCORE);
        if let Some(user) = self.user {
            let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
            unistd::setgroups(&[]).map_err(step("groups"))?;
            unistd::setresgid(gid, gid, gid).map_err(step("group"))?;
            unistd::setresuid(uid, uid, uid).map_err(step("user"))?;
        }
        prctl::set_no_new_privs().map_err(step("no new privileges"))?;
        // After the change of user, which clears it. When the agent ended before, nobody would send the signal.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(step("parent death signal"))?;
        if Pid::parent() != Pid::from_raw(self.parent) {
            return Err("the agent is gone".to_owned());
        }
        unistd::chdir(&self.directory).map_err(step("working directory"))
    }
}

fn environment() -> Result<Vec<CString>, String> {
    let mut json = Vec::new();
    std::io::stdin().read_to_end(&mut json).map_err(|error| format!("environment: {error}"))?;
    let variables: BTreeMap<String, String> =
        serde_json::from_slice(&json).map_err(|error| format!("environment: {error}"))?;
    // A zero byte cannot be in any of them: the agent has seen to it.
    Ok(variables.into_iter().filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok()).collect())
}

/// Begins the texts of failures that are not the program's.
pub const PLATFORM: &str = "platform: ";
