//! What the planner promises, on made-up fleets.

use proptest::prelude::*;

use super::*;
use crate::model::ExecutionId;
use crate::scheduler::offer::{Offer, Sharing};
use crate::scheduler::pool::PoolKey;

const INSTANCE_MIB: u32 = 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const INSTANCE_KEEP_ALIVE: Duration = Duration::from_secs(30);
const TARGET_WAIT: Duration = Duration::from_millis(50);

const OFFER: Offer = Offer {
    sharing: Sharing::Project,
    memory_mib: INSTANCE_MIB,
    memory_max_mib: INSTANCE_MIB,
    instances: 2,
    booting: 2,
    boot_timeout: Duration::from_secs(60),
};
const CONTAINERS: Offer = Offer { sharing: Sharing::Function, memory_mib: 128, instances: 3, ..OFFER };

fn limits() -> Limits {
    Limits {
        starting: 4,
        keep_alive: KeepAlive::fixed(KEEP_ALIVE),
        instance_keep_alive: INSTANCE_KEEP_ALIVE,
        offers: Offers::new([(Isolation::Process, OFFER), (Isolation::Container, CONTAINERS)]),
        target_wait: TARGET_WAIT,
    }
}

fn of_project(n: usize) -> Purpose {
    Purpose { isolation: Isolation::Process, holder: Holder::Project(project(n)) }
}

fn of_function(demand: &Demand) -> Purpose {
    Purpose { isolation: demand.isolation, holder: Holder::Function(demand.project.clone(), demand.function) }
}

const fn standing(revision: u64) -> Standing {
    Standing { revision, previous: None, keep_alive: KEEP_ALIVE }
}

fn boot(demand: &Demand) -> Action {
    Action::Boot { purpose: of_project(0), runtime: demand.runtime.clone(), memory_mib: INSTANCE_MIB }
}

fn project(n: usize) -> ProjectId {
    ProjectId::parse(&format!("p{n}")).unwrap()
}

fn python() -> RuntimeName {
    RuntimeName::parse("python3").unwrap()
}

fn demand(function: FunctionId, waiting: u32) -> Demand {
    let isolation = Isolation::Process;
    Demand {
        function,
        project: project(0),
        isolation,
        runtime: python(),
        revision: 1,
        memory_mib: 128,
        waiting,
        limit: 10,
        service_time: None,
        floor: 0,
        expected: 0,
    }
}

