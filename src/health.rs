//! How the parts that a program depends on are: each is asked by a call that is cheap and goes the way of real work.
//!
//! Whoever asks often shares one answer, so that a load balancer's looks are not the load of what it looks at. An answer
//! takes no longer than [`PATIENCE`], says in fixed words which part is ill, and leaves the reason to the log.

use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};

use crate::task::chain;

/// How long a part may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// For how long an answer holds, from the moment of the question.
pub const FRESH: Duration = Duration::from_secs(2);

/// Why a part is ill, for the log.
pub type Ill = Box<dyn Error + Send + Sync>;

/// What a part has to say when it is asked.
pub type Asked = BoxFuture<'static, Result<(), Ill>>;

/// Something that a program depends on.
pub struct Part {
    class: &'static str,
    ask: Box<dyn Fn() -> Asked + Send + Sync>,
}

impl fmt::Debug for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Part").field("class", &self.class).finish_non_exhaustive()
    }
}

impl Part {
    /// A part with its name and how it is asked. The question must not change anything.
    #[must_use]
    pub fn new<F, E>(class: &'static str, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Ill>,
    {
        Self {
            class,
            ask: Box::new(move || {
                let answer = ask();
                Box::pin(async move { answer.await.map_err(Into::into) })
            }),
        }
    }
}

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The part.
    pub class: &'static str,
    /// How it is.
    pub state: State,
}

/// How a part can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Well,
    /// It answers that it cannot, or does not let us.
    Failing,
    /// It said nothing for as long as one may wait.
    Silent,
}

impl State {
    /// For people; it never says more than that.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Well => "OK",
            Self::Failing => "FAILING",
            Self::Silent => "NO ANSWER IN TIME",
        }
    }
}

type Answer = Shared<BoxFuture<'static, Vec<Check>>>;

/// The parts of a program, and what they said last.
#[derive(Debug)]
pub struct Health {
    parts: Vec<Part>,
    patience: Duration,
    last: Mutex<Option<(Instant, Answer)>>,
}

impl Health {
    /// Of these parts, in the order of the answer.
    #[must_use]
    pub const fn new(parts: Vec<Part>) -> Self {
        Self { parts, patience: PATIENCE, last: Mutex::new(None) }
    }

    /// How all parts are: as they said within the last [`FRESH`], else they are asked, all at once.
    pub async fn checks(&self) -> Vec<Check> {
        let answer = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some((asked, answer)) if asked.elapsed() < FRESH => answer.clone(),
                Some(_) | None => {
                    let answer = self.ask();
                    *last = Some((Instant::now(), answer.clone()));
                    answer
                }
            }
        };
        answer.await
    }

    fn ask(&self) -> Answer {
        let checks = self.parts.iter().map(|part| {
            let (class, answer, patience) = (part.class, (part.ask)(), self.patience);
            async move {
                let state = match tokio::time::timeout(patience, answer).await {
                    Ok(Ok(())) => State::Well,
                    Ok(Err(error)) => {
                        let error = chain(error.as_ref());
                        tracing::warn!(class, error, "{class} fails its health check: {error}");
                        State::Failing
                    }
                    Err(_) => {
                        tracing::warn!(class, "{class} has not answered its health check within {patience:?}");
                        State::Silent
                    }
                };
                Check { class, state }
            }
        });
        join_all(checks.collect::<Vec<_>>()).boxed().shared()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn each_part_says_how_it_is_and_none_is_waited_for_without_end() {
        let mut health = Health::new(vec![
            Part::new("store", || async { Ok::<(), io::Error>(()) }),
            Part::new("queue", || async { Err(io::Error::other("password=hunter2")) }),
            Part::new("keystone", std::future::pending::<Result<(), io::Error>>),
        ]);
        health.patience = Duration::from_millis(20);
        let checks = health.checks().await;
        let said: Vec<_> = checks.iter().map(|check| (check.class, check.state.reason())).collect();
        assert_eq!(said, [("store", "OK"), ("queue", "FAILING"), ("keystone", "NO ANSWER IN TIME")]);
    }

    #[tokio::test]
    async fn many_looks_are_one_question() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let health = Health::new(vec![Part::new("store", move || {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok::<(), io::Error>(()) }
        })]);
        let looks = (0..100).map(|_| health.checks());
        assert!(join_all(looks).await.iter().all(|checks| checks[0].state == State::Well));
        // Unless a hundred looks took longer than an answer holds.
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
