//! Has instances made and removed: carries the dispatcher's decisions to the driver, and watches what the driver sees.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::dispatch::{Dispatch, Event};
use super::gateway::{Gateway, random_secret};
use crate::clock;
use crate::driver::{Driver, DriverError, GatewayAccess, InstanceSpec, Observed};
use crate::model::instance::{Instance, InstanceState};
use crate::model::runtime::RuntimeName;
use crate::model::{InstanceId, ProjectId, WorkerId};
use crate::store::Store;
use crate::task::{Tasks, chain};

/// Calls of the driver under way at the same time.
const CALLS: usize = 8;
/// Time for one call of the driver.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How often the driver is asked what became of the instances.
const WATCH: Duration = Duration::from_secs(1);
/// How often a deletion is tried before it is left to the reaper.
const DELETE_TRIES: u32 = 5;

/// Carries out boots and deletions. Clones share it.
#[derive(Clone)]
pub struct FleetHandle {
    shared: Arc<Shared>,
}

struct Shared {
    me: WorkerId,
    gateway_address: SocketAddr,
    driver: Arc<dyn Driver>,
    store: Arc<dyn Store>,
    gateway: Gateway,
    dispatch: Dispatch,
    tasks: Tasks,
    calls: Semaphore,
}

impl FleetHandle {
    /// A fleet of the worker `me`, whose agents dial `gateway_address`.
    #[must_use]
    pub fn new(
        me: WorkerId,
        gateway_address: SocketAddr,
        driver: Arc<dyn Driver>,
        store: Arc<dyn Store>,
        gateway: Gateway,
        dispatch: Dispatch,
        tasks: Tasks,
    ) -> Self {
        let calls = Semaphore::new(CALLS);
        let shared = Shared { me, gateway_address, driver, store, gateway, dispatch, tasks, calls };
        Self { shared: Arc::new(shared) }
    }

    /// Has an instance booted. What comes of it, the dispatcher hears from the gateway or as an event.
    pub fn boot(&self, id: InstanceId, project_id: ProjectId, memory_mib: u32) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.run("instance boot", async move {
            if let Err(why) = shared.boot(id, project_id, memory_mib).await {
                shared.dispatch.tell(Event::BootFailed(id, why)).await;
            }
        });
    }

    /// Has an instance deleted.
    pub fn delete(&self, id: InstanceId) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.run("instance deletion", async move { shared.delete(id).await });
    }

    /// Watches what the driver sees of this worker's instances, until cancelled.
    ///
    /// # Errors
    /// Never: what goes wrong is logged and looked at again.
    pub async fn watch(self, cancel: CancellationToken) -> Result<(), std::convert::Infallible> {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(WATCH) => {}
            }
            for id in self.shared.gateway.expected() {
                match tokio::time::timeout(CALL_TIMEOUT, self.shared.driver.observe(id)).await {
                    Ok(Ok(Observed::Stopped(why) | Observed::Refused(_, why))) => {
                        self.shared.dispatch.tell(Event::InstanceLost(id, why)).await;
                    }
                    // Absent may be a boot that has not begun yet; a boot that never ends is the dispatcher's to notice.
                    Ok(Ok(Observed::Absent | Observed::Building | Observed::Active)) => {}
                    Ok(Err(error)) => {
                        let error = chain(&error);
                        tracing::warn!(instance.id = %id, error, "instance {id} cannot be observed: {error}");
                    }
                    Err(_) => tracing::warn!(instance.id = %id, "the driver does not answer about instance {id}"),
                }
            }
        }
    }

    /// Deletes every instance of this worker and waits until that is done: the end of a worker.
    pub async fn delete_all(&self) {
        let ids = self.shared.gateway.expected();
        futures::future::join_all(ids.into_iter().map(|id| self.shared.delete(id))).await;
    }
}

impl Shared {
    async fn boot(&self, id: InstanceId, project_id: ProjectId, memory_mib: u32) -> Result<(), String> {
        let token = random_secret();
        // Written down and expected before it is asked for: a crash in between leaves a trace, not an orphan.
        let instance = Instance {
            id,
            project_id: project_id.clone(),
            worker: self.me,
            driver: self.driver.name().to_owned(),
            state: InstanceState::Booting,
            memory_mib,
            sandboxes: 0,
            created_at: clock::now(),
            ready_at: None,
            error: None,
        };
        self.store.put_instance(&instance).await.map_err(|error| chain(&error))?;
        self.gateway.expect(id, token.clone());
        let is_here = self.gateway_address.ip().is_loopback();
        let fingerprint = (!is_here).then(|| self.gateway.fingerprint().to_string());
        let gateway = GatewayAccess { address: self.gateway_address, fingerprint };
        let runtime = RuntimeName::parse("python3").map_err(|invalid| invalid.to_string())?;
        let spec = InstanceSpec { id, project_id, function_id: None, runtime, memory_mib, gateway, token };
        let _call = self.calls.acquire().await.map_err(|closed| closed.to_string())?;
        match tokio::time::timeout(CALL_TIMEOUT, self.driver.create(&spec)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(chain(&error)),
            Err(_) => return Err("the driver did not answer in time".to_owned()),
        }
        let active = Instance { state: InstanceState::Active, ready_at: Some(clock::now()), ..instance };
        self.gateway.seen(id).await;
        if let Err(error) = self.store.put_instance(&active).await {
            let error = chain(&error);
            tracing::warn!(instance.id = %id, error, "the record of instance {id} is behind: {error}");
        }
        Ok(())
    }

    async fn delete(&self, id: InstanceId) {
        self.gateway.dismiss(id);
        let mut pause = Duration::from_millis(200);
        for _ in 0..DELETE_TRIES {
            match self.try_delete(id).await {
                Ok(()) => {
                    if let Err(error) = self.store.delete_instance(id).await {
                        let error = chain(&error);
                        tracing::warn!(instance.id = %id, error, "instance {id} is gone, its record is not: {error}");
                    }
                    self.dispatch.tell(Event::InstanceGone(id)).await;
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
        self.dispatch.tell(Event::InstanceGone(id)).await;
    }

    async fn try_delete(&self, id: InstanceId) -> Result<(), DriverError> {
        match tokio::time::timeout(CALL_TIMEOUT, self.driver.delete(id)).await {
            Ok(result) => result,
            Err(_) => Err(DriverError::Unavailable("the driver did not answer in time".into())),
        }
    }
}
