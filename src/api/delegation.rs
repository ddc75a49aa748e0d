//! Leave to act for a caller on its project's own queues: asked for when a trigger is made, given back when it goes.

use async_trait::async_trait;

use super::error::{ApiError, Code};
use super::identity::{Caller, RawToken};
use crate::model::{Trigger, TriggerId};
use crate::store::{Direction, Page, PageRequest, Scope, Store, TriggerFilter, TriggerSort};
use crate::task::chain;

/// Who lets the service act.
#[derive(Clone, Copy, Debug)]
pub struct Delegator<'a> {
    /// The token of the request; none: there is no Keystone.
    pub token: Option<&'a str>,
    /// The user.
    pub user_id: Option<&'a str>,
    /// The project in which the service may act.
    pub project_id: &'a str,
}

/// Gets leave to act for others, and gives it back.
#[async_trait]
pub trait Delegation: Send + Sync + 'static {
    /// Makes a trust for a trigger; its id, or none where none is needed, because there is no Keystone.
    async fn create(&self, delegator: Delegator<'_>, trigger: TriggerId) -> Result<Option<String>, DelegationError>;

    /// Deletes a trust, whoever made it. One that is not there any more is no error.
    async fn delete(&self, trust_id: &str) -> Result<(), DelegationError>;
}

/// Where there is no Keystone: nobody has to be asked.
pub struct NoDelegation;

#[async_trait]
impl Delegation for NoDelegation {
    async fn create(&self, _: Delegator<'_>, _: TriggerId) -> Result<Option<String>, DelegationError> {
        Ok(None)
    }

    async fn delete(&self, _: &str) -> Result<(), DelegationError> {
        Ok(())
    }
}

/// Why there is no trust.
#[derive(Debug, thiserror::Error)]
pub enum DelegationError {
    /// Keystone does not let this caller make one: the token is itself delegated, or a role is missing.
    #[error("the caller may not make a trust")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Keystone did not answer: try again.
    #[error("Keystone is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The service cannot act on trusts: someone must look.
    #[error("the service cannot act on trusts")]
    Impossible(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<DelegationError> for ApiError {
    fn from(error: DelegationError) -> Self {
        match error {
            DelegationError::Refused(_) => Self::new(
                Code::TriggerNotDelegated,
                "make the trigger as a user of the project with a token of its own: one that was got with an application \
                 credential or through a trust cannot let others act, nor can a user who lacks the roles that the service \
                 needs on the queue",
            )
            .caused_by(error),
            DelegationError::Unavailable(_) => {
                Self::new(Code::IdentityUnavailable, "try again").retry_after(2).caused_by(error)
            }
            DelegationError::Impossible(_) => Self::internal(error),
        }
    }
}

/// The delegator of a request.
pub(super) fn delegator(caller: &Caller) -> Delegator<'_> {
    let token = caller.token().map(RawToken::expose);
    Delegator { token, user_id: caller.user_id(), project_id: caller.project().as_str() }
}

/// The trust of a trigger.
pub(super) fn trust_of(trigger: &Trigger) -> Option<&str> {
    trigger.queue.as_ref()?.trust_id.as_deref()
}

/// The trusts of a function's triggers.
pub(super) async fn trusts_of(
    store: &dyn Store,
    scope: &Scope,
    filter: &TriggerFilter,
) -> crate::store::Result<Vec<String>> {
    let mut trusts = Vec::new();
    let mut marker = None;
    loop {
        let (sort, direction) = (TriggerSort::CreatedAt, Direction::Ascending);
        let request = PageRequest { limit: 1000, marker, sort, direction };
        let Page { items, next } = store.triggers(scope, filter, &request).await?;
        trusts.extend(items.iter().filter_map(trust_of).map(str::to_owned));
        match next {
            Some(next) => marker = Some(next),
            None => return Ok(trusts),
        }
    }
}

/// Gives trusts back that nobody needs any more. What does not succeed now, a worker's round does later: it finds every
/// trust that names a trigger which is not there.
pub(super) async fn give_back(delegation: &dyn Delegation, trusts: &[String]) {
    for trust in trusts {
        if let Err(error) = delegation.delete(trust).await {
            let error = chain(&error);
            tracing::warn!(error, "a trust could not be deleted yet: {error}");
        }
    }
}
