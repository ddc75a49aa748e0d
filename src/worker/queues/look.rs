//! One look at a project's own queue: with whose trust, how much is asked for, and what it came to.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::ProjectQueues;
use crate::clock;
use crate::model::trigger::queue::{QueueFault, QueueKey, QueueStatus};
use crate::model::{Trigger, TriggerId};
use crate::openstack::OpenStackError;
use crate::scheduler::polls::Look;
use crate::task::chain;
use crate::worker::intake::{Intake, IntakeError, Kind, Source};

/// Failures in a row after which a service that does not answer is told of on the trigger.
const UNAVAILABLE_TOLD: u32 = 5;
/// Longest text of others that is told, in characters.
const TEXT_MAX: usize = 200;

/// The triggers on a queue.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// The queue.
    pub key: QueueKey,
    /// They, the oldest first; never empty.
    pub triggers: Vec<Trigger>,
    /// The one whose trust was good the last time.
    pub voice: Option<TriggerId>,
}

/// What a look came to.
#[derive(Debug)]
pub struct Looked {
    /// The queue.
    pub key: QueueKey,
    /// How it went.
    pub look: Look,
    /// The trigger whose trust was good.
    pub voice: Option<TriggerId>,
    /// What is to be told on the triggers.
    pub statuses: Vec<(TriggerId, QueueStatus)>,
}

/// Whether a status is told after that many failures in a row: one that passes by itself only when it lasts.
pub fn is_worth_telling(status: &QueueStatus, failures: u32) -> bool {
    match status {
        QueueStatus::Error { reason: QueueFault::QueueUnavailable, .. } => failures >= UNAVAILABLE_TOLD,
        QueueStatus::Pending | QueueStatus::Active { .. } | QueueStatus::Error { .. } => true,
    }
}

/// Looks once: with the trust that was good the last time, or with each of the others until one is.
pub async fn look(
    intake: &Arc<Intake>,
    access: &ProjectQueues,
    listeners: Listeners,
    cancel: &CancellationToken,
) -> Looked {
    let Listeners { key, mut triggers, voice } = listeners;
    let nothing = |look| Looked { key: key.clone(), look, voice: None, statuses: Vec::new() };
    let Some(limit) = limit(intake, &key, &triggers, cancel).await else { return nothing(Look::Some) };
    triggers.sort_by_key(|trigger| Some(trigger.id) != voice);
    let mut statuses = Vec::new();
    for trigger in &triggers {
        let trust_id = trigger.queue.as_ref().and_then(|queue| queue.trust_id.as_deref());
        let looked = match access.client(&key.project_id, trust_id) {
            Ok(client) => {
                let source = Source { client, queue: key.queue.as_str().to_owned(), kind: Kind::Own(key.clone()) };
                intake.look(&source, limit, cancel).await
            }
            Err(error) => Err(IntakeError::Claim(error)),
        };
        let error = match looked {
            Ok(look) => {
                // Those whose turn was not needed are served by this one's.
                let told: Vec<_> = statuses.iter().map(|(told, _)| *told).collect();
                let served = triggers.iter().filter(|served| !told.contains(&served.id));
                let served = served.filter(|served| served.id == trigger.id || !has_failed(served));
                statuses.extend(served.map(|served| (served.id, QueueStatus::Active { since: clock::now() })));
                return Looked { key, look, voice: Some(trigger.id), statuses };
            }
            Err(IntakeError::Claim(error) | IntakeError::Letter(error)) => error,
            Err(error @ IntakeError::Store(_)) => {
                let error = chain(&error);
                tracing::warn!(error, "a claim on queue {key} could not be dealt with, it will come again: {error}");
                return Looked { key, look: Look::Failed, voice: None, statuses };
            }
        };
        let reason = fault(&error, trust_id.is_some());
        let message = chain(&error).chars().take(TEXT_MAX).collect();
        statuses.push((trigger.id, QueueStatus::Error { since: clock::now(), reason, message }));
        if reason != QueueFault::TrustInvalid {
            break;
        }
    }
    Looked { key, look: Look::Failed, voice: None, statuses }
}

/// How many messages to ask for: no more than one batch, and no more than this project has room for here. What there is
/// no room for stays on its queue. None: nothing at this time.
async fn limit(intake: &Intake, key: &QueueKey, triggers: &[Trigger], cancel: &CancellationToken) -> Option<usize> {
    let room = intake.room(cancel).await?;
    let of_project = usize::try_from(intake.admission.free_for(&key.project_id)).unwrap_or(usize::MAX);
    let saturated = intake.admission.saturated();
    if triggers.iter().all(|trigger| saturated.contains(&trigger.function_id)) {
        return None;
    }
    let batch = triggers.iter().filter_map(|trigger| trigger.queue.as_ref()).map(|queue| queue.batch_size).min()?;
    let batch = usize::try_from(batch.get()).unwrap_or(usize::MAX);
    Some(batch.min(room).min(of_project)).filter(|limit| *limit > 0)
}

fn has_failed(trigger: &Trigger) -> bool {
    matches!(trigger.queue.as_ref().map(|queue| &queue.status), Some(QueueStatus::Error { .. }))
}

/// What an error means for the trigger with whose trust, if it has one, it was met.
fn fault(error: &OpenStackError, has_trust: bool) -> QueueFault {
    match error {
        // Keystone says so when the trust is deleted, and when its maker is disabled or has lost a role of it. Zaqar by
        // itself forbids nothing to whoever has a role in the project.
        OpenStackError::Unauthorized(_) | OpenStackError::Forbidden(_) if has_trust => QueueFault::TrustInvalid,
        OpenStackError::Unauthorized(_) | OpenStackError::Forbidden(_) => QueueFault::QueueForbidden,
        OpenStackError::NotFound(_)
        | OpenStackError::Conflict(_)
        | OpenStackError::Invalid(_)
        | OpenStackError::Protocol { .. } => QueueFault::QueueRefused,
        OpenStackError::OverLimit { .. } | OpenStackError::Unavailable { .. } => QueueFault::QueueUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_only_when_it_lasts() {
        let status = |reason| QueueStatus::Error { since: clock::now(), reason, message: String::new() };
        let gone = OpenStackError::Unauthorized("gone".to_owned());
        assert_eq!(fault(&gone, true), QueueFault::TrustInvalid);
        assert_eq!(fault(&gone, false), QueueFault::QueueForbidden);
        assert!(is_worth_telling(&status(QueueFault::TrustInvalid), 1));
        let late = OpenStackError::OverLimit { detail: String::new(), retry_after: None };
        assert!(!is_worth_telling(&status(fault(&late, true)), 1));
        assert!(is_worth_telling(&status(fault(&late, true)), UNAVAILABLE_TOLD));
    }
}
