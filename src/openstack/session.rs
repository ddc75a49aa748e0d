//! The one place that sends requests to other services.
//!
//! Invariants: no request without a timeout, and no call longer than its deadline, repeats included; nothing is repeated
//! that might be done twice; neither bodies nor tokens are logged.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use osauth::{AuthType, EndpointFilters, ErrorKind};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, Url};
use tokio::time::Instant;

use super::OpenStackError;
use crate::model::RequestId;

/// Largest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// Shorter than the keep-alive of the web servers in front of OpenStack services (5 s), so that a connection is not
/// used at the moment when the other end closes it.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// A service, by the types under which catalogs list it; the first is the official one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service(pub &'static [&'static str]);

impl Service {
    /// Its official type.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.first().copied().unwrap_or("unknown")
    }
}

/// What is told of each attempt, for metrics.
#[derive(Clone, Debug)]
pub struct CallObservation {
    /// The service's type.
    pub service: &'static str,
    /// What was asked of it, for example `claim`.
    pub operation: &'static str,
    /// What it answered; none: it did not.
    pub status: Option<u16>,
    /// How long it took.
    pub duration: Duration,
}

/// Gets an observation of every attempt. It must not block.
pub type Observer = Arc<dyn Fn(&CallObservation) + Send + Sync>;

/// How calls are bounded and repeated.
#[derive(Clone)]
pub struct SessionOptions {
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// Longest time of a call with all its repeats and pauses.
    pub deadline: Duration,
    /// Longest time to a connection.
    pub connect_timeout: Duration,
    /// How often a call is repeated at most.
    pub repeats: u32,
    /// The pause before the first repeat; it doubles with each, and a random part of it is waited.
    pub pause_min: Duration,
    /// Longest pause.
    pub pause_max: Duration,
    /// Told of every attempt.
    pub observer: Option<Observer>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            repeats: 3,
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
            observer: None,
        }
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// To whom.
    pub service: Service,
    /// What it is called in logs and metrics.
    pub operation: &'static str,
    /// How.
    pub method: Method,
    /// The path below the endpoint, in segments, not yet encoded.
    pub path: Vec<String>,
    /// Query parameters.
    pub query: Vec<(&'static str, String)>,
    /// Headers beside those of authentication.
    pub headers: HeaderMap,
    /// The body, with its media type in `headers`.
    pub body: Option<Bytes>,
    /// Whether doing it twice is the same as doing it once.
    pub is_idempotent: bool,
}

/// What came back, if it was a success.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 2xx or 3xx.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Sends requests in somebody's name. Clones share connections.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    /// For services on this host: a proxy named in the environment would not find them.
    direct: Client,
    proxied: Client,
    auth: Arc<dyn AuthType>,
    filters: EndpointFilters,
    options: SessionOptions,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// How an attempt ended that was no success.
struct Failure {
    error: OpenStackError,
    /// It may be repeated if the request is idempotent.
    is_passing: bool,
    /// It may be repeated in any case: the request was not looked at.
    is_untouched: bool,
    /// Our token was not taken.
    is_unauthenticated: bool,
    retry_after: Option<Duration>,
}

