//! Trusts that were made for us, seen as Keystone has them and not as we remember them: each names its deployment and its
//! trigger. One whose trigger is not there is given back, whatever crashed in between; on one that is not there any more
//! nothing is done from that moment on, long before a service's own cache of tokens would see it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::queues::ProjectQueues;
use crate::model::{DeploymentId, Trigger};
use crate::openstack::keystone::{self, Trust};
use crate::store::Store;
use crate::task::{TaskError, chain};

/// What the task works with.
pub struct Trusts {
    /// Keystone.
    pub keystone: keystone::Client,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The ways that use trusts.
    pub access: ProjectQueues,
    /// Whose trusts are ours.
    pub deployment: DeploymentId,
    /// Between two rounds. A trust without trigger is given back in the second round that finds it so: the first may have
    /// come between the making of the two, which takes less.
    pub interval: Duration,
}

impl Trusts {
    /// Goes round until cancelled.
    ///
    /// # Errors
    /// When Keystone or the store does not answer: the supervisor starts it again, the next round is the retry.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), TaskError> {
        let mut suspected = BTreeSet::new();
        loop {
            suspected = self.round(&suspected).await?;
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    /// One round; the trusts that had no trigger in it.
    async fn round(&self, suspected: &BTreeSet<String>) -> Result<BTreeSet<String>, TaskError> {
        let trusts = self.keystone.trusts_to_us().await?;
        // After the trusts: a trust that is there has its trigger by now, or will never have it, or is very young.
        let triggers = self.store.queue_triggers().await?;
        self.access.keep_only(&trusts.iter().map(|trust| trust.id.as_str()).collect());
        let orphans = orphans(self.deployment, &trusts, &triggers);
        for trust in orphans.intersection(suspected) {
            match self.keystone.give_up_trust(trust).await {
                Ok(()) => tracing::info!("a trust without trigger is given back"),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "a trust without trigger cannot be given back yet: {error}");
                }
            }
        }
        Ok(orphans)
    }
}

/// Those of our trusts that no trigger has.
fn orphans(deployment: DeploymentId, trusts: &[Trust], triggers: &[Trigger]) -> BTreeSet<String> {
    let ours = deployment.to_string();
    let held: BTreeSet<&str> =
        triggers.iter().filter_map(|trigger| trigger.queue.as_ref()?.trust_id.as_deref()).collect();
    trusts
        .iter()
        .filter(|trust| trust.lambda_deployment.as_deref() == Some(ours.as_str()))
        .filter(|trust| !held.contains(trust.id.as_str()))
        .map(|trust| trust.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_of_another_deployment_or_of_nobody_is_none_of_ours() {
        let deployment = DeploymentId::generate();
        let trust = |id: &str, of: Option<DeploymentId>| Trust {
            id: id.to_owned(),
            trustor_user_id: "u".to_owned(),
            trustee_user_id: "s".to_owned(),
            project_id: None,
            lambda_deployment: of.map(|of| of.to_string()),
            lambda_trigger: None,
        };
        let trusts = [trust("a", Some(deployment)), trust("b", Some(DeploymentId::generate())), trust("c", None)];
        assert_eq!(orphans(deployment, &trusts, &[]), BTreeSet::from(["a".to_owned()]));
    }
}
