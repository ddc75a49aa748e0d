//! The life of a sandbox: package, start, events, end. One task each, which alone knows the sandbox's state; it hears
//! from the agent through [`Handle`] and speaks to the gateway through the link.
//!
//! However a life ends, what it leaves is gone before `SandboxEnded` is said: processes first, then output to its end,
//! group, directory, user.

mod environment;
mod live;
mod output;
mod process;
mod scratch;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::environment::PATH;
use self::environment::Places;
use self::live::{Live, Outcome};
use self::output::Output;
use self::process::{NotStarted, Process, Start};
use self::scratch::Scratch;
use crate::cgroup::{self, Group};
use crate::confine::{Confinement, Users};
use crate::kill::Target;
use crate::link::Link;
use crate::package::{PackageError, Packages};
use crate::private::Private;
use crate::reap::Reaper;
use crate::runtime_api::RuntimeApi;
use crate::wire::{
    AttemptMeasures, AttemptRef, FailureKind, Invocation, Message, RuntimeKind, SandboxFailure, SandboxPhase,
    SandboxSpec,
};
use crate::work_dir::WorkDir;
use crate::zygote::Zygote;

/// Events that may wait for a sandbox; the gateway gives one at a time.
const INVOCATIONS_WAITING: usize = 4;

/// What all sandboxes of an agent share.
#[derive(Debug)]
pub struct Host {
    /// The instance's id.
    pub instance: String,
    /// Memory of the instance for sandboxes, in MiB.
    pub memory_mib: u32,
    /// Where messages go.
    pub link: Arc<Link>,
    /// Where packages come from.
    pub packages: Arc<Packages>,
    /// Where Python comes from.
    pub zygote: Zygote,
    /// Who waits for children.
    pub reaper: Arc<Reaper>,
    /// As whom sandboxes run.
    pub users: Users,
    /// Whether each sandbox has a `/tmp` of its own.
    pub has_private_views: bool,
    /// Where groups are made; none where they cannot be.
    pub groups: Option<cgroup::Parent>,
    /// Where everything lies.
    pub work_dir: WorkDir,
}

/// An event on its way to a sandbox.
pub type Invoked = (Invocation, Bytes);