/// A worker that does what the plan says, at once.
struct World {
    fleet: Fleet,
    standings: HashMap<FunctionId, Standing>,
    pools: Vec<PoolTarget>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self { fleet: Fleet::default(), standings: HashMap::new(), pools: Vec::new(), now: Instant::now() }
    }

    fn active_instance(&mut self, project: &ProjectId) -> InstanceId {
        let id = InstanceId::generate();
        let purpose = Purpose { isolation: Isolation::Process, holder: Holder::Project(project.clone()) };
        self.fleet.book(id, purpose, INSTANCE_MIB, self.now);
        self.fleet.activate(id, self.now);
        id
    }

    fn idle_sandbox(&mut self, instance: InstanceId, function: FunctionId, memory_mib: u32) -> SandboxKey {
        self.standings.insert(function, standing(1));
        let key = self.fleet.start(instance, function, 1, memory_mib, self.now).unwrap();
        self.fleet.ready(key, self.now);
        key
    }

    fn plan(&self, demands: &[Demand]) -> Vec<Action> {
        let observed = Observed {
            fleet: &self.fleet,
            demands,
            standings: &self.standings,
            pools: &self.pools,
            no_boot: &HashSet::new(),
            limits: &limits(),
        };
        plan(&observed, self.now)
    }

    fn carry_out(&mut self, actions: &[Action], demands: &[Demand]) {
        for action in actions {
            match action {
                Action::Start { instance, function } => {
                    let demand = demands.iter().find(|demand| demand.function == *function).unwrap();
                    self.standings.insert(*function, standing(demand.revision));
                    let key = self.fleet.start(*instance, *function, demand.revision, demand.memory_mib, self.now);
                    self.fleet.ready(key.unwrap(), self.now);
                }
                Action::Stop(key) => {
                    assert!(
                        !matches!(self.fleet.sandbox(*key).unwrap().state, SandboxState::Busy { .. }),
                        "a busy sandbox was stopped"
                    );
                    self.fleet.stop(*key);
                    self.fleet.ended(*key, self.now);
                }
                Action::Claim { instance, holder } => assert!(self.fleet.claim(*instance, holder.clone(), self.now)),
                Action::Boot { purpose, runtime: _, memory_mib } => {
                    let id = InstanceId::generate();
                    self.fleet.book(id, purpose.clone(), *memory_mib, self.now);
                    self.fleet.activate(id, self.now);
                }
                Action::Retire(id) => {
                    self.fleet.remove(*id, self.now);
                }
            }
        }
    }

    /// No kind of instance, no instance's memory and no function's concurrency is beyond its bound, and no sandbox is where
    /// it must not be.
    fn keeps_every_limit(&self, demands: &[Demand]) -> Result<(), TestCaseError> {
        for isolation in [Isolation::Process, Isolation::Container] {
            let of_kind = self.fleet.instances().filter(|(_, host)| host.purpose.isolation == isolation).count();
            prop_assert!(of_kind <= limits().offers.terms(isolation).unwrap().instances as usize);
        }
        for (_, instance) in self.fleet.instances() {
            let promised: u32 = instance.sandboxes.values().map(|sandbox| sandbox.memory_mib).sum();
            prop_assert!(promised <= instance.memory_mib);
            for sandbox in instance.sandboxes.values() {
                let owner = demands.iter().find(|demand| demand.function == sandbox.function).unwrap();
                prop_assert!(owner.fits(&instance.purpose));
            }
        }
        for demand in demands {
            prop_assert!(self.fleet.counts(demand.function).total() <= demand.limit);
        }
        Ok(())
    }
}

#[test]
fn the_first_event_boots_an_instance_and_then_starts_a_sandbox() {
    let mut world = World::new();
    let demands = [demand(FunctionId::generate(), 1)];
    assert_eq!(world.plan(&demands), [boot(&demands[0])]);
    let instance = InstanceId::generate();
    world.fleet.book(instance, of_project(0), 1024, world.now);
    assert_eq!(world.plan(&demands), [], "the instance on its way is waited for");
    world.fleet.activate(instance, world.now);
    assert_eq!(world.plan(&demands), [Action::Start { instance, function: demands[0].function }]);
}

#[test]
fn short_events_wait_for_a_busy_sandbox_rather_than_for_a_new_one() {
    let mut demand = demand(FunctionId::generate(), 20);
    assert_eq!(desired(&demand, 1, TARGET_WAIT), 10, "nothing is known: one each, up to the limit");
    demand.service_time = Some(Duration::from_millis(1));
    assert_eq!(desired(&demand, 1, TARGET_WAIT), 1);
    demand.service_time = Some(Duration::from_millis(10));
    assert_eq!(desired(&demand, 1, TARGET_WAIT), 5);
    demand.service_time = Some(Duration::from_secs(10));
    assert_eq!(desired(&demand, 1, TARGET_WAIT), 10);
}

#[test]
fn an_idle_sandbox_goes_after_its_time_and_then_its_instance() {
    let mut world = World::new();
    let instance = world.active_instance(&project(0));
    let key = world.idle_sandbox(instance, FunctionId::generate(), 128);
    assert_eq!(world.plan(&[]), []);
    world.now += KEEP_ALIVE;
    assert_eq!(world.plan(&[]), [Action::Stop(key)]);
    world.carry_out(&[Action::Stop(key)], &[]);
    assert_eq!(world.plan(&[]), []);
    world.now += INSTANCE_KEEP_ALIVE;
    assert_eq!(world.plan(&[]), [Action::Retire(instance)]);
}

