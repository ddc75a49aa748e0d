//! The HTTP client: one request at a time, each with a time limit, error answers read into [`CliError`], lists followed
//! over their pages. It knows how the service speaks (shared by all resources), not what it says.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use indicatif::ProgressBar;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode, Url};
use serde_json::Value;

use super::connection::Connection;
use super::error::{CliError, Refusal, Result};
use super::output::note;
use crate::model::RequestId;
use crate::openstack::OpenStackError;

/// OpenStack's header for the id of a request.
pub const REQUEST_ID: &str = "x-openstack-request-id";

/// Time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an ordinary request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Slowest upload or download that is waited for, in bytes a second.
const SLOWEST_TRANSFER: u64 = 32 * 1024;
/// Largest answer that is taken into memory; a page of a thousand executions with their results may be large.
const ANSWER_MAX: usize = 256 << 20;
/// Most elements asked for with one page: an operator may allow fewer than the thousand that are the default.
const PAGE: usize = 100;
/// Pieces in which a body is handed out, so that a progress bar moves.
const PIECE: usize = 64 * 1024;

/// Talks to the service.
pub struct Client {
    http: reqwest::Client,
    connection: Connection,
    /// Sent with every request, so that the service's logs show which of them belong to one command.
    command_id: RequestId,
    debug: bool,
}

/// An answer with a status below 300.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A list, or its beginning.
#[derive(Debug)]
pub struct Listing {
    /// The elements.
    pub rows: Vec<Value>,
    /// Whether there are more.
    pub more: bool,
}

/// A request that is being put together.
#[must_use]
pub struct Call<'a> {
    client: &'a Client,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
    progress: Option<ProgressBar>,
    timeout: Option<Duration>,
}

impl Client {
    /// A client for a connection.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read.
    pub fn new(connection: Connection, debug: bool) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("lambda/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(30))
            // A redirection would drop bodies and carry credentials to another host.
            .redirect(reqwest::redirect::Policy::none());
        let unfit = |error: OpenStackError| CliError::Usage(format!("TLS cannot be set up: {error}"));
        builder = connection.tls.apply(builder).map_err(unfit)?;
        if is_loopback(&connection.endpoint) {
            // No proxy can reach this machine's own loopback address.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| CliError::Usage(format!("TLS cannot be set up: {error}")))?;
        Ok(Self { http, connection, command_id: RequestId::generate(), debug })
    }

    /// Begins a request to a resource below `/v1`. Segments are escaped as they need to be.
    pub fn call(&self, method: Method, path: &[&str]) -> Call<'_> {
        let mut url = self.connection.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        Call { client: self, method, url, headers, body: None, progress: None, timeout: Some(REQUEST_TIMEOUT) }
    }

    /// Begins a GET.
    pub fn get(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::GET, path)
    }

    /// Begins a POST.
    pub fn post(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::POST, path)
    }

    /// Lists a collection, following its pages up to `most` elements.
    ///
    /// # Errors
    /// As [`Call::send`].
    pub async fn list(&self, collection: &str, query: &[(&str, String)], most: Option<usize>) -> Result<Listing> {
        let mut rows = Vec::new();
        let mut call = self.get(&[collection]);
        call = query.iter().fold(call, |call, (name, value)| call.query(name, value));
        if let Some(most) = most {
            call = call.query("limit", &most.clamp(1, PAGE).to_string());
        }
        loop {
            let asked = call.url.clone();
            let mut page = call.json_answer().await?;
            let Some(Value::Array(elements)) = page.get_mut(collection).map(Value::take) else {
                return Err(self.not_ours(&format!("a list without '{collection}'")));
            };
            let links = page.get(format!("{collection}_links")).and_then(Value::as_array);
            let next = links
                .into_iter()
                .flatten()
                .find(|link| link["rel"] == "next")
                .and_then(|link| link["href"].as_str())
                .map(|href| self.followed(&asked, href))
                .transpose()?;
            let some = !elements.is_empty();
            rows.extend(elements);
            let enough = most.is_some_and(|most| rows.len() >= most);
            match next {
                Some(next) if !enough => {
                    if next == asked || !some {
                        return Err(self.not_ours("a list whose pages do not end"));
                    }
                    call = self.get(&[collection]);
                    call.url = next;
                }
                next => {
                    let cut = most.is_some_and(|most| rows.len() > most);
                    rows.truncate(most.unwrap_or(usize::MAX));
                    return Ok(Listing { rows, more: cut || next.is_some() });
                }
            }
        }
    }

    /// The next page. Only the query is taken from the link: its host may be one that only the service can see.
    fn followed(&self, asked: &Url, href: &str) -> Result<Url> {
        let link = asked.join(href).map_err(|error| self.not_ours(&format!("a link that is none: {error}")))?;
        let mut next = asked.clone();
        next.set_query(link.query());
        Ok(next)
    }

    /// The address of the service.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.connection.endpoint.as_str().trim_end_matches('/')
    }

    /// The error for an answer that no Lambda service would give.
    #[must_use]
    pub fn not_ours(&self, why: &str) -> CliError {
        CliError::NotOurs { endpoint: self.endpoint().to_owned(), why: why.to_owned() }
    }

    fn unreachable(&self, error: &reqwest::Error, method: &Method, timeout: Option<Duration>) -> CliError {
        let why = if error.is_timeout() {
            let limit = if error.is_connect() { CONNECT_TIMEOUT } else { timeout.unwrap_or(CONNECT_TIMEOUT) };
            format!("it took longer than {} s", limit.as_secs())
        } else {
            // The cause that names the fault is the innermost; those around it repeat the address.
            let mut cause: &dyn std::error::Error = error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            let text = cause.to_string();
            let mut letters = text.chars();
            letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
        };
        let sent = !error.is_connect() && !error.is_builder() && *method != Method::GET;
        CliError::Unreachable { endpoint: self.endpoint().to_owned(), why, sent }
    }
}

