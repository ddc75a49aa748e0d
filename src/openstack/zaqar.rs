//! stub
#![allow(missing_docs)]
use serde_json::Value;
#[derive(Clone)]
pub struct Client;
#[derive(Debug, thiserror::Error)]
#[error("e")]
pub struct Error;
impl Error {
    pub fn retryable(&self) -> bool {
        true
    }
}
pub struct NewMessage {
    pub ttl: u32,
    pub body: Value,
}
pub struct Message {
    pub id: String,
    pub claim_id: String,
    pub age: u64,
    pub ttl: u64,
    pub body: Value,
}
pub struct Claim {
    pub id: String,
    pub messages: Vec<Message>,
}
impl Client {
    pub async fn ensure_queue(&self, _n: &str, _m: &Value) -> Result<(), Error> {
        Ok(())
    }
    pub async fn post(&self, _n: &str, _m: &[NewMessage]) -> Result<Vec<String>, Error> {
        Ok(vec![])
    }
    pub async fn claim(&self, _n: &str, _l: u32, _t: u32, _g: u32) -> Result<Option<Claim>, Error> {
        Ok(None)
    }
    pub async fn delete_claimed(&self, _n: &str, _ids: &[&str], _c: &str) -> Result<(), Error> {
        Ok(())
    }
}
