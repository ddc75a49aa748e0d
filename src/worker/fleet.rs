//! Has instances made and removed: carries the dispatcher's decisions to the driver, and watches what the driver sees.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lambda_agent::address::GatewayAddress;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::dispatch::{Boot, BootFailure, Dispatch, Event};
use super::gateway::{Gateway, random_secret};
use crate::clock;
use crate::driver::{Driver, DriverError, GatewayAccess, InstanceSpec, Observed, Refusal};
use crate::model::execution::WaitingFor;
use crate::model::instance::{Instance, InstanceState, Isolation};
use crate::model::{InstanceId, WorkerId};
use crate::scheduler::fleet::Holder;
use crate::scheduler::offer::Offer;
use crate::scheduler::pool::PoolTerms;
use crate::store::Store;
use crate::task::{Tasks, chain};

/// Calls of the driver under way at the same time.
const CALLS: usize = 8;
/// Time for one call of the driver.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for what is only to be known.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a deletion is tried before it is left to the reaper.
const DELETE_TRIES: u32 = 5;

/// A driver and on which terms it is used.
#[derive(Clone)]
pub struct DriverSetup {
    /// What separates its instances from others.
    pub isolation: Isolation,
    /// The driver.
    pub driver: Arc<dyn Driver>,
    /// The bounds.
    pub offer: Offer,
    /// Its instances that are kept ready.
    pub pools: Vec<PoolTerms>,
    /// Where its agents dial; none: at the gateway's own address.
    pub gateway: Option<GatewayAddress>,
    /// How often it is asked what became of its instances.
    pub watch: Duration,
}

/// What the fleet makes instances with.
#[derive(Clone)]
pub struct Maker {
    /// The driver.
    pub driver: Arc<dyn Driver>,
    /// Where its agents dial.
    pub gateway: GatewayAccess,
    /// How often it is asked what became of its instances.
    pub watch: Duration,
}

/// Carries out boots and deletions. Clones share it.
#[derive(Clone)]
pub struct FleetHandle {
    shared: Arc<Shared>,
}

struct Shared {
    me: WorkerId,
    makers: BTreeMap<Isolation, Maker>,
    /// What was asked for and is not gone yet, by the kind of its driver.
    booted: Mutex<HashMap<InstanceId, Booted>>,
    store: Arc<dyn Store>,
    gateway: Gateway,
    dispatch: Dispatch,
    tasks: Tasks,
    calls: Semaphore,
}

/// An instance that was asked for.
struct Booted {
    isolation: Isolation,
    /// Whether it is to go: a boot that has not asked the cloud yet does not any more.
    is_unwanted: bool,
    /// Closed when the cloud has answered the boot. Deleting what is just being asked for would find nothing, and leave it.
    asked: watch::Receiver<()>,
    /// As the store has it, or is about to.
    record: Instance,
}

impl FleetHandle {
    /// A fleet of the worker `me`, made by these drivers.
    #[must_use]
    pub fn new(
        me: WorkerId,
        makers: BTreeMap<Isolation, Maker>,
        store: Arc<dyn Store>,
        gateway: Gateway,
        dispatch: Dispatch,
        tasks: Tasks,
    ) -> Self {
        let calls = Semaphore::new(CALLS);
        let shared = Shared { me, makers, booted: Mutex::default(), store, gateway, dispatch, tasks, calls };
        Self { shared: Arc::new(shared) }
    }

