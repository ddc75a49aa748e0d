//! One token, kept while it is good, and got anew by one caller for all who wait.
//!
//! Invariants: at no time are two requests for a token under way; all who come while one is get its outcome, good or
//! bad; after a refusal nobody asks again for [`PAUSE`], because users get locked out by many wrong passwords.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use osauth::ErrorKind;
use reqwest::header::HeaderValue;
use tokio::time::Instant;

use super::catalog::Catalog;

/// A token is renewed so long before its end.
const EARLY: Duration = Duration::from_secs(60);

/// For how long credentials that were refused are not shown again, and for how long a token that is still good is used
/// without another attempt to renew it, when one has failed.
const PAUSE: Duration = Duration::from_secs(5);

/// A token.
#[derive(Debug)]
pub(super) struct Token {
    /// As it is sent; marked sensitive.
    pub(super) header: HeaderValue,
    /// What services there are for it.
    pub(super) catalog: Catalog,
    /// Of whom it is.
    pub(super) user_id: String,
    /// What it is good for; none: no project.
    pub(super) project_id: Option<String>,
    /// When it has to be renewed.
    pub(super) renew_at: Instant,
    /// When it is good no more.
    pub(super) ends_at: Instant,
}

impl Token {
    /// When to renew, and when it ends, of a token that lives for `lifetime` from `begun`.
    pub(super) fn times(begun: Instant, lifetime: Duration) -> (Instant, Instant) {
        // One that lives shortly would otherwise be renewed with each call.
        (begun + lifetime.saturating_sub(EARLY.min(lifetime / 4)), begun + lifetime)
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoToken {
    pub(super) kind: ErrorKind,
    pub(super) text: String,
}

impl NoToken {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Whether Keystone looked at the credentials and said no.
    fn is_refusal(&self) -> bool {
        matches!(self.kind, ErrorKind::AuthenticationFailed | ErrorKind::AccessDenied)
    }
}

type Outcome = Result<Arc<Token>, NoToken>;

/// A request for a token that is under way.
pub(super) type Asking = BoxFuture<'static, Outcome>;

/// Where the token is kept.
pub(super) struct Cache {
    state: Mutex<State>,
    pause: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self { state: Mutex::default(), pause: PAUSE }
    }
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// The request under way and its number.
    asking: Option<(u64, Shared<Asking>)>,
    /// How many requests were made.
    asked: u64,
    /// The last failure, and until when it stands for the next one.
    failed: Option<(NoToken, Instant)>,
}

impl State {
    fn has_good_token(&self) -> bool {
        self.token.as_ref().is_some_and(|token| Instant::now() < token.ends_at)
    }
}

impl Cache {
    /// The token, which `ask` gets if there is none that lives long enough.
    pub(super) async fn get(&self, ask: impl FnOnce() -> Asking) -> Outcome {
        let now = Instant::now();
        let alive = {
            let state = self.lock();
            match &state.token {
                Some(token) if now < token.renew_at => return Ok(token.clone()),
                Some(token) if now < token.ends_at => Some(token.clone()),
                Some(_) | None => None,
            }
        };
        match (self.ask(ask, None).await, alive) {
            (Ok(token), _) => Ok(token),
            (Err(error), Some(token)) if !error.is_refusal() => Ok(token),
            (Err(error), _) => Err(error),
        }
    }

    /// A token other than the one that was refused.
    pub(super) async fn replace(&self, refused: &HeaderValue, ask: impl FnOnce() -> Asking) -> Outcome {
        {
            let mut state = self.lock();
            match &state.token {
                Some(token) if token.header != *refused => return Ok(token.clone()),
                Some(_) => state.token = None,
                None => {}
            }
        }
        self.ask(ask, Some(refused)).await
    }

    /// Forgets the token, so that the next call gets another.
    pub(super) fn forget(&self) {
        self.lock().token = None;
    }

