//! The nodes of one planning round, with what this round has already given away.
//!
//! Built once per round. Candidates for a thing are found by free processor time, so full nodes are never looked at, and
//! only a sample of a large pool is scored.

use std::collections::BTreeMap;

use prism_spec::{ImageRef, IsolationSpec, JobSpec};
use prism_state::{Node, Phase, State, misfit};
use prism_types::{NodeId, NodeNo, Resources};

use crate::{Config, NodeView, Score, Weights};

/// A node in the round.
pub(crate) struct Slot<'a> {
    pub node: &'a Node,
    pub view: NodeView,
    pub free: Resources,
    /// Tasks it holds, this round's included.
    pub tasks: u32,
    /// Tasks it may run at once, this round's included.
    pub lanes: u32,
}

/// What a thing needs of a node.
#[derive(Clone, Copy)]
pub(crate) struct Need<'a> {
    pub resources: &'a Resources,
    pub image: &'a ImageRef,
    pub isolation: IsolationSpec,
    /// Whether it may run once only.
    pub single: bool,
}

impl<'a> Need<'a> {
    /// What each task of a job needs.
    pub(crate) fn of(spec: &'a JobSpec) -> Self {
        Self {
            resources: &spec.resources,
            image: &spec.image,
            isolation: spec.isolation,
            single: spec.single_instance,
        }
    }

    /// Why a node can never run it, room left aside.
    pub(crate) fn misfit(&self, node: &Node, view: Option<&NodeView>) -> Option<String> {
        if self.single && view.is_some_and(|view| !view.leases) {
            return Some("is of a version that keeps no leases".to_owned());
        }
        misfit(node.record(), self.image, self.isolation)
    }
}

pub(crate) struct Pool<'a> {
    pub slots: Vec<Slot<'a>>,
    by_no: BTreeMap<NodeNo, usize>,
    /// Slots by free processor time at the start of the round, least first.
    by_cpu: Vec<(u32, usize)>,
    sample: usize,
    weights: Weights,
    /// Grows with every look, so that samples differ.
    turn: usize,
}

/// Why a node takes nothing new, whatever it is.
pub(crate) fn closed(node: &Node, view: Option<&NodeView>) -> Option<String> {
    let record = node.record();
    if let Some(drain) = record.drain {
        return Some(match drain.phase {
            Phase::Waiting | Phase::Stopping => "draining".to_owned(),
            Phase::Done => "drained".to_owned(),
        });
    }
    if record.cordoned {
        return Some("cordoned".to_owned());
    }
    if !node.is_open() {
        return Some(record.state.as_str().to_lowercase());
    }
    match view {
        None => Some("not connected".to_owned()),
        Some(view) if view.pressure => Some("under memory or disk pressure".to_owned()),
        Some(view) if view.behind => Some("behind with what was sent to it".to_owned()),
        Some(_) => None,
    }
}

impl<'a> Pool<'a> {
    pub fn new(state: &'a State, views: &BTreeMap<NodeId, NodeView>, config: &Config) -> Self {
        let mut slots = Vec::with_capacity(views.len());
        let mut by_no = BTreeMap::new();
        for (id, view) in views {
            let Some(node) = state.node(*id) else {
                continue;
            };
            if closed(node, Some(view)).is_none() {
                by_no.insert(node.record().no, slots.len());
                slots.push(Slot {
                    node,
                    view: *view,
                    free: node.free(),
                    tasks: node.tasks(),
                    lanes: node.lanes().values().sum(),
                });
            }
        }
        let cpu = |(i, s): (usize, &Slot<'_>)| (s.free.cpu.0, i);
        let mut by_cpu: Vec<(u32, usize)> = slots.iter().enumerate().map(cpu).collect();
        by_cpu.sort_unstable();
        Self {
            slots,
            by_no,
            by_cpu,
            sample: config.sample.max(1),
            weights: config.weights,
            turn: 0,
        }
    }

    pub fn slot_of(&self, no: NodeNo) -> Option<usize> {
        self.by_no.get(&no).copied()
    }

    /// Slots that have room for at least one of it and can run it, best first; a sample of them if there are many.
    pub fn candidates(&mut self, need: &Need<'_>) -> Vec<usize> {
        let from = self
            .by_cpu
            .partition_point(|(cpu, _)| *cpu < need.resources.cpu.0);
        let all = self.by_cpu.len() - from;
        if all == 0 {
            return Vec::new();
        }
        // Beginning somewhere else each time spreads the load over a large pool; only looks are bounded, not luck.
        self.turn = self.turn.wrapping_add(self.sample);
        let start = self.turn % all;
        let around = (start..all).chain(0..start);
        let mut found: Vec<(f64, usize)> = around
            .map(|i| self.by_cpu[from + i].1)
            .filter(|slot| self.takes(*slot, need))
            .take(self.sample)
            .map(|slot| (self.score(slot, need.resources).total(), slot))
            .collect();
        found.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        found.into_iter().map(|(_, slot)| slot).collect()
    }

    fn takes(&self, slot: usize, need: &Need<'_>) -> bool {
        let slot = &self.slots[slot];
        need.resources.fits(&slot.free) && need.misfit(slot.node, Some(&slot.view)).is_none()
    }

    pub fn score(&self, slot: usize, need: &Resources) -> Score {
        let s = &self.slots[slot];
        Score::new(
            &self.weights,
            &s.view,
            s.tasks.saturating_sub(s.lanes),
            s.lanes,
            &s.free.minus(need, 1),
            &s.node.record().capacity,
        )
    }
}
