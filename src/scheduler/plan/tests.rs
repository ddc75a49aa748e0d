//! What the planner promises, on made-up fleets.

use proptest::prelude::*;

use super::*;
use crate::model::ExecutionId;

const LIMITS: Limits = Limits {
    starting: 4,
    keep_alive: Duration::from_secs(60),
    instance_keep_alive: Duration::from_secs(30),
    instance_memory_mib: 1024,
    instances: 2,
    target_wait: Duration::from_millis(50),
};

fn project(n: usize) -> ProjectId {
    ProjectId::parse(&format!("p{n}")).unwrap()
}

fn demand(function: FunctionId, waiting: u32) -> Demand {
    Demand { function, project: project(0), revision: 1, memory_mib: 128, waiting, limit: 10, service_time: None }
}

/// A worker that does what the plan says, at once.
struct World {
    fleet: Fleet,
    revisions: HashMap<FunctionId, u64>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self { fleet: Fleet::default(), revisions: HashMap::new(), now: Instant::now() }
    }

    fn active_instance(&mut self, project: &ProjectId) -> InstanceId {
        let id = InstanceId::generate();
        self.fleet.book(id, project.clone(), LIMITS.instance_memory_mib, self.now);
        self.fleet.activate(id, self.now);
        id
    }

    fn idle_sandbox(&mut self, instance: InstanceId, function: FunctionId, memory_mib: u32) -> SandboxKey {
        self.revisions.insert(function, 1);
        let key = self.fleet.start(instance, function, 1, memory_mib, self.now).unwrap();
        self.fleet.ready(key, self.now);
        key
    }

    fn plan(&self, demands: &[Demand]) -> Vec<Action> {
        let observed = Observed {
            fleet: &self.fleet,
            demands,
            revisions: &self.revisions,
            no_boot: &HashSet::new(),
            limits: LIMITS,
        };
        plan(&observed, self.now)
    }

    fn carry_out(&mut self, actions: &[Action], demands: &[Demand]) {
        for action in actions {
            match action {
                Action::Start { instance, function } => {
                    let demand = demands.iter().find(|demand| demand.function == *function).unwrap();
                    self.revisions.insert(*function, demand.revision);
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
                Action::Boot { project } => {
                    let project = project.clone();
                    self.active_instance(&project);
                }
                Action::Retire(id) => {
                    self.fleet.remove(*id, self.now);
                }
            }
        }
    }
}

#[test]
fn the_first_event_boots_an_instance_and_then_starts_a_sandbox() {
    let mut world = World::new();
    let demands = [demand(FunctionId::generate(), 1)];
    assert_eq!(world.plan(&demands), [Action::Boot { project: project(0) }]);
    let instance = InstanceId::generate();
    world.fleet.book(instance, project(0), 1024, world.now);
    assert_eq!(world.plan(&demands), [], "the instance on its way is waited for");
    world.fleet.activate(instance, world.now);
    assert_eq!(world.plan(&demands), [Action::Start { instance, function: demands[0].function }]);
}

#[test]
fn short_events_wait_for_a_busy_sandbox_rather_than_for_a_new_one() {
    let mut demand = demand(FunctionId::generate(), 20);
    assert_eq!(desired(&demand, 1, LIMITS.target_wait), 10, "nothing is known: one each, up to the limit");
    demand.service_time = Some(Duration::from_millis(1));
    assert_eq!(desired(&demand, 1, LIMITS.target_wait), 1);
    demand.service_time = Some(Duration::from_millis(10));
    assert_eq!(desired(&demand, 1, LIMITS.target_wait), 5);
    demand.service_time = Some(Duration::from_secs(10));
    assert_eq!(desired(&demand, 1, LIMITS.target_wait), 10);
}

#[test]
fn an_idle_sandbox_goes_after_its_time_and_then_its_instance() {
    let mut world = World::new();
    let instance = world.active_instance(&project(0));
    let key = world.idle_sandbox(instance, FunctionId::generate(), 128);
    assert_eq!(world.plan(&[]), []);
    world.now += LIMITS.keep_alive;
    assert_eq!(world.plan(&[]), [Action::Stop(key)]);
    world.carry_out(&[Action::Stop(key)], &[]);
    assert_eq!(world.plan(&[]), []);
    world.now += LIMITS.instance_keep_alive;
    assert_eq!(world.plan(&[]), [Action::Retire(instance)]);
}

#[test]
fn sandboxes_of_an_old_revision_and_of_a_deleted_function_go_at_once() {
    let mut world = World::new();
    let instance = world.active_instance(&project(0));
    let (updated, deleted) = (FunctionId::generate(), FunctionId::generate());
    let old = world.idle_sandbox(instance, updated, 128);
    let orphan = world.idle_sandbox(instance, deleted, 128);
    world.revisions.insert(updated, 2);
    world.revisions.remove(&deleted);
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
        needs in prop::collection::vec((0u32..20, 1u32..6, 64u32..600, 0usize..4), 1..8),
    ) {
        let mut world = World::new();
        let mut demands: Vec<_> = needs
            .iter()
            .map(|(waiting, limit, memory_mib, p)| Demand {
                function: FunctionId::generate(),
                project: project(*p),
                revision: 1,
                memory_mib: *memory_mib,
                waiting: *waiting,
                limit: *limit,
                service_time: None,
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
            prop_assert!(starts <= LIMITS.starting as usize);
            world.carry_out(&actions, &demands);
            prop_assert!(world.fleet.instances().count() <= LIMITS.instances as usize);
            for (_, instance) in world.fleet.instances() {
                let promised: u32 = instance.sandboxes.values().map(|sandbox| sandbox.memory_mib).sum();
                prop_assert!(promised <= instance.memory_mib);
                for sandbox in instance.sandboxes.values() {
                    let owner = demands.iter().find(|demand| demand.function == sandbox.function).unwrap();
                    prop_assert_eq!(&owner.project, &instance.project);
                }
            }
            for demand in &demands {
                prop_assert!(world.fleet.counts(demand.function).total() <= demand.limit);
            }
        }
        // What is kept warm afterwards goes with time: scale to zero is the rest state.
        for _ in 0..3 {
            world.now += LIMITS.keep_alive;
            let actions = world.plan(&[]);
            world.carry_out(&actions, &[]);
        }
        prop_assert_eq!(world.fleet.instances().count(), 0);
    }
}
