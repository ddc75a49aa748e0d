//! Load on an HTTP address: closed loops, each with a connection of its own that is kept alive.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use futures::future::try_join_all;

use crate::http::Connection;

/// What is called: a connection that was not used yet is made by `connect` for each loop.
#[derive(Clone)]
pub struct Target {
    /// `127.0.0.1:9070`, or with `http://` before it.
    pub address: String,
    /// The path.
    pub path: String,
    /// The body.
    pub body: Bytes,
}

impl Target {
    /// Calls so many times, one after the other; the time of each, in milliseconds.
    pub async fn calls(&self, connection: &mut Connection, count: usize) -> Result<Vec<f64>> {
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            connection.post(&self.path, self.body.clone()).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(took)
    }

    /// Calls from so many loops for this long; answers in a second.
    pub async fn rate(&self, clients: usize, time: Duration) -> Result<f64> {
        let begun = Instant::now();
        let loops = (0..clients).map(|_| {
            let target = self.clone();
            tokio::spawn(async move {
                let mut connection = Connection::new(&target.address);
                let mut count = 0_u32;
                while begun.elapsed() < time {
                    connection.post(&target.path, target.body.clone()).await?;
                    count += 1;
                }
                Ok::<_, anyhow::Error>(count)
            })
        });
        let mut count = 0;
        for done in try_join_all(loops).await? {
            count += done?;
        }
        Ok(f64::from(count) / begun.elapsed().as_secs_f64())
    }
}
