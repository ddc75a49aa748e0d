//! A function in Rust, with the `lambda_runtime` crate as it comes: counts the words of `text`.
//!
//! `cargo build --release --example provided-rust`, then zip the program under the name `bootstrap`.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

async fn count(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let text = event.payload["text"].as_str().ok_or("the event has no text")?;
    Ok(json!({ "words": text.split_whitespace().count() }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(count)).await
}
