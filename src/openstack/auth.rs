//! What a session needs of a way to authenticate, beside what osauth asks of it.

use async_trait::async_trait;
use osauth::{AuthType, Error};
use reqwest::header::HeaderMap;

/// A way to authenticate whose token can be replaced when a service does not take it.
#[async_trait]
pub trait Auth: AuthType {
    /// A service refused a request that was `sent` with these headers. Makes sure that the next one is sent with others;
    /// of many callers that were refused with the same token, one renews it. An error: there is no point in another
    /// try.
    async fn replace(&self, sent: &HeaderMap) -> Result<(), Error>;
}
