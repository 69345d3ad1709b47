//! The types that consensus is instantiated with. Private to the crate.

use std::sync::Arc;

use openraft::impls::{self, leader_id_adv};
use openraft::raft::responder::Responder;
use openraft::{BasicNode, OptionalSend, RaftTypeConfig, SnapshotPolicy};

use crate::command::{Answer, Proposal};
use crate::machine::Machine;

/// The types of this store. Written out, because the macro of the library cannot name a responder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Proposal;
    type R = Answer;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = leader_id_adv::LeaderId<u64, u64>;
    type Vote = impls::Vote<Self::LeaderId>;
    type Payload = impls::EntryPayload<Proposal, u64, BasicNode>;
    type Entry = impls::Entry<Self::LeaderId, Self::Payload>;
    type Responder<T>
        = Reply<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = openraft::TokioRuntime;
    type ErrorSource = impls::BoxedErrorSource;
}

pub(crate) type Raft = openraft::Raft<Types, Machine>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = <Types as RaftTypeConfig>::Entry;
pub(crate) type Payload = <Types as RaftTypeConfig>::Payload;
pub(crate) type Membership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

/// Answers a proposal straight from the state machine, without a task in between.
pub(crate) struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    pub(crate) fn new(answer: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(answer))
    }
}

impl<T: OptionalSend + 'static> Responder<Types, T> for Reply<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// How often a leader says that it is there, milliseconds.
const HEARTBEAT_MS: u64 = 100;
/// A follower that hears nothing for the longest of these, and then for a time between the two, stands for election. Milliseconds.
const ELECTION_MS: (u64, u64) = (300, 500);

/// How consensus runs. It begins without timers: with one voter there is nobody to hear a heartbeat and nobody else to elect, so an
/// idle store wakes up for nothing; `cluster::keep_time` starts them when others come. Snapshots are asked for by
/// `store::keep_short`, which knows the log's bytes.
pub(crate) fn config() -> Arc<openraft::Config> {
    Arc::new(openraft::Config {
        cluster_name: "prism".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        enable_pre_vote: Some(true),
        enable_tick: false,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        api_channel_size: Some(1024),
        notification_channel_size: Some(1024),
        ..openraft::Config::default()
    })
}
