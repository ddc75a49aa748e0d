//! `/v1/executions/{id}/log`: what an execution wrote, and what it is writing.
//!
//! A log is never held whole: it is read from the store in parts while it is sent. Followed, the stream goes on until
//! the execution is finished, the caller leaves, or the service stops.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::error::{ApiError, Code, Result};
use super::executions::find;
use super::identity::Caller;
use super::input::{Accepted, Named, Query, QueryParameters, text_or_json};
use crate::model::ExecutionId;
use crate::model::execution::{LogChunk, LogStream};
use crate::store::{Scope, StoreError};
use crate::task::chain;

/// Parts that are read from the store at a time.
const CHUNKS_AT_A_TIME: usize = 64;

/// Pauses between two looks for more of a followed log.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often in a row the store may fail under a followed log.
const FAILURES_MAX: u32 = 10;

/// Which part of the log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// Only of this attempt.
    #[param(minimum = 1)]
    attempt: Option<u32>,
    /// Go on until the execution is finished. As JSON: one object a line, without the array around them.
    follow: Option<bool>,
}

impl QueryParameters for LogQuery {}

/// A log in JSON.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used; the log is written line by line")]
struct Log {
    /// The lines, in order.
    log: Vec<LogLineView<'static>>,
}

/// A line of a log.
#[derive(Serialize, ToSchema)]
struct LogLineView<'a> {
    /// The attempt that wrote it.
    attempt: u32,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// `stdout`, `stderr` or `platform`.
    stream: &'static str,
    /// The text, without its line end.
    text: &'a str,
}

/// Read the log of an execution: lines of `TIME STREAM TEXT`, or JSON.
#[utoipa::path(get, path = "/v1/executions/{execution}/log", tag = "executions", operation_id = "show_execution_log",
    params(("execution" = String, Path, description = "Its id."), LogQuery),
    responses((status = 200, description = "The log.", content((String = "text/plain"), (Log = "application/json")))))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let follow = query.follow.unwrap_or(false);
    let shape = match (text_or_json(&headers)?, follow) {
        (Accepted::Text, _) => Shape::Text,
        (Accepted::Json, false) => Shape::JsonArray,
        (Accepted::Json, true) => Shape::JsonLines,
    };
    if query.attempt == Some(0) {
        return Err(ApiError::new(Code::InvalidQuery, "attempt: attempts are counted from 1"));
    }
    let place =
        if follow {
            let place = Arc::clone(&api.followers).try_acquire_owned();
            Some(place.map_err(|_| {
                ApiError::new(Code::ServiceBusy, "too many logs are followed at present").retry_after(5)
            })?)
        } else {
            None
        };
    let execution = find(&api, &caller, &name).await?;
    let mut reading = Reading {
        scope: caller.scope(),
        execution: execution.id,
        attempt: query.attempt,
        // Everything of an attempt lies behind the last possible part of the one before.
        after: query.attempt.map(|attempt| (attempt - 1, u32::MAX)),
        follow,
        finished: execution.state.is_terminal(),
        chunks: VecDeque::new(),
        drained: false,
        shape,
        begun: false,
        shown: None,
        ended: false,
        pause: PAUSE_MIN,
        failures: 0,
        api,
        _place: place,
    };
    // What the store has to say first decides about the status; behind it there is only the stream.
    reading.fetch().await?;
    let kind = match shape {
        Shape::Text => "text/plain; charset=utf-8",
        Shape::JsonArray => "application/json",
        Shape::JsonLines => "application/x-ndjson",
    };
    let body = Body::from_stream(stream::try_unfold(reading, |mut reading| async move {
        Ok::<_, StreamFailed>(reading.next().await?.map(|bytes| (bytes, reading)))
    }));
    // A proxy that collects a followed log before it hands it on would defeat it.
    Ok((
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ],
        body,
    )
        .into_response())
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    JsonArray,
    JsonLines,
}

