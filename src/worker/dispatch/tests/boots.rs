//! Which instances are asked for, and what becomes of events when they do not come up.

use super::*;

fn boot_failure(waiting_for: WaitingFor) -> BootFailure {
    BootFailure { waiting_for, text: "the cloud's own words".to_owned() }
}

#[test]
fn a_boot_that_fails_gives_its_events_back_with_what_they_wait_for_and_is_not_repeated_at_once() {
    for waiting_for in [WaitingFor::Capacity, WaitingFor::Quota, WaitingFor::Operator, WaitingFor::Cloud] {
        let mut world = World::new();
        let function = Arc::new(function());
        let id = world.arrives(&function);
        let instance = world.booted.remove(0);
        world.happens(Event::BootFailed(instance, boot_failure(waiting_for)));
        world.passes(Duration::from_millis(100));
        let record = &world.records[&id];
        assert_eq!((record.worker, record.waiting_for), (None, Some(waiting_for)));
        assert!(world.booted.is_empty());
        assert_eq!(world.deleted, [instance], "whatever came of it is removed");
    }
}

#[test]
fn an_instance_that_ends_while_it_boots_is_a_boot_that_failed() {
    let mut world = World::new();
    let id = world.arrives(&Arc::new(function()));
    let instance = world.booted.remove(0);
    world.happens(Event::InstanceLost(instance, "Exited(1)".to_owned()));
    world.passes(Duration::from_millis(100));
    assert_eq!(world.records[&id].waiting_for, Some(WaitingFor::Cloud));
    assert!(world.booted.is_empty(), "not at once again");
}

#[test]
fn a_caller_is_told_at_once_that_there_is_no_instance() {
    let mut world = World::new();
    let mut answer = world.calls(&Arc::new(function()), Duration::from_secs(60));
    let instance = world.booted.remove(0);
    world.happens(Event::BootFailed(instance, boot_failure(WaitingFor::Quota)));
    world.passes(Duration::from_millis(100));
    let failure = answer.try_recv().unwrap().failure.unwrap();
    assert_eq!(failure.reason, Reason::InstanceUnavailable);
    assert!(failure.error.message.contains("quota") && !failure.error.message.contains("own words"));
}

#[test]
fn isolation_is_the_strongest_that_anybody_asks_for_and_what_is_not_offered_fails_with_its_reason() {
    let mut world = World::new();
    let mut options = options();
    let asks = |isolation| Function { isolation, ..function() };
    assert_eq!(options.isolation_of(&asks(None)), Some(Isolation::Process));
    assert_eq!(options.isolation_of(&asks(Some(Isolation::Container))), Some(Isolation::Container));
    options.isolation.projects.insert(function().project_id, Isolation::Container);
    assert_eq!(options.isolation_of(&asks(None)), Some(Isolation::Container));
    options.isolation.runtimes.insert(function().runtime, Isolation::Vm);
    assert_eq!(options.isolation_of(&asks(Some(Isolation::Container))), None);

    for wrong in [asks(Some(Isolation::Vm)), Function { memory: MemoryMib::new(2048).unwrap(), ..function() }] {
        let id = world.arrives(&Arc::new(wrong));
        let failure = world.records[&id].failure.as_ref().unwrap();
        assert_eq!(failure.reason, Reason::InstanceImpossible, "{failure:?}");
    }
}
