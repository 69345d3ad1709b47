//! Launches that wait: for room among the children that are prepared, or for one of their job's lanes.
//!
//! Lanes let a daemon hand over the next tasks of a job before there is room for them: the moment one ends the next begins, and
//! the daemon hears of many ends at once. Some of those that wait are prepared meanwhile, up to the moment before their program:
//! they are held there, and released when a lane is free.

use std::collections::{HashMap, HashSet, VecDeque};

use prism_runtime::Launch;
use prism_types::{JobId, RunId};

/// One job's tasks.
#[derive(Debug, Default)]
struct Lanes {
    width: u32,
    /// Tasks that are ready or live.
    taken: u32,
    waiting: VecDeque<Launch>,
    /// Prepared, or on their way to it, in order.
    held: VecDeque<RunId>,
}

impl Lanes {
    fn may_hold(&self) -> bool {
        !self.waiting.is_empty() && self.held.len() < self.width as usize
    }
}

/// What was accepted and has not begun, in order.
#[derive(Debug, Default)]
pub struct Waiting {
    ready: VecDeque<Launch>,
    lanes: HashMap<JobId, Lanes>,
    ids: HashSet<RunId>,
    /// How many are held, and the most that are.
    held: usize,
    held_max: usize,
    /// What was held and may go on.
    released: Vec<RunId>,
}

/// The job whose lanes a launch takes.
fn job_of(launch: &Launch) -> Option<JobId> {
    (launch.lanes > 0)
        .then(|| launch.id.as_task().map(|task| task.job))
        .flatten()
}

/// Takes these out of a queue; the others keep their order.
fn split(queue: &mut VecDeque<Launch>, gone: &HashSet<&RunId>) -> Vec<Launch> {
    let (out, stay): (Vec<_>, Vec<_>) = std::mem::take(queue)
        .into_iter()
        .partition(|l| gone.contains(&l.id));
    queue.extend(stay);
    out
}

impl Waiting {
    /// Nothing waits; at most so many are held at once.
    pub fn new(held_max: usize) -> Self {
        Self {
            held_max,
            ..Self::default()
        }
    }

    /// Takes a launch in.
    pub fn push(&mut self, launch: Launch) {
        self.ids.insert(launch.id.clone());
        let Some(job) = job_of(&launch) else {
            self.ready.push_back(launch);
            return;
        };
        let lanes = self.lanes.entry(job).or_default();
        lanes.width = launch.lanes;
        lanes.waiting.push_back(launch);
        self.refill(job);
    }

    /// The next one to prepare, and whether it is to be held before its program. Without, it has its lane until
    /// [`Waiting::over`].
    pub fn pop(&mut self) -> Option<(Launch, bool)> {
        if let Some(launch) = self.ready.pop_front() {
            self.ids.remove(&launch.id);
            return Some((launch, false));
        }
        if self.held >= self.held_max {
            return None;
        }
        let lanes = self.lanes.values_mut().find(|lanes| lanes.may_hold())?;
        let launch = lanes.waiting.pop_front()?;
        lanes.held.push_back(launch.id.clone());
        self.held += 1;
        self.ids.remove(&launch.id);
        Some((launch, true))
    }

    /// What was held and has a lane now.
    pub fn take_released(&mut self) -> Vec<RunId> {
        std::mem::take(&mut self.released)
    }

    /// How many are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// A run that came from here is over.
    pub fn over(&mut self, id: &RunId) {
        let Some(job) = id.as_task().map(|task| task.job) else {
            return;
        };
        let Some(lanes) = self.lanes.get_mut(&job) else {
            return;
        };
        if let Some(at) = lanes.held.iter().position(|held| held == id) {
            lanes.held.remove(at);
            self.held -= 1;
        } else {
            lanes.taken = lanes.taken.saturating_sub(1);
        }
        self.refill(job);
    }

    fn refill(&mut self, job: JobId) {
        let Some(lanes) = self.lanes.get_mut(&job) else {
            return;
        };
        while lanes.taken < lanes.width {
            if let Some(first) = lanes.held.pop_front() {
                lanes.taken += 1;
                self.held -= 1;
                self.released.push(first);
                continue;
            }
            let Some(next) = lanes.waiting.pop_front() else {
                break;
            };
            lanes.taken += 1;
            self.ready.push_back(next);
        }
        if lanes.taken == 0 && lanes.waiting.is_empty() && lanes.held.is_empty() {
            self.lanes.remove(&job);
        }
    }

    /// Takes out what will not begin.
    pub fn take_out(&mut self, ids: &[RunId]) -> Vec<Launch> {
        let gone: HashSet<&RunId> = ids.iter().filter(|id| self.ids.contains(*id)).collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let mut out = split(&mut self.ready, &gone);
        let freed: Vec<RunId> = out
            .iter()
            .filter(|l| job_of(l).is_some())
            .map(|l| l.id.clone())
            .collect();
        for lanes in self.lanes.values_mut() {
            out.extend(split(&mut lanes.waiting, &gone));
        }
        for id in &freed {
            self.over(id);
        }
        self.lanes.retain(|_, lanes| {
            lanes.taken > 0 || !lanes.waiting.is_empty() || !lanes.held.is_empty()
        });
        for launch in &out {
            self.ids.remove(&launch.id);
        }
        out
    }

