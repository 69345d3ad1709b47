//! Of a task that may run once only, no two runs live at the same time, and each later one has the greater number.

use std::collections::BTreeMap;

use prism_types::{JobId, TaskRef};

use super::Held;

/// A run that lives, or may wake.
#[derive(Clone, Copy, Debug)]
struct Live {
    attempt: u32,
    machine: u32,
    /// The end of its lease by its machine's own clock.
    until: u64,
}

/// Runs of tasks that may run once only, and the greatest number that each task has run under.
#[derive(Debug, Default)]
pub struct Singles {
    live: BTreeMap<(JobId, u32), Vec<Live>>,
    last: BTreeMap<(JobId, u32), u32>,
}

impl Singles {
    /// A run begins. `still` says the time of a machine that stands still now: what stands still does nothing, and is over when
    /// it wakes if its lease is over by then.
    pub fn begins(
        &mut self,
        task: TaskRef,
        (machine, until): (u32, u64),
        still: impl Fn(u32) -> Option<u64>,
    ) -> Held {
        let key = (task.job, task.index);
        let live = self.live.entry(key).or_default();
        let other = live.iter().find(|other| {
            let over = still(other.machine).is_some_and(|clock| clock >= other.until);
            !over
        });
        if let Some(other) = other {
            return Err(format!(
                "attempt {} of task {} of {} begins on worker {machine} while attempt {} lives on worker {}",
                task.attempt, task.index, task.job, other.attempt, other.machine
            ));
        }
        let before = self.last.insert(key, task.attempt).unwrap_or_default();
        if before >= task.attempt {
            return Err(format!(
                "a run of task {} of {} has number {} after one with {before}",
                task.index, task.job, task.attempt
            ));
        }
        live.push(Live {
            attempt: task.attempt,
            machine,
            until,
        });
        Ok(())
    }

    /// A run has more time.
    pub fn renewed(&mut self, task: TaskRef, machine: u32, until: u64) {
        let live = self.live.entry((task.job, task.index)).or_default();
        for run in live {
            if (run.attempt, run.machine) == (task.attempt, machine) {
                run.until = run.until.max(until);
            }
        }
    }

    /// A run is over.
    pub fn ended(&mut self, task: TaskRef, machine: u32) {
        if let Some(live) = self.live.get_mut(&(task.job, task.index)) {
            live.retain(|run| (run.attempt, run.machine) != (task.attempt, machine));
        }
    }

    /// Nothing of a machine runs any more.
    pub fn lost(&mut self, machine: u32) {
        for live in self.live.values_mut() {
            live.retain(|run| run.machine != machine);
        }
    }
}
