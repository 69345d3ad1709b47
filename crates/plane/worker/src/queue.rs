//! What waits on this node and what may start now. Pure: the session loop feeds it and carries out what it says.
//!
//! The control plane grants each job a number of lanes here; at most so many of its tasks run at once, whatever waits.
//! Waiting tasks are a buffer that hides the round trip for short tasks, so its wanted size follows the measured rate.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prism_link::AssignedTask;
use prism_types::{JobId, TaskRef};

/// Tasks wanted in the buffer before anything is known of their length.
const TARGET_MIN: u32 = 16;
/// Most tasks wanted in the buffer.
const TARGET_MAX: u32 = 16_384;
/// The buffer should last this long, seconds.
const TARGET_SECONDS: f64 = 0.25;
/// What the runtime is given ahead of free lanes should last this long, seconds: short tasks follow one another without a word
/// between, and long ones are not given ahead at all.
const AHEAD_SECONDS: f64 = 0.02;
/// Most tasks that the runtime is given ahead of free lanes, of one job.
const AHEAD_MAX: usize = 64;

#[derive(Debug, Default)]
struct JobQueue {
    lanes: u32,
    running: BTreeSet<TaskRef>,
    waiting: VecDeque<AssignedTask>,
}

/// The node's queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    jobs: BTreeMap<JobId, JobQueue>,
    waiting: u32,
    running: u32,
    finished: u32,
    /// Finished per second, averaged.
    rate: f64,
}

impl Queue {
    /// Takes tasks in, and the number of lanes of their job.
    pub(crate) fn assign(&mut self, job: JobId, lanes: u32, tasks: Vec<AssignedTask>) {
        self.waiting += u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let q = self.jobs.entry(job).or_default();
        q.lanes = lanes;
        q.waiting.extend(tasks);
    }

    /// Takes in a task that runs already (found after a restart).
    pub(crate) fn adopt(&mut self, task: TaskRef) {
        if self.jobs.entry(task.job).or_default().running.insert(task) {
            self.running += 1;
        }
    }

    /// The tasks to hand to the runtime now, at most `limit`, each with the lanes of its job; they count as running from here on.
    /// Those of jobs that may not begin now go on waiting.
    pub(crate) fn starts(
        &mut self,
        limit: usize,
        may: impl Fn(&JobId) -> bool,
    ) -> Vec<(JobId, AssignedTask, u32)> {
        let mut out = Vec::new();
        let ahead = ((self.rate * AHEAD_SECONDS) as usize).min(AHEAD_MAX);
        for (job, q) in &mut self.jobs {
            if q.waiting.is_empty() || !may(job) {
                continue;
            }
            let room = if q.lanes == 0 {
                0
            } else {
                q.lanes as usize + ahead
            };
            // Topped up by halves, so that one message brings several.
            let full = q.running.len() + ahead / 2 > room;
            if full && q.running.len() >= q.lanes as usize {
                continue;
            }
            while out.len() < limit && q.running.len() < room {
                let Some(task) = q.waiting.pop_front() else {
                    break;
                };
                q.running.insert(TaskRef {
                    job: *job,
                    index: task.index,
                    attempt: task.attempt,
                });
                out.push((*job, task, q.lanes));
            }
        }
        let n = u32::try_from(out.len()).unwrap_or(u32::MAX);
        self.waiting -= n;
        self.running += n;
        out
    }

    /// A running task is over. False if it was not known to run.
    pub(crate) fn over(&mut self, task: TaskRef) -> bool {
        let Some(q) = self.jobs.get_mut(&task.job) else {
            return false;
        };
        let known = q.running.remove(&task);
        if q.running.is_empty() && q.waiting.is_empty() {
            self.jobs.remove(&task.job);
        }
        if known {
            self.running -= 1;
            self.finished += 1;
        }
        known
    }

    /// Takes a task out that has not started. False if it does not wait here.
    pub(crate) fn withdraw(&mut self, task: TaskRef) -> bool {
        let Some(q) = self.jobs.get_mut(&task.job) else {
            return false;
        };
        let at = q
            .waiting
            .iter()
            .position(|t| t.index == task.index && t.attempt == task.attempt);
        if let Some(at) = at {
            q.waiting.remove(at);
            self.waiting -= 1;
        }
        if q.running.is_empty() && q.waiting.is_empty() {
            self.jobs.remove(&task.job);
        }
        at.is_some()
    }

    /// Takes out everything of a job that has not started.
    pub(crate) fn recall(&mut self, job: JobId) -> Vec<TaskRef> {
        let Some(q) = self.jobs.get_mut(&job) else {
            return Vec::new();
        };
        let out: Vec<TaskRef> = q
            .waiting
            .drain(..)
            .map(|t| TaskRef {
                job,
                index: t.index,
                attempt: t.attempt,
            })
            .collect();
        self.waiting -= u32::try_from(out.len()).unwrap_or(u32::MAX);
        if q.running.is_empty() {
            self.jobs.remove(&job);
        }
        out
    }

