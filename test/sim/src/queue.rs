//! What waits on a worker and what may start, as `crates/plane/worker/src/queue.rs` has it for tasks that are not short.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prism_types::{JobId, TaskRef};

#[derive(Debug, Default)]
struct JobQueue {
    lanes: u32,
    running: BTreeSet<TaskRef>,
    waiting: VecDeque<TaskRef>,
}

/// The node's queue.
#[derive(Debug, Default)]
pub struct Queue(BTreeMap<JobId, JobQueue>);

impl Queue {
    /// Takes tasks in, and the number of lanes of their job; `add` adds to the lanes, which is a planted fault.
    pub fn assign(&mut self, job: JobId, lanes: u32, tasks: Vec<TaskRef>, add: bool) {
        let q = self.0.entry(job).or_default();
        q.lanes = if add { q.lanes + lanes } else { lanes };
        q.waiting.extend(tasks);
    }

    /// Takes in a task that runs already.
    pub fn adopt(&mut self, task: TaskRef) {
        self.0.entry(task.job).or_default().running.insert(task);
    }

    /// What starts now, of jobs that may begin.
    pub fn starts(&mut self, may: impl Fn(&JobId) -> bool) -> Vec<TaskRef> {
        let mut out = Vec::new();
        for (_, q) in self.0.iter_mut().filter(|(job, _)| may(job)) {
            while q.running.len() < q.lanes as usize
                && let Some(task) = q.waiting.pop_front()
            {
                q.running.insert(task);
                out.push(task);
            }
        }
        out
    }

    /// A running task is over. False if it was not known to run.
    pub fn over(&mut self, task: TaskRef) -> bool {
        self.take(task, |q| q.running.remove(&task))
    }

    /// Takes a task out that has not started. False if it does not wait here.
    pub fn withdraw(&mut self, task: TaskRef) -> bool {
        self.take(task, |q| {
            let at = q.waiting.iter().position(|t| *t == task);
            at.is_some_and(|at| q.waiting.remove(at).is_some())
        })
    }

    fn take(&mut self, task: TaskRef, from: impl FnOnce(&mut JobQueue) -> bool) -> bool {
        let Some(q) = self.0.get_mut(&task.job) else {
            return false;
        };
        let known = from(q);
        if q.running.is_empty() && q.waiting.is_empty() {
            self.0.remove(&task.job);
        }
        known
    }

    /// Takes out everything of a job that has not started.
    pub fn recall(&mut self, job: JobId) -> Vec<TaskRef> {
        let Some(q) = self.0.get_mut(&job) else {
            return Vec::new();
        };
        let out = q.waiting.drain(..).collect();
        if q.running.is_empty() {
            self.0.remove(&job);
        }
        out
    }

    /// Whether a task runs here.
    pub fn is_running(&self, task: TaskRef) -> bool {
        let q = self.0.get(&task.job);
        q.is_some_and(|q| q.running.contains(&task))
    }

    /// Whether anything of a job is here for which something holds.
    pub fn any(&self, of: impl Fn(&JobId) -> bool) -> bool {
        self.0.keys().any(of)
    }

    /// How many of a job may run at once; 0 if nothing of it is here.
    pub fn lanes(&self, job: JobId) -> u32 {
        self.0.get(&job).map_or(0, |q| q.lanes)
    }

    /// Whether anything of a job is here.
    pub fn holds(&self, job: JobId) -> bool {
        self.0.contains_key(&job)
    }

    /// Tasks that run.
    pub fn running(&self) -> Vec<TaskRef> {
        self.0
            .values()
            .flat_map(|q| q.running.iter().copied())
            .collect()
    }

    /// Tasks that wait.
    pub fn waiting(&self) -> Vec<TaskRef> {
        self.0
            .values()
            .flat_map(|q| q.waiting.iter().copied())
            .collect()
    }
}
