//! What a decision consists of: changes to commit, actions to carry out afterwards, and the answer.
//!
//! A change replaces one record whole, so applying and encoding it needs nothing else. Actions are volatile: what they ask
//! for follows from the state too (`State::desired_for`), so losing them in a crash loses nothing.

use std::sync::Arc;

use prism_spec::JobSpec;
use prism_types::{JobId, Name, NodeId, NodeNo, Reason, SandboxId, TaskRef, TokenId};
use serde::{Deserialize, Serialize};

use crate::{
    BeamRecord, Block, DeniedRecord, EventRecord, GossipRecord, JobRecord, JoinTokenRecord,
    KeyRecord, MemberRecord, MetaRecord, NamespaceRecord, NodeRecord, ResultRecord, RotationRecord,
    SandboxRecord, ServerRecord, SweepRecord, TokenRecord, Whom,
};

/// Outcome of [`crate::decide`].
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// To apply and to commit, in this order.
    pub changes: Vec<Change>,
    /// To carry out after the commit.
    pub actions: Vec<Action>,
    /// To answer after the commit.
    pub reply: Reply,
}

/// One record replaced, made or removed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// `meta`.
    Meta(MetaRecord),
    /// `nodes/ID`.
    Node(Arc<NodeRecord>),
    /// `nodes/ID` removed.
    NodeRemoved(NodeId),
    /// `jobs/ID` and `specs/ID`: a new job.
    JobAdded(JobRecord, Arc<JobSpec>),
    /// `jobs/ID`.
    Job(JobRecord),
    /// `tasks/JOB/BLOCK`.
    Block {
        /// The job.
        job: JobId,
        /// Number of the block.
        number: u32,
        /// Its tasks.
        block: Block,
    },
    /// `lanes/JOB/NODE`; removed at 0.
    Lanes {
        /// The job.
        job: JobId,
        /// The node.
        node: NodeNo,
        /// Tasks of the job that the node may run at once.
        lanes: u32,
    },
    /// `results/JOB/BLOCK/SEQ`; not kept in memory.
    Results {
        /// The job.
        job: JobId,
        /// Number of the block.
        block: u32,
        /// Number of the batch in the block.
        seq: u32,
        /// The results.
        records: Vec<ResultRecord>,
    },
    /// `sweeps/ID`.
    Sweep(JobId, SweepRecord),
    /// `sweeps/ID/BEAM`.
    Beam(JobId, u32, BeamRecord),
    /// `sandboxes/ID`.
    Sandbox(SandboxRecord),
    /// `sandboxes/ID` removed.
    SandboxRemoved(SandboxId),
    /// `tokens/ID`.
    Token(TokenRecord),
    /// `tokens/ID` removed.
    TokenRemoved(TokenId),
    /// `namespaces/NAME`.
    Namespace(NamespaceRecord),
    /// `namespaces/NAME` removed.
    NamespaceRemoved(Name),
    /// `joins/ID`.
    JoinToken(JoinTokenRecord),
    /// `joins/ID` removed.
    JoinTokenRemoved(TokenId),
    /// `members/ID`.
    Member(MemberRecord),
    /// `members/ID` removed.
    MemberRemoved(NodeId),
    /// `servers/ID`.
    Server(ServerRecord),
    /// `denied/WHOM`.
    Denied(DeniedRecord),
    /// `denied/WHOM` removed.
    DeniedRemoved(Whom),
    /// `rotation/root`.
    Rotation(Box<RotationRecord>),
    /// `gossip`.
    Gossip(GossipRecord),
    /// `keys/KEY`.
    Key(Arc<str>, KeyRecord),
    /// `keys/KEY` removed.
    KeyRemoved(Arc<str>),
    /// `events/SEQ`; not kept in memory.
    Event(EventRecord),
    /// `events/SEQ` removed, from the first number up to but not including the second.
    EventsRemoved(u64, u64),
    /// `blobs/SHA`; the content is not kept in memory.
    Blob(Arc<str>, Arc<[u8]>),
}

/// What the leader does after the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends tasks to a node.
    Assign {
        /// The node.
        node: NodeId,
        /// The job.
        job: JobId,
        /// How many tasks of the job it may run at once, in all.
        lanes: u32,
        /// Number and attempt of each.
        tasks: Vec<(u32, u32)>,
    },
    /// Tells a node how many tasks of a job it may run at once from now on.
    SetLanes {
        /// The node.
        node: NodeId,
        /// The job.
        job: JobId,
        /// How many, in all.
        lanes: u32,
    },
    /// Stops tasks, started or not; the node answers with `Finished` (or `Returned`) for each.
    StopTasks {
        /// The node.
        node: NodeId,
        /// Which.
        tasks: Vec<TaskRef>,
        /// Why: `Cancelled`, `EarlyStopped`, `DependencyFailed` or `TooManyFailures`.
        reason: Reason,
    },
    /// Asks a node to give back a job's tasks that it has not started; it answers with `Returned`.
    Recall {
        /// The node.
        node: NodeId,
        /// The job.
        job: JobId,
    },
    /// Starts a sandbox.
    StartSandbox {
        /// The node.
        node: NodeId,
        /// The sandbox.
        id: SandboxId,
    },
    /// Stops a sandbox; the node answers with `SandboxReport`.
    StopSandbox {
        /// The node.
        node: NodeId,
        /// The sandbox.
        id: SandboxId,
    },
}

/// What the proposer is told. Stored with its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done (or it was so already).
    Ok,
    /// The node is known by this number.
    NodeRegistered {
        /// Its number.
        no: NodeNo,
    },
    /// The job is accepted.
    JobCreated {
        /// Its id.
        id: JobId,
    },
    /// The job's tasks run again.
    Retried {
        /// How many.
        tasks: u32,
    },
    /// The plan was carried out.
    Assigned {
        /// Tasks and sandboxes that were placed.
        accepted: u32,
        /// Those that did not hold any more.
        dropped: u32,
    },
    /// Reports were taken in; all of them may be forgotten by the sender.
    Recorded {
        /// Those that changed something.
        accepted: u32,
        /// Those that were known or superseded.
        duplicates: u32,
    },
    /// The sandbox is accepted.
    SandboxCreated {
        /// Its id.
        id: SandboxId,
    },
    /// The token is stored.
    TokenCreated {
        /// Its public half.
        id: TokenId,
    },
}
