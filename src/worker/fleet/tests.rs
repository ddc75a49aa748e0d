//! Boots and deletions that meet.

use std::collections::HashSet;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::model::ProjectId;
use crate::model::runtime::RuntimeName;
use crate::scheduler::fleet::Purpose;
use crate::store::sqlite::SqliteStore;
use crate::worker::dispatch::Load;
use crate::worker::gateway::Parts;

/// A cloud that answers an order only when it is let: what is ordered is not to be found before.
#[derive(Default)]
struct SlowCloud {
    there: Mutex<HashSet<InstanceId>>,
    asked: Notify,
    let_answer: Notify,
    answered: Notify,
}

#[async_trait]
impl Driver for SlowCloud {
    fn name(&self) -> &'static str {
        "slow"
    }

    async fn create(&self, spec: &InstanceSpec) -> Result<(), DriverError> {
        self.asked.notify_one();
        self.let_answer.notified().await;
        self.there.lock().unwrap().insert(spec.id);
        self.answered.notify_one();
        Ok(())
    }

    async fn observe(&self, _: InstanceId) -> Result<Observed, DriverError> {
        Ok(Observed::Building)
    }

    async fn list(&self) -> Result<Vec<InstanceId>, DriverError> {
        Ok(self.there.lock().unwrap().iter().copied().collect())
    }

    async fn delete(&self, id: InstanceId) -> Result<(), DriverError> {
        self.there.lock().unwrap().remove(&id);
        Ok(())
    }
}

struct World {
    fleet: FleetHandle,
    cloud: Arc<SlowCloud>,
    tasks: Tasks,
    events: mpsc::Receiver<Event>,
    _load: watch::Sender<Load>,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("store"), Duration::from_secs(10)).await.unwrap();
    store.migrate().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let (dispatch, events, load) = Dispatch::channel();
    let (tasks, me, cloud) = (Tasks::new(), WorkerId::generate(), Arc::new(SlowCloud::default()));
    let parts = Parts::of_test(dispatch.clone(), Arc::clone(&store), tasks.clone());
    let gateway = Gateway::new(Parts { me, ..parts }).unwrap();
    let access = GatewayAccess { address: "127.0.0.1:9".parse().unwrap(), fingerprint: None };
    let driver: Arc<dyn Driver> = Arc::<SlowCloud>::clone(&cloud);
    let makers = [(Isolation::Vm, Maker { driver, gateway: access, watch: Duration::from_secs(60) })].into();
    let fleet = FleetHandle::new(me, makers, store, gateway, dispatch, tasks.clone());
    World { fleet, cloud, tasks, events, _load: load, _dir: dir }
}

fn boot() -> Boot {
    let holder = Holder::Project(ProjectId::parse("p").unwrap());
    let purpose = Purpose { isolation: Isolation::Vm, holder };
    Boot { id: InstanceId::generate(), purpose, runtime: RuntimeName::parse("python3").unwrap(), memory_mib: 128 }
}

#[tokio::test]
async fn what_is_just_being_asked_for_is_deleted_after_the_answer() {
    let World { fleet, cloud, tasks, mut events, _load, _dir } = world().await;
    fleet.boot(boot());
    tokio::select! {
        () = cloud.asked.notified() => {}
        event = events.recv() => panic!("nothing is asked for: {event:?}"),
    }
    tokio::join!(fleet.delete_all(), async {
        // A deletion that does not wait would be over before the cloud answers.
        tokio::task::yield_now().await;
        cloud.let_answer.notify_one();
        cloud.answered.notified().await;
    });
    assert_eq!(cloud.list().await.unwrap(), Vec::new());
    tasks.stop(Duration::from_secs(10)).await;
}
