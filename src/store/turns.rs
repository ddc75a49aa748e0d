//! In turn over the projects: whose parked work is looked at first, and how the work of several is put into one order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: Mutex<Option<String>>,
}

impl Turns {
    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The projects, sorted, in the order in which they are served now: from the one after the last that was served.
    pub(super) fn order(&self, mut projects: Vec<String>) -> Vec<String> {
        projects.sort_unstable();
        if let Some(last) = &*self.last() {
            let next = projects.partition_point(|project| project <= last);
            projects.rotate_left(next);
        }
        projects
    }

    /// Takes one of each in turn, at most `limit` in all, and remembers where it stopped.
    pub(super) fn deal<T>(&self, mut work: Vec<(String, VecDeque<T>)>, limit: usize) -> Vec<T> {
        let mut dealt = Vec::new();
        while dealt.len() < limit {
            let before = dealt.len();
            for (project, items) in &mut work {
                if dealt.len() == limit {
                    break;
                }
                if let Some(item) = items.pop_front() {
                    dealt.push(item);
                    *self.last() = Some(project.clone());
                }
            }
            if dealt.len() == before {
                break;
            }
        }
        dealt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(turns: &Turns, projects: &[(&str, u32)]) -> Vec<(String, VecDeque<String>)> {
        let names = projects.iter().map(|(name, _)| (*name).to_owned()).collect();
        let count = |name: &str| projects.iter().find(|(other, _)| *other == name).map_or(0, |(_, count)| *count);
        turns
            .order(names)
            .into_iter()
            .map(|name| {
                let items = (0..count(&name)).map(|n| format!("{name}{n}")).collect();
                (name, items)
            })
            .collect()
    }

    #[test]
    fn each_project_gets_one_before_any_gets_two() {
        let turns = Turns::default();
        let dealt = turns.deal(work(&turns, &[("a", 5), ("b", 1), ("c", 2)]), 6);
        assert_eq!(dealt, ["a0", "b0", "c0", "a1", "c1", "a2"]);
    }

    #[test]
    fn the_next_call_begins_where_the_last_one_ended() {
        let turns = Turns::default();
        let projects = [("a", 9), ("b", 9), ("c", 9)];
        assert_eq!(turns.deal(work(&turns, &projects), 2), ["a0", "b0"]);
        assert_eq!(turns.deal(work(&turns, &projects), 2), ["c0", "a0"]);
        assert_eq!(turns.deal(work(&turns, &[("a", 1), ("d", 1)]), 2), ["d0", "a0"]);
    }

    #[test]
    fn nothing_is_dealt_of_nothing() {
        let turns = Turns::default();
        assert!(turns.deal(work(&turns, &[]), 3).is_empty());
        assert!(turns.deal(work(&turns, &[("a", 1)]), 0).is_empty());
    }
}
