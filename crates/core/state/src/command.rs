//! What can be asked of the state machine.
//!
//! Commands are data; ids, seeds and times are minted by whoever proposes them. The control loop is the only caller of
//! `decide`; the gateway, the scheduler and worker sessions make commands.

use core::net::IpAddr;
use std::sync::Arc;

use prism_spec::{JobSpec, SandboxSpec};
use prism_types::{
    Id, JobId, Labels, Millis, Name, NodeId, NodeState, Outcome, Resources, RunReport, SandboxId,
    Scope, TaskRef, TimeMs, TokenId,
};

use crate::{
    GossipRecord, JoinTokenRecord, MemberRecord, MemberRole, NodeFacts, Origin, OutputRef, Quota,
    Role, RootRecord, Subject, Whom,
};

/// Longest result of a task in bytes; longer ones are refused as a whole and the task has none.
pub const RESULT_MAX: usize = 64 << 10;
/// Longest kept end of standard error in bytes.
pub const STDERR_TAIL_MAX: usize = 2 << 10;
/// Longest kept metric line in bytes.
pub const METRIC_LINE_MAX: usize = 4 << 10;

/// Makes a mutating request repeatable: the same key and digest get the same answer, and nothing happens twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's key, made unique per caller by the gateway; 1 to 200 bytes.
    pub key: Arc<str>,
    /// SHA-256 of the request.
    pub request_digest: [u8; 32],
}

/// A command with the idempotency key it came with.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What is asked.
    pub command: Command,
    /// The key, if the caller gave one.
    pub key: Option<IdempotencyKey>,
    /// Who asks, if somebody did through the API: kept as an audit event with what changes.
    pub origin: Option<Origin>,
}

impl From<Command> for Proposal {
    fn from(command: Command) -> Self {
        Self {
            command,
            key: None,
            origin: None,
        }
    }
}

