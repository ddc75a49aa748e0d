//! The signals of a program: SIGTERM and SIGINT ask it to stop, SIGHUP to reload.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask for an end. From its making on, these no longer kill the program.
#[derive(Debug)]
pub struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the operating system refuses to.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them; its name. A second one may mean that the end is not to be waited for.
    pub async fn recv(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            // Both streams have ended: the runtime goes.
            else => std::future::pending().await,
        }
    }
}

/// The signal that asks for a reload. From its making on, it no longer kills the program.
#[derive(Debug)]
pub struct Reloads(Signal);

impl Reloads {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the operating system refuses to.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one. Several that come while nobody waits are one.
    pub async fn recv(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal as Number, raise};

    use super::*;

    #[tokio::test]
    async fn a_program_that_listens_survives_its_signals_and_is_told_of_them() {
        let mut shutdown = Shutdown::listen().unwrap();
        let mut reloads = Reloads::listen().unwrap();
        raise(Number::SIGHUP).unwrap();
        reloads.recv().await;
        raise(Number::SIGTERM).unwrap();
        assert_eq!(shutdown.recv().await, "SIGTERM");
        raise(Number::SIGINT).unwrap();
        assert_eq!(shutdown.recv().await, "SIGINT");
    }
}
