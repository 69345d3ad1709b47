//! What the quotas of namespaces leave in one planning round.
//!
//! Only namespaces with a limit are here, so without any, a look costs nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;

use prism_state::{Job, Room, State};
use prism_types::{Name, Resources};

/// One namespace with a limit.
struct Left {
    room: Room,
    /// What is left when each job of the round that has nothing yet gets its first lane.
    promised: Room,
    /// More is in use than allowed: what runs goes on, and nothing follows it.
    exceeded: bool,
    /// The highest priority of a job that only the quota keeps from having anything.
    waits: Option<i32>,
}

/// Shared by everything that a round plans.
pub(crate) struct Quotas<'a>(RefCell<BTreeMap<&'a Name, Left>>);

impl<'a> Quotas<'a> {
    pub fn new(state: &'a State) -> Self {
        let limited = state.namespaces().filter(|(r, _)| !r.quota.is_unlimited());
        let left = limited.map(|(record, used)| {
            let room = record.quota.room(&used);
            let left = Left {
                room,
                promised: room,
                exceeded: record.quota.is_exceeded(&used),
                waits: None,
            };
            (&record.name, left)
        });
        Self(RefCell::new(left.collect()))
    }

    /// How many more lanes of `each` a namespace may have, at most `most`.
    pub fn lanes(&self, namespace: &Name, each: &Resources, most: u32) -> u32 {
        let left = self.0.borrow();
        left.get(namespace)
            .map_or(most, |left| left.room.lanes(each, most))
    }

    /// Whether a sandbox of a namespace may have so much.
    pub fn holds(&self, namespace: &Name, need: &Resources) -> bool {
        let left = self.0.borrow();
        left.get(namespace)
            .is_none_or(|left| need.fits(&left.room.resources))
    }

    /// Takes `lanes` lanes of `each`.
    pub fn take(&self, namespace: &Name, each: &Resources, lanes: u32) {
        if let Some(left) = self.0.borrow_mut().get_mut(namespace) {
            left.room.take(each, lanes);
        }
    }

    /// Takes a sandbox's resources.
    pub fn take_sandbox(&self, namespace: &Name, need: &Resources) {
        if let Some(left) = self.0.borrow_mut().get_mut(namespace) {
            left.room.resources = left.room.resources.minus(need, 1);
        }
    }

    /// Whether a job has nothing, and may have nothing by its quota alone. Remembers that it waits.
    pub fn holds_back(&self, job: &Job) -> bool {
        let mut left = self.0.borrow_mut();
        let spec = job.spec();
        let Some(left) = left.get_mut(&spec.namespace) else {
            return false;
        };
        let first = |room: &Room| room.lanes(&spec.resources, 1) > 0;
        let back = job.lanes_total() == 0 && !(first(&left.room) && first(&left.promised));
        if back {
            left.waits = left.waits.max(Some(spec.priority));
        }
        back
    }

    /// Promises a job that is planned its first lane, so that those behind it that the quota has no room for are passed over.
    pub fn promise(&self, job: &Job) {
        let mut left = self.0.borrow_mut();
        let spec = job.spec();
        if let Some(left) = left.get_mut(&spec.namespace)
            && job.lanes_total() == 0
        {
            left.promised.take(&spec.resources, 1);
        }
    }

    /// Whether a job is to get nothing after what it has, so that its lanes come free as its tasks end: its namespace uses
    /// more than it may, or a job of higher priority waits for the quota.
    pub fn gives_way(&self, job: &Job) -> bool {
        let left = self.0.borrow();
        let spec = job.spec();
        left.get(&spec.namespace)
            .is_some_and(|l| l.exceeded || l.waits.is_some_and(|waits| waits > spec.priority))
    }
}
