//! Provisioned concurrency: what is kept started though nothing has come.

use std::num::NonZeroU32;

use super::*;

const LONG: Duration = Duration::from_secs(600);

fn kept(number: u32) -> Function {
    Function { provisioned_concurrency: NonZeroU32::new(number), ..function() }
}

fn provide(world: &mut World, function: &Arc<Function>) {
    world.happens(Event::Provisioned(vec![Arc::clone(function)]));
    for _ in 0..3 {
        world.settle();
    }
}

#[test]
fn sandboxes_are_started_before_any_event_and_do_not_go_with_age() {
    let mut world = World::new();
    let function = Arc::new(kept(2));
    provide(&mut world, &function);
    assert_eq!(world.desk.load().sandboxes, 2);
    world.passes(LONG);
    world.passes(LONG);
    assert_eq!(world.desk.load().sandboxes, 2);
    assert!(world.take_sent().iter().all(|(_, message)| !matches!(message, Message::StopSandbox { .. })));
    let id = world.arrives(&function);
    assert_eq!(world.records[&id].start, Some(Start::Warm), "it waited for no start");
}

#[test]
fn they_go_when_the_function_is_deleted_or_has_none_any_more() {
    for is_deleted in [true, false] {
        let mut world = World::new();
        let function = Arc::new(kept(2));
        provide(&mut world, &function);
        world.happens(Event::Provisioned(Vec::new()));
        assert!(world.looked_up.contains(&function.id));
        let now = Function { provisioned_concurrency: None, revision: 2, ..Function::clone(&function) };
        world.happens(Event::Function(function.id, (!is_deleted).then(|| Arc::new(now))));
        world.passes(LONG);
        let stopped = world.take_sent().iter().filter(|(_, m)| matches!(m, Message::StopSandbox { .. })).count();
        assert_eq!(stopped, 2, "deleted: {is_deleted}");
    }
}

#[test]
fn an_update_keeps_the_old_ones_until_the_new_ones_are_ready() {
    let mut world = World::new();
    let old = Arc::new(kept(2));
    provide(&mut world, &old);
    world.passes(LONG);
    world.take_sent();
    let new = Arc::new(Function { revision: 2, ..Function::clone(&old) });
    world.happens(Event::Function(new.id, Some(Arc::clone(&new))));
    let between = world.arrives(&old);
    assert_eq!(world.records[&between].start, Some(Start::Warm), "the old ones serve while the new ones start");
    assert_eq!(world.records[&between].revision, 1);
    for _ in 0..3 {
        world.settle();
    }
    world.passes(Duration::from_secs(1));
    let after = world.arrives(&new);
    assert_eq!((world.records[&after].start, world.records[&after].revision), (Some(Start::Warm), 2));
}

#[test]
fn workers_share_them_and_a_function_without_code_has_none() {
    let function = Arc::new(kept(3));
    let live: Vec<_> = (0..2).map(|_| WorkerId::generate()).collect();
    let mut sandboxes = 0;
    for me in &live {
        let mut world = World::new();
        world.desk = Desk::new(*me, options(), Metrics::new("test"), world.now.instant);
        world.happens(Event::LiveWorkers(live.clone()));
        provide(&mut world, &function);
        sandboxes += world.desk.load().sandboxes;
    }
    assert_eq!(sandboxes, 3);
    let mut world = World::new();
    provide(&mut world, &Arc::new(Function { package: None, ..kept(2) }));
    assert_eq!((world.desk.load().sandboxes, world.desk.load().instances), (0, 0));
}

#[test]
fn a_sandbox_that_does_not_start_is_tried_again_later_and_not_at_once() {
    let mut world = World::new();
    let function = Arc::new(kept(1));
    world.happens(Event::Provisioned(vec![Arc::clone(&function)]));
    for id in std::mem::take(&mut world.booted) {
        world.happens(Event::AgentReady(id));
    }
    let starts = |world: &mut World| -> Vec<_> {
        let sent = world.take_sent().into_iter();
        sent.filter_map(|(instance, message)| {
            let Message::StartSandbox { sandbox, .. } = message else { return None };
            Some((instance, sandbox))
        })
        .collect()
    };
    let mut begun = starts(&mut world);
    for pause in [1, 2, 4] {
        assert_eq!(begun.len(), 1);
        let (instance, sandbox) = begun[0];
        let failed = ended(sandbox, FailureKind::Exited, SandboxPhase::Init, "Runtime.ExitError");
        world.happens(Event::Agent(instance, failed, Bytes::new()));
        world.passes(Duration::from_millis(pause * 1000 - 1));
        assert!(starts(&mut world).is_empty(), "not before {pause} s");
        world.passes(Duration::from_millis(1));
        begun = starts(&mut world);
    }
    // New code is not made to wait for what the old one did.
    let (instance, sandbox) = begun[0];
    let failed = ended(sandbox, FailureKind::Exited, SandboxPhase::Init, "Runtime.ExitError");
    world.happens(Event::Agent(instance, failed, Bytes::new()));
    world.happens(Event::Provisioned(vec![Arc::new(Function { revision: 2, ..Function::clone(&function) })]));
    assert_eq!(starts(&mut world).len(), 1);
}
