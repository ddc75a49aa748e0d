//! Wake-ups: Zaqar calls an address of ours when a message comes to a queue that we look at, so that a queue that is
//! looked at seldom is looked at in time. A call is a hint and carries nothing that is believed. The address of each queue
//! has a code that nobody can guess and that is good for this queue and this run of the worker only: a project that sees
//! the address of its own queue can wake nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::queues::ProjectQueues;
use crate::model::trigger::queue::{QueueKey, SourceQueue};
use crate::model::{ProjectId, WorkerId};
use crate::openstack::OpenStackError;
use crate::openstack::zaqar::{self, Held};
use crate::store::{Store, StoreError};
use crate::task::chain;

/// How long a subscription lasts, should nobody end it. Zaqar takes no less than a minute.
const TTL: Duration = Duration::from_secs(120);
/// Between two rounds of renewals.
const ROUND: Duration = Duration::from_secs(30);

/// Has queues looked at, now. Clones share it.
#[derive(Clone, Debug)]
pub struct Wakes {
    platform: Arc<Notify>,
    own: mpsc::Sender<QueueKey>,
}

impl Wakes {
    /// `platform` is notified for the platform's queue, `own` gets the names of the others.
    #[must_use]
    pub const fn new(platform: Arc<Notify>, own: mpsc::Sender<QueueKey>) -> Self {
        Self { platform, own }
    }

    /// Something came to the platform's queue.
    pub fn platform(&self) {
        self.platform.notify_one();
    }

    /// Something came to a project's own queue, should it be looked at here.
    pub fn own(&self, project: &str, queue: &str) {
        if let (Ok(project_id), Ok(queue)) = (ProjectId::parse(project), SourceQueue::parse(queue)) {
            self.key(QueueKey { project_id, queue });
        }
    }

    fn key(&self, key: QueueKey) {
        // A hint that finds no room is not missed: the queue is looked at a little later.
        let _ = self.own.try_send(key);
    }
}

/// Hears the calls. Clones share it.
#[derive(Clone)]
pub struct Bell {
    base: Arc<str>,
    secret: Arc<str>,
    wakes: Wakes,
}

impl Bell {
    /// `base` is the address at which Zaqar reaches whoever hands us its calls.
    #[must_use]
    pub fn new(base: &str, secret: &str, wakes: Wakes) -> Self {
        Self { base: base.trim_end_matches('/').into(), secret: secret.into(), wakes }
    }

    /// Somebody has called `/{code}` (the platform's queue) or `/{code}/{project}/{queue}`. The answer is the same whether
    /// we believed it or not.
    pub fn ring(&self, code: &str, own: Option<(&str, &str)>) {
        let key = own.map(|(project, queue)| Some((ProjectId::parse(project).ok()?, SourceQueue::parse(queue).ok()?)));
        match key {
            None if self.is_code(code, None) => self.wakes.platform(),
            Some(Some((project_id, queue))) => {
                let key = QueueKey { project_id, queue };
                if self.is_code(code, Some(&key)) {
                    self.wakes.key(key);
                }
            }
            None | Some(None) => {}
        }
    }

    /// The address of a queue; none: of the platform's.
    fn address(&self, key: Option<&QueueKey>) -> String {
        let (base, code) = (&self.base, self.code(key));
        match key {
            Some(key) => format!("{base}/{code}/{key}"),
            None => format!("{base}/{code}"),
        }
    }

