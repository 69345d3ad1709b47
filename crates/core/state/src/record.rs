//! What is stored under each key, as data.
//!
//! Records hold no logic. `decide` makes new ones, `Change` carries them, `codec` turns them into bytes, views hand them out.
//! A change of a record's fields needs a new version byte in `codec`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prism_spec::SandboxSpec;
use prism_types::{
    Bytes, Id, JobId, JobState, Labels, Name, NodeId, NodeNo, NodeState, Reason, Resources,
    RunReport, SandboxId, SandboxState, Scope, TaskState, TimeMs, TokenId,
};
use serde::{Deserialize, Serialize};

/// `meta`: what there is one of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaRecord {
    /// The cluster, once it is initialised.
    pub cluster: Option<Id>,
    /// When that was.
    pub created: TimeMs,
    /// Number of the next node that registers.
    pub next_node: u32,
    /// Oldest event kept.
    pub events_first: u64,
    /// Number of the next event.
    pub events_next: u64,
    /// SHA-256 of the stored bytes of the last audit event; zeros before the first.
    pub audit_head: [u8; 32],
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor architecture, such as `x86_64`.
    pub arch: String,
    /// Processors.
    pub cpus: u32,
    /// Memory of the machine.
    pub memory: Bytes,
    /// Disk under the data directory.
    pub disk: Bytes,
    /// Version of `prismd`.
    pub version: String,
    /// Whether it can run isolated sandboxes.
    pub isolation: bool,
    /// Images loaded into it, `host` not counted.
    pub images: BTreeSet<String>,
}

/// `nodes/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node.
    pub id: NodeId,
    /// Its small number, never reused.
    pub no: NodeNo,
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
    /// By its lease.
    pub state: NodeState,
    /// Since when.
    pub since: TimeMs,
    /// Nothing new is placed on it.
    pub cordoned: bool,
    /// First registration.
    pub registered: TimeMs,
    /// It is being emptied, or was.
    pub drain: Option<Drain>,
}

/// How far a node is emptied. It is cordoned meanwhile, and until somebody uncordons it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Asked for.
    pub since: TimeMs,
    /// When what still runs is stopped; `None`: never, it ends by itself.
    pub deadline: Option<TimeMs>,
    /// How far.
    pub phase: Phase,
}

/// A draining node's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// What has started may end by itself.
    Waiting,
    /// Past the deadline: everything is being stopped.
    Stopping,
    /// Nothing is there any more.
    Done,
}

/// `jobs/ID`: the part of a job that changes. Its tasks are in blocks, its lanes under `lanes/JOB/NODE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// Its state.
    pub state: JobState,
    /// Submitted.
    pub created: TimeMs,
    /// First placement.
    pub started: Option<TimeMs>,
    /// Last task over.
    pub finished: Option<TimeMs>,
    /// Nothing new of it is placed.
    pub paused: bool,
    /// It is being (or was) cancelled, and why: `Cancelled`, `DependencyFailed` or `TooManyFailures`.
    pub cancel: Option<Reason>,
    /// For people: why it ended as it did, or what it waits for.
    pub message: String,
    /// The jobs it was to wait for.
    pub after: Vec<JobId>,
    /// Those of them that have not completed yet.
    pub waiting_for: BTreeSet<JobId>,
    /// Seed of its jitter.
    pub seed: u64,
    /// Number of tasks.
    pub tasks: u32,
    /// Failures that were written as events (bounded).
    pub failure_events: u32,
}

/// The best beam so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Task number of the beam.
    pub index: u32,
    /// Value of the objective's metric.
    pub value: f64,
    /// The beam's result, JSON text.
    pub result: Arc<str>,
}

/// `sweeps/ID`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepRecord {
    /// The best beam so far, if there is an objective.
    pub best: Option<Best>,
}

/// `sweeps/ID/BEAM`: what a beam reported while it ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BeamRecord {
    /// Attempt that reported last.
    pub attempt: u32,
    /// Number of its last line that has the metric, from 1.
    pub step: u32,
    /// The metric there.
    pub value: f64,
    /// That line, JSON text.
    pub line: Arc<str>,
    /// The metric at each rung it reached, in order.
    pub rungs: Vec<f64>,
    /// The rule gave it up.
    pub stopped: bool,
}

