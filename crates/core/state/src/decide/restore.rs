//! A backup's state, made fit for another cluster: one that is new, has nothing in it, and keeps its own id, nodes, members and tokens.
//!
//! What ran on the nodes of the old cluster is not claimed to run: its tasks are tried again under later attempts, its sandboxes are
//! over. Whoever had access to the old cluster has none to the new one by it.

use std::collections::BTreeMap;

use prism_types::{NodeNo, Outcome, Reason, Rejection, SandboxState, TimeMs};

use super::draft::Draft;
use super::node::lose;
use crate::{
    Change, Command, KeyValue, MetaRecord, Node, NodeRecord, Origin, Reply, State, Subject,
    event_key,
};

/// What the keys of a backup begin with; there is nothing else in one.
pub const BACKUP_PREFIXES: &[&str] = &[
    "blobs/",
    "events/",
    "jobs/",
    "keys/",
    "lanes/",
    "meta",
    "namespaces/",
    "nodes/",
    "results/",
    "sandboxes/",
    "specs/",
    "sweeps/",
    "tasks/",
];

/// Those of them that are unknown in a cluster that has nothing in it: what a restore that broke off leaves begins so.
pub const RESTORED_FIRST: &[&str] = &[
    "blobs/",
    "jobs/",
    "lanes/",
    "results/",
    "sandboxes/",
    "specs/",
    "sweeps/",
    "tasks/",
];

/// Where a backup comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupOf {
    /// The cluster, for people.
    pub cluster: String,
    /// The revision of its store.
    pub revision: u64,
}

/// What is to be written, results and files aside, which are taken as they are.
#[derive(Debug)]
pub struct Restored {
    /// What may be written piece by piece before; begins with one of [`RESTORED_FIRST`].
    pub first: Vec<KeyValue>,
    /// What makes the cluster the restored one, all at once.
    pub last: Vec<KeyValue>,
    /// Jobs.
    pub jobs: u32,
    /// Tasks that ran, and are tried again.
    pub retried: u32,
    /// Sandboxes that ran, and are over.
    pub ended: u32,
    /// Events.
    pub events: u32,
}

