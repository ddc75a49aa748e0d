//! Room: how much a worker takes on. What is held here is running or about to run; everything else stays in the queue or
//! parked in the inbox, where every worker can reach it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::model::{FunctionId, ProjectId};

/// The room of one worker.
#[derive(Debug)]
pub struct Admission {
    total: u32,
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    all: u32,
    functions: HashMap<FunctionId, Function>,
    projects: HashMap<ProjectId, u32>,
}

#[derive(Debug, Default)]
struct Function {
    held: u32,
    allowance: u32,
}

/// A place for one execution. Dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    function: FunctionId,
    project: ProjectId,
}

/// How many executions of a function a worker holds at most, where `limit` of them may run at the same time: enough
/// that the next one is at hand when one ends, few enough that slow functions do not fill the worker.
#[must_use]
pub fn allowance(limit: u32, max_waiting: u32) -> u32 {
    limit + (limit * 2).clamp(2, (max_waiting / 2).max(2))
}

impl Admission {
    /// Room for what `max_running` and `max_waiting` allow one project, and as much again for the others.
    #[must_use]
    pub fn new(max_running: u32, max_waiting: u32) -> Arc<Self> {
        Arc::new(Self { total: 2 * (max_running + max_waiting), held: Mutex::default(), freed: Notify::new() })
    }

    /// Takes a place, if the function holds less than its allowance and the project less than half of what the others
    /// leave: so a flood of one project, or of several, always leaves room to look for others' events.
    pub fn admit(self: &Arc<Self>, project: &ProjectId, function: FunctionId, allowance: u32) -> Option<Place> {
        let mut held = self.lock();
        let of_project = held.projects.get(project).copied().unwrap_or(0);
        let others = held.all - of_project;
        let entry = held.functions.entry(function).or_default();
        entry.allowance = allowance;
        if entry.held >= allowance || of_project >= (self.total - others).div_ceil(2) {
            return None;
        }
        entry.held += 1;
        held.all += 1;
        *held.projects.entry(project.clone()).or_default() += 1;
        Some(Place { admission: Arc::clone(self), function, project: project.clone() })
    }

    /// Places that are free for anybody.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.total - self.lock().all
    }

    /// Places that a project could take now.
    #[must_use]
    pub fn free_for(&self, project: &ProjectId) -> u32 {
        let held = self.lock();
        let of_project = held.projects.get(project).copied().unwrap_or(0);
        let others = held.all - of_project;
        (self.total - others).div_ceil(2).saturating_sub(of_project).min(self.total - held.all)
    }

    /// Places taken.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.lock().all
    }

    /// Functions that hold all they may.
    #[must_use]
    pub fn saturated(&self) -> Vec<FunctionId> {
        let held = self.lock();
        held.functions.iter().filter(|(_, f)| f.held > 0 && f.held >= f.allowance).map(|(id, _)| *id).collect()
    }

    /// Waits until a place is given back. Arm it before looking for room.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        // Nothing in here panics between two changes that belong together.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.admission.lock();
        held.all -= 1;
        if let Some(function) = held.functions.get_mut(&self.function) {
            function.held -= 1;
            if function.held == 0 {
                held.functions.remove(&self.function);
            }
        }
        if let Some(of_project) = held.projects.get_mut(&self.project) {
            *of_project -= 1;
            if *of_project == 0 {
                held.projects.remove(&self.project);
            }
        }
        drop(held);
        self.admission.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).unwrap()
    }

    #[test]
    fn a_function_holds_no_more_than_its_allowance() {
        let admission = Admission::new(8, 8);
        let function = FunctionId::generate();
        let places: Vec<_> = (0..5).filter_map(|_| admission.admit(&project("a"), function, 3)).collect();
        assert_eq!(places.len(), 3);
        assert_eq!(admission.saturated(), [function]);
        drop(places);
        assert_eq!((admission.held(), admission.saturated()), (0, Vec::new()));
    }

    #[test]
    fn floods_of_several_projects_leave_room_for_one_more() {
        let admission = Admission::new(16, 16);
        let mut places = Vec::new();
        for name in ["a", "b", "c", "d"] {
            while let Some(place) = admission.admit(&project(name), FunctionId::generate(), 10) {
                places.push(place);
            }
        }
        assert_eq!(admission.free_for(&project("a")), 0);
        assert!(admission.free_for(&project("e")) > 0);
        assert!(admission.admit(&project("e"), FunctionId::generate(), 1).is_some());
        assert!(admission.free() > 0);
    }

    #[test]
    fn a_place_that_is_given_back_wakes_whoever_waits() {
        let admission = Admission::new(1, 0);
        let place = admission.admit(&project("a"), FunctionId::generate(), 1);
        let mut freed = tokio_test_task(admission.freed());
        assert!(!freed());
        drop(place);
        assert!(freed());
    }

    /// Polls a future by hand: whether it is ready.
    fn tokio_test_task<F: Future<Output = ()>>(future: F) -> impl FnMut() -> bool {
        let mut future = Box::pin(future);
        move || {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            future.as_mut().poll(&mut context).is_ready()
        }
    }

    #[test]
    fn slow_functions_with_small_limits_hold_little() {
        assert_eq!(allowance(1, 128), 3);
        assert_eq!(allowance(32, 128), 96);
        assert_eq!(allowance(64, 128), 128);
        assert_eq!(allowance(0, 128), 2);
    }
}
