//! The agent's event loop: what the gateway says, what the machine signals, what has ended. Nothing here waits for a
//! sandbox; each has a task of its own.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::address::GatewayAddress;
use crate::cgroup;
use crate::clean;
use crate::confine::{Users, uid_base};
use crate::connect::{self, ConnectError, Dial};
use crate::link::Link;
use crate::package::Packages;
use crate::private;
use crate::procfs;
use crate::reap::Reaper;
use crate::sandbox::{self, Handle, Host};
use crate::tls::Fingerprint;
use crate::wire::{Credential, Frame, Message};
use crate::work_dir::{Owner, WorkDir, WorkDirError};
use crate::zygote::{self, Zygote};

/// Frames that were read and not yet handled.
const FRAMES_WAITING: usize = 256;
/// Time for ending all sandboxes.
const END: Duration = Duration::from_secs(20);
/// Time for telling the gateway how they ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What an agent is started with.
#[derive(Debug)]
pub struct Config {
    /// Where to dial.
    pub gateway: GatewayAddress,
    /// The certificate that it must show; none: it is on this host and talks without TLS.
    pub fingerprint: Option<Fingerprint>,
    /// The instance's id.
    pub instance: String,
    /// What proves it, once.
    pub token: String,
    /// Where to keep everything.
    pub work_dir: PathBuf,
    /// Memory for sandboxes, in MiB.
    pub memory_mib: u32,
    /// The Python for `python3` functions.
    pub python: PathBuf,
    /// First of the users of sandboxes, when running as root; none: chosen by the instance's id.
    pub uid_base: Option<u32>,
    /// Whether to die with the parent.
    pub dies_with_parent: bool,
    /// Whether sandboxes may get a `/tmp` of their own.
    pub has_private_views: bool,
    /// Whether cgroups may be used.
    pub may_use_cgroups: bool,
    /// How long the gateway may be out of reach.
    pub patience: Duration,
}

/// Why an agent ended, unless it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The directory is of no use.
    #[error("the working directory cannot be used")]
    WorkDir(#[from] WorkDirError),
    /// The gateway is of no use.
    #[error("there is no gateway")]
    Gateway(#[from] ConnectError),
    /// The machine refused what every machine gives.
    #[error("the agent could not {0}")]
    System(&'static str, #[source] io::Error),
}

/// Runs an agent until it is told to end: by the gateway, by SIGTERM or by SIGINT. To be called on the program's main
/// thread, in a runtime that has no other.
///
/// # Errors
/// When it ends for another reason.
pub async fn run(config: Config) -> Result<(), AgentError> {
    let system = |what| move |error: io::Error| AgentError::System(what, error);
    if config.dies_with_parent {
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| AgentError::System("follow its parent", error.into()))?;
    }
    // Whatever a sandbox's process leaves behind comes to us, to be known and to be reaped.
    prctl::set_child_subreaper(true).map_err(|error| AgentError::System("take in orphans", error.into()))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listen to signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen to signals"))?;
    let mut child = signal(SignalKind::child()).map_err(system("listen to signals"))?;

    let (host, keep_zygote) = host(&config)?;
    let dial = Dial {
        gateway: config.gateway,
        fingerprint: config.fingerprint,
        instance: config.instance,
        credential: Credential::Token(config.token),
        patience: config.patience,
    };
    let (inbound, mut frames) = mpsc::channel(FRAMES_WAITING);
    let mut helpers = JoinSet::new();
    helpers.spawn(keep_zygote);
    let mut connection = JoinSet::new();
    connection.spawn(connect::run(dial, Arc::clone(&host.link), inbound));
    let mut agent = Agent { host, sandboxes: HashMap::new(), lives: JoinSet::new() };

    let ended = loop {
        tokio::select! {
            Some(frame) = frames.recv() => {
                if let Asked::ToEnd = agent.handle(frame).await {
                    tracing::info!("the gateway asks the agent to end");
                    break Ok(());
                }
            }
            Some(life) = agent.lives.join_next() => agent.forget(life),
            Some(()) = child.recv() => agent.host.reaper.collect(),
            Some(()) = terminate.recv() => {
                tracing::info!("asked to end by SIGTERM");
                break Ok(());
            }
            Some(()) = interrupt.recv() => {
                tracing::info!("asked to end by SIGINT");
                break Ok(());
            }
            Some(ended) = connection.join_next() => break match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(AgentError::Gateway(error)),
                Err(panic) => Err(AgentError::System("keep its connection", io::Error::other(panic))),
            },
        }
    };
    let all_ended = timeout(END, agent.end_all(&mut child)).await.is_ok();
    if ended.is_ok() {
        // Without it the gateway finds out by the connection's end; a gateway that does not listen is not waited for.
        let _ = timeout(LAST_WORDS, agent.host.link.flushed()).await;
    }
    connection.shutdown().await;
    // The zygote ends with its keeper, before its files are removed.
    helpers.shutdown().await;
    if let Some(groups) = &agent.host.groups {
        groups.kill_and_remove();
    }
    if let Err(error) = agent.host.work_dir.clear() {
        tracing::warn!(error = %error, "the working directory could not be cleared: {error}");
    }
    if all_ended {
        tracing::info!("the agent ends");
    } else {
        tracing::error!("the agent ends, though not all sandboxes did in time");
    }
    ended
}

