//! A task whose result is recorded, and of which its worker was told so, is neither started again nor given a new attempt.

use std::collections::BTreeMap;

use prism_types::{JobId, TaskRef};

use super::Held;

/// What workers may forget, by task: the attempt that completed.
#[derive(Debug, Default)]
pub struct Recorded(BTreeMap<(JobId, u32), u32>);

impl Recorded {
    /// A worker is told that the result of a completed task is recorded.
    pub fn completed(&mut self, task: TaskRef) {
        self.0.insert((task.job, task.index), task.attempt);
    }

    /// A task is started. Older attempts may still be, by a node that does not know yet.
    pub fn started(&self, task: TaskRef) -> Held {
        match self.0.get(&(task.job, task.index)) {
            Some(done) if task.attempt >= *done => Err(format!(
                "attempt {} of task {} of {} starts after attempt {done} was recorded as completed",
                task.attempt, task.index, task.job
            )),
            _ => Ok(()),
        }
    }
}