#[test]
fn sandboxes_of_an_old_revision_and_of_a_deleted_function_go_at_once() {
    let mut world = World::new();
    let instance = world.active_instance(&project(0));
    let (updated, deleted) = (FunctionId::generate(), FunctionId::generate());
    let old = world.idle_sandbox(instance, updated, 128);
    let orphan = world.idle_sandbox(instance, deleted, 128);
    world.standings.insert(updated, standing(2));
    world.standings.remove(&deleted);
    assert_eq!(world.plan(&[]), [Action::Stop(old), Action::Stop(orphan)]);
}

#[test]
fn an_idle_sandbox_makes_room_for_a_waiting_event() {
    let mut world = World::new();
    let instance = world.active_instance(&project(0));
    let idle = world.idle_sandbox(instance, FunctionId::generate(), 1000);
    assert_eq!(world.plan(&[demand(FunctionId::generate(), 1)]), [Action::Stop(idle)]);
}

#[test]
fn an_idle_instance_of_another_project_makes_room_when_no_more_may_be_booted() {
    let mut world = World::new();
    world.active_instance(&project(1));
    let longest = world.fleet.instances().next().unwrap().0;
    world.now += Duration::from_secs(1);
    let busy = world.active_instance(&project(2));
    let key = world.idle_sandbox(busy, FunctionId::generate(), 128);
    world.fleet.assign(key, ExecutionId::generate());
    assert_eq!(world.plan(&[demand(FunctionId::generate(), 1)]), [Action::Retire(longest)]);
}

proptest! {
    #[test]
    fn a_plan_keeps_every_limit_serves_everything_and_comes_to_rest(
        needs in prop::collection::vec((0u32..20, 1u32..6, 64u32..600, 0usize..4, any::<bool>()), 1..8),
    ) {
        let mut world = World::new();
        let mut demands: Vec<_> = needs
            .iter()
            .map(|(waiting, limit, memory_mib, p, contained)| Demand {
                project: project(*p),
                isolation: if *contained { Isolation::Container } else { Isolation::Process },
                memory_mib: *memory_mib,
                limit: *limit,
                ..demand(FunctionId::generate(), *waiting)
            })
            .collect();
        let mut busy: Vec<SandboxKey> = Vec::new();
        for round in 0.. {
            prop_assert!(round < 500, "events are left waiting: {demands:?}");
            for key in busy.drain(..) {
                world.fleet.finished(key, world.now);
            }
            for demand in &mut demands {
                while demand.waiting > 0 && let Some(key) = world.fleet.idle(demand.function, 1) {
                    world.fleet.assign(key, ExecutionId::generate());
                    busy.push(key);
                    demand.waiting -= 1;
                }
            }
            world.now += Duration::from_millis(10);
            let actions = world.plan(&demands);
            if actions.is_empty() && busy.is_empty() && demands.iter().all(|demand| demand.waiting == 0) {
                break;
            }
            let starts = actions.iter().filter(|action| matches!(action, Action::Start { .. })).count();
            prop_assert!(starts <= limits().starting as usize);
            world.carry_out(&actions, &demands);
            world.keeps_every_limit(&demands)?;
        }
        // What is kept warm afterwards goes with time: scale to zero is the rest state.
        for _ in 0..3 {
            world.now += KEEP_ALIVE;
            let actions = world.plan(&[]);
            world.carry_out(&actions, &[]);
        }
        prop_assert_eq!(world.fleet.instances().count(), 0);
    }
}

#[test]
fn what_waits_boots_as_many_instances_as_it_needs_and_no_more() {
    let mut world = World::new();
    let mut demand = demand(FunctionId::generate(), 5);
    demand.isolation = Isolation::Container;
    let purpose = of_function(&demand);
    let boot = Action::Boot { purpose: purpose.clone(), runtime: python(), memory_mib: 128 };
    let demands = [demand];
    assert_eq!(world.plan(&demands), [boot.clone(), boot.clone()], "two may boot at the same time");
    let booting: Vec<_> = (0..2).map(|_| InstanceId::generate()).collect();
    for id in &booting {
        world.fleet.book(*id, purpose.clone(), 128, world.now);
    }
    assert_eq!(world.plan(&demands), []);
    world.fleet.activate(booting[0], world.now);
    let start = Action::Start { instance: booting[0], function: demands[0].function };
    assert_eq!(world.plan(&demands), [start, boot], "up to three in all");
}

