//! The only thing that changes the state: replaces records and keeps the indexes in step.
//!
//! Costs what the change costs, not what the state does. Called by the control loop with what `decide` returned, and by `load`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prism_types::{JobId, Millis, Name, NodeId, NodeNo, SandboxId, TaskState, TimeMs, TokenId};

use crate::state::Index;
use crate::{
    BLOCK, Block, Cell, Change, Job, JobRecord, KeyRecord, MemberRecord, Node, NodeRecord, Phase,
    Ranges, SandboxRecord, State, TokenRecord, Usage,
};

/// How long a dead sandbox is remembered.
pub(crate) const SANDBOX_MEMORY: Millis = Millis(3_600_000);

impl State {
    /// Applies changes that `decide` made for this very state (or that were loaded in the order of `load`).
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.apply_one(change);
        }
    }

    fn apply_one(&mut self, change: &Change) {
        match change {
            Change::Meta(meta) => self.meta = meta.clone(),
            Change::Node(record) => self.put_node(record),
            Change::NodeRemoved(id) => {
                if let Some(node) = self.nodes.remove(id) {
                    self.index.draining.remove(id);
                    self.index.node_by_no.remove(&node.record.no);
                    self.index.node_by_name.remove(&node.record.name);
                }
            }
            Change::JobAdded(record, spec) => {
                self.index.job_added(record, spec);
                let job = Job::new(record.clone(), Arc::clone(spec));
                self.jobs.insert(record.id, job);
                self.requeue(record.id);
            }
            Change::Job(record) => self.put_job(record),
            Change::Block { job, number, block } => self.put_block(*job, *number, block),
            Change::Lanes { job, node, lanes } => self.put_lanes(*job, *node, *lanes),
            Change::Sweep(id, record) => {
                if let Some(sweep) = self.jobs.get_mut(id).and_then(|j| j.sweep.as_mut()) {
                    sweep.record = record.clone();
                }
            }
            Change::Beam(id, beam, record) => {
                if let Some(sweep) = self.jobs.get_mut(id).and_then(|j| j.sweep.as_mut()) {
                    sweep.put_beam(*beam, record.clone());
                }
            }
            Change::Sandbox(record) => self.put_sandbox(record),
            Change::SandboxRemoved(id) => self.take_sandbox(*id),
            Change::Token(record) => self.put_token(record),
            Change::TokenRemoved(id) => self.take_token(*id),
            Change::Namespace(record) => {
                let name = record.name.clone();
                self.namespaces.0.insert(name, record.clone());
            }
            Change::NamespaceRemoved(name) => {
                self.namespaces.0.remove(name);
            }
            Change::JoinToken(record) => {
                let timer = (record.expires, record.id);
                self.index.join_token_timer.insert(timer);
                self.join_tokens.insert(record.id, record.clone());
            }
            Change::JoinTokenRemoved(id) => {
                if let Some(old) = self.join_tokens.remove(id) {
                    self.index.join_token_timer.remove(&(old.expires, *id));
                }
            }
            Change::Member(record) => self.put_member(record),
            Change::MemberRemoved(id) => self.take_member(*id),
            Change::Server(record) => {
                self.servers.insert(record.id, record.clone());
            }
            Change::Denied(record) => {
                self.denied.insert(record.whom, record.clone());
            }
            Change::DeniedRemoved(whom) => {
                self.denied.remove(whom);
            }
            Change::Rotation(record) => self.rotation = Some((**record).clone()),
            Change::Gossip(record) => self.gossip = Some(record.clone()),
            Change::Key(key, record) => self.put_key(key, record),
            Change::KeyRemoved(key) => self.take_key(key),
            // Known through the specs that name them, so that a loaded state is the same.
            Change::Blob(..) => {}
            // Kept in the store only.
            Change::Results { .. } | Change::Event(_) | Change::EventsRemoved(..) => {}
        }
    }

    fn take_member(&mut self, id: NodeId) {
        if let Some(old) = self.members.remove(&id) {
            self.index.member_by_name.remove(&old.name);
        }
    }

    fn put_token(&mut self, record: &TokenRecord) {
        self.index.token_by_hash.insert(record.hash, record.id);
        self.tokens.insert(record.id, record.clone());
    }

    fn take_token(&mut self, id: TokenId) {
        if let Some(token) = self.tokens.remove(&id) {
            self.index.token_by_hash.remove(&token.hash);
        }
    }

    fn put_member(&mut self, record: &MemberRecord) {
        if let Some(old) = self.members.insert(record.id, record.clone()) {
            self.index.member_by_name.remove(&old.name);
        }
        self.index
            .member_by_name
            .insert(record.name.clone(), record.id);
    }

    fn put_node(&mut self, record: &Arc<NodeRecord>) {
        self.index.node_by_no.insert(record.no, record.id);
        if record.drain.is_some_and(|d| d.phase != Phase::Done) {
            self.index.draining.insert(record.id);
        } else {
            self.index.draining.remove(&record.id);
        }
        match self.nodes.get_mut(&record.id) {
            Some(node) => {
                self.index.node_by_name.remove(&node.record.name);
                node.record = Arc::clone(record);
            }
            None => {
                self.nodes.insert(record.id, Node::new(Arc::clone(record)));
            }
        }
        self.index
            .node_by_name
            .insert(record.name.clone(), record.id);
    }

    fn put_job(&mut self, record: &JobRecord) {
        let Some(job) = self.jobs.get_mut(&record.id) else {
            return;
        };
        for done in job.record.waiting_for.difference(&record.waiting_for) {
            remove_from(&mut self.index.dependents, done, &record.id);
        }
        for dep in record.waiting_for.difference(&job.record.waiting_for) {
            let waiting = self.index.dependents.entry(*dep).or_default();
            waiting.insert(record.id);
        }
        let was_over = job.record.state.is_final();
        self.index.unfinished += u32::from(was_over && !record.state.is_final());
        self.index.unfinished -= u32::from(!was_over && record.state.is_final());
        if was_over != record.state.is_final() {
            self.index.used(&job.spec.namespace, |u| match was_over {
                true => u.jobs += 1,
                false => u.jobs -= 1,
            });
        }
        job.record = record.clone();
        self.requeue(record.id);
    }

    /// Puts the job into the queue or takes it out, as it is now.
    fn requeue(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let entry = (Reverse(job.spec.priority), id);
        if job.is_open() && job.ready_len() > 0 {
            self.index.queue.insert(entry);
        } else {
            self.index.queue.remove(&entry);
        }
    }

    fn put_block(&mut self, id: JobId, number: u32, block: &Block) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let old = job.block_cells(number);
        let new = block.to_vec();
        let start = number * BLOCK;
        for (index, (old, new)) in (start..).zip(old.iter().zip(&new)) {
            if old != new {
                move_cell(job, &mut self.index.due, index, *old, *new);
                move_place(
                    job,
                    &mut self.nodes,
                    &self.index.node_by_no,
                    index,
                    *old,
                    *new,
                );
            }
        }
        job.blocks.insert(number, block.clone());
        self.requeue(id);
    }

    fn put_lanes(&mut self, id: JobId, no: NodeNo, lanes: u32) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let before = job.lanes.remove(&no).unwrap_or(0);
        job.lanes_total = job.lanes_total - before + lanes;
        if lanes > 0 {
            job.lanes.insert(no, lanes);
        }
        let resources = job.spec.resources;
        self.index.used(&job.spec.namespace, |u| {
            u.instances = u.instances - before + lanes;
            u.resources = u
                .resources
                .minus(&resources, before)
                .plus(&resources, lanes);
        });
        let node = self.index.node_by_no.get(&no);
        if let Some(node) = node.and_then(|id| self.nodes.get_mut(id)) {
            node.reserved = node
                .reserved
                .minus(&resources, before)
                .plus(&resources, lanes);
            if lanes > 0 {
                node.lanes.insert(id, lanes);
            } else {
                node.lanes.remove(&id);
            }
        }
    }

    fn put_sandbox(&mut self, record: &SandboxRecord) {
        self.take_sandbox(record.id);
        let id = record.id;
        if record.state.is_final() {
            let at = record.finished.unwrap_or(record.created);
            self.index
                .sandbox_timer
                .insert((at.after(SANDBOX_MEMORY), id));
        } else {
            let namespace = &record.spec.namespace;
            if let Some(name) = &record.spec.name {
                let named = self.index.sandbox_by_name.entry(name.clone());
                named.or_default().insert(namespace.clone(), id);
            }
            self.index.used(namespace, |u| u.sandboxes += 1);
            if let Some(at) = record.expires {
                self.index.sandbox_timer.insert((at, id));
            }
            match record.node.and_then(|n| self.nodes.get_mut(&n)) {
                Some(node) => {
                    node.sandboxes.insert(id);
                    node.reserved = node.reserved.plus(&record.spec.resources, 1);
                    self.index.used(namespace, |u| {
                        u.resources = u.resources.plus(&record.spec.resources, 1);
                    });
                }
                None => {
                    self.index.sandboxes_pending.insert(id);
                }
            }
        }
        self.sandboxes.insert(id, record.clone());
    }

    fn take_sandbox(&mut self, id: SandboxId) {
        let Some(old) = self.sandboxes.remove(&id) else {
            return;
        };
        let timer = match old.state.is_final() {
            true => Some(old.finished.unwrap_or(old.created).after(SANDBOX_MEMORY)),
            false => old.expires,
        };
        if let Some(at) = timer {
            self.index.sandbox_timer.remove(&(at, id));
        }
        if old.state.is_final() {
            return;
        }
        let namespace = &old.spec.namespace;
        if let Some(name) = &old.spec.name
            && let Some(named) = self.index.sandbox_by_name.get_mut(name)
        {
            named.remove(namespace);
            if named.is_empty() {
                self.index.sandbox_by_name.remove(name);
            }
        }
        self.index.used(namespace, |u| u.sandboxes -= 1);
        self.index.sandboxes_pending.remove(&id);
        if let Some(node) = old.node.and_then(|n| self.nodes.get_mut(&n))
            && node.sandboxes.remove(&id)
        {
            node.reserved = node.reserved.minus(&old.spec.resources, 1);
            self.index.used(namespace, |u| {
                u.resources = u.resources.minus(&old.spec.resources, 1);
            });
        }
    }

    fn take_key(&mut self, key: &Arc<str>) {
        if let Some(old) = self.keys.remove(key) {
            self.index.key_timer.remove(&(old.expires, Arc::clone(key)));
        }
    }

    fn put_key(&mut self, key: &Arc<str>, record: &KeyRecord) {
        let entry = |at: TimeMs| (at, Arc::clone(key));
        if let Some(old) = self.keys.insert(Arc::clone(key), record.clone()) {
            self.index.key_timer.remove(&entry(old.expires));
        }
        self.index.key_timer.insert(entry(record.expires));
    }
}

