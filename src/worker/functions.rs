//! Functions as this worker last saw them. Read through from the store, remembered for a second, forgotten at once when
//! the API says that one has changed.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Function, FunctionId};
use crate::store::{FunctionRef, Scope, Store, StoreError};

/// How old what is remembered may be: a change that the API could not tell of is seen after this time.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Most functions remembered.
const CAPACITY: u64 = 10_000;

/// The cache. Clones share it.
#[derive(Clone)]
pub struct Functions {
    store: Arc<dyn Store>,
    seen: moka::future::Cache<FunctionId, Option<Arc<Function>>>,
}

impl Functions {
    /// An empty cache before a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let seen = moka::future::Cache::builder().max_capacity(CAPACITY).time_to_live(REMEMBERED).build();
        Self { store, seen }
    }

    /// The function, or none when it is deleted.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn get(&self, id: FunctionId) -> Result<Option<Arc<Function>>, Arc<StoreError>> {
        self.seen
            .try_get_with(id, async {
                match self.store.function(&Scope::All, &FunctionRef::Id(id)).await {
                    Ok(function) => Ok(Some(Arc::new(function))),
                    Err(StoreError::NotFound(_)) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await
    }

    /// Forgets a function, so that the next look goes to the store.
    pub async fn forget(&self, id: FunctionId) {
        self.seen.invalidate(&id).await;
    }
}
