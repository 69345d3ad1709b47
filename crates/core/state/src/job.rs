//! A job in memory: its record and spec, its blocks, and the indexes that decisions need.
//!
//! The indexes follow from the blocks and are never stored. Only `apply` changes a job; views and `decide` read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use prism_spec::JobSpec;
use prism_types::{JobId, NodeNo, Reason, TaskState};

use crate::{BLOCK, Block, Cell, Counts, JobRecord, Ranges, Sweep};

/// A job or sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub(crate) record: JobRecord,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) blocks: BTreeMap<u32, Block>,
    pub(crate) counts: Counts,
    /// Queued tasks (a sweep's aggregate among them even while it has to wait).
    pub(crate) ready: Ranges,
    /// Placed tasks by node.
    pub(crate) on: BTreeMap<NodeNo, Ranges>,
    pub(crate) lanes: BTreeMap<NodeNo, u32>,
    pub(crate) lanes_total: u32,
    pub(crate) sweep: Option<Box<Sweep>>,
}

/// Where a task is: number of its block, and offset in it.
pub(crate) fn locate(index: u32) -> (u32, usize) {
    (index / BLOCK, (index % BLOCK) as usize)
}

impl Job {
    pub(crate) fn new(record: JobRecord, spec: Arc<JobSpec>) -> Self {
        let mut counts = Counts::default();
        counts.0[TaskState::Queued as usize] = record.tasks;
        let sweep = spec.sweep().map(|w| Box::new(Sweep::new(w)));
        Self {
            ready: Ranges::of(0..record.tasks),
            record,
            spec,
            blocks: BTreeMap::new(),
            counts,
            on: BTreeMap::new(),
            lanes: BTreeMap::new(),
            lanes_total: 0,
            sweep,
        }
    }

    /// Its id.
    pub fn id(&self) -> JobId {
        self.record.id
    }

    /// What changes of it.
    pub fn record(&self) -> &JobRecord {
        &self.record
    }

    /// What was asked for.
    pub fn spec(&self) -> &Arc<JobSpec> {
        &self.spec
    }

    /// Its tasks by state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What is known of it as a sweep.
    pub fn sweep(&self) -> Option<&Sweep> {
        self.sweep.as_deref()
    }

    /// The cell of a task.
    pub fn cell(&self, index: u32) -> Option<Cell> {
        if index >= self.record.tasks {
            return None;
        }
        let (number, offset) = locate(index);
        match self.blocks.get(&number) {
            Some(block) => block.get(offset),
            None => Some(Cell::UNTOUCHED),
        }
    }

    /// The cells from number `from` on, with their numbers.
    pub fn cells(&self, from: u32) -> impl Iterator<Item = (u32, Cell)> + '_ {
        let first = from / BLOCK;
        let blocks = self.record.tasks.div_ceil(BLOCK);
        (first..blocks).flat_map(move |number| {
            let start = number * BLOCK;
            (start..)
                .zip(self.block_cells(number))
                .skip_while(move |(index, _)| *index < from)
        })
    }

    /// The cells of a block, untouched ones included.
    pub(crate) fn block_cells(&self, number: u32) -> Vec<Cell> {
        self.blocks.get(&number).map_or_else(
            || vec![Cell::UNTOUCHED; self.block_len(number)],
            Block::to_vec,
        )
    }

    /// How many tasks block `number` has.
    pub(crate) fn block_len(&self, number: u32) -> usize {
        let start = number.saturating_mul(BLOCK);
        self.record.tasks.saturating_sub(start).min(BLOCK) as usize
    }

    /// Whether all beams of a sweep are over (so that the aggregate may run).
    pub fn beams_over(&self) -> bool {
        aggregate_of(&self.spec).is_some_and(|aggregate| beams_over(&self.counts, aggregate))
    }

    /// Numbers of the tasks that could be placed now, lowest first; whether the job as a whole may go on is
    /// [`Job::is_open`].
    pub fn ready(&self) -> impl Iterator<Item = std::ops::Range<u32>> + '_ {
        let end = match aggregate_of(&self.spec) {
            Some(aggregate) if !beams_over(&self.counts, aggregate) => aggregate,
            _ => self.record.tasks,
        };
        self.ready
            .ranges()
            .map(move |r| r.start..r.end.min(end))
            .filter(|r| !r.is_empty())
    }

    /// How many tasks could be placed now.
    pub fn ready_len(&self) -> u32 {
        let held_back = match aggregate_of(&self.spec) {
            Some(a) if !beams_over(&self.counts, a) => u32::from(self.ready.contains(a)),
            _ => 0,
        };
        self.ready.len() - held_back
    }

    /// Whether tasks of it may be placed: not over, not paused, not being cancelled, nothing to wait for.
    pub fn is_open(&self) -> bool {
        !self.record.state.is_final()
            && !self.record.paused
            && self.record.cancel.is_none()
            && self.record.waiting_for.is_empty()
    }

    /// Tasks it may run at once, by node.
    pub fn lanes(&self) -> &BTreeMap<NodeNo, u32> {
        &self.lanes
    }

    /// Tasks it may run at once on one node.
    pub fn lanes_on(&self, node: NodeNo) -> u32 {
        self.lanes.get(&node).copied().unwrap_or(0)
    }

    /// Tasks it may run at once on all nodes.
    pub fn lanes_total(&self) -> u32 {
        self.lanes_total
    }

    /// How many more lanes its `concurrency` allows.
    pub fn lanes_left(&self) -> u32 {
        self.spec
            .concurrency
            .unwrap_or(u32::MAX)
            .saturating_sub(self.lanes_total)
    }

    /// How many of its tasks a node holds.
    pub fn placed_on(&self, node: NodeNo) -> u32 {
        self.on.get(&node).map_or(0, Ranges::len)
    }

    /// The numbers of those tasks.
    pub fn tasks_on(&self, node: NodeNo) -> impl Iterator<Item = u32> + '_ {
        self.on.get(&node).into_iter().flat_map(Ranges::iter)
    }

    /// Why a placed task is to be stopped, if it is.
    pub fn stop_reason(&self, index: u32) -> Option<Reason> {
        let stopped = self.sweep.as_ref().is_some_and(|s| s.is_stopped(index));
        self.record
            .cancel
            .or(stopped.then_some(Reason::EarlyStopped))
    }
}

/// Number of the aggregate's task.
pub(crate) fn aggregate_of(spec: &JobSpec) -> Option<u32> {
    spec.sweep().and_then(|s| s.aggregate_index())
}

/// Whether every task before the aggregate (the last one) is over. While the aggregate is not over, that is all but one.
pub(crate) fn beams_over(counts: &Counts, aggregate: u32) -> bool {
    counts.finished() >= aggregate
}
