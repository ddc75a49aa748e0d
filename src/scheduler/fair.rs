//! Work that waits, served in turn over projects and, within a project, in turn over its functions, so that one
//! project's flood does not delay another's single event, nor one function's flood another function.

use std::collections::{HashMap, VecDeque};

use crate::model::{FunctionId, ProjectId};

/// Waiting work of one worker.
#[derive(Debug)]
pub struct FairQueue<T> {
    projects: HashMap<ProjectId, ProjectQueue<T>>,
    /// Projects with work, the one to be served next in front.
    turn: VecDeque<ProjectId>,
    len: usize,
}

#[derive(Debug)]
struct ProjectQueue<T> {
    functions: HashMap<FunctionId, VecDeque<T>>,
    /// Functions with work, the one to be served next in front.
    turn: VecDeque<FunctionId>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { projects: HashMap::new(), turn: VecDeque::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Puts work behind all other work of its function.
    pub fn push(&mut self, project: &ProjectId, function: FunctionId, work: T) {
        let queue = self.projects.entry(project.clone()).or_insert_with(|| {
            self.turn.push_back(project.clone());
            ProjectQueue { functions: HashMap::new(), turn: VecDeque::new() }
        });
        let waiting = queue.functions.entry(function).or_insert_with(|| {
            queue.turn.push_back(function);
            VecDeque::new()
        });
        waiting.push_back(work);
        self.len += 1;
    }

    /// Takes the next work in turn whose project and function may run now. Those that may not keep their turn.
    pub fn pop_if(
        &mut self,
        mut project_may: impl FnMut(&ProjectId) -> bool,
        mut function_may: impl FnMut(FunctionId) -> bool,
    ) -> Option<T> {
        for p in 0..self.turn.len() {
            let project = self.turn[p].clone();
            if !project_may(&project) {
                continue;
            }
            let Some(queue) = self.projects.get_mut(&project) else { continue };
            let Some(f) = queue.turn.iter().position(|function| function_may(*function)) else { continue };
            let Some(function) = queue.turn.remove(f) else { continue };
            let waiting = queue.functions.get_mut(&function)?;
            let work = waiting.pop_front()?;
            self.len -= 1;
            if waiting.is_empty() {
                queue.functions.remove(&function);
            } else {
                queue.turn.push_back(function);
            }
            self.turn.remove(p);
            if queue.turn.is_empty() {
                self.projects.remove(&project);
            } else {
                self.turn.push_back(project);
            }
            return Some(work);
        }
        None
    }

    /// Takes the oldest work of one function, out of turn.
    pub fn pop_function(&mut self, project: &ProjectId, function: FunctionId) -> Option<T> {
        self.remove_where(project, function, 1, |_| true).pop()
    }

    /// Takes out all work of one function.
    pub fn drain_function(&mut self, project: &ProjectId, function: FunctionId) -> Vec<T> {
        self.remove_where(project, function, usize::MAX, |_| true)
    }

    /// Takes out all work that the test picks.
    pub fn drain_where(&mut self, mut picked: impl FnMut(&T) -> bool) -> Vec<T> {
        let all: Vec<_> = self.functions().map(|(project, function, _)| (project.clone(), function)).collect();
        all.into_iter()
            .flat_map(|(project, function)| self.remove_where(&project, function, usize::MAX, &mut picked))
            .collect()
    }

    fn remove_where(
        &mut self,
        project: &ProjectId,
        function: FunctionId,
        most: usize,
        mut picked: impl FnMut(&T) -> bool,
    ) -> Vec<T> {
        let Some(queue) = self.projects.get_mut(project) else { return Vec::new() };
        let Some(waiting) = queue.functions.get_mut(&function) else { return Vec::new() };
        let mut taken = Vec::new();
        let mut kept = VecDeque::with_capacity(waiting.len());
        for work in waiting.drain(..) {
            if taken.len() < most && picked(&work) {
                taken.push(work);
            } else {
                kept.push_back(work);
            }
        }
        self.len -= taken.len();
        if kept.is_empty() {
            queue.functions.remove(&function);
            queue.turn.retain(|other| *other != function);
            if queue.turn.is_empty() {
                self.projects.remove(project);
                self.turn.retain(|other| other != project);
            }
        } else {
            *waiting = kept;
        }
        taken
    }

    /// Functions with waiting work, with their project and how much waits.
    pub fn functions(&self) -> impl Iterator<Item = (&ProjectId, FunctionId, usize)> {
        self.turn.iter().filter_map(|project| Some((project, self.projects.get(project)?))).flat_map(
            |(project, queue)| {
                queue
                    .turn
                    .iter()
                    .filter_map(move |function| Some((project, *function, queue.functions.get(function)?.len())))
            },
        )
    }

    /// Work of one function that waits, oldest first.
    pub fn of(&self, project: &ProjectId, function: FunctionId) -> impl Iterator<Item = &T> {
        self.projects.get(project).and_then(|queue| queue.functions.get(&function)).into_iter().flatten()
    }

    /// How much waits.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn project(n: u8) -> ProjectId {
        ProjectId::parse(&format!("p{n}")).unwrap()
    }