#[test]
fn an_instance_of_one_function_takes_no_other_and_goes_when_another_needs_its_place() {
    let mut world = World::new();
    let mut demands: Vec<_> = (0..4).map(|_| demand(FunctionId::generate(), 1)).collect();
    for demand in &mut demands {
        demand.isolation = Isolation::Container;
    }
    for demand in &demands[..3] {
        let actions = world.plan(std::slice::from_ref(demand));
        assert!(matches!(actions[..], [Action::Boot { .. }]), "{actions:?}");
        world.carry_out(&actions, &demands);
        let actions = world.plan(std::slice::from_ref(demand));
        assert!(matches!(actions[..], [Action::Start { .. }]), "{actions:?}");
        world.carry_out(&actions, &demands);
        world.now += Duration::from_secs(1);
    }
    let actions = world.plan(&demands[3..]);
    let oldest = world.fleet.instances().find(|(_, host)| host.purpose.holder.function() == Some(demands[0].function));
    assert_eq!(actions, [Action::Retire(oldest.unwrap().0)]);
}

fn pool(target: u32) -> PoolTarget {
    let key = PoolKey { isolation: Isolation::Container, runtime: python(), memory_mib: 256 };
    PoolTarget { key, target }
}

fn of_pool() -> Purpose {
    Purpose { isolation: Isolation::Container, holder: Holder::Pool(python()) }
}

#[test]
fn an_instance_of_the_pool_is_used_before_one_is_booted_and_the_pool_is_refilled() {
    let mut world = World::new();
    world.pools = vec![pool(1)];
    let refill = Action::Boot { purpose: of_pool(), runtime: python(), memory_mib: 256 };
    let actions = world.plan(&[]);
    assert_eq!(actions, std::slice::from_ref(&refill));
    world.carry_out(&actions, &[]);
    assert_eq!(world.plan(&[]), [], "it is full");
    let ready = world.fleet.instances().next().unwrap().0;
    let large = Demand { isolation: Isolation::Container, memory_mib: 512, ..demand(FunctionId::generate(), 1) };
    let other = Demand { runtime: RuntimeName::parse("provided").unwrap(), memory_mib: 128, ..large.clone() };
    for demand in [&large, &other] {
        assert!(matches!(world.plan(std::slice::from_ref(demand))[..], [Action::Boot { .. }]), "it does not fit");
    }
    let demands = [Demand { isolation: Isolation::Container, ..demand(FunctionId::generate(), 1) }];
    let holder = of_function(&demands[0]).holder;
    let function = demands[0].function;
    let actions = world.plan(&demands);
    let used = [Action::Claim { instance: ready, holder: holder.clone() }, Action::Start { instance: ready, function }];
    assert_eq!(actions, [used.as_slice(), &[refill]].concat());
    world.carry_out(&actions, &demands);
    assert_eq!(world.fleet.instance(ready).unwrap().purpose.holder, holder);
    // A second event of the function finds its own instance, which has room for two.
    let more = [Demand { waiting: 2, ..demands[0].clone() }];
    assert_eq!(world.plan(&more), [Action::Start { instance: ready, function }]);
}

#[test]
fn what_a_pool_has_too_many_of_goes_after_a_while_and_before_what_belongs_to_somebody() {
    let mut world = World::new();
    world.pools = vec![pool(2)];
    for _ in 0..2 {
        let actions = world.plan(&[]);
        world.carry_out(&actions, &[]);
    }
    assert_eq!(world.fleet.instances().count(), 2);
    world.pools = vec![pool(1)];
    assert_eq!(world.plan(&[]), [], "not at once");
    world.now += INSTANCE_KEEP_ALIVE;
    assert!(matches!(world.plan(&[])[..], [Action::Retire(_)]));
    world.pools = vec![pool(2)];
    // All three places are taken: two by the pool, one by a function.
    let demands = [Demand { isolation: Isolation::Container, memory_mib: 512, ..demand(FunctionId::generate(), 1) }];
    let actions = world.plan(&demands);
    world.carry_out(&actions, &demands);
    let another = [Demand { function: FunctionId::generate(), ..demands[0].clone() }];
    let actions = world.plan(&another);
    let [Action::Retire(gone)] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(world.fleet.instance(gone).unwrap().purpose, of_pool());
}

