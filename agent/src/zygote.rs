//! The Python zygote: keeps one running, has it fork, and tells how its children end. See `runtimes/python/zygote.py` for
//! what is said on the socket.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::confine::Confinement;
use crate::reap::{Exit, Reaper};

/// The zygote's program.
const ZYGOTE: &str = include_str!("../../runtimes/python/zygote.py");
/// What its children run.
const BOOTSTRAP: &str = include_str!("../../runtimes/python/bootstrap.py");

/// Largest message either way, in bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// Time for starting the interpreter and importing the library.
const START: Duration = Duration::from_secs(30);
/// Pause before a zygote that ended is started again; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Requests that may wait for the zygote.
const WAITING: usize = 256;

/// What a child is made from.
#[derive(Debug)]
pub struct Fork {
    /// Its bounds.
    pub confine: Confinement,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// The unpacked package.
    pub task_root: PathBuf,
    /// Its standard output and standard error.
    pub output: [OwnedFd; 2],
    /// Its connection to the Runtime API.
    pub connection: OwnedFd,
}

/// A child.
#[derive(Debug)]
pub struct Forked {
    /// Its process.
    pub pid: Pid,
    /// When the zygote was asked for it; waiting for a zygote that is not up yet is not counted.
    pub asked: Instant,
    /// How it ends; an error when the zygote ended before and took it along.
    pub exit: oneshot::Receiver<Ended>,
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It ran, and ended.
    Exit {
        /// How.
        exit: Exit,
        /// Its highest resident memory, in bytes.
        peak_memory: u64,
    },
    /// It could not put on its bounds, and ran nothing.
    NotConfined(String),
}

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ForkError(String);

/// A handle for asking the zygote.
#[derive(Clone, Debug)]
pub struct Zygote {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    fork: Fork,
    forked: oneshot::Sender<Result<Forked, ForkError>>,
}

#[derive(Serialize)]
struct Ask<'a> {
    fork: u64,
    confine: &'a Confinement,
    environment: &'a BTreeMap<String, String>,
    task_root: &'a Path,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    ready: Option<String>,
    unreadable: Vec<PathBuf>,
    forked: Option<u64>,
    pid: i32,
    failed: Option<u64>,
    reason: String,
    exited: Option<u64>,
    status: i32,
    max_rss_kib: u64,
}

impl Zygote {
    /// A handle, and the task that keeps the zygote for it. `runtime` is the directory for the runtime's files;
    /// `unprivileged` says that children are other users than the agent.
    pub fn new(
        python: PathBuf,
        runtime: PathBuf,
        unprivileged: bool,
        reaper: Arc<Reaper>,
    ) -> (Self, impl Future<Output = ()>) {
        let (requests, waiting) = mpsc::channel(WAITING);
        (Self { requests }, keep(Keeper { python, runtime, unprivileged, reaper }, waiting))
    }

    /// Forks a child.
    ///
    /// # Errors
    /// When there is no zygote that could, or it fails at it.
    pub async fn fork(&self, fork: Fork) -> Result<Forked, ForkError> {
        let (forked, answer) = oneshot::channel();
        let gone = |_| ForkError("the Python zygote ended".to_owned());
        self.requests.send(Request { fork, forked }).await.map_err(|_| ForkError("the agent is ending".to_owned()))?;
        answer.await.map_err(gone)?
    }
}

/// Writes the runtime's files where the interpreter and tracebacks find them.
///
/// # Errors
/// When they cannot be written.
pub fn write_runtime(directory: &Path) -> io::Result<()> {
    for (name, text) in [("zygote.py", ZYGOTE), ("bootstrap.py", BOOTSTRAP)] {
        let path = directory.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    }
    Ok(())
}

struct Keeper {
    python: PathBuf,
    runtime: PathBuf,
    unprivileged: bool,
    reaper: Arc<Reaper>,
}

async fn keep(keeper: Keeper, mut requests: mpsc::Receiver<Request>) {
    let mut pause = PAUSE.0;
    loop {
        let begun = Instant::now();
        let why = match keeper.start().await {
            Ok(mut running) => running.serve(&mut requests).await,
            Err(why) => Some(why),
        };
        let Some(why) = why else { return };
        tracing::error!(error = why, "no Python zygote: {why}");
        if begun.elapsed() > PAUSE.1 {
            pause = PAUSE.0;
        }
        // Until it is tried again, whoever asks is told.
        let again = tokio::time::sleep(pause);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                request = requests.recv() => match request {
                    // Whoever no longer waits has no use for it.
                    Some(request) => drop(request.forked.send(Err(ForkError(why.clone())))),
                    None => return,
                },
            }
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

impl Keeper {
    async fn start(&self) -> Result<Running, String> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .map_err(|error| format!("no socket: {error}"))?;
        // A function's environment may be larger than the default allows.
        let _ = setsockopt(&ours, sockopt::SndBuf, &MESSAGE_MAX);
        let blocking = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty());
        nix::fcntl::fcntl(&theirs, blocking).map_err(|error| format!("no socket: {error}"))?;
        let mut command = Command::new(&self.python);
        // Isolated: neither the agent's environment nor its directory has a say.
        command.args(["-I", "-B"]).arg(self.runtime.join("zygote.py")).current_dir(&self.runtime);
        command.env_clear().env("PATH", crate::sandbox::PATH).env("LANG", "C.UTF-8");
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.python.display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
        let ended = self.reaper.watch(pid);
        // The agent's own copy of the zygote's end, which would hide that the zygote is gone.
        drop(command);
        // A socket of messages with an end: the library has no type of its own for it, a datagram socket's calls fit.
        let socket = UnixDatagram::from_std(ours.into()).map_err(|error| format!("no socket: {error}"))?;
        let running = Running { pid, ended, socket, last: 0, children: HashMap::new() };
        let first = timeout(START, hear(&running.socket)).await.map_err(|_| "it did not start in time".to_owned())?;
        let Told { ready: Some(version), unreadable, .. } =
            first.map_err(|error| format!("it did not start: {error}"))?
        else {
            return Err("it began with something unexpected".to_owned());
        };
        if let Some(path) = unreadable.first().filter(|_| self.unprivileged) {
            let (python, path) = (self.python.display(), path.display());
            return Err(format!("{python} cannot be used: sandboxes may not read {path}"));
        }
        tracing::info!(python.version = version, pid = %pid, "the Python zygote is up");
        Ok(running)
    }
}

