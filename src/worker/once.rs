//! Tasks of a worker that the supervisor cannot simply start anew, or that end before the program does.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// A task whose state cannot be made again: its second start is a failure, and the supervisor stops the program.
pub struct Once<F>(Mutex<Option<F>>);

impl<F: Future<Output = ()> + Send + 'static> Once<F> {
    /// One that has not been started.
    pub const fn new(future: F) -> Self {
        Self(Mutex::new(Some(future)))
    }

    /// The task, for whoever asks first.
    pub fn take(&self, cancel: CancellationToken) -> impl Future<Output = Result<(), std::io::Error>> + Send + use<F> {
        let future = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            match future {
                Some(future) => {
                    future.await;
                    // An end in order comes before the program's own cancellation and is no failure.
                    cancel.cancelled().await;
                    Ok(())
                }
                None => Err(std::io::Error::other("it cannot be started twice")),
            }
        }
    }
}

/// Runs a task that ends by a token of its own, before the program's: its end is no failure then.
pub async fn until<E>(
    cancel: CancellationToken,
    token: CancellationToken,
    run: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let result = run.await;
    if token.is_cancelled() && result.is_ok() {
        cancel.cancelled().await;
    }
    result
}
