//! Everything the leader knows, in memory, with the indexes that decisions need.
//!
//! Changed only by `apply`; rebuilt from the store by `load`; read through `view`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prism_types::{JobId, Name, NodeId, NodeNo, SandboxId, TimeMs, TokenId};

use crate::namespace::Namespaces;
use crate::{
    DeniedRecord, GossipRecord, Job, JoinTokenRecord, KeyRecord, MemberRecord, MetaRecord, Node,
    SandboxRecord, ServerRecord, TokenRecord, Usage, Whom,
};

/// The replicated state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub(crate) meta: MetaRecord,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) sandboxes: BTreeMap<SandboxId, SandboxRecord>,
    pub(crate) tokens: BTreeMap<TokenId, TokenRecord>,
    pub(crate) namespaces: Namespaces,
    pub(crate) join_tokens: BTreeMap<TokenId, JoinTokenRecord>,
    pub(crate) members: BTreeMap<NodeId, MemberRecord>,
    pub(crate) servers: BTreeMap<NodeId, ServerRecord>,
    pub(crate) denied: BTreeMap<Whom, DeniedRecord>,
    pub(crate) rotation: Option<crate::RotationRecord>,
    pub(crate) gossip: Option<GossipRecord>,
    pub(crate) keys: BTreeMap<Arc<str>, KeyRecord>,
    pub(crate) index: Index,
}

/// What follows from the rest and is never stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    pub node_by_no: BTreeMap<NodeNo, NodeId>,
    pub node_by_name: BTreeMap<Name, NodeId>,
    /// Nodes that are being emptied.
    pub draining: BTreeSet<NodeId>,
    /// By name, then by namespace.
    pub jobs_by_name: BTreeMap<Name, BTreeMap<Name, BTreeSet<JobId>>>,
    /// By namespace and group.
    pub jobs_by_group: BTreeMap<(Name, Name), BTreeSet<JobId>>,
    /// Jobs that wait for the key.
    pub dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Jobs that are not over.
    pub unfinished: u32,
    /// Open jobs with ready tasks: highest priority first, then oldest.
    pub queue: BTreeSet<(Reverse<i32>, JobId)>,
    /// Retrying tasks by when they are due.
    pub due: BTreeSet<(TimeMs, JobId, u32)>,
    pub sandboxes_pending: BTreeSet<SandboxId>,
    /// Names of sandboxes that are not over, by namespace.
    pub sandbox_by_name: BTreeMap<Name, BTreeMap<Name, SandboxId>>,
    /// What is in use by namespace, where anything is.
    pub usage: BTreeMap<Name, Usage>,
    /// When a living sandbox's time is over, or a dead one is forgotten.
    pub sandbox_timer: BTreeSet<(TimeMs, SandboxId)>,
    pub token_by_hash: BTreeMap<[u8; 32], TokenId>,
    /// When join tokens expire.
    pub join_token_timer: BTreeSet<(TimeMs, TokenId)>,
    pub member_by_name: BTreeMap<Name, NodeId>,
    pub key_timer: BTreeSet<(TimeMs, Arc<str>)>,
    /// Digests of file contents that are stored.
    pub blobs: BTreeSet<Arc<str>>,
}
