//! The ways to projects' own queues, one for each trust, kept because each has a token of its own.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::ProjectId;
use crate::openstack::OpenStackError;
use crate::openstack::zaqar;

/// Most ways kept. Beyond it all are made anew.
const KEPT: usize = 10_000;

/// Makes the way to a project's queues: through a trust, or without one where there is no Keystone.
pub type MakeClient = dyn Fn(&ProjectId, Option<&str>) -> Result<zaqar::Client, OpenStackError> + Send + Sync;

/// The ways. Clones share them.
#[derive(Clone)]
pub struct ProjectQueues {
    make: Arc<MakeClient>,
    kept: Arc<Mutex<Kept>>,
}

type Kept = HashMap<(ProjectId, Option<String>), zaqar::Client>;

impl fmt::Debug for ProjectQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectQueues").finish_non_exhaustive()
    }
}

impl ProjectQueues {
    /// None yet.
    #[must_use]
    pub fn new(make: Arc<MakeClient>) -> Self {
        Self { make, kept: Arc::default() }
    }

    /// Forgets the ways through all trusts but these, with the tokens that were got on them.
    pub fn keep_only(&self, trusts: &BTreeSet<&str>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, trust), _| trust.as_deref().is_none_or(|trust| trusts.contains(trust)));
    }

    /// The way to a project's queues.
    ///
    /// # Errors
    /// When there is none, for want of a trust.
    pub fn client(&self, project: &ProjectId, trust_id: Option<&str>) -> Result<zaqar::Client, OpenStackError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (project.clone(), trust_id.map(str::to_owned));
        if let Some(client) = kept.get(&key) {
            return Ok(client.clone());
        }
        let client = (self.make)(project, trust_id)?;
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, client.clone());
        Ok(client)
    }
}