    /// Has an instance booted. What comes of it, the dispatcher hears from the gateway or as an event.
    pub fn boot(&self, boot: Boot) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.run("instance boot", async move {
            let id = boot.id;
            if let Err(failure) = shared.boot(boot).await {
                shared.dispatch.tell(Event::BootFailed(id, failure)).await;
            }
        });
    }

    /// Has an instance deleted.
    pub fn delete(&self, id: InstanceId) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.run("instance deletion", async move { shared.delete(id).await });
    }

    /// Notes whose an instance of the pool is from now on.
    pub fn claim(&self, id: InstanceId, holder: Holder) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.run("instance claim", async move {
            shared
                .note(id, |record| {
                    record.project_id = holder.project().cloned();
                    record.function_id = holder.function();
                })
                .await;
        });
    }

    /// The kinds of instances that it has made.
    pub fn isolations(&self) -> Vec<Isolation> {
        self.shared.makers.keys().copied().collect()
    }

    /// Watches what a driver sees of this worker's instances, until cancelled.
    ///
    /// # Errors
    /// Never: what goes wrong is logged and looked at again.
    pub async fn watch(self, isolation: Isolation, cancel: CancellationToken) -> Result<(), std::convert::Infallible> {
        let Some(maker) = self.shared.makers.get(&isolation) else {
            cancel.cancelled().await;
            return Ok(());
        };
        let name = maker.driver.name();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(maker.watch) => {}
            }
            let ids = self.shared.made_by(isolation);
            if ids.is_empty() {
                continue;
            }
            match tokio::time::timeout(CALL_TIMEOUT, maker.driver.observe_all(&ids)).await {
                Ok(Ok(observed)) => {
                    for (id, observed) in observed {
                        self.shared.report(id, observed).await;
                    }
                }
                Ok(Err(error)) => {
                    let error = chain(&error);
                    tracing::warn!(driver = name, error, "the instances of driver {name} cannot be observed: {error}");
                }
                Err(_) => tracing::warn!(driver = name, "driver {name} does not say how its instances are"),
            }
        }
    }

    /// Deletes every instance of this worker and waits until that is done: the end of a worker.
    pub async fn delete_all(&self) {
        let ids: Vec<_> = self.shared.booted().keys().copied().collect();
        futures::future::join_all(ids.into_iter().map(|id| self.shared.delete(id))).await;
    }
}

impl Shared {
    fn made_by(&self, isolation: Isolation) -> Vec<InstanceId> {
        let booted = self.booted();
        booted.iter().filter(|(_, booted)| booted.isolation == isolation).map(|(id, _)| *id).collect()
    }

    /// Tells the dispatcher what became of an instance, if anything did.
    async fn report(&self, id: InstanceId, observed: Observed) {
        // One that is dismissed is on its way out: that it goes is no news.
        if !self.gateway.expects(id) {
            return;
        }
        let event = match observed {
            Observed::Stopped(why) => Event::InstanceLost(id, why),
            Observed::Refused(refusal, text) => {
                Event::BootFailed(id, BootFailure { waiting_for: waiting_for(refusal), text })
            }
            // Absent may be a boot that has not begun yet; a boot that never ends is the dispatcher's to notice.
            Observed::Absent | Observed::Building | Observed::Active => return,
        };
        self.dispatch.tell(event).await;
    }

    async fn boot(&self, boot: Boot) -> Result<(), BootFailure> {
        let Boot { id, purpose, runtime, memory_mib } = boot;
        let cloud = |text: String| BootFailure { waiting_for: WaitingFor::Cloud, text };
        let maker = self.makers.get(&purpose.isolation).ok_or_else(|| BootFailure {
            waiting_for: WaitingFor::Operator,
            text: format!("there is no driver for isolation '{}'", purpose.isolation),
        })?;
        let token = random_secret();
        // Written down and expected before it is asked for: a crash in between leaves a trace, not an orphan.
        let instance = Instance {
            id,
            project_id: purpose.holder.project().cloned(),
            function_id: purpose.holder.function(),
            worker: self.me,
            driver: maker.driver.name().to_owned(),
            state: InstanceState::Booting,
            memory_mib,
            sandboxes: 0,
            created_at: clock::now(),
            ready_at: None,
            error: None,
        };
        let (asking, asked) = watch::channel(());
        let booted = Booted { isolation: purpose.isolation, is_unwanted: false, asked, record: instance.clone() };
        self.booted().insert(id, booted);
        self.store.put_instance(&instance).await.map_err(|error| cloud(chain(&error)))?;
        self.gateway.expect(id, token.clone());
        let (project_id, function_id) = (instance.project_id, instance.function_id);
        let gateway = maker.gateway.clone();
        let spec = InstanceSpec { id, project_id, function_id, runtime, memory_mib, gateway, token };
        {
            let _call = self.calls.acquire().await.map_err(|closed| cloud(closed.to_string()))?;
            if self.booted().get(&id).is_none_or(|booted| booted.is_unwanted) {
                return Ok(());
            }
            match tokio::time::timeout(CALL_TIMEOUT, maker.driver.create(&spec)).await {
                Ok(Ok(())) => {}
                Ok(Err(DriverError::Refused { refusal, text })) => {
                    return Err(BootFailure { waiting_for: waiting_for(refusal), text });
                }
                Ok(Err(error)) => return Err(cloud(chain(&error))),
                Err(_) => return Err(cloud("the driver did not answer in time".to_owned())),
            }
        }
        drop(asking);
        if !self.gateway.seen(id).await {
            return Ok(()); // It is on its way out already.
        }
        self.note(id, |record| {
            record.state = InstanceState::Active;
            record.ready_at = Some(clock::now());
        })
        .await;
        Ok(())
    }

