//! The one place that sends requests to other services.
//!
//! Invariants: no request without a timeout, and no call longer than its deadline, repeats included; nothing is repeated
//! that might be done twice; neither bodies nor tokens are logged.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use osauth::{EndpointFilters, ErrorKind, InterfaceType};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use tokio::time::Instant;

use super::auth::Auth;
use super::http::Http;
use super::{OpenStackError, TlsOptions};
use crate::model::RequestId;

/// Largest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

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

/// For whom an endpoint is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Users.
    Public,
    /// The cloud's other services.
    Internal,
    /// Operators.
    Admin,
}

impl Interface {
    /// From its word in options and variables, also in the form `publicURL`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().trim_end_matches("url") {
            "public" => Some(Self::Public),
            "internal" => Some(Self::Internal),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// How calls are bounded and repeated, and where they go.
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
    /// Whom to trust where connections are encrypted.
    pub tls: TlsOptions,
    /// The service's base address, whatever the catalog says.
    pub endpoint: Option<String>,
    /// The region of the endpoints; none: the first that the catalog has.
    pub region: Option<String>,
    /// Which of a service's endpoints: the first of these that it has.
    pub interfaces: Vec<Interface>,
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
            tls: TlsOptions::default(),
            endpoint: None,
            region: None,
            interfaces: vec![Interface::Public],
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
    auth: Arc<dyn Auth>,
    shared: Arc<Shared>,
}

struct Shared {
    http: Http,
    endpoint: Option<Url>,
    filters: EndpointFilters,
    options: SessionOptions,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl From<Interface> for InterfaceType {
    fn from(interface: Interface) -> Self {
        match interface {
            Interface::Public => Self::Public,
            Interface::Internal => Self::Internal,
            Interface::Admin => Self::Admin,
        }
    }
}

/// How an attempt ended that was no success.
struct Failure {
    error: OpenStackError,
    /// It may be repeated if the request is idempotent.
    is_passing: bool,
    /// It may be repeated in any case: the request was not looked at.
    is_untouched: bool,
    /// Our token was not taken: what we had sent.
    unauthenticated: Option<Box<HeaderMap>>,
    retry_after: Option<Duration>,
}

impl Session {
    /// Acts as `auth` says.
    ///
    /// # Errors
    /// [`OpenStackError::Invalid`] when an option does not do.
    pub fn new(auth: Arc<dyn Auth>, options: SessionOptions) -> Result<Self, OpenStackError> {
        let http = Http::new(options.timeout, options.connect_timeout, &options.tls)?;
        let endpoint = options.endpoint.as_deref().map(address).transpose()?;
        let mut filters = EndpointFilters::default();
        filters.region.clone_from(&options.region);
        if !options.interfaces.is_empty() {
            filters.interfaces = options.interfaces.iter().copied().map(InterfaceType::from).collect();
        }
        Ok(Self { auth, shared: Arc::new(Shared { http, endpoint, filters, options }) })
    }

    /// The same, in another's name. Connections are shared.
    #[must_use]
    pub fn with_auth(&self, auth: Arc<dyn Auth>) -> Self {
        Self { auth, shared: self.shared.clone() }
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
            if let Some(sent) = failure.unauthenticated.as_deref().filter(|_| !is_renewed) {
                is_renewed = true;
                match tokio::time::timeout_at(deadline, self.auth.replace(sent)).await {
                    Ok(Ok(())) => continue,
                    // Who is not known to Keystone either is not known; but if Keystone is away, that may pass.
                    Ok(Err(error)) => return Err(OpenStackError::from_auth(request.service.name(), error)),
                    Err(_) => return Err(OpenStackError::unavailable("identity", "no answer before the deadline")),
                }
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
        let client = self.shared.http.of(&endpoint);
        let url = target(&endpoint, request).ok_or_else(|| {
            (None, Failure::lasting(OpenStackError::Invalid(format!("{service} has no usable address"))))
        })?;
        let id = RequestId::generate();
        let mut builder = client
            .request(request.method.clone(), url)
            .headers(request.headers.clone())
            .header("X-OpenStack-Request-ID", id.as_str());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let builder = self
            .auth
            .authenticate(client, builder)
            .await
            .map_err(|error| (None, Failure::untouched(OpenStackError::from_auth(service, error))))?;
        let unsent = |error| (None, Failure::from_transport(service, error));
        let built = builder.build().map_err(unsent)?;
        let sent = Box::new(built.headers().clone());
        let response = client.execute(built).await.map_err(unsent)?;
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
            unauthenticated: (status == StatusCode::UNAUTHORIZED).then_some(sent),
            retry_after,
            error,
        };
        Err((Some(status), failure))
    }

    /// The service's base address, under the first of its types that has one.
    async fn endpoint(&self, service: Service) -> Result<Url, Failure> {
        if let Some(url) = &self.shared.endpoint {
            return Ok(url.clone());
        }
        let client = self.shared.http.any();
        let mut last = None;
        for kind in service.0 {
            match self.auth.get_endpoint(client, kind, &self.shared.filters).await {
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
}

impl Failure {
    fn lasting(error: OpenStackError) -> Self {
        Self { error, is_passing: false, is_untouched: false, unauthenticated: None, retry_after: None }
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

fn address(text: &str) -> Result<Url, OpenStackError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(_) | Err(_) => Err(OpenStackError::Invalid("an endpoint override is no http or https address".to_owned())),
    }
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
    if !request.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&request.query);
        // Zaqar takes a list of ids apart before it decodes it: with encoded commas it deletes nothing and says 204.
        let query = url.query().map(|query| query.replace("%2C", ","));
        url.set_query(query.as_deref());
    }
    Some(url)
}

/// `v2`, `v2.1`.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
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
    fn the_commas_of_a_list_are_sent_as_they_are() {
        let mut request = request(&["v2"]);
        request.query = vec![("ids", "a,b".to_owned()), ("x", "c&d e".to_owned())];
        let url = target(&Url::parse("http://h/").unwrap(), &request).unwrap();
        assert_eq!(url.as_str(), "http://h/v2?ids=a,b&x=c%26d+e");
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
