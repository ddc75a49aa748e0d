//! The AWS Lambda Runtime API (2018-06-01) on a loopback port of its own for each sandbox, and for our own runtimes on a
//! connection that they are born with: requests become calls to the sandbox, replies become answers with the statuses,
//! bodies and headers that AWS gives. What a call does is decided by the sandbox and its
//! [`RuntimeState`](crate::runtime_state::RuntimeState).

mod body;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::body::{collect, header, response};
use crate::confine::Who;
use crate::peer;

/// Largest response, in bytes: AWS Lambda's 6 MiB and 100 bytes.
pub const RESPONSE_MAX: usize = (6 << 20) + 100;
/// Connections that a sandbox may have open to its Runtime API.
const CONNECTIONS_MAX: usize = 64;
/// Calls that may wait for the sandbox; a connection has one at a time.
const CALLS_WAITING: usize = 16;

/// What a runtime asks for.
#[derive(Debug)]
pub enum Call {
    /// The next event.
    Next,
    /// To take a response.
    Respond {
        /// The request id.
        id: String,
        /// What came.
        payload: Payload,
    },
    /// To take an error instead of a response.
    Fail {
        /// The request id.
        id: String,
        /// What came.
        error: Payload,
        /// The error type's header.
        error_type: Option<String>,
    },
    /// To take note that the runtime cannot initialise.
    FailInit {
        /// What came.
        error: Payload,
        /// The error type's header.
        error_type: Option<String>,
    },
}

/// The body of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// All of it.
    Whole(Bytes),
    /// More than the limit; it was read and thrown away.
    TooLarge,
    /// The connection broke before its end.
    Truncated,
    /// A streaming response that ended with an error in its trailers.
    Failed {
        /// The error type.
        error_type: String,
        /// The error object, decoded.
        body: Bytes,
    },
    /// The response mode's header has a value that does not exist. The body was not looked at.
    UnknownMode,
}

/// An event as the runtime gets it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Request id.
    pub id: String,
    /// When its time is over, in milliseconds since the epoch.
    pub deadline_ms: i64,
    /// The function's name in AWS's notation.
    pub arn: String,
    /// The trace header.
    pub trace_id: String,
    /// Type of the body.
    pub content_type: String,
    /// The event.
    pub body: Bytes,
}

/// What a call is answered with.
#[derive(Debug)]
pub enum Reply {
    /// 200 with an event.
    Event(Box<Event>),
    /// 202.
    Accepted,
    /// 400.
    InvalidRequestId,
    /// 400.
    InvalidResponseMode,
    /// 400.
    Truncated,
    /// 403; from one state to the other.
    InvalidTransition(&'static str, &'static str),
    /// 413.
    TooLarge,
}

/// A call and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// The call.
    pub call: Call,
    /// Dropped without a reply when the sandbox ends: the client gets a 500.
    pub reply: oneshot::Sender<Reply>,
}

/// The Runtime API of one sandbox. Ends when it is dropped.
#[derive(Debug)]
pub struct RuntimeApi {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is asked.
    pub calls: mpsc::Receiver<Asked>,
    asked: mpsc::Sender<Asked>,
    // Aborts the listener and its connections when dropped.
    serving: JoinSet<()>,
}

impl RuntimeApi {
    /// Listens on a free port of the loopback address, which every process of the machine can reach: where sandboxes
    /// have users of their own, nobody else is let in.
    ///
    /// # Errors
    /// When there is none.
    pub async fn listen(who: Who) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (asked, calls) = mpsc::channel(CALLS_WAITING);
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, who, asked.clone()));
        Ok(Self { address, calls, asked, serving })
    }

    /// A connection, made already: its other end, for a process that is handed it at its birth. It costs half of what a
    /// connection by TCP does, at each message.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn connection(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        self.serving.spawn(serve(UnixStream::from_std(ours)?, self.asked.clone()));
        Ok(theirs.into())
    }
}