/// Everything that changes the state.
#[derive(Clone, Debug)]
pub enum Command {
    /// Names the cluster; once.
    Init {
        /// The cluster.
        cluster: Id,
    },
    /// A node says that it is there, and what it has. Makes it `HEALTHY`.
    RegisterNode(Registration),
    /// A node's lease changed state. `OFFLINE` is said only of a node that was not heard of for [`prism_types::LEASE`].
    SetNodeState {
        /// The node.
        id: NodeId,
        /// Its new state.
        state: NodeState,
    },
    /// A leader begins, and knows nothing of the leases that those before it gave: what they gave up without a node's word begins
    /// again when the last of them is over.
    TakeOver,
    /// Places nothing new on a node, or does so again.
    Cordon {
        /// The node.
        id: NodeId,
        /// Whether nothing new goes there.
        on: bool,
    },
    /// Empties a node: nothing new goes there, what waits there goes elsewhere, what runs there may go on for a while.
    Drain {
        /// The node.
        id: NodeId,
        /// How long what runs may go on; `None`: until it ends.
        limit: Option<Millis>,
    },
    /// Forgets an offline or empty node.
    RemoveNode {
        /// The node.
        id: NodeId,
    },
    /// Accepts a job or sweep.
    SubmitJob(Submission),
    /// Ends a job: what waits is cancelled, what runs is stopped.
    CancelJob {
        /// The job.
        id: JobId,
    },
    /// Places nothing more of a job.
    PauseJob {
        /// The job.
        id: JobId,
    },
    /// Goes on with a paused job.
    ResumeJob {
        /// The job.
        id: JobId,
    },
    /// Runs a job's failed and cancelled tasks again, with a fresh budget of retries.
    RetryJob {
        /// The job.
        id: JobId,
    },
    /// Carries out a plan; what does not hold any more is dropped and counted.
    Assign(Plan),
    /// Tasks started on a node.
    Started {
        /// The node.
        node: NodeId,
        /// Which, and when.
        tasks: Vec<(TaskRef, TimeMs)>,
    },
    /// Tasks ended on a node. Recorded once; repeats are counted as duplicates.
    Finished {
        /// The node.
        node: NodeId,
        /// How each went.
        results: Vec<TaskResult>,
    },
    /// A node gives back tasks it never started or does not know.
    Returned {
        /// The node.
        node: NodeId,
        /// Which.
        tasks: Vec<TaskRef>,
    },
    /// Metrics that beams printed.
    Progress {
        /// The node.
        node: NodeId,
        /// In the order in which they were printed.
        metrics: Vec<Metric>,
    },
    /// Time passes: due retries are queued, leases of life and idempotency keys end.
    Tick,
    /// Accepts a sandbox.
    CreateSandbox {
        /// Its id.
        id: SandboxId,
        /// What is asked for.
        spec: Arc<SandboxSpec>,
    },
    /// What became of a sandbox on its node.
    SandboxReport {
        /// The node.
        node: NodeId,
        /// The sandbox.
        id: SandboxId,
        /// What is so.
        status: SandboxStatus,
    },
    /// Ends a sandbox.
    DeleteSandbox {
        /// The sandbox.
        id: SandboxId,
    },
    /// Sets the end of a sandbox's lease of life.
    SetSandboxTimeout {
        /// The sandbox.
        id: SandboxId,
        /// When it ends; `None`: never.
        until: Option<TimeMs>,
    },
    /// Stores a token.
    CreateToken {
        /// Its public half.
        id: TokenId,
        /// For people, 1 to 100 characters.
        name: String,
        /// What it may do.
        role: Role,
        /// Of what; boxed, because most commands are small.
        scope: Box<Scope>,
        /// The token whose holder makes it: it gives no right that it has not itself. `None`: the machine's own administrator.
        by: Option<TokenId>,
        /// SHA-256 of the secret.
        hash: [u8; 32],
        /// Not valid from then on.
        expires: Option<TimeMs>,
    },
    /// Forgets a token.
    RevokeToken {
        /// Its public half.
        id: TokenId,
    },
    /// Makes a namespace, or changes its quota.
    PutNamespace {
        /// Its name.
        name: Name,
        /// All of its quota.
        quota: Quota,
        /// `true`: only if there is none of that name; `false`: only if there is one.
        new: Option<bool>,
    },
    /// Forgets a namespace in which nothing lives.
    RemoveNamespace {
        /// Its name.
        name: Name,
    },
    /// Keeps an audit event of a change that goes to a node and not through the state.
    Note {
        /// What was changed.
        subject: Subject,
        /// Whether it was carried out.
        outcome: Outcome,
    },
    /// Stores a join token, made now; it expires at most 30 days from now.
    CreateJoinToken(JoinTokenRecord),
    /// Forgets a join token.
    RevokeJoinToken {
        /// Its public half.
        id: TokenId,
    },
    /// The first server is a member; refused once there are others.
    Found {
        /// It.
        member: MemberRecord,
        /// Where the others reach it.
        address: String,
    },
    /// A server is somewhere else from now on.
    MoveServer {
        /// The server.
        id: NodeId,
        /// Where the others reach it.
        address: String,
    },
    /// A node becomes a member.
    Join(Join),
    /// A member is none any more, and is kept out.
    RemoveMember {
        /// The node.
        id: NodeId,
    },
    /// Of all servers only one is left, after a majority was lost for good: the others are none any more.
    RecoverAlone {
        /// The one.
        id: NodeId,
    },
    /// Keeps somebody out.
    Deny {
        /// Who.
        whom: Whom,
        /// Why, for people; 1 to 400 bytes.
        why: String,
    },
    /// Ends that.
    Allow {
        /// Who.
        whom: Whom,
    },
    /// Begins to change the cluster's root.
    Rotate {
        /// The root that there is.
        old: Box<RootRecord>,
        /// The one that takes its place; its key is kept on the server that made it.
        new: Box<RootRecord>,
        /// Whether this takes the place of a change that is under way, whose new root is lost.
        again: bool,
    },
    /// Members have shown certificates of the new root.
    Moved {
        /// Of the new root's key.
        pin: [u8; 32],
        /// Who.
        members: Vec<NodeId>,
    },
    /// The old root is not trusted any more.
    EndRotation {
        /// Whether workers that are waited for are left behind.
        force: bool,
    },
    /// Gossip is sealed with these keys from now on; refused unless their revision is the next one.
    SetGossipKeys(GossipRecord),
    /// Keeps an event of what is seen of a server.
    NoteServer {
        /// The server.
        id: NodeId,
        /// What.
        seen: ServerSeen,
    },
    /// A server that is long gone is none any more, by rule.
    RetireServer {
        /// The server.
        id: NodeId,
        /// Why, for people; 1 to 400 bytes.
        why: String,
    },
}

