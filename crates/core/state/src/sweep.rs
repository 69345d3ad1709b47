//! A sweep in memory: the best beam, what each beam reported, and the rungs of successive halving.
//!
//! The rungs follow from the beams' records and are never stored.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use prism_spec::{Direction, EarlyStop, Halving, SweepWork};

use crate::{BeamRecord, Best, SweepRecord};

/// What is known of a sweep while it runs and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    pub(crate) record: SweepRecord,
    pub(crate) beams: BTreeMap<u32, BeamRecord>,
    /// For each rung the metric and number of every beam that reached it, best first.
    rungs: Vec<Vec<(f64, u32)>>,
    stopped: u32,
    direction: Direction,
}

impl Sweep {
    pub(crate) fn new(work: &SweepWork) -> Self {
        let halving = work.early_stop.as_ref().map(|EarlyStop::Halving(h)| h);
        Self {
            record: SweepRecord::default(),
            beams: BTreeMap::new(),
            rungs: vec![Vec::new(); halving.map_or(0, |h| h.rounds as usize)],
            stopped: 0,
            direction: halving.map_or(Direction::Maximize, |h| h.direction),
        }
    }

    /// The best beam so far.
    pub fn best(&self) -> Option<&Best> {
        self.record.best.as_ref()
    }

    /// What a beam reported while it ran (or runs).
    pub fn beam(&self, index: u32) -> Option<&BeamRecord> {
        self.beams.get(&index)
    }

    /// Every beam that reported something, by number.
    pub fn beams(&self) -> &BTreeMap<u32, BeamRecord> {
        &self.beams
    }

    /// For each rung the metric and number of every beam that reached it, best first.
    pub fn rungs(&self) -> &[Vec<(f64, u32)>] {
        &self.rungs
    }

    /// How many beams the rule gave up.
    pub fn stopped(&self) -> u32 {
        self.stopped
    }

    /// Whether the rule gave this beam up.
    pub fn is_stopped(&self, index: u32) -> bool {
        self.beams.get(&index).is_some_and(|b| b.stopped)
    }

    /// Replaces a beam's record and moves it on the rungs.
    pub(crate) fn put_beam(&mut self, index: u32, new: BeamRecord) {
        let old = self.beams.remove(&index).unwrap_or_default();
        if old.rungs != new.rungs {
            for (rung, value) in self.rungs.iter_mut().zip(&old.rungs) {
                if let Ok(at) = place(rung, self.direction, *value, index) {
                    rung.remove(at);
                }
            }
            for (rung, value) in self.rungs.iter_mut().zip(&new.rungs) {
                if let Err(at) = place(rung, self.direction, *value, index) {
                    rung.insert(at, (*value, index));
                }
            }
        }
        self.stopped -= u32::from(old.stopped);
        self.stopped += u32::from(new.stopped);
        self.beams.insert(index, new);
    }
}

/// Where a beam's metric stands (`Ok`) or would stand (`Err`) on a rung.
pub(crate) fn place(
    rung: &[(f64, u32)],
    direction: Direction,
    value: f64,
    index: u32,
) -> Result<usize, usize> {
    rung.binary_search_by(|(v, i)| compare(direction, *v, value).then(i.cmp(&index)))
}

/// `Less` if `a` is better.
pub(crate) fn compare(direction: Direction, a: f64, b: f64) -> Ordering {
    match direction {
        Direction::Maximize => b.total_cmp(&a),
        Direction::Minimize => a.total_cmp(&b),
    }
}

/// Number of metric lines with which rung `k` is reached.
pub(crate) fn rung_step(h: &Halving, k: u32) -> u64 {
    u64::from(h.first).saturating_mul(u64::from(h.factor).saturating_pow(k))
}

/// Whether the beam that stands at `rank` (0 is best) of `reached` on a rung is given up.
pub(crate) fn gives_up(h: &Halving, rank: usize, reached: usize) -> bool {
    let factor = h.factor.max(2) as usize;
    reached >= factor && rank >= (reached / factor).max(1)
}
