//! Functions that were called a moment ago, so that a call does not wait for the store. What is remembered may be a second
//! old; the worker, which every change is announced to, has the last word on what runs.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::{find, reference};
use crate::api::Api;
use crate::api::error::Result;
use crate::api::identity::Caller;
use crate::model::Function;
use crate::store::{FunctionRef, Scope};

/// How long a function is remembered: as long as a worker remembers it that was not told of a change.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Most functions remembered.
const CAPACITY: u64 = 10_000;

/// The functions.
pub(in crate::api) struct Recent(Cache<(Scope, FunctionRef), Arc<Function>>);

impl Recent {
    /// None yet.
    pub fn new() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_live(REMEMBERED).build())
    }

    /// Forgets all: one has changed. To be called when the store has the change.
    pub fn forget(&self) {
        self.0.invalidate_all();
    }
}

/// The function that a caller calls, and whether it was looked up just now. One without code is never remembered: its
/// first call may come right after its code.
pub(in crate::api) async fn find_to_call(api: &Api, caller: &Caller, name: &str) -> Result<(Arc<Function>, bool)> {
    let Some(reference) = reference(name) else { return Ok((Arc::new(find(api, caller, name).await?), true)) };
    let key = (caller.scope_for(&reference), reference);
    if let Some(function) = api.recent.0.get(&key) {
        return Ok((function, false));
    }
    Ok((look_up(api, caller, name, key).await?, true))
}

/// The function as the store has it now.
pub(in crate::api) async fn find_again(api: &Api, caller: &Caller, name: &str) -> Result<Arc<Function>> {
    api.recent.forget();
    Ok(find_to_call(api, caller, name).await?.0)
}

async fn look_up(api: &Api, caller: &Caller, name: &str, key: (Scope, FunctionRef)) -> Result<Arc<Function>> {
    let function = Arc::new(find(api, caller, name).await?);
    if function.package.is_some() {
        api.recent.0.insert(key, Arc::clone(&function));
    }
    Ok(function)
}