/// How the agent reaches a sandbox.
#[derive(Debug)]
pub struct Handle {
    /// Gives it an event.
    pub invoke: mpsc::Sender<Invoked>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// How a life ended.
#[derive(Debug, Default)]
struct Ended {
    execution: Option<AttemptRef>,
    failure: Option<SandboxFailure>,
    measures: AttemptMeasures,
}

impl Ended {
    fn failed(kind: FailureKind, phase: SandboxPhase, error_type: &str, message: String) -> Self {
        let failure = SandboxFailure { kind, phase, error_type: error_type.to_owned(), message, trace: Vec::new() };
        Self { failure: Some(failure), ..Self::default() }
    }
}

/// A new sandbox: its handle and its life, which has to be run to its end.
pub fn sandbox(host: Arc<Host>, number: u64, spec: SandboxSpec) -> (Handle, impl Future<Output = u64> + Send) {
    let (invoke, invocations) = mpsc::channel(INVOCATIONS_WAITING);
    let stop = CancellationToken::new();
    let handle = Handle { invoke, stop: stop.clone() };
    (handle, live(host, number, spec, invocations, stop))
}

async fn live(
    host: Arc<Host>,
    number: u64,
    spec: SandboxSpec,
    mut invocations: mpsc::Receiver<Invoked>,
    stop: CancellationToken,
) -> u64 {
    let ended = Box::pin(life(&host, number, spec, &mut invocations, &stop)).await;
    if let Some(failure) = &ended.failure {
        tracing::info!(
            sandbox = number,
            failure.kind = ?failure.kind,
            failure.phase = ?failure.phase,
            failure.error_type = failure.error_type,
            "the sandbox ended by itself"
        );
    }
    let say = |ended: Ended| {
        let Ended { execution, failure, measures } = ended;
        host.link.say(Message::SandboxEnded { sandbox: number, execution, failure, measures }, Bytes::new());
    };
    say(ended);
    // Events that crossed with the end. Each is answered, so that none is waited for in vain.
    invocations.close();
    while let Ok((invocation, _)) = invocations.try_recv() {
        say(too_late(invocation));
    }
    number
}

/// The answer to an event for a sandbox that has ended.
fn too_late(invocation: Invocation) -> Ended {
    let message = "the sandbox had ended before the event reached it".to_owned();
    let ended = Ended::failed(FailureKind::Exited, SandboxPhase::Idle, "Runtime.ExitError", message);
    Ended { execution: Some(invocation.execution), ..ended }
}

/// Says that a sandbox that is not there has ended, for whoever asked.
pub fn not_there(link: &Link, number: u64, invocation: Option<Invocation>) {
    let Ended { execution, failure, measures } = invocation.map(too_late).unwrap_or_default();
    link.say(Message::SandboxEnded { sandbox: number, execution, failure, measures }, Bytes::new());
}

async fn life(
    host: &Arc<Host>,
    number: u64,
    spec: SandboxSpec,
    invocations: &mut mpsc::Receiver<Invoked>,
    stop: &CancellationToken,
) -> Ended {
    use SandboxPhase::{Init, Package};
    if spec.memory_mib > host.memory_mib {
        let message = format!("this instance has {} MiB, the function needs {}", host.memory_mib, spec.memory_mib);
        return Ended::failed(FailureKind::Platform, Package, "Sandbox.Failure", message);
    }
    let begun = Instant::now();
    let was_there = host.packages.has(&spec.package_sha256);
    let package = tokio::select! {
        () = stop.cancelled() => return Ended::default(),
        package = host.packages.get(&spec.package_sha256, spec.package_size) => package,
    };
    let package = match package {
        Ok(package) => package,
        Err(error) => {
            let (kind, error_type) = match &error {
                PackageError::Invalid(_) => (FailureKind::PackageInvalid, "Runtime.InvalidPackage"),
                PackageError::Unavailable(_) => (FailureKind::PackageUnavailable, "Sandbox.Failure"),
                PackageError::Platform(_) => (FailureKind::Platform, "Sandbox.Failure"),
            };
            return Ended::failed(kind, Package, error_type, error.to_string());
        }
    };
    let package_us = if was_there { 0 } else { micros(begun) };

    let Some(identity) = host.users.identity() else {
        let message = "all users of this instance are taken".to_owned();
        return Ended::failed(FailureKind::Platform, Init, "Sandbox.Failure", message);
    };
    let who = identity.who();
    let home = host.work_dir.sandbox(number);
    let scratch = spawn_blocking(move || Scratch::make(home, who, package)).await;
    let scratch = match scratch {
        Ok(Ok(scratch)) => Arc::new(scratch),
        Ok(Err(error)) => return not_started(&NotStarted::platform("no directory", &error)),
        Err(error) => return not_started(&NotStarted::platform("no directory", &error)),
    };
    let group = host.groups.as_ref().map(|groups| groups.sandbox(number, spec.memory_mib)).transpose();
    let mut target = Target { leader: None, group: None, who };
    let ended = match group {
        Err(error) => not_started(&NotStarted::platform("no cgroup", &error)),
        Ok(group) => {
            target.group = group.map(Arc::new);
            match start(host, number, &spec, &scratch, &target).await {
                Err(failed) => {
                    target.clone().end().await;
                    not_started(&failed)
                }
                Ok(started) => {
                    target.leader = Some(started.process.pid);
                    run(host, number, spec, started, package_us, &target, invocations, stop).await
                }
            }
        }
    };
    if let Some(group) = &target.group
        && let Err(error) = group.removed().await
    {
        tracing::error!(sandbox = number, error = %error, "a sandbox's cgroup could not be removed: {error}");
    }
    match spawn_blocking(move || scratch.remove()).await {
        Ok(Ok(())) => {}
        failed => tracing::error!(sandbox = number, error = ?failed, "a sandbox's files could not be removed"),
    }
    ended
}

/// A sandbox whose first process runs.
struct Started {
    api: RuntimeApi,
    output: Output,
    process: Process,
}

async fn start(
    host: &Host,
    number: u64,
    spec: &SandboxSpec,
    scratch: &Scratch,
    target: &Target,
) -> Result<Started, NotStarted> {
    let mut api = RuntimeApi::listen(target.who).await.map_err(|error| NotStarted::platform("no port", &error))?;
    let (output, ends) = Output::new(number, Arc::clone(&host.link), spec.log_limit_bytes)
        .map_err(|error| NotStarted::platform("no pipes", &error))?;
    let places = Places {
        api: api.address,
        task_root: &scratch.task_root,
        runtime: &host.work_dir.runtime(),
        home: &scratch.home,
        temporary: &scratch.temporary,
        sandbox: &format!("{}-{number}", host.instance),
    };
    let private = host
        .has_private_views
        .then(|| Private { temporary: scratch.temporary.clone(), work_dir: host.work_dir.root().to_owned() });
    let start = Start {
        confine: Confinement::new(target.who, target.group.as_deref(), private, spec.memory_mib),
        environment: environment::environment(spec, places),
        task_root: &scratch.task_root,
        output: ends,
    };
    let process = match spec.runtime {
        RuntimeKind::Python => {
            let connection = api.connection().map_err(|error| NotStarted::platform("no connection", &error))?;
            process::fork(start, connection, &host.zygote).await?
        }
        RuntimeKind::Provided => process::launch(start, &host.reaper).await?,
    };
    Ok(Started { api, output, process })
}

#[expect(clippy::too_many_arguments, reason = "the parts of one life, taken apart only for reading")]
async fn run(
    host: &Host,
    number: u64,
    spec: SandboxSpec,
    started: Started,
    package_us: u64,
    target: &Target,
    invocations: &mut mpsc::Receiver<Invoked>,
    stop: &CancellationToken,
) -> Ended {
    let group: Option<Arc<Group>> = target.group.clone();
    let mut live = Live::new(&host.link, number, spec, started, package_us, group);
    let Outcome { execution, failure, duration_us } = live.run(invocations, stop).await;
    // What it used is known best while it is there.
    let before = live.peak_memory();
    target.clone().end().await;
    let mut output = live.into_output();
    output.finish().await;
    let after = target.group.as_ref().and_then(|group| group.peak_memory()).unwrap_or(0);
    let count = output.count();
    let measures = AttemptMeasures {
        duration_us,
        peak_memory_bytes: before.max(after),
        log_bytes: count.bytes,
        log_truncated: count.is_truncated,
    };
    Ended { execution, failure, measures }
}

fn not_started(failed: &NotStarted) -> Ended {
    let is_entrypoint = failed.kind == FailureKind::EntrypointMissing;
    let error_type = if is_entrypoint { "Runtime.InvalidEntrypoint" } else { "Sandbox.Failure" };
    Ended::failed(failed.kind, SandboxPhase::Init, error_type, failed.message.clone())
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