/// `sandboxes/ID`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// The sandbox.
    pub id: SandboxId,
    /// What was asked for.
    pub spec: Arc<SandboxSpec>,
    /// Its state.
    pub state: SandboxState,
    /// Where it is (or was).
    pub node: Option<NodeId>,
    /// Asked for.
    pub created: TimeMs,
    /// Running since.
    pub started: Option<TimeMs>,
    /// Over since.
    pub finished: Option<TimeMs>,
    /// End of its lease of life.
    pub expires: Option<TimeMs>,
    /// Why it ended or ends.
    pub reason: Option<Reason>,
    /// The same for people.
    pub message: String,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Only look.
    Viewer,
    /// Run jobs, sweeps and sandboxes.
    Submitter,
    /// Look after nodes and images as well.
    Operator,
    /// Everything, tokens and nodes included.
    Admin,
}

/// `tokens/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The token's public half.
    pub id: TokenId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Of what.
    pub scope: Scope,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// Made.
    pub created: TimeMs,
    /// Not valid from then on.
    pub expires: Option<TimeMs>,
}

/// `keys/KEY`: the answer a request with this idempotency key got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Digest of the request.
    pub digest: [u8; 32],
    /// Its answer.
    pub reply: crate::Reply,
    /// Forgotten from then on.
    pub expires: TimeMs,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// The cluster as a whole.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A job or sweep.
    Job(JobId),
    /// A task of a job.
    Task(JobId, u32),
    /// A sandbox.
    Sandbox(SandboxId),
    /// A token.
    Token(TokenId),
    /// A namespace.
    Namespace(Name),
}

/// `events/SEQ`: one thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its number; grows by one.
    pub seq: u64,
    /// When.
    pub at: TimeMs,
    /// What happened, such as `job.completed`; stable.
    pub kind: Arc<str>,
    /// To what.
    pub subject: Subject,
    /// Why, if it was a failure or a stop.
    pub reason: Option<Reason>,
    /// For people.
    pub message: String,
    /// In which namespace, if it belongs to one. Unknown of events that an older version wrote.
    pub namespace: Option<Name>,
    /// Who did it, if somebody changed something through the API.
    pub audit: Option<Box<crate::Audit>>,
}

/// A task's output that is too large for the store, kept on its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRef {
    /// SHA-256 of its standard output.
    pub sha256: [u8; 32],
    /// Bytes.
    pub size: u64,
}

/// One result in `results/JOB/BLOCK/SEQ`. It is the task's result if
/// [`ResultRecord::is_current`]; a job that was retried also has records of attempts that do not count any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRecord {
    /// Task number.
    pub index: u32,
    /// The attempt it came from.
    pub attempt: u32,
    /// The node it ran on.
    pub node: NodeNo,
    /// `COMPLETED`, `FAILED` or `CANCELLED`.
    pub state: TaskState,
    /// Why, if not simply completed.
    pub reason: Option<Reason>,
    /// When it was recorded.
    pub recorded: TimeMs,
    /// How the run went.
    pub report: RunReport,
    /// Its result: the last JSON line of its standard output, at most 64 KiB.
    pub result: Option<Arc<str>>,
    /// The end of its standard error, at most 2 KiB.
    pub stderr_tail: Arc<str>,
    /// Its whole output, if that is kept on the node.
    pub output: Option<OutputRef>,
}

impl ResultRecord {
    /// Whether this is the one result of the task as it stands now.
    pub fn is_current(&self, task: &crate::TaskView) -> bool {
        task.state.is_final() && task.state == self.state && task.attempt == self.attempt
    }
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts(pub(crate) [u32; 7]);

impl Counts {
    /// How many are in `state`.
    pub fn of(&self, state: TaskState) -> u32 {
        self.0[state as usize]
    }

    /// How many nothing will change any more.
    pub fn finished(&self) -> u32 {
        self.of(TaskState::Completed) + self.of(TaskState::Failed) + self.of(TaskState::Cancelled)
    }

    /// How many a node holds.
    pub fn placed(&self) -> u32 {
        self.of(TaskState::Assigned) + self.of(TaskState::Running)
    }

    /// All of them.
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// By state, every state included.
    pub fn by_state(&self) -> BTreeMap<TaskState, u32> {
        TaskState::ALL.iter().map(|s| (*s, self.of(*s))).collect()
    }

    pub(crate) fn moved(&mut self, from: TaskState, to: TaskState) {
        self.0[from as usize] -= 1;
        self.0[to as usize] += 1;
    }
}
