//! 512 tasks together: the unit in which tasks are stored.
//!
//! An absent block is 512 untouched tasks. A block whose tasks are all over keeps runs of equal cells instead of one cell
//! each, so that a finished job of a million tasks costs kilobytes. `decide` replaces whole blocks, `apply` compares them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Cell;

/// Tasks in a block.
pub const BLOCK: u32 = 512;

/// Longest list of runs that is still smaller and as quick as cells.
const PACKED_MAX: usize = 64;

/// A run of equal cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    len: u16,
    cell: Cell,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Cells {
    Open(Arc<[Cell]>),
    Packed(Arc<[Run]>),
}

/// The tasks `number * 512 ..` of a job, at most 512.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    cells: Cells,
    /// Sequence number of the next batch of results of this block.
    pub(crate) results: u32,
}

/// How a block is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredBlock {
    pub results: u32,
    pub runs: Vec<Run>,
}

impl Block {
    /// A block of these cells.
    pub(crate) fn new(cells: &[Cell], results: u32) -> Self {
        let over = cells.iter().all(|c| c.state.is_final());
        let packed = over.then(|| runs_of(cells, PACKED_MAX)).flatten();
        Self {
            cells: packed.map_or_else(
                || Cells::Open(cells.into()),
                |runs| Cells::Packed(runs.into()),
            ),
            results,
        }
    }

    /// Number of tasks in it.
    pub fn len(&self) -> usize {
        match &self.cells {
            Cells::Open(cells) => cells.len(),
            Cells::Packed(runs) => runs.iter().map(|r| usize::from(r.len)).sum(),
        }
    }

    /// Whether it has no task (a stored block never is).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cell at `offset`.
    pub fn get(&self, offset: usize) -> Option<Cell> {
        match &self.cells {
            Cells::Open(cells) => cells.get(offset).copied(),
            Cells::Packed(runs) => {
                let mut left = offset;
                runs.iter().find_map(|run| {
                    let len = usize::from(run.len);
                    if left < len {
                        return Some(run.cell);
                    }
                    left -= len;
                    None
                })
            }
        }
    }

    /// Every cell, in order.
    pub fn to_vec(&self) -> Vec<Cell> {
        match &self.cells {
            Cells::Open(cells) => cells.to_vec(),
            Cells::Packed(runs) => unroll(runs),
        }
    }

    pub(crate) fn to_stored(&self) -> StoredBlock {
        let runs = match &self.cells {
            Cells::Packed(runs) => runs.to_vec(),
            Cells::Open(cells) => runs_of(cells, usize::MAX).unwrap_or_default(),
        };
        StoredBlock {
            results: self.results,
            runs,
        }
    }

    pub(crate) fn from_stored(stored: &StoredBlock) -> Self {
        Self::new(&unroll(&stored.runs), stored.results)
    }
}

impl StoredBlock {
    /// Number of cells it unrolls to; checked before unrolling, because bytes may be damaged.
    pub(crate) fn count(&self) -> u64 {
        self.runs.iter().map(|r| u64::from(r.len)).sum()
    }
}

fn unroll(runs: &[Run]) -> Vec<Cell> {
    let mut cells = Vec::with_capacity(BLOCK as usize);
    for run in runs {
        cells.resize(cells.len() + usize::from(run.len), run.cell);
    }
    cells
}

/// The cells as runs, or `None` if there are more than `max`.
fn runs_of(cells: &[Cell], max: usize) -> Option<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for cell in cells {
        let full = runs.len() == max;
        match runs.last_mut() {
            Some(run) if run.cell == *cell => run.len += 1,
            _ if full => return None,
            _ => runs.push(Run {
                len: 1,
                cell: *cell,
            }),
        }
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_types::{NodeNo, TaskState};

    #[test]
    fn a_finished_block_packs_and_reads_the_same() {
        let done = Cell::UNTOUCHED
            .assigned(NodeNo(3))
            .ended(TaskState::Completed, None);
        let cells = vec![done; BLOCK as usize];
        let block = Block::new(&cells, 7);
        assert!(matches!(block.cells, Cells::Packed(_)));
        assert_eq!(block.to_vec(), cells);
        assert_eq!(block.get(511), Some(done));
        assert_eq!(block.get(512), None);
        let bytes = postcard::to_stdvec(&block.to_stored()).unwrap();
        assert!(bytes.len() < 32);
        let back: StoredBlock = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(Block::from_stored(&back), block);
    }
}
