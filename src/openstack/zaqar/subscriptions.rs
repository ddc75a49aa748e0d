//! Webhooks: Zaqar posts to an address when a message comes to a queue. A hint and nothing more: it may come late, twice or
//! not at all, and the message stays where it is.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Client, Held, SERVICE, request, with_json};
use crate::openstack::OpenStackError;

impl Client {
    /// Has an address called for each message of a queue, for as long as `ttl` (60 s at least); the subscription's id.
    /// [`OpenStackError::Conflict`] when the address is subscribed already.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn subscribe(&self, queue: &str, address: &str, ttl: Duration) -> Result<String, OpenStackError> {
        #[derive(Deserialize)]
        struct Body {
            subscription_id: String,
        }
        let body = json!({"subscriber": address, "ttl": ttl.as_secs(), "options": {}});
        let request = request("subscribe", Method::POST, queue, &["subscriptions"], true);
        let answer = self.session.send(&with_json(request, body.to_string())).await?;
        let body: Body = serde_json::from_slice(&answer.body)
            .map_err(|_| OpenStackError::protocol(SERVICE.name(), "to a subscription: no id"))?;
        Ok(body.subscription_id)
    }

    /// Makes a subscription last `ttl` from now. [`Held::Lost`] when it is not there any more.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn renew_subscription(&self, queue: &str, id: &str, ttl: Duration) -> Result<Held, OpenStackError> {
        let request = request("renew_subscription", Method::PATCH, queue, &["subscriptions", id], true);
        match self.session.send(&with_json(request, json!({"ttl": ttl.as_secs()}).to_string())).await {
            Ok(_) => Ok(Held::Done),
            Err(OpenStackError::NotFound(_)) => Ok(Held::Lost),
            Err(error) => Err(error),
        }
    }

    /// Ends a subscription. Succeeds when it is not there any more.
    ///
    /// # Errors
    /// See [`OpenStackError`].
    pub async fn unsubscribe(&self, queue: &str, id: &str) -> Result<(), OpenStackError> {
        match self.session.send(&request("unsubscribe", Method::DELETE, queue, &["subscriptions", id], true)).await {
            Ok(_) | Err(OpenStackError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
