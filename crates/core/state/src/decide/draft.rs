//! A decision in the making: the state as it is, with this decision's own writes laid over it.
//!
//! Every family of commands writes through a draft; `finish` settles the jobs it touched and lists the changes. Costs what
//! was touched, never the size of a job or the number of nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use prism_types::{JobId, NodeId, NodeNo, Reason, Rejection, Resources, TimeMs};

use super::job_draft::JobDraft;
use super::settle;
use crate::{Action, Change, Changes, EventRecord, Job, Node, Reply, State, Subject};

/// Events kept.
pub const EVENTS_MAX: u64 = 10_000;
/// Events removed at once, so that not every decision removes one.
const EVENTS_CHUNK: u64 = 500;

pub(crate) struct Draft<'a> {
    pub state: &'a State,
    pub now: TimeMs,
    pub changes: Vec<Change>,
    pub actions: Vec<Action>,
    pub meta: crate::MetaRecord,
    events: Vec<EventRecord>,
    jobs: BTreeMap<JobId, JobDraft<'a>>,
    /// What is granted on the nodes that this decision touches.
    reserved: BTreeMap<NodeNo, Resources>,
}

impl<'a> Draft<'a> {
    pub fn new(state: &'a State, now: TimeMs) -> Self {
        Self {
            state,
            now,
            changes: Vec::new(),
            actions: Vec::new(),
            meta: state.meta.clone(),
            events: Vec::new(),
            jobs: BTreeMap::new(),
            reserved: BTreeMap::new(),
        }
    }

    /// The job as this decision has left it so far.
    pub fn job(&mut self, id: JobId) -> Option<&mut JobDraft<'a>> {
        let state = self.state;
        match self.jobs.entry(id) {
            std::collections::btree_map::Entry::Occupied(e) => Some(e.into_mut()),
            std::collections::btree_map::Entry::Vacant(e) => {
                state.jobs.get(&id).map(|job| e.insert(JobDraft::new(job)))
            }
        }
    }

    /// The job in the state.
    pub fn known_job(&self, id: JobId) -> Result<&'a Job, Rejection> {
        let job = self.state.jobs.get(&id);
        job.ok_or_else(|| Rejection::new(Reason::NotFound, format!("there is no job {id}")))
    }

    /// The node in the state.
    pub fn known_node(&self, id: NodeId) -> Result<&'a Node, Rejection> {
        let node = self.state.nodes.get(&id);
        node.ok_or_else(|| Rejection::new(Reason::NotFound, format!("there is no node {id}")))
    }

    pub fn event(&mut self, kind: &str, subject: Subject, reason: Option<Reason>, message: String) {
        self.events.push(EventRecord {
            seq: 0,
            at: self.now,
            kind: kind.into(),
            subject,
            reason,
            message,
        });
    }

    /// What is granted on a node so far.
    pub fn reserved(&self, node: &Node) -> Resources {
        let drafted = self.reserved.get(&node.record.no);
        drafted.copied().unwrap_or(node.reserved)
    }

    pub fn set_reserved(&mut self, node: &Node, reserved: Resources) {
        self.reserved.insert(node.record.no, reserved);
    }

    /// Sets the lanes of a job on a node, and what they reserve there.
    pub fn set_lanes(&mut self, job: JobId, no: NodeNo, lanes: u32) {
        let Some(draft) = self.job(job) else {
            return;
        };
        let before = draft.lanes_on(no);
        if before == lanes {
            return;
        }
        draft.set_lanes(no, lanes);
        let resources = draft.job.spec.resources;
        if let Some(node) = self.state.node_by_no(no) {
            let reserved = self.reserved(node);
            let reserved = reserved.minus(&resources, before).plus(&resources, lanes);
            self.set_reserved(node, reserved);
        }
    }

    pub fn touched_jobs(&self) -> Vec<JobId> {
        self.jobs.keys().copied().collect()
    }

    /// Settles what was touched and lists the changes.
    pub fn finish(mut self, reply: Reply) -> Changes {
        settle::settle(&mut self);
        let mut changes = std::mem::take(&mut self.changes);
        for (id, job) in std::mem::take(&mut self.jobs) {
            job.into_changes(id, &mut changes);
        }
        self.number_events(&mut changes);
        if self.meta != self.state.meta {
            changes.push(Change::Meta(self.meta));
        }
        Changes {
            changes,
            actions: self.actions,
            reply,
        }
    }

    fn number_events(&mut self, changes: &mut Vec<Change>) {
        for event in std::mem::take(&mut self.events) {
            let seq = self.meta.events_next;
            self.meta.events_next += 1;
            changes.push(Change::Event(EventRecord { seq, ..event }));
        }
        let kept = self.meta.events_next - self.meta.events_first;
        if kept >= EVENTS_MAX + EVENTS_CHUNK {
            let first = self.meta.events_next - EVENTS_MAX;
            changes.push(Change::EventsRemoved(self.meta.events_first, first));
            self.meta.events_first = first;
        }
    }

    /// Replaces a node's record.
    pub fn put_node(&mut self, record: crate::NodeRecord) {
        self.changes.push(Change::Node(Arc::new(record)));
    }
}