    /// Changes an instance's record here and in the store. Two changes may be written in either order: who finds that the
    /// record is not what it wrote any more writes it again.
    async fn note(&self, id: InstanceId, change: impl FnOnce(&mut Instance)) {
        let record = || {
            let booted = self.booted();
            booted.get(&id).map(|booted| booted.record.clone())
        };
        if let Some(booted) = self.booted().get_mut(&id) {
            change(&mut booted.record);
        }
        let mut written = None;
        while let Some(next) = record()
            && written.as_ref() != Some(&next)
        {
            if let Err(error) = self.store.put_instance(&next).await {
                let error = chain(&error);
                tracing::warn!(instance.id = %id, error, "the record of instance {id} is behind: {error}");
                return;
            }
            written = Some(next);
        }
        if written.is_some() && record().is_none() {
            // It went while its record was written.
            self.forget(id).await;
        }
    }

    async fn forget(&self, id: InstanceId) {
        if let Err(error) = self.store.delete_instance(id).await {
            let error = chain(&error);
            tracing::warn!(instance.id = %id, error, "instance {id} is gone, its record is not: {error}");
        }
    }

    fn booted(&self) -> MutexGuard<'_, HashMap<InstanceId, Booted>> {
        self.booted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a boot that is under way end: none is asked for any more, and one that is being asked for is waited for.
    async fn call_off(&self, id: InstanceId) {
        let asked = self.booted().get_mut(&id).map(|booted| {
            booted.is_unwanted = true;
            booted.asked.clone()
        });
        if let Some(mut asked) = asked {
            // Closed when it is answered; nothing is ever sent.
            let _ = tokio::time::timeout(CALL_TIMEOUT, asked.changed()).await;
        }
    }

    async fn delete(&self, id: InstanceId) {
        self.call_off(id).await;
        let has_called = self.gateway.has_called(id);
        self.gateway.dismiss(id);
        if !has_called {
            self.explain(id).await;
        }
        let mut pause = Duration::from_millis(200);
        for _ in 0..DELETE_TRIES {
            match self.try_delete(id).await {
                Ok(()) => {
                    self.gone(id).await;
                    self.forget(id).await;
                    return;
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(instance.id = %id, error, "instance {id} cannot be deleted yet: {error}");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        // The reaper finds it by its tag: nobody owns it any more.
        tracing::error!(instance.id = %id, "instance {id} is left to the reaper");
        self.gone(id).await;
    }

    async fn gone(&self, id: InstanceId) {
        self.booted().remove(&id);
        self.dispatch.tell(Event::InstanceGone(id)).await;
    }

    /// Logs what the driver can tell of an instance whose agent has never called, before it is gone.
    async fn explain(&self, id: InstanceId) {
        let Some(maker) = self.maker_of(id) else { return };
        if tracing::enabled!(tracing::Level::DEBUG)
            && let Ok(Some(text)) = tokio::time::timeout(EXPLAIN_TIMEOUT, maker.driver.explain(id)).await
        {
            tracing::debug!(instance.id = %id, "the agent of instance {id} never called; its console ends with:\n{text}");
        }
    }

    fn maker_of(&self, id: InstanceId) -> Option<&Maker> {
        let booted = self.booted();
        self.makers.get(&booted.get(&id)?.isolation)
    }

    async fn try_delete(&self, id: InstanceId) -> Result<(), DriverError> {
        // One that was never asked for is gone.
        let Some(maker) = self.maker_of(id) else { return Ok(()) };
        match tokio::time::timeout(CALL_TIMEOUT, maker.driver.delete(id)).await {
            Ok(result) => result,
            Err(_) => Err(DriverError::Unavailable("the driver did not answer in time".into())),
        }
    }
}

/// What everything waits for that needs an instance which a cloud does not give.
const fn waiting_for(refusal: Refusal) -> WaitingFor {
    match refusal {
        Refusal::Capacity => WaitingFor::Capacity,
        Refusal::Quota => WaitingFor::Quota,
        Refusal::Misconfigured => WaitingFor::Operator,
    }
}

#[cfg(test)]
mod tests;