/// What the other servers see of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerSeen {
    /// It did not answer, and may yet.
    Suspect,
    /// It is not heard of any more.
    Failed,
    /// It said that it goes.
    Left,
    /// It is heard of again.
    Back,
}

/// A node that asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Public half of the token that it shows.
    pub token: TokenId,
    /// SHA-256 of the secret that it shows.
    pub hash: [u8; 32],
    /// The node.
    pub node: NodeId,
    /// What it wants to be.
    pub role: MemberRole,
    /// Its name.
    pub name: Name,
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`, DER), of which it has shown to have the private half.
    pub key: [u8; 32],
    /// Where its connection comes from.
    pub address: IpAddr,
    /// Where the others reach it, if it wants to be a server.
    pub server: Option<String>,
}

/// A node's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The node.
    pub id: NodeId,
    /// Its name, unique.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// What it offers in all.
    pub capacity: Resources,
    /// Whether it runs tasks that ask for no isolation.
    pub allow_plain: bool,
    /// What it says of itself.
    pub facts: NodeFacts,
}

/// A job or sweep to accept. The caller has validated the spec and checked each content against its digest.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its id.
    pub id: JobId,
    /// What is asked for.
    pub spec: Arc<JobSpec>,
    /// Contents of its files by SHA-256 (64 hexadecimal digits). Those that the cluster has may be left out.
    pub blobs: Vec<(String, Arc<[u8]>)>,
    /// Seed of its jitter.
    pub seed: u64,
}

/// Where things shall run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Tasks.
    pub placements: Vec<Placement>,
    /// Sandboxes.
    pub sandboxes: Vec<(SandboxId, NodeId)>,
}

impl Plan {
    /// Whether it places nothing.
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty() && self.sandboxes.is_empty()
    }
}

/// Tasks of one job for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The job.
    pub job: JobId,
    /// The node.
    pub node: NodeId,
    /// How many tasks of the job the node shall run at once in all; never lowers what it has.
    pub lanes: u32,
    /// Numbers of the tasks to give it; may be empty, to widen the lanes only.
    pub tasks: Vec<u32>,
}

/// How a task went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskResult {
    /// Which attempt of which task.
    pub task: TaskRef,
    /// How the run went.
    pub report: RunReport,
    /// The last JSON line of its standard output, at most [`RESULT_MAX`] bytes.
    pub result: Option<Arc<str>>,
    /// The end of its standard error, at most [`STDERR_TAIL_MAX`] bytes.
    pub stderr_tail: Arc<str>,
    /// Its whole output, if that is kept on the node.
    pub output: Option<OutputRef>,
}

/// A metric that a beam printed.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Which attempt of which beam.
    pub task: TaskRef,
    /// How many lines with the metric this attempt has printed, this one included; from 1.
    pub step: u32,
    /// The metric.
    pub value: f64,
    /// The whole line, JSON text, at most [`METRIC_LINE_MAX`] bytes.
    pub line: Arc<str>,
}

/// What is so with a sandbox on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxStatus {
    /// It runs and takes execs.
    Running {
        /// Since when.
        at: TimeMs,
    },
    /// It ended.
    Exited(RunReport),
    /// The node does not know it.
    Gone,
}