    fn function(n: u8) -> FunctionId {
        FunctionId::from_uuid(uuid::Uuid::from_u128(u128::from(n)))
    }

    #[test]
    fn a_single_event_is_served_after_one_of_the_flood() {
        let mut queue = FairQueue::default();
        for n in 0..1000 {
            queue.push(&project(1), function(1), n);
        }
        queue.push(&project(2), function(2), 5000);
        let order: Vec<_> = (0..3).filter_map(|_| queue.pop_if(|_| true, |_| true)).collect();
        assert_eq!(order, [0, 5000, 1]);
    }

    #[test]
    fn functions_of_a_project_take_turns() {
        let mut queue = FairQueue::default();
        for n in 0..3 {
            queue.push(&project(1), function(1), n);
        }
        queue.push(&project(1), function(2), 100);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop_if(|_| true, |_| true)).collect();
        assert_eq!(order, [0, 100, 1, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_may_not_run_keeps_its_turn() {
        let mut queue = FairQueue::default();
        queue.push(&project(1), function(1), 1);
        queue.push(&project(2), function(2), 2);
        queue.push(&project(2), function(2), 3);
        assert_eq!(queue.pop_if(|_| true, |f| f == function(2)), Some(2));
        assert_eq!(queue.pop_if(|_| true, |_| true), Some(1));
        assert_eq!(queue.pop_if(|p| *p != project(2), |_| true), None);
        assert_eq!(queue.len(), 1);
    }

    proptest! {
        #[test]
        fn everything_comes_out_once_in_the_order_of_its_function(work in prop::collection::vec((0u8..4, 0u8..4), 0..200)) {
            let mut queue = FairQueue::default();
            for (n, (p, f)) in work.iter().enumerate() {
                // A function belongs to one project.
                queue.push(&project(*p), function(*p * 4 + *f), (*p, *f, n));
            }
            prop_assert_eq!(queue.functions().map(|(_, _, n)| n).sum::<usize>(), work.len());
            let out: Vec<_> = std::iter::from_fn(|| queue.pop_if(|_| true, |_| true)).collect();
            prop_assert_eq!(out.len(), work.len());
            for p in 0..4 {
                for f in 0..4 {
                    let numbers: Vec<_> = out.iter().filter(|w| (w.0, w.1) == (p, f)).map(|w| w.2).collect();
                    prop_assert!(numbers.is_sorted());
                }
            }
            prop_assert!(queue.projects.is_empty() && queue.turn.is_empty());
        }

        #[test]
        fn no_project_waits_for_more_than_one_turn_of_each_other(counts in prop::collection::vec(1usize..20, 1..6)) {
            let mut queue = FairQueue::default();
            for (p, count) in counts.iter().enumerate() {
                for _ in 0..*count {
                    queue.push(&project(u8::try_from(p).unwrap()), function(u8::try_from(p).unwrap()), p);
                }
            }
            let first: std::collections::HashSet<_> =
                (0..counts.len()).filter_map(|_| queue.pop_if(|_| true, |_| true)).collect();
            prop_assert_eq!(first.len(), counts.len());
        }
    }
}