struct Running {
    pid: Pid,
    ended: oneshot::Receiver<Exit>,
    socket: UnixDatagram,
    last: u64,
    children: HashMap<u64, Child>,
}

enum Child {
    Asked(oneshot::Sender<Result<Forked, ForkError>>, Instant),
    Runs(oneshot::Sender<Ended>),
}

impl Running {
    /// Serves requests until the zygote or the agent ends; why, when it was the zygote.
    async fn serve(&mut self, requests: &mut mpsc::Receiver<Request>) -> Option<String> {
        loop {
            tokio::select! {
                exit = &mut self.ended => {
                    return Some(exit.map_or_else(|_| "it ended".to_owned(), |exit| format!("it ended with {exit}")));
                }
                told = hear(&self.socket) => match told {
                    Ok(told) => self.note(told),
                    Err(error) => return Some(format!("it is not understood: {error}")),
                },
                request = requests.recv() => self.ask(request?).await,
            }
        }
    }

    async fn ask(&mut self, Request { fork, forked }: Request) {
        self.last += 1;
        let asked = Instant::now();
        let ask =
            Ask { fork: self.last, confine: &fork.confine, environment: &fork.environment, task_root: &fork.task_root };
        let sent = match serde_json::to_vec(&ask) {
            Ok(message) if message.len() <= MESSAGE_MAX => self.send(&message, &fork).await,
            Ok(_) => Err(io::Error::other("the environment is too large")),
            Err(error) => Err(error.into()),
        };
        match sent {
            Ok(()) => drop(self.children.insert(self.last, Child::Asked(forked, asked))),
            Err(error) => drop(forked.send(Err(ForkError(format!("the Python zygote cannot be asked: {error}"))))),
        }
    }

    async fn send(&self, message: &[u8], fork: &Fork) -> io::Result<()> {
        let [stdout, stderr] = &fork.output;
        let descriptors = [stdout, stderr, &fork.connection].map(OwnedFd::as_raw_fd);
        loop {
            self.socket.writable().await?;
            let sent = self.socket.try_io(Interest::WRITABLE, || {
                let rights = [ControlMessage::ScmRights(&descriptors)];
                let message = [IoSlice::new(message)];
                Ok(sendmsg::<()>(self.socket.as_raw_fd(), &message, &rights, MsgFlags::MSG_NOSIGNAL, None)?)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return sent.map(drop),
            }
        }
    }

    fn note(&mut self, told: Told) {
        if let Some(number) = told.forked {
            let (ended, exit) = oneshot::channel();
            let pid = Pid::from_raw(told.pid);
            if let Some(Child::Asked(forked, asked)) = self.children.insert(number, Child::Runs(ended)) {
                // Nobody waits: nobody would ever end it.
                if forked.send(Ok(Forked { pid, asked, exit })).is_err() {
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
        }
        // Of one child `failed` may come before `forked`: the child says the one and the zygote the other.
        if let Some(number) = told.failed {
            match self.children.remove(&number) {
                Some(Child::Asked(forked, _)) => drop(forked.send(Err(ForkError(told.reason)))),
                Some(Child::Runs(ended)) => drop(ended.send(Ended::NotConfined(told.reason))),
                None => {}
            }
        }
        if let Some(number) = told.exited
            && let Some(Child::Runs(ended)) = self.children.remove(&number)
        {
            let exit = Exit::of_wait_status(told.status);
            // A sandbox that is gone is no longer interested.
            let _ = ended.send(Ended::Exit { exit, peak_memory: told.max_rss_kib * 1024 });
        }
    }
}

async fn hear(socket: &UnixDatagram) -> io::Result<Told> {
    let mut buffer = vec![0; 16 << 10];
    match socket.recv(&mut buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(serde_json::from_slice(buffer.get(..read).unwrap_or_default())?),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Also when it is only out of step. Its children die with it.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}
