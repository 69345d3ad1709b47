//! A decision in the making: the state as it is, with this decision's own writes laid over it.
//!
//! Every family of commands writes through a draft; `finish` settles the jobs it touched and lists the changes. Costs what
//! was touched, never the size of a job or the number of nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use prism_types::{JobId, Name, NodeId, NodeNo, Outcome, Reason, Rejection, Resources, TimeMs};

use super::job_draft::JobDraft;
use super::settle;
use crate::codec::pack_renewed;
use crate::{
    AUDIT_PREFIX, Action, Actor, Audit, Change, Changes, Command, EventRecord, Job, Node, Origin,
    Reply, State, Subject, Usage, audit_digest,
};

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
    /// Goes after the other events, if this decision changes anything.
    audit: Option<EventRecord>,
    noted: bool,
    jobs: BTreeMap<JobId, JobDraft<'a>>,
    /// What is granted on the nodes that this decision touches.
    reserved: BTreeMap<NodeNo, Resources>,
    /// What is in use in the namespaces that this decision touches.
    used: BTreeMap<Name, Usage>,
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
            audit: None,
            noted: false,
            jobs: BTreeMap::new(),
            reserved: BTreeMap::new(),
            used: BTreeMap::new(),
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
            namespace: None,
            audit: None,
        });
    }

    /// Keeps who did it.
    pub fn audit(&mut self, origin: &Origin, command: &Command) {
        let (subject, namespace) = crate::audit::about(self.state, command);
        let outcome = match command {
            Command::Note { outcome, .. } => *outcome,
            _ => Outcome::Applied,
        };
        let who = match &origin.actor {
            Actor::Token { name, .. } => name,
            Actor::Certificate(name) => name,
        };
        self.noted = matches!(command, Command::Note { .. });
        self.audit = Some(EventRecord {
            seq: 0,
            at: self.now,
            kind: format!("{AUDIT_PREFIX}{}", origin.op).into(),
            subject,
            reason: None,
            message: format!("by {who:?} from {}", origin.from),
            namespace,
            audit: Some(Box::new(Audit {
                origin: origin.clone(),
                outcome,
                prev: self.meta.audit_head,
            })),
        });
    }

    /// What is in use in a namespace so far.
    pub fn used(&self, namespace: &Name) -> Usage {
        let drafted = self.used.get(namespace).copied();
        drafted.unwrap_or_else(|| self.state.usage(namespace))
    }

    /// How many more lanes of `each` the quota of a namespace allows.
    pub fn quota_lanes(&self, namespace: &Name, each: &Resources, most: u32) -> u32 {
        let Some(record) = self.state.namespace(namespace) else {
            return most;
        };
        if record.quota.is_unlimited() {
            return most;
        }
        record.quota.room(&self.used(namespace)).lanes(each, most)
    }

    /// Whether the quota of a namespace has room for one more sandbox's resources.
    pub fn quota_holds(&self, namespace: &Name, need: &Resources) -> bool {
        let record = self.state.namespace(namespace);
        record.is_none_or(|r| r.quota.used_up(&self.used(namespace), need, 0).is_none())
    }

    /// Notes a sandbox's resources as in use.
    pub fn use_resources(&mut self, namespace: &Name, more: &Resources) {
        let mut used = self.used(namespace);
        used.resources = used.resources.plus(more, 1);
        self.used.insert(namespace.clone(), used);
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
        let spec = &draft.job.spec;
        let resources = spec.resources;
        let mut used = self.used(&spec.namespace);
        used.instances = used.instances.saturating_sub(before).saturating_add(lanes);
        used.resources = used
            .resources
            .minus(&resources, before)
            .plus(&resources, lanes);
        self.used.insert(spec.namespace.clone(), used);
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

    /// Adds the audit event, chained to the one before, if anything changes or nothing else is wanted.
    fn number_audit(&mut self, changes: &mut Vec<Change>, wanted: bool) {
        let Some(mut event) = self.audit.take().filter(|_| wanted) else {
            return;
        };
        event.seq = self.meta.events_next;
        self.meta.events_next += 1;
        self.meta.audit_head = audit_digest(&pack_renewed(&event));
        changes.push(Change::Event(event));
    }

    fn number_events(&mut self, changes: &mut Vec<Change>) {
        let something = self.noted || !changes.is_empty() || !self.events.is_empty();
        for event in std::mem::take(&mut self.events) {
            let seq = self.meta.events_next;
            self.meta.events_next += 1;
            let namespace = namespace_of(self.state, changes, &event.subject);
            changes.push(Change::Event(EventRecord {
                seq,
                namespace,
                ..event
            }));
        }
        self.number_audit(changes, something);
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

/// The namespace of what an event is about: in the state, or made by this very decision.
fn namespace_of(state: &State, changes: &[Change], subject: &Subject) -> Option<Name> {
    let added = |id: &JobId| {
        changes.iter().find_map(|c| match c {
            Change::JobAdded(record, spec) if record.id == *id => Some(spec.namespace.clone()),
            _ => None,
        })
    };
    match subject {
        Subject::Job(id) | Subject::Task(id, _) => {
            let known = state.jobs.get(id).map(|j| j.spec.namespace.clone());
            known.or_else(|| added(id))
        }
        Subject::Sandbox(id) => {
            let known = state.sandboxes.get(id).map(|s| s.spec.namespace.clone());
            known.or_else(|| {
                changes.iter().find_map(|c| match c {
                    Change::Sandbox(s) if s.id == *id => Some(s.spec.namespace.clone()),
                    _ => None,
                })
            })
        }
        Subject::Namespace(name) => Some(name.clone()),
        Subject::Cluster | Subject::Node(_) | Subject::Token(_) => None,
    }
}
