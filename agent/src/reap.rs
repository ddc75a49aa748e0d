//! Ended children. The agent takes in every orphan of its sandboxes (it is their subreaper), so it waits for whoever
//! ends and tells those who are interested.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// From the number that `wait` gives.
    #[must_use]
    pub const fn of_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code((status >> 8) & 0xff),
            signal => Self::Signal(signal),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(known) => write!(f, "signal {signal} ({known})"),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

/// Who waits for which child.
#[derive(Debug, Default)]
pub struct Reaper {
    waiting: Mutex<HashMap<Pid, oneshot::Sender<Exit>>>,
}

impl Reaper {
    /// Tells how this child ends. To be called before the event loop runs again after the child was started.
    pub fn watch(&self, pid: Pid) -> oneshot::Receiver<Exit> {
        let (ended, exit) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, ended);
        exit
    }

    /// Collects every child that has ended. To be called on each SIGCHLD.
    pub fn collect(&self) {
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
            if let Some(ended) = waiting {
                // Whoever is no longer interested has gone.
                let _ = ended.send(exit);
            }
        }
    }
}