/// Whether a cluster has nothing in it that a restore would mix with.
///
/// # Errors
/// What it has, by name.
pub fn is_empty(state: &State) -> Result<(), Rejection> {
    let mut has: Vec<String> = Vec::new();
    let mut name = |count: usize, what: &str, first: Option<String>| {
        if let Some(first) = first {
            let others = match count {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            has.push(format!("{what} {first}{others}"));
        }
    };
    let job = state.jobs.values().next();
    let job = job.map(|j| j.spec.name.to_string());
    name(state.jobs.len(), "job", job);
    let sandbox = state.sandboxes.values().next().map(|s| {
        let name = s.spec.name.as_ref().map(ToString::to_string);
        name.unwrap_or_else(|| s.id.to_string())
    });
    name(state.sandboxes.len(), "sandbox", sandbox);
    let made = state.namespaces.0.values();
    let made = made.filter(|n| **n != crate::NamespaceRecord::untouched(n.name.clone()));
    let made: Vec<_> = made.collect();
    let first = made.first().map(|n| n.name.to_string());
    name(made.len(), "namespace", first);
    // The one that is asked is a member, once it listens for others.
    let members = state.members.len();
    if members > 1 {
        let last = state.members.values().max_by_key(|m| m.joined);
        name(members - 1, "member", last.map(|m| m.name.to_string()));
    }
    if has.is_empty() {
        return Ok(());
    }
    Err(Rejection::new(
        Reason::Conflict,
        format!(
            "this cluster is not empty: it has {}; a backup is restored into a new cluster of one server, before any work and any member",
            has.join(", ")
        ),
    ))
}

/// Makes a backup's state that of the cluster `own`, which is empty. `events` are the backup's, by key.
///
/// # Errors
/// When `own` is not empty, or the backup's state does not hold together.
pub fn restore(
    backup: State,
    events: BTreeMap<Vec<u8>, Vec<u8>>,
    own: &State,
    of: &BackupOf,
    origin: Option<&Origin>,
    now: TimeMs,
) -> Result<Restored, Rejection> {
    is_empty(own)?;
    let wrong = |why: String| {
        let message = format!("the state in the backup does not hold together: {why}");
        Rejection::new(Reason::Invalid, message)
    };
    backup.check_invariants().map_err(wrong)?;
    let mut work = Work {
        state: backup,
        written: BTreeMap::new(),
        now,
        retried: 0,
        ended: 0,
    };
    work.events(events, own);
    work.leave_nodes(of);
    work.become_of(own)?;
    work.tell(of, origin);
    work.state.check_invariants().map_err(wrong)?;
    Ok(work.done(own))
}

struct Work {
    state: State,
    /// What is not in a state: results and events; `None` is to be removed.
    written: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    now: TimeMs,
    retried: u32,
    ended: u32,
}

impl Work {
    /// The backup's events take the place of those that the new cluster has had.
    fn events(&mut self, events: BTreeMap<Vec<u8>, Vec<u8>>, own: &State) {
        for seq in own.meta.events_first..own.meta.events_next {
            self.written.insert(event_key(seq).into_bytes(), None);
        }
        let MetaRecord {
            events_first,
            events_next,
            ..
        } = self.state.meta;
        let (first, next) = (event_key(events_first), event_key(events_next));
        let kept = events
            .into_iter()
            .filter(|(key, _)| first.as_bytes() <= &key[..] && &key[..] < next.as_bytes());
        self.written
            .extend(kept.map(|(key, value)| (key, Some(value))));
    }

    fn take(&mut self, changes: Vec<Change>) {
        self.state.apply(&changes);
        let beside = changes.iter().filter(|change| {
            let events = matches!(change, Change::Event(_) | Change::EventsRemoved(..));
            events || matches!(change, Change::Results { .. })
        });
        self.written.extend(beside.flat_map(Change::encode));
    }

    /// Whatever ran is given up, and the nodes are none any more.
    fn leave_nodes(&mut self, of: &BackupOf) {
        let nodes: Vec<Node> = self.state.nodes.values().cloned().collect();
        for node in nodes {
            let mut draft = Draft::new(&self.state, self.now);
            self.retried += node.tasks;
            for id in &node.sandboxes {
                let Some(sandbox) = self.state.sandboxes.get(id) else {
                    continue;
                };
                self.ended += 1;
                let why = format!(
                    "it ran on node {} of cluster {}, from whose backup this cluster was restored",
                    node.record.name, of.cluster
                );
                let (state, reason) = match sandbox.state {
                    SandboxState::Stopping => (SandboxState::Stopped, sandbox.reason),
                    _ => (SandboxState::Failed, Some(Reason::Lost)),
                };
                super::sandbox::end(&mut draft, sandbox, state, reason, why);
            }
            let without = Node {
                sandboxes: std::collections::BTreeSet::new(),
                ..node.clone()
            };
            lose(&mut draft, &without);
            let changes = draft.finish(Reply::Ok).changes;
            self.take(changes);
            self.take(vec![Change::NodeRemoved(node.record.id)]);
        }
    }

    /// Takes over what is the new cluster's own.
    fn become_of(&mut self, own: &State) -> Result<(), Rejection> {
        let answers_stay = |reply: &Reply| {
            matches!(reply, Reply::Ok | Reply::Retried { .. })
                || matches!(
                    reply,
                    Reply::JobCreated { .. } | Reply::SandboxCreated { .. }
                )
        };
        let forgotten = self.state.keys.iter();
        let forgotten = forgotten.filter(|(_, record)| !answers_stay(&record.reply));
        let forgotten: Vec<Change> = forgotten
            .map(|(key, _)| Change::KeyRemoved(key.clone()))
            .collect();
        self.take(forgotten);
        let cluster = own.meta.cluster.ok_or_else(|| {
            let why = "this cluster has no id yet: try again";
            Rejection::retryable(Reason::Internal, why)
        })?;
        let meta = MetaRecord {
            cluster: Some(cluster),
            created: own.meta.created,
            ..self.state.meta.clone()
        };
        self.take(vec![Change::Meta(meta)]);
        for node in own.nodes.values() {
            // Results say on which node they came about, by number.
            let mut meta = self.state.meta.clone();
            let no = NodeNo(meta.next_node);
            meta.next_node = meta.next_node.saturating_add(1);
            let record = NodeRecord {
                no,
                ..(*node.record).clone()
            };
            self.take(vec![Change::Meta(meta), Change::Node(record.into())]);
        }
        let tokens = own.tokens.values().cloned().map(Change::Token);
        let joins = own.join_tokens.values().cloned().map(Change::JoinToken);
        let members = own.members.values().cloned().map(Change::Member);
        let servers = own.servers.values().cloned().map(Change::Server);
        let denied = own.denied.values().cloned().map(Change::Denied);
        let all = tokens.chain(joins).chain(members).chain(servers);
        self.take(all.chain(denied).collect());
        Ok(())
    }

    fn tell(&mut self, of: &BackupOf, origin: Option<&Origin>) {
        let (retried, ended) = (self.retried, self.ended);
        let mut draft = Draft::new(&self.state, self.now);
        let message = format!(
            "restored from a backup of cluster {} at revision {}: {retried} tasks that were on nodes are tried again, {ended} sandboxes that ran are over",
            of.cluster, of.revision
        );
        draft.event("cluster.restored", Subject::Cluster, None, message);
        if let Some(origin) = origin {
            let note = Command::Note {
                subject: Subject::Cluster,
                outcome: Outcome::Applied,
            };
            draft.audit(origin, &note);
        }
        let changes = draft.finish(Reply::Ok).changes;
        self.take(changes);
    }

    fn done(self, own: &State) -> Restored {
        let mut all = self.written;
        for key in own.keys.keys() {
            all.insert(format!("keys/{key}").into_bytes(), None);
        }
        let held = self.state.entries().into_iter();
        all.extend(held.map(|(key, value)| (key, Some(value))));
        let early = |key: &[u8]| RESTORED_FIRST.iter().any(|p| key.starts_with(p.as_bytes()));
        let (first, last) = all.into_iter().partition(|(key, _)| early(key));
        let meta = &self.state.meta;
        let events = meta.events_next - meta.events_first;
        Restored {
            first,
            last,
            jobs: u32::try_from(self.state.jobs.len()).unwrap_or(u32::MAX),
            retried: self.retried,
            ended: self.ended,
            events: u32::try_from(events).unwrap_or(u32::MAX),
        }
    }
}
