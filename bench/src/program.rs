//! Programs that a measure starts, and that end with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// Longest that a program has to end by itself.
const GRACE: Duration = Duration::from_secs(20);

/// A program that runs, with what it prints in files.
pub struct Program {
    child: Child,
    /// Where its standard output and errors go.
    pub log: PathBuf,
    name: String,
    pid: i32,
}

impl Program {
    /// Starts it in a process group of its own; `log` gets its output.
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| name.clone())?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("it has ended already")?;
        Ok(Self { child, log, name, pid })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until something is there; fails when the program ends or it takes too long.
    pub async fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        look: impl AsyncFn(&Self) -> Option<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(self).await {
                return Ok(found);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > patience {
                let output = self.output();
                let end = output.lines().rev().take(15).collect::<Vec<_>>();
                let end = end.into_iter().rev().collect::<Vec<_>>().join("\n");
                bail!("{}: {what} did not come ({ended:?}):\n{end}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }

    /// SIGTERM, and SIGKILL to the whole group when it takes too long.
    pub async fn stop(mut self) -> Result<()> {
        let _ = self.signal(Signal::SIGTERM);
        let ended = tokio::time::timeout(GRACE, self.child.wait()).await;
        let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        if ended.is_err() {
            bail!("{} did not end within {GRACE:?}", self.name);
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // After a failure or an interruption: what it started goes with it where it can do that itself.
            let _ = self.signal(Signal::SIGTERM);
            let end = Instant::now() + Duration::from_secs(5);
            while Instant::now() < end && self.child.try_wait().is_ok_and(|status| status.is_none()) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
    }
}

/// An address of this machine where nobody listens.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Whether somebody listens there.
pub async fn listens(port: u16) -> Option<()> {
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
}

/// A command as each of ours and the peers' gets it: without what is set for this program.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8");
    command
}