/// Counts, ready queue and retry timer.
fn move_cell(
    job: &mut Job,
    due: &mut BTreeSet<(TimeMs, JobId, u32)>,
    index: u32,
    old: Cell,
    new: Cell,
) {
    let id = job.record.id;
    job.counts.moved(old.state, new.state);
    match (
        old.state == TaskState::Queued,
        new.state == TaskState::Queued,
    ) {
        (true, false) => job.ready.remove(index),
        (false, true) => job.ready.insert(index),
        _ => {}
    }
    if let Some(at) = old.due() {
        due.remove(&(at, id, index));
    }
    if let Some(at) = new.due() {
        due.insert((at, id, index));
    }
}

/// Which node holds the task.
fn move_place(
    job: &mut Job,
    nodes: &mut BTreeMap<NodeId, Node>,
    by_no: &BTreeMap<NodeNo, NodeId>,
    index: u32,
    old: Cell,
    new: Cell,
) {
    let (from, to) = (old.placed_on(), new.placed_on());
    if from == to {
        return;
    }
    let id = job.record.id;
    if let Some(no) = from
        && let Some(tasks) = job.on.get_mut(&no)
    {
        tasks.remove(index);
        let last = tasks.is_empty();
        if last {
            job.on.remove(&no);
        }
        if let Some(node) = by_no.get(&no).and_then(|n| nodes.get_mut(n)) {
            node.tasks -= 1;
            if last {
                node.jobs.remove(&id);
            }
        }
    }
    if let Some(no) = to {
        let tasks: &mut Ranges = job.on.entry(no).or_default();
        tasks.insert(index);
        if let Some(node) = by_no.get(&no).and_then(|n| nodes.get_mut(n)) {
            node.tasks += 1;
            if tasks.len() == 1 {
                node.jobs.insert(id);
            }
        }
    }
}

