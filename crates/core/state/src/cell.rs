//! One task in 16 bytes.
//!
//! A cell says where a task stands and what it has used up; it never holds a payload. Blocks hold cells, `decide` makes
//! new ones, views read them.

use prism_types::{NodeNo, Reason, TaskState, TimeMs};
use serde::{Deserialize, Serialize};

/// Where one task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Its state.
    pub state: TaskState,
    /// Why it is there: the last failure of a `RETRYING` or `FAILED` task, why it was cancelled, or
    /// [`Reason::EarlyStopped`] on a `COMPLETED` beam.
    pub reason: Option<Reason>,
    /// Failures that count against `retries`.
    pub failures: u8,
    /// Times its node or supervisor was lost.
    pub losses: u8,
    /// Attempts handed out so far, and the number of the latest one. 0: never placed.
    pub attempt: u32,
    /// The node's number while placed and after its end; the moment it is due (Unix ms) while `RETRYING`.
    slot: u64,
}

/// Slot of a task that was never placed.
const NOWHERE: u64 = u64::MAX;

impl Cell {
    /// A task nobody has touched.
    pub const UNTOUCHED: Self = Self {
        state: TaskState::Queued,
        reason: None,
        failures: 0,
        losses: 0,
        attempt: 0,
        slot: NOWHERE,
    };

    /// The node it is placed on, or ended on.
    pub fn node(&self) -> Option<NodeNo> {
        if self.state == TaskState::Retrying {
            return None;
        }
        u32::try_from(self.slot).ok().map(NodeNo)
    }

    /// The node that holds it now.
    pub fn placed_on(&self) -> Option<NodeNo> {
        self.is_placed().then(|| self.node())?
    }

    /// When a `RETRYING` task is due.
    pub fn due(&self) -> Option<TimeMs> {
        (self.state == TaskState::Retrying).then_some(TimeMs(self.slot))
    }

    /// Whether a node holds it: `ASSIGNED` or `RUNNING`.
    pub fn is_placed(&self) -> bool {
        matches!(self.state, TaskState::Assigned | TaskState::Running)
    }

    /// Given to a node as its next attempt.
    pub(crate) fn assigned(self, node: NodeNo) -> Self {
        Self {
            state: TaskState::Assigned,
            reason: None,
            attempt: self.attempt.saturating_add(1),
            slot: u64::from(node.0),
            ..self
        }
    }

    /// Started where it is.
    pub(crate) fn running(self) -> Self {
        Self {
            state: TaskState::Running,
            ..self
        }
    }

    /// Back in the queue; its next attempt has a new number.
    pub(crate) fn queued(self) -> Self {
        Self {
            state: TaskState::Queued,
            reason: None,
            slot: NOWHERE,
            ..self
        }
    }

    /// Waits until `due`, because of `reason`.
    pub(crate) fn retrying(self, reason: Reason, due: TimeMs) -> Self {
        Self {
            state: TaskState::Retrying,
            reason: Some(reason),
            slot: due.0,
            ..self
        }
    }

    /// Over.
    pub(crate) fn ended(self, state: TaskState, reason: Option<Reason>) -> Self {
        let slot = self.node().map_or(NOWHERE, |n| u64::from(n.0));
        Self {
            state,
            reason,
            slot,
            ..self
        }
    }

    /// In the queue again with a fresh budget of retries.
    pub(crate) fn renewed(self) -> Self {
        Self {
            failures: 0,
            losses: 0,
            ..self.queued()
        }
    }
}

const _: () = assert!(size_of::<Cell>() == 16, "a million tasks fit in 16 MB");