    /// Joins the request under way, or makes one.
    async fn ask(&self, ask: impl FnOnce() -> Asking, refused: Option<&HeaderValue>) -> Outcome {
        let (number, asking) = {
            let mut state = self.lock();
            let now = Instant::now();
            match (&state.token, &state.failed, &state.asking) {
                // Another caller was faster.
                (Some(token), ..) if now < token.renew_at && refused != Some(&token.header) => {
                    return Ok(token.clone());
                }
                (token, Some((error, until)), None) if now < *until && (error.is_refusal() || token.is_some()) => {
                    return Err(error.clone());
                }
                (.., Some(asking)) => asking.clone(),
                (.., None) => {
                    state.asked += 1;
                    let asking = (state.asked, ask().shared());
                    state.asking = Some(asking.clone());
                    asking
                }
            }
        };
        let outcome = asking.await;
        let mut state = self.lock();
        // The first to come back writes it down for all.
        if state.asking.as_ref().is_some_and(|(current, _)| *current == number) {
            state.asking = None;
            match &outcome {
                Ok(token) => {
                    state.token = Some(token.clone());
                    state.failed = None;
                }
                Err(error) if error.is_refusal() || state.has_good_token() => {
                    tracing::warn!(error = error.text, "no new token: {}", error.text);
                    state.failed = Some((error.clone(), Instant::now() + self.pause));
                }
                Err(_) => state.failed = None,
            }
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Counts requests and gives out token after token.
    #[derive(Default)]
    struct Source {
        asked: AtomicU32,
    }

    impl Source {
        /// A token that is to be renewed, and ends, so long from now.
        fn ask(self: &Arc<Self>, renew: Duration, end: Duration) -> Asking {
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                tokio::task::yield_now().await;
                let now = Instant::now();
                Ok(Arc::new(Token {
                    header: HeaderValue::from_str(&format!("token-{number}")).unwrap(),
                    catalog: Catalog::default(),
                    user_id: "u".to_owned(),
                    project_id: None,
                    renew_at: now + renew,
                    ends_at: now + end,
                }))
            }
            .boxed()
        }

        fn good(self: &Arc<Self>) -> Asking {
            self.ask(HOUR, HOUR)
        }

        fn fail(self: &Arc<Self>, kind: ErrorKind) -> Asking {
            self.asked.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::task::yield_now().await;
                Err(NoToken::new(kind, "no"))
            }
            .boxed()
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_token_is_renewed_a_minute_early_or_a_quarter_of_a_short_life() {
        let begun = Instant::now();
        for (lifetime, renewed) in [(3600, 3540), (240, 180), (8, 6), (0, 0)] {
            let (renew_at, ends_at) = Token::times(begun, Duration::from_secs(lifetime));
            assert_eq!(renew_at, begun + Duration::from_secs(renewed));
            assert_eq!(ends_at, begun + Duration::from_secs(lifetime));
        }
    }

    #[tokio::test]
    async fn one_request_serves_all_who_wait_and_a_token_is_kept() {
        let (cache, source) = (Cache::default(), Arc::new(Source::default()));
        let all = futures::future::join_all((0..100).map(|_| cache.get(|| source.good()))).await;
        assert!(all.iter().all(|token| token.as_ref().unwrap().header == "token-1"));
        assert_eq!(source.asked(), 1);
    }

    #[tokio::test]
    async fn a_token_that_is_due_is_renewed() {
        let (cache, source) = (Cache::default(), Arc::new(Source::default()));
        assert_eq!(cache.get(|| source.ask(Duration::ZERO, HOUR)).await.unwrap().header, "token-1");
        for _ in 0..10 {
            assert_eq!(cache.get(|| source.good()).await.unwrap().header, "token-2");
        }
    }

    #[tokio::test]
    async fn a_refused_token_is_replaced_once_for_all_who_had_it() {
        let (cache, source) = (Cache::default(), Arc::new(Source::default()));
        let first = cache.get(|| source.good()).await.unwrap().header.clone();
        let all = futures::future::join_all((0..100).map(|_| cache.replace(&first, || source.good()))).await;
        assert!(all.iter().all(|token| token.as_ref().unwrap().header == "token-2"));
        let late = cache.replace(&first, || source.good()).await.unwrap();
        assert_eq!((late.header.to_str().unwrap(), source.asked()), ("token-2", 2));
        cache.forget();
        assert_eq!(cache.get(|| source.good()).await.unwrap().header, "token-3");
    }

    #[tokio::test]
    async fn a_refusal_is_believed_for_a_while() {
        let (cache, source) = (Cache::default(), Arc::new(Source::default()));
        let refuse = || source.fail(ErrorKind::AuthenticationFailed);
        let all = futures::future::join_all((0..10).map(|_| cache.get(refuse))).await;
        assert!(all.iter().all(Result::is_err));
        assert!(cache.get(refuse).await.is_err());
        assert_eq!(source.asked(), 1);
        let impatient = Cache { pause: Duration::ZERO, ..Cache::default() };
        assert!(impatient.get(refuse).await.is_err());
        assert_eq!(impatient.get(|| source.good()).await.unwrap().header, "token-3");
    }

    #[tokio::test]
    async fn a_token_that_is_still_good_outlasts_an_outage() {
        let (cache, source) = (Cache::default(), Arc::new(Source::default()));
        let away = || source.fail(ErrorKind::OperationFailed);
        assert!(cache.get(away).await.is_err());
        let due = cache.get(|| source.ask(Duration::ZERO, HOUR)).await.unwrap();
        assert_eq!(due.header, "token-2", "an outage is not believed");
        for _ in 0..5 {
            assert_eq!(cache.get(away).await.unwrap().header, "token-2");
        }
        assert_eq!(source.asked(), 3, "it is not looked for with each call");
        let refused = cache.replace(&due.header, || source.good()).await.unwrap();
        assert_eq!(refused.header, "token-4", "one that is good no more is replaced at once");
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_does_not_stop_the_others() {
        let (cache, source) = (Cache::default(), Arc::new(Source::default()));
        assert!(cache.get(|| source.good()).now_or_never().is_none());
        assert_eq!(cache.get(|| source.good()).await.unwrap().header, "token-1");
    }
}