impl Index {
    /// Changes what is in use in a namespace; nothing in use is no entry.
    fn used(&mut self, namespace: &Name, change: impl FnOnce(&mut Usage)) {
        let usage = match self.usage.get_mut(namespace) {
            Some(usage) => usage,
            None => self.usage.entry(namespace.clone()).or_default(),
        };
        change(usage);
        if *usage == Usage::default() {
            self.usage.remove(namespace);
        }
    }

    fn job_added(&mut self, record: &JobRecord, spec: &prism_spec::JobSpec) {
        let id = record.id;
        let namespace = &spec.namespace;
        let named = self.jobs_by_name.entry(spec.name.clone()).or_default();
        named.entry(namespace.clone()).or_default().insert(id);
        if let Some(group) = &spec.group {
            let group = (namespace.clone(), group.clone());
            self.jobs_by_group.entry(group).or_default().insert(id);
        }
        if !record.state.is_final() {
            self.unfinished += 1;
            self.used(namespace, |u| u.jobs += 1);
        }
        for dep in &record.waiting_for {
            self.dependents.entry(*dep).or_default().insert(id);
        }
        for file in crate::view::files_of(spec) {
            if !self.blobs.contains(file.sha256.as_str()) {
                self.blobs.insert(file.sha256.as_str().into());
            }
        }
    }
}

fn remove_from<K: Ord>(map: &mut BTreeMap<K, BTreeSet<JobId>>, key: &K, id: &JobId) {
    if let Some(set) = map.get_mut(key) {
        set.remove(id);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