    /// Whether it waits here.
    pub fn contains(&self, id: &RunId) -> bool {
        self.ids.contains(id)
    }

    /// Whether any may begin now.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
            || self.held < self.held_max && self.lanes.values().any(Lanes::may_hold)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Launch> {
        let behind = self.lanes.values().flat_map(|lanes| &lanes.waiting);
        self.ready.iter().chain(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_runtime::{Image, Isolation, Limits, Scratch};
    use prism_types::{Bytes, MilliCpu, TaskRef};

    fn task(index: u32, lanes: u32) -> Launch {
        let job = JobId::new(1, 1);
        Launch {
            id: RunId::task(TaskRef {
                job,
                index,
                attempt: 1,
            }),
            isolation: Isolation::Plain,
            image: Image::Host,
            layers: Vec::new(),
            scratch: Scratch::Memory { bytes: Bytes(0) },
            program: None,
            files: Vec::new(),
            limits: Limits {
                cpu: MilliCpu(0),
                memory: Bytes(0),
                pids: 1,
                nofile: 1,
                io_bytes_per_s: 0,
                timeout: None,
                log_bytes: 0,
            },
            hostname: String::new(),
            logs: "/".into(),
            lanes,
            lease: None,
        }
    }

    fn next(w: &mut Waiting) -> Launch {
        let (launch, held) = w.pop().unwrap();
        assert!(!held);
        launch
    }

    #[test]
    fn what_is_held_goes_on_in_order_when_a_lane_is_free() {
        let mut w = Waiting::new(2);
        (0..5).for_each(|i| w.push(task(i, 1)));
        let first = next(&mut w);
        let (second, held) = w.pop().unwrap();
        assert!(held && second.id == task(1, 1).id);
        // No more of a job are held than it has lanes.
        assert!(w.pop().is_none() && !w.is_ready() && w.take_released().is_empty());
        w.over(&first.id);
        assert_eq!(w.take_released(), [task(1, 1).id]);
        assert_eq!(w.pop().unwrap().0.id, task(2, 1).id);
        // One that is held dies: the lane is still another's.
        w.over(&task(2, 1).id);
        assert!(w.take_released().is_empty() && w.held() == 0);
        assert_eq!(w.pop().unwrap().0.id, task(3, 1).id);
        w.over(&task(1, 1).id);
        assert_eq!(w.take_released(), [task(3, 1).id]);
        w.over(&task(3, 1).id);
        assert_eq!(
            next(&mut w).id,
            task(4, 1).id,
            "a free lane needs no holding"
        );
        w.over(&task(4, 1).id);
        assert!(w.is_empty() && w.lanes.is_empty());
    }

    #[test]
    fn a_job_takes_no_more_than_its_lanes_and_the_next_follows_an_end() {
        let mut w = Waiting::default();
        (0..4).for_each(|i| w.push(task(i, 2)));
        let (a, b) = (next(&mut w), next(&mut w));
        assert!(w.pop().is_none() && !w.is_ready() && w.len() == 2);
        w.over(&b.id);
        assert_eq!(next(&mut w).id, task(2, 2).id, "in order");
        w.over(&a.id);
        assert_eq!(next(&mut w).id, task(3, 2).id);
        w.over(&task(2, 2).id);
        w.over(&task(3, 2).id);
        assert!(
            w.is_empty() && w.lanes.is_empty(),
            "nothing is kept of a job that is over"
        );
    }

    #[test]
    fn what_is_taken_out_gives_its_lane_back() {
        let mut w = Waiting::default();
        (0..4).for_each(|i| w.push(task(i, 1)));
        let out = w.take_out(&[task(0, 1).id, task(2, 1).id, task(9, 1).id]);
        assert_eq!(out.len(), 2);
        assert_eq!(next(&mut w).id, task(1, 1).id);
        assert!(w.pop().is_none(), "one lane");
        w.over(&task(1, 1).id);
        assert_eq!(next(&mut w).id, task(3, 1).id);
        assert!(w.is_empty());
    }

    #[test]
    fn without_lanes_everything_is_ready() {
        let mut w = Waiting::default();
        (0..3).for_each(|i| w.push(task(i, 0)));
        assert_eq!(std::iter::from_fn(|| w.pop()).count(), 3);
        w.over(&task(0, 0).id);
        assert!(w.is_empty());
    }

    #[test]
    fn the_width_given_last_holds() {
        let mut w = Waiting::default();
        w.push(task(0, 1));
        w.push(task(1, 1));
        w.push(task(2, 3));
        assert_eq!(std::iter::from_fn(|| w.pop()).count(), 3);
    }
}