/// Everything that sandboxes share, made ready.
fn host(config: &Config) -> Result<(Arc<Host>, impl Future<Output = ()> + use<>), AgentError> {
    let system = |what| move |error: io::Error| AgentError::System(what, error);
    let is_root = Uid::effective().is_root();
    let work_dir = WorkDir::open(&config.work_dir, is_root)?;
    if let Some(last) = Owner::of(&config.work_dir) {
        tracing::warn!(instance = last.instance, "the last agent here was killed: its leftovers are removed");
        clean::leftovers(&last, false).map_err(system("remove its predecessor's leftovers"))?;
    }
    let groups = if config.may_use_cgroups {
        cgroup::Parent::make(&config.instance)
    } else {
        Err(io::Error::other("switched off"))
    };
    let groups = match groups {
        Ok(groups) => {
            tracing::info!(cgroup = %groups.directory().display(), "memory is limited by cgroups");
            Some(groups)
        }
        Err(error) => {
            tracing::warn!(reason = %error, "memory is limited by resource limits only, there are no cgroups: {error}");
            None
        }
    };
    let has_private_views = config.has_private_views && private::is_possible();
    if !has_private_views {
        tracing::warn!("sandboxes share /tmp: this agent may not, or shall not, give each its own");
    }
    let uid_base = match config.uid_base {
        Some(base) => base,
        None => uid_base(&config.instance, &procfs::mapped_users()).ok_or_else(|| {
            let error = io::Error::other("no thousand user ids in a row are mapped; say which with --uid-base");
            AgentError::System("give sandboxes users of their own", error)
        })?,
    };
    let users = if is_root { Users::own(uid_base) } else { Users::same() };
    let cgroup = groups.as_ref().map(|groups| groups.directory().to_owned());
    let owner = Owner::this(&config.instance, is_root.then_some(uid_base), cgroup, users.mark());
    work_dir.begin(&owner).map_err(system("prepare its directory"))?;
    zygote::write_runtime(&work_dir.runtime()).map_err(system("write the runtime's files"))?;
    let link = Arc::new(Link::default());
    let reaper = Arc::new(Reaper::default());
    let (zygote, keep_zygote) = Zygote::new(config.python.clone(), work_dir.runtime(), is_root, Arc::clone(&reaper));
    let host = Host {
        instance: config.instance.clone(),
        memory_mib: config.memory_mib,
        packages: Packages::new(work_dir.packages(), Arc::clone(&link)),
        link,
        zygote,
        reaper,
        users,
        has_private_views,
        groups,
        work_dir,
    };
    Ok((Arc::new(host), keep_zygote))
}

struct Agent {
    host: Arc<Host>,
    sandboxes: HashMap<u64, Handle>,
    lives: JoinSet<u64>,
}

enum Asked {
    ToGoOn,
    ToEnd,
}

impl Agent {
    async fn handle(&mut self, frame: Frame) -> Asked {
        match frame.message {
            Message::StartSandbox { sandbox, spec } => {
                if self.sandboxes.contains_key(&sandbox) {
                    tracing::error!(sandbox, "the gateway named two sandboxes alike");
                    return Asked::ToGoOn;
                }
                tracing::debug!(sandbox, spec = ?spec, "a sandbox is asked for");
                let (handle, life) = sandbox::sandbox(Arc::clone(&self.host), sandbox, spec);
                self.sandboxes.insert(sandbox, handle);
                self.lives.spawn(life);
            }
            Message::Invoke { sandbox, invocation } => {
                let not_taken = match self.sandboxes.get(&sandbox) {
                    Some(handle) => match handle.invoke.try_send((invocation, frame.body)) {
                        Ok(()) => None,
                        Err(error) => Some(error.into_inner().0),
                    },
                    None => Some(invocation),
                };
                if not_taken.is_some() {
                    sandbox::not_there(&self.host.link, sandbox, not_taken);
                }
            }
            Message::StopSandbox { sandbox } => match self.sandboxes.get(&sandbox) {
                Some(handle) => handle.stop.cancel(),
                None => sandbox::not_there(&self.host.link, sandbox, None),
            },
            Message::PackagePiece { sha256, offset, last } => {
                self.host.packages.piece(&sha256, offset, last, frame.body).await;
            }
            Message::PackageMissing { sha256, reason } => self.host.packages.missing(&sha256, reason).await,
            Message::Shutdown => return Asked::ToEnd,
            message @ (Message::Hello { .. }
            | Message::HelloCaller { .. }
            | Message::Welcome { .. }
            | Message::Refused { .. }
            | Message::Ack
            | Message::Ping
            | Message::FetchPackage { .. }
            | Message::SandboxReady { .. }
            | Message::SandboxEnded { .. }
            | Message::Log { .. }
            | Message::Result { .. }
            | Message::Call { .. }
            | Message::CallDone { .. }
            | Message::Cancel { .. }
            | Message::Cancelled { .. }
            | Message::Nudge
            | Message::FunctionChanged { .. }
            | Message::FunctionServed { .. }) => {
                tracing::warn!(message = ?std::mem::discriminant(&message), "the gateway sent what only others say");
            }
        }
        Asked::ToGoOn
    }

    fn forget(&mut self, life: Result<u64, tokio::task::JoinError>) {
        match life {
            Ok(sandbox) => drop(self.sandboxes.remove(&sandbox)),
            Err(panic) => tracing::error!(error = %panic, "the task of a sandbox failed: {panic}"),
        }
    }

    /// Ends every sandbox. Children are reaped meanwhile, which some of them wait for.
    async fn end_all(&mut self, child: &mut tokio::signal::unix::Signal) {
        for handle in self.sandboxes.values() {
            handle.stop.cancel();
        }
        loop {
            tokio::select! {
                life = self.lives.join_next() => match life {
                    Some(life) => self.forget(life),
                    None => return,
                },
                Some(()) = child.recv() => self.host.reaper.collect(),
            }
        }
    }
}