    fn code(&self, key: Option<&QueueKey>) -> String {
        // The secret is of fixed length and known to nobody: nothing can be appended to what was hashed.
        let queue = key.map(QueueKey::to_string).unwrap_or_default();
        let inner = Sha256::digest(format!("{}\n{queue}", self.secret));
        let outer = Sha256::new().chain_update(self.secret.as_bytes()).chain_update(inner).finalize();
        outer.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn is_code(&self, code: &str, key: Option<&QueueKey>) -> bool {
        let known = self.code(key);
        code.len() == known.len()
            && code.bytes().zip(known.bytes()).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
    }
}

/// Keeps Zaqar calling for the queues that this worker looks at.
pub struct Subscriptions {
    /// This worker.
    pub me: WorkerId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The platform's queue and the way to it.
    pub platform: (zaqar::Client, String),
    /// The ways to projects' own queues.
    pub access: ProjectQueues,
    /// Whose addresses Zaqar calls.
    pub bell: Bell,
}

/// A subscription that stands.
struct Standing {
    client: zaqar::Client,
    queue: String,
    id: String,
}

impl Subscriptions {
    /// Subscribes and renews until cancelled, and then ends what stands. What cannot be subscribed is looked at by the
    /// clock alone.
    ///
    /// # Errors
    /// None.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<(), StoreError> {
        let mut standing: BTreeMap<Option<QueueKey>, Standing> = BTreeMap::new();
        while !cancel.is_cancelled() {
            match self.wanted().await {
                Ok(wanted) => self.round(&mut standing, wanted).await,
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "which queues there are to subscribe to cannot be read: {error}");
                }
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(ROUND) => {}
            }
        }
        for (_, gone) in standing {
            end(gone).await;
        }
        Ok(())
    }

    /// The queues that this worker looks at, each with a way to it.
    async fn wanted(&self) -> Result<BTreeMap<Option<QueueKey>, (zaqar::Client, String)>, StoreError> {
        let mut wanted = BTreeMap::from([(None, self.platform.clone())]);
        let owners: BTreeMap<_, _> = self.store.queue_owners().await?.into_iter().collect();
        for trigger in self.store.queue_triggers().await? {
            let Some(key) = trigger.queue_key().filter(|key| owners.get(key) == Some(&self.me)) else { continue };
            let trust_id = trigger.queue.as_ref().and_then(|queue| queue.trust_id.as_deref());
            if let Ok(client) = self.access.client(&key.project_id, trust_id) {
                let queue = key.queue.to_string();
                wanted.entry(Some(key)).or_insert((client, queue));
            }
        }
        Ok(wanted)
    }

    async fn round(
        &self,
        standing: &mut BTreeMap<Option<QueueKey>, Standing>,
        wanted: BTreeMap<Option<QueueKey>, (zaqar::Client, String)>,
    ) {
        let gone: Vec<_> = standing.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in gone {
            if let Some(gone) = standing.remove(&key) {
                end(gone).await;
            }
        }
        for (key, (client, queue)) in wanted {
            let known = standing.get(&key).map(|known| known.id.clone());
            match self.keep(&client, &queue, key.as_ref(), known).await {
                Ok(id) => {
                    standing.insert(key, Standing { client, queue, id });
                }
                Err(error) => {
                    standing.remove(&key);
                    let error = chain(&error);
                    tracing::debug!(queue, error, "queue {queue} cannot be subscribed to: {error}");
                }
            }
        }
    }

    /// Renews a subscription, or makes it; its id.
    async fn keep(
        &self,
        client: &zaqar::Client,
        queue: &str,
        key: Option<&QueueKey>,
        known: Option<String>,
    ) -> Result<String, OpenStackError> {
        if let Some(id) = known
            && client.renew_subscription(queue, &id, TTL).await? == Held::Done
        {
            return Ok(id);
        }
        client.subscribe(queue, &self.bell.address(key), TTL).await
    }
}

async fn end(gone: Standing) {
    if let Err(error) = gone.client.unsubscribe(&gone.queue, &gone.id).await {
        let error = chain(&error);
        tracing::debug!(error, "a subscription could not be ended, it ends by itself: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_wakes_the_queue_whose_code_it_has_and_no_other() {
        let (own, mut heard) = mpsc::channel(4);
        let platform = Arc::new(Notify::new());
        let bell = Bell::new("http://w:1/", "secret", Wakes::new(Arc::clone(&platform), own));
        let key = |queue: &str| QueueKey {
            project_id: ProjectId::parse("p").unwrap(),
            queue: SourceQueue::parse(queue).unwrap(),
        };
        let address = bell.address(Some(&key("a")));
        let code = address.strip_prefix("http://w:1/").unwrap().strip_suffix("/p/a").unwrap();
        for (code, own) in [(code, Some(("p", "b"))), (code, None), ("", Some(("p", "a"))), (code, Some(("p/", "a")))] {
            bell.ring(code, own);
        }
        assert!(heard.try_recv().is_err());
        bell.ring(code, Some(("p", "a")));
        assert_eq!(heard.try_recv().unwrap(), key("a"));
        bell.ring(bell.address(None).strip_prefix("http://w:1/").unwrap(), None);
        platform.notified().await;
    }
}
