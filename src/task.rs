//! Background work. Everything that runs beside `main` is started here: it has a name, it is told when to end, and it
//! never dies in silence.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Whatever made a task fail.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// What the end of a supervised task means, when nobody asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It is started again, after a pause that grows from 100 ms to 10 s while it keeps failing.
    Restart,
    /// The program cannot go on: everything is stopped, and the exit code says so.
    Shutdown,
}

/// A task whose end stops the program.
#[derive(Debug, thiserror::Error)]
#[error("the task '{name}' ended: {why}")]
pub struct TaskFailed {
    /// Its name.
    pub name: &'static str,
    /// What it said, or how it panicked.
    pub why: String,
}

/// The tasks of a program. Clones share them.
#[derive(Clone, Debug)]
pub struct Tasks {
    shared: Arc<Shared>,
}

struct Shared {
    tracker: TaskTracker,
    cancel: CancellationToken,
    failed: mpsc::Sender<TaskFailed>,
    failures: tokio::sync::Mutex<mpsc::Receiver<TaskFailed>>,
    restarted: OnceLock<Box<dyn Fn(&'static str) + Send + Sync>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("tasks", &self.tracker.len()).finish_non_exhaustive()
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        let (failed, failures) = mpsc::channel(8);
        let shared = Shared {
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
            failed,
            failures: tokio::sync::Mutex::new(failures),
            restarted: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Cancelled when the program is to end. Give tasks their own child of it where they may end earlier.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.shared.cancel.clone()
    }

    /// Calls `notice` with the name of each task that is started again. Only the first one given is called.
    pub fn on_restart(&self, notice: impl Fn(&'static str) + Send + Sync + 'static) {
        let _ = self.shared.restarted.set(Box::new(notice));
    }

    /// Runs a task that lasts until cancellation. `make` is called for each start with the token to watch. A return
    /// before cancellation, `Ok` or not, and a panic are failures.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn supervise<M, F, E>(&self, name: &'static str, on_failure: OnFailure, make: M)
    where
        M: Fn(CancellationToken) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        self.shared.tracker.spawn(async move {
            let mut pause = RESTART_MIN;
            loop {
                let begun = tokio::time::Instant::now();
                let result = tokio::spawn(make(shared.cancel.clone())).await;
                if shared.cancel.is_cancelled() {
                    return;
                }
                let why = match result {
                    Ok(Ok(())) => "it returned though nobody had asked it to".to_owned(),
                    Ok(Err(error)) => chain(error.into().as_ref()),
                    Err(panic) => panic.to_string(),
                };
                match on_failure {
                    OnFailure::Shutdown => {
                        tracing::error!(task.name = name, error = why, "task {name} ended, the program stops: {why}");
                        // The first failure is the one that is told; a full channel means that one is waiting already.
                        let _ = shared.failed.try_send(TaskFailed { name, why });
                        return;
                    }
                    OnFailure::Restart => {
                        if begun.elapsed() > RESTART_MAX {
                            pause = RESTART_MIN;
                        }
                        tracing::error!(task.name = name, error = why, "task {name} ended, it is started again: {why}");
                        if let Some(notice) = shared.restarted.get() {
                            notice(name);
                        }
                        tokio::select! {
                            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RESTART_MAX),
                            () = shared.cancel.cancelled() => return,
                        }
                    }
                }
            }
        });
    }

    /// Runs something that ends by itself, such as one connection. A panic is logged. The caller bounds how many there
    /// are.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn run<F>(&self, name: &'static str, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared.tracker.spawn(async move {
            if let Err(panic) = tokio::spawn(work).await {
                tracing::error!(task.name = name, "task {name} failed: {panic}");
            }
        });
    }

    /// Waits for a task whose end stops the program.
    pub async fn failed(&self) -> TaskFailed {
        match self.shared.failures.lock().await.recv().await {
            Some(failed) => failed,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// Tells all to end and waits for them; whether they did within `grace`.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.shared.cancel.cancel();
        self.shared.tracker.close();
        tokio::time::timeout(grace, self.shared.tracker.wait()).await.is_ok()
    }
}

/// An error and what caused it, in one line: for the one place where it is logged.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_fails_is_started_again() {
        let tasks = Tasks::new();
        let noticed = Arc::new(AtomicU32::new(0));
        let notice = Arc::clone(&noticed);
        tasks.on_restart(move |name| {
            assert_eq!(name, "flaky");
            notice.fetch_add(1, Ordering::SeqCst);
        });
        let starts = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&starts);
        tasks.supervise("flaky", OnFailure::Restart, move |cancel| {
            let start = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                assert_ne!(start, 1, "the second start panics");
                if start == 0 {
                    return Err(std::io::Error::other("the first start fails"));
                }
                cancel.cancelled().await;
                Ok(())
            }
        });
        while starts.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(noticed.load(Ordering::SeqCst), 2);
        assert!(tasks.stop(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_is_told() {
        let tasks = Tasks::new();
        tasks.supervise("vital", OnFailure::Shutdown, |_| async { Ok::<(), std::io::Error>(()) });
        assert_eq!(tasks.failed().await.name, "vital");
    }

    #[tokio::test]
    async fn a_task_that_ignores_its_end_is_not_waited_for_longer_than_the_grace() {
        let tasks = Tasks::new();
        tasks.run("deaf", std::future::pending());
        assert!(!tasks.stop(Duration::from_millis(50)).await);
    }
}