impl Call<'_> {
    /// Adds a query parameter.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    /// Sets a header. A value that no header can hold is left out; the service then says what is missing.
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Sends a JSON document.
    pub fn json(self, document: &Value) -> Self {
        self.body("application/json", Bytes::from(document.to_string()))
    }

    /// Sends a body of the given type. The time limit grows with its size.
    pub fn body(mut self, content_type: &'static str, body: Bytes) -> Self {
        let transfer = Duration::from_secs(body.len() as u64 / SLOWEST_TRANSFER);
        self.timeout = self.timeout.map(|timeout| timeout + transfer);
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = Some(body);
        self
    }

    /// Moves a bar while the body is sent.
    pub fn progress(mut self, bar: ProgressBar) -> Self {
        self.progress = Some(bar);
        self
    }

    /// Sets the time limit of the whole request; none: only that of making the connection.
    pub const fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no answer, or one with an error status.
    pub async fn send(self) -> Result<Answer> {
        let (client, method, timeout) = (self.client, self.method.clone(), self.timeout);
        let response = self.stream().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_all(response).await.map_err(|error| client.unreachable(&error, &method, timeout))?;
        let body = body.ok_or_else(|| client.not_ours("an answer of more than 256 MiB"))?;
        Ok(Answer { status, headers, body })
    }

    /// Sends the request and reads the answer as JSON.
    ///
    /// # Errors
    /// As [`Self::send`], and when the answer is not JSON.
    pub async fn json_answer(self) -> Result<Value> {
        let client = self.client;
        let answer = self.send().await?;
        serde_json::from_slice(&answer.body).map_err(|_| client.not_ours("an answer that is not JSON"))
    }

    /// Sends the request and leaves the answer's body to be read piece by piece.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn stream(self) -> Result<Response> {
        let Self { client, method, url, headers, body, progress, timeout } = self;
        let shown = match url.query() {
            Some(query) => format!("{method} {}?{query}", url.path()),
            None => format!("{method} {}", url.path()),
        };
        let mut request = client
            .http
            .request(method.clone(), url)
            .headers(client.connection.credentials.headers().await?)
            .headers(headers)
            .header(REQUEST_ID, client.command_id.as_str());
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_LENGTH, body.len()).body(in_pieces(body, progress));
        }
        let begun = Instant::now();
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let error = client.unreachable(&error, &method, timeout);
                if client.debug {
                    note(&format!("lambda: {shown}: {error}"));
                }
                return Err(error);
            }
        };
        let request_id = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        if client.debug {
            let (status, took) = (response.status().as_u16(), begun.elapsed().as_millis());
            note(&format!(
                "lambda: {shown}: {status} in {took} ms, {}",
                request_id.as_deref().unwrap_or("no request id")
            ));
        }
        if response.status().is_success() {
            return Ok(response);
        }
        if response.status().is_redirection() {
            let to = response.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            return Err(client.not_ours(&format!("it sends callers to {to}")));
        }
        let status = response.status().as_u16();
        let body = read_all(response).await.ok().flatten().unwrap_or_default();
        Err(CliError::Refused(Box::new(Refusal::read(status, request_id.as_deref(), &body))))
    }
}

/// Reads a body up to the limit; none: it is larger.
async fn read_all(response: Response) -> reqwest::Result<Option<Bytes>> {
    let mut whole = BytesMut::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if whole.len() + piece.len() > ANSWER_MAX {
            return Ok(None);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Some(whole.freeze()))
}

fn in_pieces(body: Bytes, progress: Option<ProgressBar>) -> Body {
    let Some(bar) = progress else {
        return Body::from(body);
    };
    let pieces = (0..body.len()).step_by(PIECE).map(move |from| {
        let piece = body.slice(from..body.len().min(from + PIECE));
        bar.inc(piece.len() as u64);
        Ok::<_, std::io::Error>(piece)
    });
    Body::wrap_stream(futures::stream::iter(pieces))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