impl Session {
    /// Acts as `auth` says.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when the HTTP client cannot be set up.
    pub fn new(auth: Arc<dyn AuthType>, options: SessionOptions) -> Result<Self, OpenStackError> {
        let client = |builder: reqwest::ClientBuilder| {
            builder
                .timeout(options.timeout)
                .connect_timeout(options.connect_timeout)
                .pool_idle_timeout(IDLE_MAX)
                .tcp_nodelay(true)
                // A service that sends us elsewhere is misconfigured; a token must not follow.
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(concat!("lambda-openstack/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| OpenStackError::Invalid(format!("the HTTP client cannot be set up: {error}")))
        };
        let shared = Shared {
            direct: client(Client::builder().no_proxy())?,
            proxied: client(Client::builder())?,
            auth,
            filters: EndpointFilters::default(),
            options,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sends a request, repeats it where that is safe, and answers with a success or says what went wrong.
    ///
    /// # Errors
    /// See [`OpenStackError`]. After [`OpenStackError::Unavailable`] it is unknown whether the request took effect.
    pub async fn send(&self, request: &Request) -> Result<Answer, OpenStackError> {
        let options = &self.shared.options;
        let deadline = Instant::now() + options.deadline;
        let mut repeats = 0;
        let mut is_renewed = false;
        loop {
            let failure = match self.attempt(request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            // A token can be revoked before its time: one new one is tried, which costs no repeat.
            if failure.is_unauthenticated && !is_renewed {
                is_renewed = true;
                let refresh = self.shared.auth.refresh(&self.shared.proxied);
                if let Ok(Ok(())) = tokio::time::timeout_at(deadline, refresh).await {
                    continue;
                }
                return Err(failure.error);
            }
            let may_repeat = failure.is_untouched || (failure.is_passing && request.is_idempotent);
            if !may_repeat || repeats >= options.repeats {
                return Err(failure.error);
            }
            let pause = failure.retry_after.unwrap_or_else(|| pause(options, repeats));
            if Instant::now() + pause >= deadline {
                return Err(failure.error);
            }
            repeats += 1;
            tracing::debug!(
                service = request.service.name(),
                operation = request.operation,
                error = %failure.error,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "{} of {} is tried again after {pause:?}",
                request.operation,
                request.service.name(),
            );
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, request: &Request, deadline: Instant) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let service = request.service.name();
        let result = tokio::time::timeout_at(deadline, self.exchange(request)).await.unwrap_or_else(|_| {
            let error = OpenStackError::unavailable(service, "no answer before the deadline");
            Err((None, Failure::lasting(error)))
        });
        let status = match &result {
            Ok(answer) => Some(answer.status),
            Err((status, _)) => *status,
        };
        if let Some(observer) = &self.shared.options.observer {
            observer(&CallObservation {
                service,
                operation: request.operation,
                status: status.map(|status| status.as_u16()),
                duration: begun.elapsed(),
            });
        }
        result.map_err(|(_, failure)| failure)
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, (Option<StatusCode>, Failure)> {
        let service = request.service.name();
        let endpoint = self.endpoint(request.service).await.map_err(|failure| (None, failure))?;
        let client = self.client(&endpoint);
        let url = target(&endpoint, request).ok_or_else(|| {
            (None, Failure::lasting(OpenStackError::Invalid(format!("{service} has no usable address"))))
        })?;
        let id = RequestId::generate();
        let mut builder = client
            .request(request.method.clone(), url)
            .query(&request.query)
            .headers(request.headers.clone())
            .header("X-OpenStack-Request-ID", id.as_str());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let builder = self
            .shared
            .auth
            .authenticate(client, builder)
            .await
            .map_err(|error| (None, Failure::untouched(OpenStackError::from_auth(service, error))))?;
        let response = builder.send().await.map_err(|error| (None, Failure::from_transport(service, error)))?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = read(service, response).await.map_err(|failure| (Some(status), failure))?;
        tracing::debug!(
            service,
            operation = request.operation,
            status = status.as_u16(),
            request_id = id.as_str(),
            answer_id = headers.get("x-openstack-request-id").and_then(|id| id.to_str().ok()),
            "{} of {service} answered {}",
            request.operation,
            status.as_u16(),
        );
        if status.is_success() || status == StatusCode::MULTIPLE_CHOICES {
            return Ok(Answer { status, headers, body });
        }
        let retry_after = retry_after(&headers);
        let error = OpenStackError::from_answer(service, status, retry_after, &body);
        let failure = Failure {
            is_passing: matches!(status.as_u16(), 429 | 502 | 503 | 504),
            is_untouched: status == StatusCode::TOO_MANY_REQUESTS,
            is_unauthenticated: status == StatusCode::UNAUTHORIZED,
            retry_after,
            error,
        };
        Err((Some(status), failure))
    }

    /// The service's base address, under the first of its types that has one.
    async fn endpoint(&self, service: Service) -> Result<Url, Failure> {
        let mut last = None;
        for kind in service.0 {
            match self.shared.auth.get_endpoint(&self.shared.proxied, kind, &self.shared.filters).await {
                Ok(url) => return Ok(url),
                Err(error) if error.kind() == ErrorKind::EndpointNotFound => last = Some(error),
                Err(error) => return Err(Failure::untouched(OpenStackError::from_auth(service.name(), error))),
            }
        }
        let error = last.map_or_else(
            || OpenStackError::Invalid("a service without a type".to_owned()),
            |error| OpenStackError::from_auth(service.name(), error),
        );
        Err(Failure::lasting(error))
    }

    fn client(&self, url: &Url) -> &Client {
        if is_loopback(url) { &self.shared.direct } else { &self.shared.proxied }
    }
}

impl Failure {
    fn lasting(error: OpenStackError) -> Self {
        Self { error, is_passing: false, is_untouched: false, is_unauthenticated: false, retry_after: None }
    }

    fn passing(error: OpenStackError) -> Self {
        Self { is_passing: true, ..Self::lasting(error) }
    }

    /// Before the request was sent.
    fn untouched(error: OpenStackError) -> Self {
        if error.retryable() { Self { is_untouched: true, ..Self::passing(error) } } else { Self::lasting(error) }
    }

    fn from_transport(service: &'static str, error: reqwest::Error) -> Self {
        let is_untouched = error.is_connect();
        // The address may have a password in it.
        let error = error.without_url();
        if error.is_builder() {
            return Self::lasting(OpenStackError::Invalid(format!("the request cannot be sent: {error}")));
        }
        Self { is_untouched, ..Self::passing(OpenStackError::unavailable(service, error)) }
    }
}

async fn read(service: &'static str, mut response: reqwest::Response) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::from_transport(service, error))? {
        if body.len().saturating_add(chunk.len()) > ANSWER_MAX {
            let detail = format!("more than {ANSWER_MAX} bytes");
            return Err(Failure::lasting(OpenStackError::protocol(service, detail)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The endpoint with the request's path behind its own. Some catalogs name a service with its version (`…/v1`), some
/// without; a version that stands at the end of the one and the beginning of the other is said once.
fn target(endpoint: &Url, request: &Request) -> Option<Url> {
    let mut url = endpoint.clone();
    url.set_query(None);
    url.set_fragment(None);
    let last = endpoint.path_segments()?.rfind(|segment| !segment.is_empty());
    let said = request.path.first().is_some_and(|first| is_version(first) && last == Some(first.as_str()));
    url.path_segments_mut().ok()?.pop_if_empty().extend(request.path.iter().skip(usize::from(said)));
    Some(url)
}

/// `v2`, `v2.1`.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Seconds only; a date is taken for no wish.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// A random part of a pause that doubles with each repeat, so that many callers do not come back at once.
fn pause(options: &SessionOptions, repeats: u32) -> Duration {
    let most = options.pause_min.saturating_mul(2_u32.saturating_pow(repeats)).min(options.pause_max);
    most.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &[&str]) -> Request {
        Request {
            service: Service(&["message"]),
            operation: "test",
            method: Method::GET,
            path: path.iter().map(|segment| (*segment).to_owned()).collect(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: None,
            is_idempotent: true,
        }
    }

    #[test]
    fn a_path_goes_behind_the_endpoint_s_own_and_cannot_leave_it() {
        for (endpoint, path, whole) in [
            ("http://h:1", &["v2", "ping"][..], "http://h:1/v2/ping"),
            ("http://h/messaging", &["v2"], "http://h/messaging/v2"),
            ("http://h/messaging/", &["v2"], "http://h/messaging/v2"),
            ("http://h/", &["a/b", "..", "c?d#e"], "http://h/a%2Fb/c%3Fd%23e"),
            ("http://h/container/v1", &["v1", "containers"], "http://h/container/v1/containers"),
            ("http://h/v2.1/", &["v2.1", "servers"], "http://h/v2.1/servers"),
            ("http://h/v2", &["v2.1", "servers"], "http://h/v2/v2.1/servers"),
            ("http://h/queues", &["queues"], "http://h/queues/queues"),
        ] {
            let url = target(&Url::parse(endpoint).unwrap(), &request(path)).unwrap();
            assert_eq!(url.as_str(), whole);
        }
    }

    #[test]
    fn no_proxy_is_asked_for_this_host() {
        for (url, loopback) in [
            ("http://127.0.0.1:1", true),
            ("http://127.8.8.8", true),
            ("http://[::1]:1/x", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), loopback, "{url}");
        }
    }

    #[test]
    fn pauses_grow_to_their_bound() {
        let options = SessionOptions::default();
        for repeats in 0..40 {
            let pause = pause(&options, repeats);
            assert!(pause >= options.pause_min / 2 && pause <= options.pause_max, "{pause:?}");
        }
    }
}
