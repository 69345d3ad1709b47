//! A node in memory: its record, and what is granted on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prism_types::{JobId, NodeState, Resources, SandboxId};

use crate::NodeRecord;

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub(crate) record: Arc<NodeRecord>,
    pub(crate) reserved: Resources,
    pub(crate) lanes: BTreeMap<JobId, u32>,
    pub(crate) jobs: BTreeSet<JobId>,
    pub(crate) tasks: u32,
    pub(crate) sandboxes: BTreeSet<SandboxId>,
}

impl Node {
    pub(crate) fn new(record: Arc<NodeRecord>) -> Self {
        Self {
            record,
            reserved: Resources::default(),
            lanes: BTreeMap::new(),
            jobs: BTreeSet::new(),
            tasks: 0,
            sandboxes: BTreeSet::new(),
        }
    }

    /// What is stored of it.
    pub fn record(&self) -> &NodeRecord {
        &self.record
    }

    /// What its lanes and sandboxes are granted; never more than its capacity.
    pub fn reserved(&self) -> Resources {
        self.reserved
    }

    /// What is left of its capacity.
    pub fn free(&self) -> Resources {
        self.record.capacity.minus(&self.reserved, 1)
    }

    /// Tasks at once, by job.
    pub fn lanes(&self) -> &BTreeMap<JobId, u32> {
        &self.lanes
    }

    /// Jobs that have tasks on it.
    pub fn jobs(&self) -> &BTreeSet<JobId> {
        &self.jobs
    }

    /// Tasks that it holds, waiting or running.
    pub fn tasks(&self) -> u32 {
        self.tasks
    }

    /// Sandboxes on it that are not over.
    pub fn sandboxes(&self) -> &BTreeSet<SandboxId> {
        &self.sandboxes
    }

    /// Whether anything new may be placed on it.
    pub fn is_open(&self) -> bool {
        self.record.state == NodeState::Healthy && !self.record.cordoned
    }
}