#[test]
fn what_is_to_be_kept_started_is_started_without_work_and_does_not_grow_old() {
    let mut world = World::new();
    world.active_instance(&project(0));
    let demands = [Demand { floor: 2, limit: 3, ..demand(FunctionId::generate(), 0) }];
    for _ in 0..5 {
        let actions = world.plan(&demands);
        world.carry_out(&actions, &demands);
        world.now += KEEP_ALIVE;
    }
    assert_eq!(world.fleet.counts(demands[0].function).idle, 2);
    assert_eq!(world.plan(&demands), []);
    assert_eq!(world.plan(&[]).len(), 2, "and goes when it is not to be kept any more");
}

#[test]
fn what_is_provisioned_makes_no_room_and_what_is_only_expected_does() {
    for (floor, expected) in [(1, 0), (0, 1)] {
        let mut world = World::new();
        let instance = world.active_instance(&project(0));
        let function = FunctionId::generate();
        let idle = world.idle_sandbox(instance, function, 1000);
        let kept = Demand { floor, expected, memory_mib: 1000, ..demand(function, 0) };
        let actions = world.plan(&[demand(FunctionId::generate(), 1), kept]);
        assert_eq!(actions.contains(&Action::Stop(idle)), expected == 1, "{actions:?}");
    }
}

#[test]
fn an_instance_that_keeps_little_is_emptied_when_others_can_take_it_over() {
    let mut world = World::new();
    let (full, emptier) = (world.active_instance(&project(0)), world.active_instance(&project(0)));
    let (common, lonely) = (FunctionId::generate(), FunctionId::generate());
    for _ in 0..3 {
        world.idle_sandbox(full, common, 128);
    }
    let surplus = world.idle_sandbox(emptier, common, 128);
    let only = world.idle_sandbox(emptier, lonely, 128);
    let demands = [Demand { floor: 1, ..demand(lonely, 0) }];
    assert_eq!(world.plan(&demands), [], "while things may still happen in it");
    world.now += INSTANCE_KEEP_ALIVE;
    let actions = world.plan(&demands);
    let start = Action::Start { instance: full, function: lonely };
    assert_eq!(actions, [Action::Stop(surplus), start], "first another one is started");
    world.carry_out(&actions, &demands);
    let actions = world.plan(&demands);
    assert_eq!(actions, [Action::Stop(only)]);
    world.carry_out(&actions, &demands);
    world.now += INSTANCE_KEEP_ALIVE;
    assert!(world.plan(&demands).contains(&Action::Retire(emptier)));
    assert_eq!(world.fleet.counts(lonely).idle, 1);
}

proptest! {
    #[test]
    fn with_pools_and_floors_every_limit_holds_and_the_fleet_comes_to_rest(
        needs in prop::collection::vec((1u32..6, 64u32..600, 0usize..4, any::<bool>(), 0u32..4, 0u32..4), 1..8),
        target in 0u32..4,
    ) {
        let mut world = World::new();
        world.pools = vec![pool(target)];
        let demands: Vec<_> = needs
            .iter()
            .map(|(limit, memory_mib, p, contained, floor, expected)| Demand {
                project: project(*p),
                isolation: if *contained { Isolation::Container } else { Isolation::Process },
                memory_mib: *memory_mib,
                limit: *limit,
                floor: *floor,
                expected: *expected,
                ..demand(FunctionId::generate(), 0)
            })
            .collect();
        let mut still = 0;
        for round in 0.. {
            prop_assert!(round < 300, "it does not come to rest");
            world.now += Duration::from_secs(5);
            let actions = world.plan(&demands);
            still = if actions.is_empty() { still + 1 } else { 0 };
            if still > 20 {
                break;
            }
            world.carry_out(&actions, &demands);
            world.keeps_every_limit(&demands)?;
        }
    }
}