async fn accept(listener: TcpListener, who: Who, asked: mpsc::Sender<Asked>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, client)) => match (who, client, stream.local_addr()) {
                    (Who::User(user), SocketAddr::V4(client), Ok(SocketAddr::V4(own)))
                        if peer::owner(client, own) != Some(user) =>
                    {
                        tracing::warn!("a stranger's connection to a Runtime API was refused");
                    }
                    // Without it an answer of two writes waits for the client's delayed acknowledgement.
                    _ if stream.set_nodelay(true).is_err() => {}
                    _ => drop(connections.spawn(serve(stream, asked.clone()))),
                },
                Err(error) => {
                    // Out of descriptors, or a client that has gone already: others may fare better later.
                    tracing::warn!(error = %error, "a runtime's connection was not accepted: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, asked: mpsc::Sender<Asked>) {
    let service = service_fn(|request| {
        let asked = asked.clone();
        async move { Ok::<_, Infallible>(route(request, &asked).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.header_read_timeout(None);
    // A runtime that breaks its connection is seen by the end of its process, or by its silence.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

type Answer = Response<Full<Bytes>>;

async fn route(request: Request<Incoming>, asked: &mpsc::Sender<Asked>) -> Answer {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["2018-06-01", "runtime", rest @ ..] => match rest {
            ["invocation", "next"] => when(Method::GET, &request, async || ask(asked, Call::Next).await).await,
            ["invocation", id, "response"] => {
                let id = (*id).to_owned();
                posted(request, async move |request| {
                    let payload = response(request).await;
                    ask(asked, Call::Respond { id, payload }).await
                })
                .await
            }
            ["invocation", id, "error"] => {
                let id = (*id).to_owned();
                posted(request, async move |request| {
                    let error_type = header(request.headers(), "lambda-runtime-function-error-type");
                    let error = collect(request.into_body()).await.0;
                    ask(asked, Call::Fail { id, error, error_type }).await
                })
                .await
            }
            ["init", "error"] => {
                posted(request, async move |request| {
                    let error_type = header(request.headers(), "lambda-runtime-function-error-type");
                    let error = collect(request.into_body()).await.0;
                    ask(asked, Call::FailInit { error, error_type }).await
                })
                .await
            }
            // `restore/…` is for sandboxes from a snapshot, of which there are none.
            _ => not_found(),
        },
        ["2018-06-01", "ping"] | ["ping"] => when(Method::GET, &request, async || text(StatusCode::OK, "pong")).await,
        ["2020-01-01", "extension", rest @ ..] => extension(&request, rest).await,
        ["2020-08-15", "logs"] => {
            let refusal = || failure(StatusCode::ACCEPTED, "Logs.NotSupported", "Logs API is not supported");
            when(Method::PUT, &request, async || refusal()).await
        }
        ["2022-07-01", "telemetry"] => {
            let refusal = || failure(StatusCode::ACCEPTED, "Telemetry.NotSupported", "Telemetry API is not supported");
            when(Method::PUT, &request, async || refusal()).await
        }
        _ => not_found(),
    }
}

async fn when(method: Method, request: &Request<Incoming>, answer: impl AsyncFnOnce() -> Answer) -> Answer {
    if request.method() == method { answer().await } else { not_allowed(&method) }
}

async fn posted(request: Request<Incoming>, answer: impl AsyncFnOnce(Request<Incoming>) -> Answer) -> Answer {
    if request.method() == Method::POST { answer(request).await } else { not_allowed(&Method::POST) }
}

/// There are no extensions here. One that lives inside a runtime is told so in words that its libraries understand.
async fn extension(request: &Request<Incoming>, path: &[&str]) -> Answer {
    let forbidden = |kind, message| failure(StatusCode::FORBIDDEN, kind, message);
    let known = || {
        if request.headers().contains_key("lambda-extension-identifier") {
            forbidden("Extension.UnknownExtensionIdentifier", "Unknown extension")
        } else {
            forbidden("Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header")
        }
    };
    match path {
        ["register"] => {
            let closed = || forbidden("Extension.RegistrationClosed", "Extensions are not supported");
            when(Method::POST, request, async || closed()).await
        }
        ["event", "next"] => when(Method::GET, request, async || known()).await,
        ["init", "error"] | ["exit", "error"] => when(Method::POST, request, async || known()).await,
        _ => not_found(),
    }
}

async fn ask(asked: &mpsc::Sender<Asked>, call: Call) -> Answer {
    let (reply, answered) = oneshot::channel();
    let sent = asked.send(Asked { call, reply }).await;
    match (sent, answered.await) {
        (Ok(()), Ok(reply)) => {
            if matches!(reply, Reply::Accepted) {
                // What was accepted is on its way to a caller who waits: it is written first. The runtime has time.
                tokio::task::yield_now().await;
            }
            answer(reply)
        }
        (Ok(()) | Err(_), Ok(_) | Err(_)) => {
            failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "Internal Server Error")
        }
    }
}

fn answer(reply: Reply) -> Answer {
    let bad = |kind, message| failure(StatusCode::BAD_REQUEST, kind, message);
    match reply {
        Reply::Event(event) => event_answer(*event),
        Reply::Accepted => {
            answer_of(StatusCode::ACCEPTED, "application/json", Bytes::from_static(b"{\"status\":\"OK\"}\n"))
        }
        Reply::InvalidRequestId => bad("InvalidRequestID", "Invalid request ID"),
        Reply::InvalidResponseMode => {
            bad("InvalidFunctionResponseMode", "Invalid function response mode header, it must be 'streaming'")
        }
        Reply::Truncated => bad("TruncatedHTTPRequest", "HTTP request detected as truncated"),
        Reply::InvalidTransition(from, to) => {
            let message = format!(
                "State transition from {from} to {to} failed for runtime. Error: State transition is not allowed"
            );
            failure(StatusCode::FORBIDDEN, "InvalidStateTransition", &message)
        }
        Reply::TooLarge => {
            let message = format!("Exceeded maximum allowed payload size ({RESPONSE_MAX} bytes).");
            failure(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
        }
    }
}

fn event_answer(event: Event) -> Answer {
    let mut answer = answer_of(StatusCode::OK, "application/json", event.body);
    let headers = answer.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        // What is empty, or cannot stand in a header, is not sent.
        if let Some(value) = HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    // Always there: the C++ client crashes without it.
    set("content-type", &event.content_type);
    set("lambda-runtime-aws-request-id", &event.id);
    set("lambda-runtime-deadline-ms", &event.deadline_ms.to_string());
    set("lambda-runtime-invoked-function-arn", &event.arn);
    set("lambda-runtime-trace-id", &event.trace_id);
    answer
}

fn answer_of(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(bytes));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn text(status: StatusCode, text: &'static str) -> Answer {
    answer_of(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn failure(status: StatusCode, kind: &str, message: &str) -> Answer {
    let object = json!({ "errorMessage": message, "errorType": kind });
    answer_of(status, "application/json", Bytes::from(format!("{object}\n")))
}

fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn not_allowed(allowed: &Method) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "");
    if let Ok(allowed) = HeaderValue::from_str(allowed.as_str()) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// How a body ends that is shorter than its length says.
    const CUT: &[u8] = b"cut";

    /// Sends a request to an API whose sandbox gives these replies, and returns the calls that it saw and the answer.
    async fn exchange(request: &[u8], mut replies: Vec<Reply>) -> (Vec<Call>, String) {
        let mut api = RuntimeApi::listen(Who::User(nix::unistd::getuid().as_raw())).await.unwrap();
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        if request.ends_with(CUT) {
            stream.shutdown().await.unwrap();
        }
        let mut calls = Vec::new();
        let mut answer = Vec::new();
        let mut read = Box::pin(async {
            // A reset after a truncated request is an end as well.
            let _ = stream.read_to_end(&mut answer).await;
        });
        replies.reverse();
        loop {
            tokio::select! {
                () = &mut read => break,
                Some(asked) = api.calls.recv() => {
                    calls.push(asked.call);
                    if let Some(reply) = replies.pop() {
                        asked.reply.send(reply).unwrap();
                    }
                }
            }
        }
        drop(read);
        (calls, String::from_utf8(answer).unwrap())
    }

    fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("POST /2018-06-01/runtime/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
    }

    #[tokio::test]
    async fn an_event_comes_with_every_header_that_clients_need() {
        let event = Event {
            id: "8476a536-e9f4-11e8-9739-2dfe598c3fcd".into(),
            deadline_ms: 1_542_409_706_888,
            arn: "arn:x".into(),
            trace_id: "Root=1".into(),
            content_type: "application/json".into(),
            body: Bytes::from_static(b"{\"a\":1}"),
        };
        let request = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let (calls, answer) = exchange(request, vec![Reply::Event(Box::new(event))]).await;
        assert!(matches!(calls[..], [Call::Next]));
        for line in [
            "HTTP/1.1 200 OK\r\n",
            "content-type: application/json\r\n",
            "lambda-runtime-aws-request-id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n",
            "lambda-runtime-deadline-ms: 1542409706888\r\n",
            "lambda-runtime-invoked-function-arn: arn:x\r\n",
            "lambda-runtime-trace-id: Root=1\r\n",
            "\r\n\r\n{\"a\":1}",
        ] {
            assert!(answer.contains(line), "{line:?} in {answer}");
        }
    }

    #[tokio::test]
    async fn every_reply_has_its_status_and_body() {
        for (reply, status, body) in [
            (Reply::Accepted, "202", "{\"status\":\"OK\"}\n"),
            (Reply::InvalidRequestId, "400", r#"{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}"#),
            (Reply::InvalidResponseMode, "400", r#""errorType":"InvalidFunctionResponseMode""#),
            (Reply::Truncated, "400", r#""errorType":"TruncatedHTTPRequest""#),
            (Reply::InvalidTransition("A", "B"), "403", "State transition from A to B failed for runtime"),
            (Reply::TooLarge, "413", "Exceeded maximum allowed payload size (6291556 bytes)."),
        ] {
            let (_, answer) = exchange(&post("invocation/1/response", "", "{}"), vec![reply]).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(body), "{answer}");
        }
        let (_, answer) = exchange(&post("invocation/1/response", "", "{}"), vec![]).await;
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("InternalServerError"), "{answer}");
    }

    #[tokio::test]
    async fn a_streaming_response_is_collected_and_its_trailers_tell_of_an_error() {
        let chunked = |trailers: &str| {
            format!(
                "POST /2018-06-01/runtime/invocation/1/response HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n\
                 Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n\
                 3\r\nabc\r\n2\r\nde\r\n0\r\n{trailers}\r\n"
            )
        };
        let (calls, _) = exchange(chunked("").as_bytes(), vec![Reply::Accepted]).await;
        let [Call::Respond { payload: Payload::Whole(bytes), .. }] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!(&bytes[..], b"abcde");
        let trailers = "Lambda-Runtime-Function-Error-Type: Function.Broke\r\nLambda-Runtime-Function-Error-Body: eyJhIjoxfQ==\r\n";
        let (calls, _) = exchange(chunked(trailers).as_bytes(), vec![Reply::Accepted]).await;
        let [Call::Respond { payload: Payload::Failed { error_type, body }, .. }] = &calls[..] else {
            panic!("{calls:?}")
        };
        assert_eq!((error_type.as_str(), &body[..]), ("Function.Broke", &b"{\"a\":1}"[..]));
    }

    #[tokio::test]
    async fn payloads_that_are_too_large_cut_off_or_of_an_unknown_mode_are_told_apart() {
        let whole = "x".repeat(RESPONSE_MAX);
        let (calls, _) = exchange(&post("invocation/1/response", "", &whole), vec![Reply::Accepted]).await;
        assert!(matches!(&calls[..], [Call::Respond { payload: Payload::Whole(b), .. }] if b.len() == RESPONSE_MAX));
        let (calls, answer) = exchange(&post("invocation/1/response", "", &(whole + "x")), vec![Reply::TooLarge]).await;
        assert!(matches!(calls[..], [Call::Respond { payload: Payload::TooLarge, .. }]));
        assert!(answer.starts_with("HTTP/1.1 413 "));
        let mut cut = post("invocation/1/response", "", "cut}");
        cut.pop();
        let (calls, _) = exchange(&cut, vec![Reply::Truncated]).await;
        assert!(matches!(calls[..], [Call::Respond { payload: Payload::Truncated, .. }]));
        let mode = "Lambda-Runtime-Function-Response-Mode: buffered\r\n";
        let (calls, _) = exchange(&post("invocation/1/response", mode, "{}"), vec![Reply::InvalidResponseMode]).await;
        assert!(matches!(calls[..], [Call::Respond { payload: Payload::UnknownMode, .. }]));
    }

    #[tokio::test]
    async fn what_is_not_served_is_answered_as_aws_does() {
        for (request, status, text) in [
            ("GET /ping", "200", "pong"),
            ("GET /2018-06-01/ping", "200", "pong"),
            ("GET /2018-06-01/runtime/restore/next", "404", "404 page not found"),
            ("POST /2018-06-01/runtime/restore/error", "404", "404 page not found"),
            ("GET /elsewhere", "404", "404 page not found"),
            ("POST /2018-06-01/runtime/invocation/next", "405", ""),
            ("GET /2018-06-01/runtime/invocation/1/response", "405", ""),
            ("GET /2018-06-01/runtime/init/error", "405", ""),
            ("PUT /2020-08-15/logs", "202", "Logs.NotSupported"),
            ("PUT /2022-07-01/telemetry", "202", "Telemetry.NotSupported"),
            ("POST /2020-01-01/extension/register", "403", "Extension.RegistrationClosed"),
            ("GET /2020-01-01/extension/event/next", "403", "Extension.MissingExtensionIdentifier"),
        ] {
            let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            let (calls, answer) = exchange(request.as_bytes(), vec![]).await;
            assert!(calls.is_empty());
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{request}{answer}");
        }
    }

    #[tokio::test]
    async fn a_stranger_is_not_let_in() {
        let mut api = RuntimeApi::listen(Who::User(nix::unistd::getuid().as_raw() + 1)).await.unwrap();
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        let request = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n";
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() && api.calls.try_recv().is_err());
    }
}
