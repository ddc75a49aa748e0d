//! The API service on the line: synchronous calls, cancellations, and hints that something has changed.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use lambda_agent::wire::{Frame, Message};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::calls::{Calls, refusal};
use super::connection::Connection;
use crate::model::FunctionId;
use crate::model::execution::{Execution, Failure, Reason};

/// After this silence the caller is asked whether it is there; after three times as much the connection is given up.
const PING_AFTER: Duration = Duration::from_secs(5);

type Answer = (Message, Bytes);

/// Serves one caller until it leaves or the worker stops.
pub async fn serve(mut connection: Connection, calls: Calls, cancel: CancellationToken) {
    let welcome = Message::Welcome { session: String::new(), received: 0 };
    if connection.queue_message(welcome, Bytes::new(), 0).is_err() {
        return;
    }
    let mut answers: FuturesUnordered<BoxFuture<'static, Option<Answer>>> = FuturesUnordered::new();
    let mut upkeep = tokio::time::interval(Duration::from_secs(1));
    let end = loop {
        tokio::select! {
            biased;
            Some(answer) = answers.next() => {
                if let Some((message, body)) = answer
                    && let Err(error) = connection.queue_message(message, body, 0)
                {
                    break error;
                }
            }
            frame = connection.turn() => match frame {
                Ok(Some(frame)) => match hear(frame, &mut connection, &calls).await {
                    Ok(Some(answer)) => answers.push(answer),
                    Ok(None) => {}
                    Err(error) => break error,
                },
                Ok(None) => {}
                Err(error) => break error,
            },
            _ = upkeep.tick() => {
                if connection.silence() > PING_AFTER * 3 {
                    break io::Error::new(io::ErrorKind::TimedOut, "the caller is silent");
                }
                if connection.silence() > PING_AFTER
                    && let Err(error) = connection.queue_message(Message::Ping, Bytes::new(), 0)
                {
                    break error;
                }
            }
            // Calls that run are let finish: the dispatcher answers each before it ends.
            () = cancel.cancelled(), if answers.is_empty() => {
                connection.finish(Duration::from_secs(2)).await;
                return;
            }
        }
    };
    tracing::debug!(error = %end, "a caller has left: {end}");
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is said is not a caller's to say")]
async fn hear(
    frame: Frame,
    connection: &mut Connection,
    calls: &Calls,
) -> io::Result<Option<BoxFuture<'static, Option<Answer>>>> {
    let calls = calls.clone();
    Ok(match frame.message {
        Message::Call { call, project: _, function, patience_ms } => Some(Box::pin(async move {
            let patience = Duration::from_millis(patience_ms);
            let (execution, failure, body) = match run(&calls, &function, frame.body, patience).await {
                Ok(execution) => {
                    let body = execution.result.as_ref().map(|result| result.bytes().clone()).unwrap_or_default();
                    (execution.id.to_string(), execution.failure, body)
                }
                Err(failure) => (String::new(), Some(*failure), Bytes::new()),
            };
            let failure = failure.and_then(|failure| serde_json::to_value(failure).ok());
            Some((Message::CallDone { call, execution, failure }, body))
        })),
        Message::Cancel { call, execution } => Some(Box::pin(async move {
            let found = match execution.parse() {
                Ok(id) => calls.cancel(id).await,
                Err(_) => false,
            };
            Some((Message::Cancelled { call, found }, Bytes::new()))
        })),
        Message::Nudge => {
            calls.nudge();
            None
        }
        Message::FunctionChanged { function, call } => {
            let (served, told) = oneshot::channel();
            if let Ok(id) = function.parse::<FunctionId>() {
                // Before the next frame is looked at: what the caller says next sees the change.
                calls.function_changed(id, call.is_some().then_some(served)).await;
            }
            call.map(|call| -> BoxFuture<'static, Option<Answer>> {
                Box::pin(async move {
                    // Whoever was to tell is dropped when there is nothing to wait for any more.
                    let _ = told.await;
                    Some((Message::FunctionServed { call }, Bytes::new()))
                })
            })
        }
        Message::Ping => {
            connection.queue_message(Message::Ack, Bytes::new(), 0)?;
            None
        }
        Message::Ack => None,
        _ => return Err(io::Error::other("a caller said something that is not its to say")),
    })
}

/// Runs a function for a caller that waits.
async fn run(calls: &Calls, function: &str, body: Bytes, patience: Duration) -> Result<Execution, Box<Failure>> {
    let id = function.parse().map_err(|_| refusal(Reason::FunctionDeleted, "there is no such function"))?;
    calls.call(id, body, patience).await
}
