//! How good a node is for a thing, in named terms, so that `explain` can show them.

use prism_types::Resources;

use crate::{NodeView, Weights};

/// The weighted terms of a score; the lowest sum is placed on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// For the round trip.
    pub rtt: f64,
    /// For busy processors.
    pub load: f64,
    /// For tasks that wait there.
    pub queue: f64,
    /// For runs that it lost.
    pub unreliability: f64,
    /// For room that would be left.
    pub pack: f64,
}

impl Score {
    /// Scores a node by its view, the tasks waiting and running at once there, and its room.
    pub(crate) fn new(
        w: &Weights,
        view: &NodeView,
        waiting: u32,
        lanes: u32,
        left: &Resources,
        capacity: &Resources,
    ) -> Self {
        let queue = f64::from(waiting) / f64::from(lanes.max(1));
        Self {
            rtt: w.rtt * sane(view.rtt_ms) / 100.0,
            load: w.load * sane(view.load),
            queue: w.queue * queue.min(4.0),
            unreliability: w.unreliability * (1.0 - sane(view.reliability).min(1.0)),
            pack: w.pack * share_left(left, capacity),
        }
    }

    /// The score.
    pub fn total(&self) -> f64 {
        self.rtt + self.load + self.queue + self.unreliability + self.pack
    }
}

/// A reading that can be reckoned with: nothing negative, infinite or undefined.
fn sane(x: f64) -> f64 {
    if x.is_finite() { x.max(0.0) } else { 0.0 }
}

/// Mean share of cpu and memory that is left.
fn share_left(left: &Resources, capacity: &Resources) -> f64 {
    let share = |left: u64, all: u64| match all {
        0 => 0.0,
        all => left as f64 / all as f64,
    };
    let cpu = share(left.cpu.0.into(), capacity.cpu.0.into());
    (cpu + share(left.memory.0, capacity.memory.0)) / 2.0
}
