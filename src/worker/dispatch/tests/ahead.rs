//! What is made ready before it is asked for: the pool, and sandboxes of functions whose events come like clockwork.

use super::*;
use crate::scheduler::pool::PoolTerms;

#[test]
fn an_instance_of_the_pool_takes_the_first_event_at_once_and_is_its_projects_for_life() {
    let mut options = options();
    options.pools = vec![PoolTerms::parse(Isolation::Process, "python3/512", "1").unwrap()];
    let mut world = World::with(options);
    world.passes(Duration::from_millis(100));
    assert_eq!(world.booted.len(), 1, "before anybody asks");
    let ready = world.booted.remove(0);
    world.happens(Event::AgentReady(ready));
    let function = Arc::new(function());
    world.arrives(&function);
    assert_eq!(world.claimed, [(ready, Holder::Project(function.project_id.clone()))]);
    assert!(world.take_sent().iter().any(|(to, m)| *to == ready && matches!(m, Message::StartSandbox { .. })));
    assert_eq!(world.booted.len(), 1, "and the pool is refilled");
    world.happens(Event::Drain);
    world.happens(Event::AgentReady(world.booted[0]));
    world.passes(Duration::from_secs(61));
    assert!(world.deleted.contains(&world.booted[0]), "a worker that ends keeps no pool");
}

#[test]
fn an_event_that_comes_like_clockwork_finds_its_sandbox_ready() {
    let mut options = options();
    let bounds =
        KeepAlive { unknown: Duration::from_secs(300), least: Duration::from_secs(10), most: Duration::from_secs(300) };
    options.limits.keep_alive = bounds;
    let mut world = World::with(options);
    let function = Arc::new(function());
    let mut starts = Vec::new();
    for _ in 0..15 {
        let id = world.arrives(&function);
        world.settle();
        let invoked = world.invoked();
        world.answers(invoked[0].clone(), HandlerOutcome::Returned);
        for _ in 0..60 {
            world.passes(Duration::from_secs(10));
            for looked_up in std::mem::take(&mut world.looked_up) {
                world.happens(Event::Function(looked_up, Some(Arc::clone(&function))));
            }
            for gone in std::mem::take(&mut world.deleted) {
                world.happens(Event::InstanceGone(gone));
            }
            let stopped: Vec<_> = world
                .sent
                .iter()
                .filter_map(|(instance, message)| {
                    let Message::StopSandbox { sandbox } = message else { return None };
                    Some((*instance, *sandbox))
                })
                .collect();
            world.sent.retain(|(_, message)| !matches!(message, Message::StopSandbox { .. }));
            for (instance, sandbox) in stopped {
                let ended = Message::SandboxEnded {
                    sandbox,
                    execution: None,
                    failure: None,
                    measures: AttemptMeasures::default(),
                };
                world.happens(Event::Agent(instance, ended, Bytes::new()));
            }
            world.settle();
        }
        starts.push((world.records[&id].start, world.desk.load().sandboxes));
        // Ten minutes apart, twice as long as anything is kept.
        assert!(world.records[&id].state == ExecutionState::Succeeded);
    }
    assert_eq!(starts[2].1, 0, "nothing is known yet: {starts:?}");
    assert_eq!(starts[14].1, 1, "one is ready in time: {starts:?}");
}
