//! Records as earlier versions wrote them: read, and never written again.

use std::sync::Arc;

use prism_types::{
    Id, Labels, Name, NodeId, NodeNo, NodeState, Reason, Resources, Scope, TimeMs, TokenId,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{EventRecord, MetaRecord, NodeFacts, NodeRecord, Role, Subject, TokenRecord};

/// A record whose second form is written now, and whose first is still read.
pub(crate) trait Renewed: Serialize + DeserializeOwned {
    /// Its first form.
    type First: DeserializeOwned + Into<Self>;
}

/// [`MetaRecord`] before audit.
#[derive(Deserialize)]
pub(crate) struct FirstMeta {
    cluster: Option<Id>,
    created: TimeMs,
    next_node: u32,
    events_first: u64,
    events_next: u64,
}

/// [`TokenRecord`] before scopes: good for everything that its role may do.
#[derive(Deserialize)]
pub(crate) struct FirstToken {
    id: TokenId,
    name: String,
    role: Role,
    hash: [u8; 32],
    created: TimeMs,
    expires: Option<TimeMs>,
}

/// [`NodeRecord`] before draining.
#[derive(Deserialize)]
pub(crate) struct FirstNode {
    id: NodeId,
    no: NodeNo,
    name: Name,
    labels: Labels,
    capacity: Resources,
    allow_plain: bool,
    facts: NodeFacts,
    state: NodeState,
    since: TimeMs,
    cordoned: bool,
    registered: TimeMs,
}

/// [`EventRecord`] before namespaces and audit.
#[derive(Deserialize)]
pub(crate) struct FirstEvent {
    seq: u64,
    at: TimeMs,
    kind: Arc<str>,
    subject: Subject,
    reason: Option<Reason>,
    message: String,
}

impl Renewed for MetaRecord {
    type First = FirstMeta;
}

impl Renewed for TokenRecord {
    type First = FirstToken;
}

impl Renewed for NodeRecord {
    type First = FirstNode;
}

impl Renewed for prism_spec::JobSpec {
    type First = prism_spec::FirstSpec;
}

impl Renewed for EventRecord {
    type First = FirstEvent;
}

impl From<FirstMeta> for MetaRecord {
    fn from(old: FirstMeta) -> Self {
        Self {
            cluster: old.cluster,
            created: old.created,
            next_node: old.next_node,
            events_first: old.events_first,
            events_next: old.events_next,
            audit_head: [0; 32],
        }
    }
}

impl From<FirstToken> for TokenRecord {
    fn from(old: FirstToken) -> Self {
        Self {
            id: old.id,
            name: old.name,
            role: old.role,
            scope: Scope::default(),
            hash: old.hash,
            created: old.created,
            expires: old.expires,
        }
    }
}

impl From<FirstNode> for NodeRecord {
    fn from(old: FirstNode) -> Self {
        Self {
            id: old.id,
            no: old.no,
            name: old.name,
            labels: old.labels,
            capacity: old.capacity,
            allow_plain: old.allow_plain,
            facts: old.facts,
            state: old.state,
            since: old.since,
            cordoned: old.cordoned,
            registered: old.registered,
            drain: None,
        }
    }
}

impl From<FirstEvent> for EventRecord {
    fn from(old: FirstEvent) -> Self {
        Self {
            seq: old.seq,
            at: old.at,
            kind: old.kind,
            subject: old.subject,
            reason: old.reason,
            message: old.message,
            namespace: None,
            audit: None,
        }
    }
}
