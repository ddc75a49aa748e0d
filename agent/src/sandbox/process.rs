//! The first process of a sandbox: forked from the zygote, or the package's own `bootstrap`.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};

use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::confine::Confinement;
use crate::launch;
use crate::private::Private;
use crate::reap::{Exit, Reaper};
use crate::wire::FailureKind;
use crate::zygote::{self, Fork, Zygote};

/// What a package for `provided` must have.
const BOOTSTRAP: &str = "bootstrap";

/// A started process.
pub struct Process {
    /// Its id, which is also that of its session.
    pub pid: Pid,
    /// When its start began.
    pub begun: Instant,
    /// How it ends.
    pub end: Pin<Box<dyn Future<Output = End> + Send>>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It ran.
    Exit {
        /// How it ended.
        exit: Exit,
        /// Its highest resident memory, in bytes; 0 when that was not told.
        peak_memory: u64,
    },
    /// Its end is our fault.
    Platform(String),
}

/// Why there is no process.
#[derive(Debug)]
pub struct NotStarted {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// What happened.
    pub message: String,
}

impl NotStarted {
    /// Something of ours failed.
    pub fn platform(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self { kind: FailureKind::Platform, message: format!("{what}: {error}") }
    }
}

/// What every process is made from.
#[derive(Debug)]
pub struct Start<'a> {
    /// Its bounds.
    pub confine: Confinement,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// The unpacked package, where it runs.
    pub task_root: &'a Path,
    /// Its standard output and standard error.
    pub output: [OwnedFd; 2],
}

/// Starts the Python runtime, with a connection to its Runtime API.
pub async fn fork(start: Start<'_>, connection: OwnedFd, zygote: &Zygote) -> Result<Process, NotStarted> {
    let Start { confine, environment, task_root, output } = start;
    let fork = Fork { confine, environment, task_root: task_root.to_owned(), output, connection };
    let forked = zygote.fork(fork).await.map_err(|error| NotStarted::platform("no Python", &error))?;
    let end = async move {
        match forked.exit.await {
            Ok(zygote::Ended::Exit { exit, peak_memory }) => End::Exit { exit, peak_memory },
            Ok(zygote::Ended::NotConfined(reason)) => End::Platform(format!("it was not confined: {reason}")),
            Err(_) => End::Platform("the Python zygote ended and took it along".to_owned()),
        }
    };
    Ok(Process { pid: forked.pid, begun: forked.asked, end: Box::pin(end) })
}

/// Starts the package's `bootstrap`.
pub async fn launch(start: Start<'_>, reaper: &Reaper) -> Result<Process, NotStarted> {
    let missing = |why: &str| NotStarted {
        kind: FailureKind::EntrypointMissing,
        message: format!("the package's file '{BOOTSTRAP}' {why}"),
    };
    let platform = |error: io::Error| NotStarted::platform("no process", &error);
    let program = start.task_root.join(BOOTSTRAP);
    match std::fs::metadata(&program) {
        Ok(metadata) if !metadata.is_file() => return Err(missing("is no file")),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => return Err(missing("is not executable")),
        Ok(_) => {}
        Err(_) => return Err(missing("is not there")),
    }
    let (ours, theirs) = UnixStream::pair().map_err(platform)?;
    let [stdout, stderr] = start.output;
    // This very program, also when its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg("launch").arg("--parent").arg(Pid::this().to_string());
    if let Some(user) = start.confine.user {
        command.arg("--uid").arg(user.to_string());
    }
    if let Some(entrance) = &start.confine.entrance {
        command.arg("--cgroup").arg(entrance);
    }
    if let Some(Private { temporary, work_dir }) = &start.confine.private {
        command.arg("--temporary").arg(temporary).arg("--work-dir").arg(work_dir);
    }
    for (name, value) in &start.confine.limits {
        command.arg("--limit").arg(format!("{name}={value}"));
    }
    command.arg("--directory").arg(start.task_root).arg("--program").arg(&program);
    // The launcher begins with our rights: the function's variables (think of LD_PRELOAD) are for the program only.
    command.env_clear();
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    let begun = Instant::now();
    let child = command.spawn().map_err(platform)?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
    let exit = reaper.watch(pid);
    // Our copies of the child's ends, which would keep its output open for ever.
    drop(command);
    let end = async move {
        match exit.await {
            Ok(exit) => End::Exit { exit, peak_memory: 0 },
            Err(_) => End::Platform("its end was missed".to_owned()),
        }
    };
    let process = Process { pid, begun, end: Box::pin(end) };
    ours.set_nonblocking(true).map_err(platform)?;
    let mut ours = tokio::net::UnixStream::from_std(ours).map_err(platform)?;
    let environment = serde_json::to_vec(&start.environment).map_err(|error| platform(error.into()))?;
    // A launcher that has failed already does not read; it has said why.
    let _ = ours.write_all(&environment).await;
    let _ = ours.shutdown().await;
    let mut failed = String::new();
    // Ends when the program takes over or the process is gone; the launcher does nothing that could take long.
    ours.read_to_string(&mut failed).await.map_err(platform)?;
    match failed.strip_prefix(launch::PLATFORM) {
        None if failed.is_empty() => Ok(process),
        None => Err(NotStarted {
            kind: FailureKind::EntrypointMissing,
            message: format!("the package's file '{BOOTSTRAP}' cannot be run: {failed}"),
        }),
        Some(failed) => Err(NotStarted::platform("no process", &failed)),
    }
}
