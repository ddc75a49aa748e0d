//! An update under load: the new revision is started beside the old one, which goes on until it is ready.

use super::*;

/// A function that two events are being handled of, in two sandboxes of revision 1; and its revision 2.
fn under_load() -> (World, Arc<Function>, Arc<Function>) {
    let mut world = World::new();
    let old = Arc::new(function());
    for _ in 0..2 {
        world.arrives(&old);
    }
    world.settle();
    let new = Arc::new(Function { revision: 2, timeout: TimeoutSeconds::new(7).unwrap(), ..(*old).clone() });
    (world, old, new)
}

/// The change is announced and looked up; whoever waits for it.
fn announced(world: &mut World, new: &Arc<Function>) -> oneshot::Receiver<()> {
    let (told, waits) = oneshot::channel();
    world.happens(Event::FunctionChanged(new.id, Some(told)));
    assert_eq!(world.looked_up.pop(), Some(new.id));
    world.happens(Event::Function(new.id, Some(Arc::clone(new))));
    waits
}

fn is_told(waits: &mut oneshot::Receiver<()>) -> bool {
    waits.try_recv() == Err(oneshot::error::TryRecvError::Closed)
}

#[test]
fn the_old_revision_goes_on_until_the_new_one_is_ready() {
    let (mut world, old, new) = under_load();
    let invoked = world.invoked();
    let mut waits = announced(&mut world, &new);
    let starts = |world: &World| {
        let all = world.sent.iter();
        all.filter(|(_, m)| matches!(m, Message::StartSandbox { spec, .. } if spec.revision == 2)).count()
    };
    assert_eq!(starts(&world), 2, "as many as are in use");
    assert!(!is_told(&mut waits));
    world.answers(invoked[0].clone(), HandlerOutcome::Returned);
    let during = world.arrives(&old);
    assert_eq!(world.records[&during].revision, 1, "it need not wait for the new one");
    world.settle();
    let (instance, sandbox, execution) = world.invoked().remove(0);
    assert!(is_told(&mut waits), "both are ready");
    let after = world.arrives(&new);
    assert_eq!(world.records[&after].revision, 2);
    // What the old one runs is finished there, and then it goes.
    world.answers((instance, sandbox, execution), HandlerOutcome::Returned);
    world.passes(Duration::from_millis(100));
    assert_eq!(world.records[&during].state, ExecutionState::Succeeded);
    assert!(
        world.take_sent().iter().any(|(_, m)| matches!(m, Message::StopSandbox { sandbox: gone } if *gone == sandbox))
    );
}

#[test]
fn a_function_that_nobody_uses_runs_its_new_code_at_once() {
    let (mut world, old, new) = under_load();
    for invoked in world.invoked() {
        world.answers(invoked, HandlerOutcome::Returned);
    }
    world.passes(Duration::from_secs(20));
    let mut waits = announced(&mut world, &new);
    assert!(is_told(&mut waits));
    let id = world.arrives(&old);
    world.settle();
    assert_eq!(world.records[&id].revision, 2);
}

#[test]
fn the_old_revision_does_not_go_on_for_ever() {
    let (mut world, old, new) = under_load();
    let invoked = world.invoked();
    let mut waits = announced(&mut world, &new);
    world.answers(invoked[0].clone(), HandlerOutcome::Returned);
    for _ in 0..50 {
        world.passes(Duration::from_millis(100));
    }
    assert!(is_told(&mut waits));
    let id = world.arrives(&old);
    assert_eq!(world.records[&id].state, ExecutionState::Queued, "it waits for the new one");
    world.settle();
    assert_eq!(world.records[&id].revision, 2);
}

#[test]
fn new_code_that_cannot_start_is_not_tried_without_need() {
    let (mut world, _, new) = under_load();
    let mut waits = announced(&mut world, &new);
    let started: Vec<_> = world
        .take_sent()
        .into_iter()
        .filter_map(|(instance, message)| {
            let Message::StartSandbox { sandbox, .. } = message else { return None };
            Some((instance, sandbox))
        })
        .collect();
    for (instance, sandbox) in started {
        let message = ended(sandbox, FailureKind::InitError, SandboxPhase::Init, "Runtime.UserCodeSyntaxError");
        world.happens(Event::Agent(instance, message, Bytes::new()));
    }
    assert!(is_told(&mut waits), "there is nothing to wait for");
    for _ in 0..20 {
        world.passes(Duration::from_millis(100));
    }
    assert!(!world.take_sent().iter().any(|(_, m)| matches!(m, Message::StartSandbox { .. })));
    let id = world.arrives(&new);
    assert!(world.take_sent().iter().any(|(_, m)| matches!(m, Message::StartSandbox { .. })), "an event tries again");
    assert_eq!(world.records[&id].attempt, 0);
}

#[test]
fn an_event_that_knows_the_new_revision_never_runs_the_old_code() {
    let (mut world, _, new) = under_load();
    let invoked = world.invoked();
    world.answers(invoked[0].clone(), HandlerOutcome::Returned);
    // It was taken on before the announcement was heard of.
    let id = world.arrives(&new);
    assert_eq!(world.records[&id].state, ExecutionState::Queued);
    world.settle();
    assert_eq!(world.records[&id].revision, 2);
}
