//! Trusts through Keystone: how the service gets leave to act on projects' own queues, and how it acts on it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{Cloud, ServiceError};
use crate::api::{Delegation, DelegationError, Delegator, NoDelegation};
use crate::model::{DeploymentId, TriggerId};
use crate::openstack::OpenStackError;
use crate::openstack::keystone::{self, NewTrust, TrustLabels};
use crate::store::Store;

/// Trusts with these roles.
struct Trusts {
    keystone: keystone::Client,
    store: Arc<dyn Store>,
    deployment: OnceCell<DeploymentId>,
    roles: Vec<String>,
}

#[async_trait]
impl Delegation for Trusts {
    async fn create(&self, delegator: Delegator<'_>, trigger: TriggerId) -> Result<Option<String>, DelegationError> {
        let (Some(token), Some(user_id)) = (delegator.token, delegator.user_id) else {
            return Err(DelegationError::Impossible("the request came without a token".into()));
        };
        let deployment = self.deployment.get_or_try_init(|| self.store.deployment()).await;
        let deployment = deployment.map_err(|error| DelegationError::Unavailable(error.into()))?;
        let me = self.keystone.auth().user_id().await.map_err(ours)?;
        let trust = NewTrust {
            trustor_user_id: user_id.to_owned(),
            trustee_user_id: me,
            project_id: delegator.project_id.to_owned(),
            roles: self.roles.clone(),
        };
        let labels =
            TrustLabels { lambda_deployment: Some(deployment.to_string()), lambda_trigger: Some(trigger.to_string()) };
        match self.keystone.create_labelled_trust(token, &trust, &labels).await {
            Ok(trust) => Ok(Some(trust.id)),
            Err(error) if error.retryable() => Err(DelegationError::Unavailable(error.into())),
            // Not found: one of the roles, which the caller has not.
            Err(error) => Err(DelegationError::Refused(error.into())),
        }
    }

    async fn delete(&self, trust_id: &str) -> Result<(), DelegationError> {
        self.keystone.give_up_trust(trust_id).await.map_err(ours)
    }
}

fn ours(error: OpenStackError) -> DelegationError {
    if error.retryable() {
        DelegationError::Unavailable(error.into())
    } else {
        DelegationError::Impossible(error.into())
    }
}

/// How the API gets leave to act on projects' own queues.
///
/// # Errors
/// When an option does not do.
pub fn delegation(
    cloud: &Cloud,
    roles: &[String],
    store: &Arc<dyn Store>,
) -> Result<Arc<dyn Delegation>, ServiceError> {
    let Some(keystone) = cloud.keystone()? else { return Ok(Arc::new(NoDelegation)) };
    let (store, deployment) = (Arc::clone(store), OnceCell::new());
    Ok(Arc::new(Trusts { keystone, store, deployment, roles: roles.to_vec() }))
}
