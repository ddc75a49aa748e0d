//! What a project may have kept started. It is everybody's memory, so operators bound it.

use std::num::NonZeroU32;

use crate::api::Api;
use crate::api::error::{ApiError, Code, Result};
use crate::model::{Function, Invalid};
use crate::store::Scope;

/// Refuses more than the operator allows, of one function and of its project together. Only what is raised is looked at:
/// under bounds that were lowered since, everything else of a function can still be changed. Of two raises at the same
/// moment each sees the other or not, so a project may exceed its bound by what was raised in that moment.
pub(super) async fn check(api: &Api, next: &Function, before: Option<&Function>) -> Result<()> {
    let kept = |function: &Function| function.provisioned_concurrency.map_or(0, NonZeroU32::get);
    let wanted = kept(next);
    if wanted <= before.map_or(0, kept) {
        return Ok(());
    }
    let refuse =
        |reason| Err(ApiError::invalid(Code::FunctionInvalid, &Invalid::new("provisioned_concurrency", reason)));
    let most = api.options.max_provisioned_concurrency;
    if wanted > most {
        return refuse(format!("must be at most {most} for one function of this service"));
    }
    let most = api.options.max_provisioned_concurrency_per_project;
    let functions = api.store.provisioned_functions(&Scope::Project(next.project_id.clone())).await?;
    let others = functions.iter().filter(|other| other.id != next.id).map(|other| u64::from(kept(other))).sum::<u64>();
    if others + u64::from(wanted) > u64::from(most) {
        return refuse(format!(
            "is {wanted}, and the project's other functions have {others}; together at most {most} are allowed"
        ));
    }
    Ok(())
}
