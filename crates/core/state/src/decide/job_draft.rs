//! One job in a draft: copies of the blocks, records and counters that the decision writes.

use std::collections::BTreeMap;

use prism_types::{JobId, NodeNo, Reason, TaskState};

use crate::job::{aggregate_of, beams_over, locate};
use crate::{
    BLOCK, BeamRecord, Block, Cell, Change, Counts, Job, JobRecord, ResultRecord, SweepRecord,
};

struct BlockDraft {
    cells: Vec<Cell>,
    results: u32,
    records: Vec<ResultRecord>,
}

pub(crate) struct JobDraft<'a> {
    pub job: &'a Job,
    record: Option<Box<JobRecord>>,
    blocks: BTreeMap<u32, BlockDraft>,
    pub counts: Counts,
    /// Placed tasks on the nodes that this decision touches.
    placed: BTreeMap<NodeNo, u32>,
    /// Lanes that differ from the state.
    lanes: BTreeMap<NodeNo, u32>,
    pub lanes_total: u32,
    pub sweep: Option<SweepRecord>,
    pub beams: BTreeMap<u32, BeamRecord>,
    /// Copies of the rungs that this decision writes.
    pub rungs: BTreeMap<u32, Vec<(f64, u32)>>,
}

impl<'a> JobDraft<'a> {
    pub fn new(job: &'a Job) -> Self {
        Self {
            job,
            record: None,
            blocks: BTreeMap::new(),
            counts: job.counts,
            placed: BTreeMap::new(),
            lanes: BTreeMap::new(),
            lanes_total: job.lanes_total,
            sweep: None,
            beams: BTreeMap::new(),
            rungs: BTreeMap::new(),
        }
    }

    pub fn record(&self) -> &JobRecord {
        self.record.as_deref().unwrap_or(&self.job.record)
    }

    pub fn record_mut(&mut self) -> &mut JobRecord {
        let job = self.job;
        self.record
            .get_or_insert_with(|| Box::new(job.record.clone()))
    }

    pub fn cell(&self, index: u32) -> Option<Cell> {
        let (number, offset) = locate(index);
        match self.blocks.get(&number) {
            Some(block) => block.cells.get(offset).copied(),
            None => self.job.cell(index),
        }
    }

    fn block(&mut self, number: u32) -> &mut BlockDraft {
        let job = self.job;
        self.blocks.entry(number).or_insert_with(|| BlockDraft {
            cells: job.block_cells(number),
            results: job.blocks.get(&number).map_or(0, |b| b.results),
            records: Vec::new(),
        })
    }

    /// Replaces a cell; an index beyond the job changes nothing.
    pub fn set(&mut self, index: u32, new: Cell) {
        let (number, offset) = locate(index);
        let Some(cell) = self.block(number).cells.get_mut(offset) else {
            return;
        };
        let old = std::mem::replace(cell, new);
        self.counts.moved(old.state, new.state);
        let (from, to) = (old.placed_on(), new.placed_on());
        if from != to {
            if let Some(no) = from {
                *self.placed_mut(no) -= 1;
            }
            if let Some(no) = to {
                *self.placed_mut(no) += 1;
            }
        }
    }

    fn placed_mut(&mut self, no: NodeNo) -> &mut u32 {
        let job = self.job;
        self.placed.entry(no).or_insert_with(|| job.placed_on(no))
    }

    /// Keeps a result, to be stored with the task's block.
    pub fn push_result(&mut self, record: ResultRecord) {
        let (number, _) = locate(record.index);
        self.block(number).records.push(record);
    }

    pub fn placed_on(&self, no: NodeNo) -> u32 {
        let drafted = self.placed.get(&no).copied();
        drafted.unwrap_or_else(|| self.job.placed_on(no))
    }

    /// Nodes whose number of placed tasks this decision changed.
    pub fn touched_nodes(&self) -> Vec<NodeNo> {
        self.placed.keys().copied().collect()
    }

    pub fn lanes_on(&self, no: NodeNo) -> u32 {
        let drafted = self.lanes.get(&no).copied();
        drafted.unwrap_or_else(|| self.job.lanes_on(no))
    }

    pub fn set_lanes(&mut self, no: NodeNo, lanes: u32) {
        self.lanes_total = self.lanes_total - self.lanes_on(no) + lanes;
        self.lanes.insert(no, lanes);
    }

    /// How many more lanes its `concurrency` allows.
    pub fn lanes_left(&self) -> u32 {
        let all = self.job.spec.concurrency.unwrap_or(u32::MAX);
        all.saturating_sub(self.lanes_total)
    }

    pub fn beam(&self, index: u32) -> Option<&BeamRecord> {
        let sweep = self.job.sweep.as_deref();
        let stored = || sweep.and_then(|s| s.beam(index));
        self.beams.get(&index).or_else(stored)
    }

    /// Why a placed task is to be stopped, if it is.
    pub fn stop_reason(&self, index: u32) -> Option<Reason> {
        let stopped = self.beam(index).is_some_and(|b| b.stopped);
        self.record()
            .cancel
            .or(stopped.then_some(Reason::EarlyStopped))
    }

    /// Whether a task may be placed as far as the order within the job goes.
    pub fn in_turn(&self, index: u32) -> bool {
        match aggregate_of(&self.job.spec) {
            Some(aggregate) if index == aggregate => beams_over(&self.counts, aggregate),
            _ => true,
        }
    }

    /// Whether tasks may be placed at all.
    pub fn is_open(&self) -> bool {
        let r = self.record();
        !r.state.is_final() && !r.paused && r.cancel.is_none() && r.waiting_for.is_empty()
    }

    /// The numbers of all tasks in one of these states.
    pub fn tasks_in(&self, states: &[TaskState]) -> Vec<u32> {
        let mut found = Vec::new();
        for number in 0..self.job.record.tasks.div_ceil(BLOCK) {
            let stored;
            let cells = match self.blocks.get(&number) {
                Some(block) => &block.cells,
                None => {
                    stored = self.job.block_cells(number);
                    &stored
                }
            };
            let numbered = (number * BLOCK..).zip(cells);
            found.extend(
                numbered
                    .filter(|(_, cell)| states.contains(&cell.state))
                    .map(|(index, _)| index),
            );
        }
        found
    }

    pub fn into_changes(self, id: JobId, out: &mut Vec<Change>) {
        if let Some(record) = self.record
            && *record != self.job.record
        {
            out.push(Change::Job(*record));
        }
        for (number, draft) in self.blocks {
            let more = u32::from(!draft.records.is_empty());
            let block = Block::new(&draft.cells, draft.results + more);
            if self.job.blocks.get(&number) != Some(&block) {
                out.push(Change::Block {
                    job: id,
                    number,
                    block,
                });
            }
            if more > 0 {
                out.push(Change::Results {
                    job: id,
                    block: number,
                    seq: draft.results,
                    records: draft.records,
                });
            }
        }
        for (node, lanes) in self.lanes {
            if self.job.lanes_on(node) != lanes {
                out.push(Change::Lanes {
                    job: id,
                    node,
                    lanes,
                });
            }
        }
        if let Some(sweep) = self.sweep {
            out.push(Change::Sweep(id, sweep));
        }
        let beams = self.beams.into_iter();
        out.extend(beams.map(|(beam, record)| Change::Beam(id, beam, record)));
    }
}