    /// Tasks that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = TaskRef> {
        self.jobs.values().flat_map(|q| q.running.iter().copied())
    }

    /// Tasks that wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = TaskRef> {
        self.jobs.iter().flat_map(|(job, q)| {
            q.waiting.iter().map(|t| TaskRef {
                job: *job,
                index: t.index,
                attempt: t.attempt,
            })
        })
    }

    /// Whether a task runs here.
    pub(crate) fn is_running(&self, task: TaskRef) -> bool {
        self.jobs
            .get(&task.job)
            .is_some_and(|q| q.running.contains(&task))
    }

    /// Whether anything of a job is here for which something holds.
    pub(crate) fn any(&self, of: impl Fn(&JobId) -> bool) -> bool {
        self.jobs.keys().any(of)
    }

    /// How many of a job may run at once; 0 if nothing of it is here.
    pub(crate) fn lanes(&self, job: JobId) -> u32 {
        self.jobs.get(&job).map_or(0, |q| q.lanes)
    }

    /// Whether anything of a job is here.
    pub(crate) fn holds(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// How many run and wait.
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.running, self.waiting)
    }

    /// Whether the buffer holds enough for a while: then reports may be joined before they are told.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting > 0 && self.waiting >= self.target() / 4
    }

    /// Folds what finished in the last `seconds` into the rate.
    pub(crate) fn measure(&mut self, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        let now = f64::from(self.finished) / seconds;
        self.finished = 0;
        // Follows a rise at once and a fall slowly: an empty buffer costs more than a long one.
        self.rate = if now > self.rate {
            now
        } else {
            0.8 * self.rate + 0.2 * now
        };
    }

    /// How many tasks the buffer should hold.
    pub(crate) fn target(&self) -> u32 {
        let wanted = (self.rate * TARGET_SECONDS).min(f64::from(TARGET_MAX));
        (wanted as u32).max(TARGET_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(index: u32) -> AssignedTask {
        AssignedTask {
            index,
            attempt: 1,
            results: None,
        }
    }

    #[test]
    fn no_more_than_the_lanes_run() {
        let (mut q, job) = (Queue::default(), JobId::new(1, 1));
        q.assign(job, 2, (0..5).map(task).collect());
        assert_eq!(q.starts(10, |_| true).len(), 2);
        assert_eq!(q.starts(10, |_| true).len(), 0);
        assert!(q.over(TaskRef {
            job,
            index: 0,
            attempt: 1
        }));
        assert!(
            !q.over(TaskRef {
                job,
                index: 0,
                attempt: 1
            }),
            "over is over"
        );
        let next = q.starts(10, |_| true);
        assert_eq!(next.len(), 1);
        assert_eq!(
            (next[0].1.index, next[0].2),
            (2, 2),
            "first come, first served"
        );
        assert_eq!(q.counts(), (2, 2));
    }

    #[test]
    fn a_waiting_task_can_be_withdrawn_and_a_running_one_cannot() {
        let (mut q, job) = (Queue::default(), JobId::new(1, 1));
        q.assign(job, 1, vec![task(0), task(1)]);
        q.starts(10, |_| true);
        assert!(!q.withdraw(TaskRef {
            job,
            index: 0,
            attempt: 1
        }));
        assert!(q.withdraw(TaskRef {
            job,
            index: 1,
            attempt: 1
        }));
        q.over(TaskRef {
            job,
            index: 0,
            attempt: 1,
        });
        assert!(!q.holds(job));
        assert_eq!(q.counts(), (0, 0));
    }

    #[test]
    fn the_buffer_grows_with_the_rate_and_shrinks_slowly() {
        let (mut q, job) = (Queue::default(), JobId::new(1, 1));
        assert_eq!(q.target(), TARGET_MIN);
        q.assign(job, 1000, (0..1000).map(task).collect());
        q.starts(1000, |_| true);
        for i in 0..1000 {
            q.over(TaskRef {
                job,
                index: i,
                attempt: 1,
            });
        }
        q.measure(0.1);
        assert_eq!(q.target(), 2500);
        q.measure(0.1);
        assert_eq!(q.target(), 2000);
    }

    #[test]
    fn short_tasks_are_given_ahead_and_only_while_there_are_lanes() {
        let (mut q, job) = (Queue::default(), JobId::new(1, 1));
        q.assign(job, 2, (0..1000).map(task).collect());
        for _ in 0..100 {
            for (_, t, _) in q.starts(2, |_| true) {
                q.over(TaskRef {
                    job,
                    index: t.index,
                    attempt: t.attempt,
                });
            }
        }
        q.measure(0.1);
        let given = q.starts(1000, |_| true).len();
        assert_eq!(given, 2 + 40, "two lanes, and what 20 ms take");
        assert_eq!(q.starts(1000, |_| true).len(), 0);
        q.assign(job, 0, Vec::new());
        for index in 200..242 {
            q.over(TaskRef {
                job,
                index,
                attempt: 1,
            });
        }
        assert_eq!(q.starts(1000, |_| true).len(), 0, "no lane, no task");
    }

    #[test]
    fn a_job_that_may_not_begin_waits_and_holds_up_no_other() {
        let (mut q, job, other) = (Queue::default(), JobId::new(1, 1), JobId::new(1, 2));
        q.assign(job, 1, vec![task(0)]);
        q.assign(other, 1, vec![task(0)]);
        let begun = q.starts(10, |j| *j != job);
        assert_eq!(begun.len(), 1);
        assert_eq!(begun[0].0, other);
        assert_eq!(q.counts(), (1, 1));
        assert_eq!(q.starts(10, |_| true).len(), 1);
    }
}