/// A stream that ends before the log does; the connection is cut, so that the caller sees it.
#[derive(Debug, thiserror::Error)]
#[error("the log cannot be read on")]
struct StreamFailed(#[source] StoreError);

/// A log that is being sent.
struct Reading {
    api: Api,
    scope: Scope,
    execution: ExecutionId,
    attempt: Option<u32>,
    after: Option<(u32, u32)>,
    follow: bool,
    /// Whether the execution was finished before the store was asked for the parts in `chunks`.
    finished: bool,
    chunks: VecDeque<LogChunk>,
    /// Whether the store had no more than what it gave.
    drained: bool,
    shape: Shape,
    begun: bool,
    /// The attempt whose lines were written last.
    shown: Option<u32>,
    ended: bool,
    pause: Duration,
    failures: u32,
    _place: Option<OwnedSemaphorePermit>,
}

impl Reading {
    /// Asks the store for what is behind the last part.
    async fn fetch(&mut self) -> std::result::Result<(), StoreError> {
        let mut chunks = self.api.store.log(&self.scope, self.execution, self.after, CHUNKS_AT_A_TIME).await?;
        self.drained = chunks.len() < CHUNKS_AT_A_TIME;
        if let Some(last) = chunks.last() {
            self.after = Some((last.attempt, last.sequence));
        }
        if let Some(attempt) = self.attempt {
            let all = chunks.len();
            chunks.retain(|chunk| chunk.attempt == attempt);
            if chunks.len() < all {
                // A later attempt has begun: this one is complete.
                (self.drained, self.finished) = (true, true);
            }
        }
        self.chunks.extend(chunks);
        Ok(())
    }

    /// The next piece of the body; none at the end.
    async fn next(&mut self) -> std::result::Result<Option<Bytes>, StreamFailed> {
        if self.ended {
            return Ok(None);
        }
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                let bytes = self.write(&chunk);
                if !bytes.is_empty() {
                    return Ok(Some(bytes));
                }
                continue;
            }
            if self.drained && (!self.follow || self.finished) {
                self.ended = true;
                return Ok(self.closing());
            }
            if self.drained && !self.wait().await {
                self.ended = true;
                return Ok(self.closing());
            }
            self.look().await?;
        }
    }

    /// Pauses before the next look; false when the service stops.
    async fn wait(&mut self) -> bool {
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.api.shutdown.cancelled() => false,
        }
    }

    /// Looks for more. The state is read before the log: what a finished execution wrote is then all there.
    async fn look(&mut self) -> std::result::Result<(), StreamFailed> {
        let result = async {
            if self.follow {
                match self.api.store.execution(&self.scope, self.execution).await {
                    Ok(execution) => self.finished = execution.state.is_terminal(),
                    Err(StoreError::NotFound(_)) => self.finished = true,
                    Err(error) => return Err(error),
                }
            }
            self.fetch().await
        }
        .await;
        match result {
            Ok(()) => {
                self.failures = 0;
                if !self.chunks.is_empty() {
                    self.pause = PAUSE_MIN;
                }
                Ok(())
            }
            Err(error) if self.follow && error.retryable() && self.failures < FAILURES_MAX => {
                self.failures += 1;
                self.drained = true;
                Ok(())
            }
            Err(error) => {
                let said = chain(&error);
                tracing::error!(execution.id = %self.execution, error = said, "a log cannot be read on: {said}");
                Err(StreamFailed(error))
            }
        }
    }

    fn write(&mut self, chunk: &LogChunk) -> Bytes {
        let mut bytes = BytesMut::new();
        let is_another = self.shown.replace(chunk.attempt).is_some_and(|shown| shown != chunk.attempt);
        if let (true, Shape::Text, Some(first)) = (is_another, &self.shape, chunk.lines.first()) {
            bytes.put_slice(format!("{} platform attempt {}\n", first.at, chunk.attempt).as_bytes());
        }
        for line in &chunk.lines {
            let stream = match line.stream {
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
                LogStream::Platform => "platform",
            };
            if self.shape == Shape::Text {
                bytes.put_slice(format!("{} {stream} {}\n", line.at, line.text).as_bytes());
                continue;
            }
            let view = LogLineView { attempt: chunk.attempt, at: line.at.to_string(), stream, text: &line.text };
            if self.shape == Shape::JsonArray {
                bytes.put_slice(if self.begun { b"," } else { b"{\"log\":[" });
                self.begun = true;
            }
            // A string, a number and a time are always JSON.
            bytes.put_slice(&serde_json::to_vec(&view).unwrap_or_default());
            if self.shape == Shape::JsonLines {
                bytes.put_u8(b'\n');
            }
        }
        bytes.freeze()
    }

    fn closing(&self) -> Option<Bytes> {
        (self.shape == Shape::JsonArray).then(|| Bytes::from_static(if self.begun { b"]}" } else { b"{\"log\":[]}" }))
    }
}
