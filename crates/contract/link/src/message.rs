//! The messages of a worker's session, and the two ends of one.

use std::sync::Arc;

use bytes::Bytes as Blob;
use prism_spec::{JobSpec, SandboxSpec};
use prism_types::{JobId, Labels, Name, NodeId, Resources, RunReport, SandboxId, TaskRef, TimeMs};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::resume::{Difference, Sum, Summary};
use crate::{NodeFacts, Readings};

/// Messages that fit between the ends; a full queue makes the sender wait.
const QUEUE: usize = 1024;

/// What a worker says first. What it holds it names here, or sums up in a [`Resume`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Who.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// What it offers.
    pub capacity: Resources,
    /// What it is.
    pub facts: NodeFacts,
    /// Every task it holds: waiting, running, or over and not acknowledged.
    pub tasks: Vec<(TaskRef, Holding)>,
    /// Every sandbox it holds.
    pub sandboxes: Vec<(SandboxId, SandboxStatus)>,
}

impl Hello {
    /// Of a node that offers, tells and holds nothing.
    pub fn empty(node: NodeId, name: Name) -> Self {
        Self {
            node,
            name,
            labels: Labels::default(),
            capacity: Resources::default(),
            facts: NodeFacts::default(),
            tasks: Vec::new(),
            sandboxes: Vec::new(),
        }
    }
}

/// What a worker says first since version 3 of the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// Who it is; what it holds is not in it.
    pub hello: Hello,
    /// What it holds.
    pub summary: Summary,
}

/// How far a task is on its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// Not started.
    Waiting,
    /// Runs since.
    Running(TimeMs),
    /// Over; its outcome is being reported.
    Over,
}

/// How a sandbox is on its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxStatus {
    /// Takes execs since.
    Running(TimeMs),
    /// Over; why.
    Exited(RunReport),
}

/// How one attempt of a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOutcome {
    /// Which attempt.
    pub task: TaskRef,
    /// How.
    pub report: RunReport,
    /// The last JSON object line of its standard output (at most 64 KiB), as it was printed.
    pub result: Option<String>,
    /// The end of its standard error (or of its standard output if that is empty), when it failed; at most 2 KiB.
    pub tail: String,
}

/// A metric that a task printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskMetric {
    /// Which attempt.
    pub task: TaskRef,
    /// How many metric lines it has printed, this one included.
    pub step: u32,
    /// The value.
    pub value: f64,
    /// The JSON line.
    pub line: String,
}

/// What a worker tells the control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToControl {
    /// Opens the session. Said again in it when what the node is has changed (an image was loaded).
    Hello(Box<Hello>),
    /// Renews the lease; `credits` is how many tasks it wants to have waiting, besides those that run.
    Heartbeat {
        /// Measurements.
        readings: Readings,
        /// Tasks wanted waiting.
        credits: u32,
    },
    /// Tasks started.
    Started(Vec<(TaskRef, TimeMs)>),
    /// Tasks ended; told again until acknowledged.
    Finished(Vec<TaskOutcome>),
    /// Tasks given back: never started here.
    Returned(Vec<TaskRef>),
    /// Metrics that running tasks printed.
    Progress(Vec<TaskMetric>),
    /// A sandbox changed.
    Sandbox {
        /// Which.
        id: SandboxId,
        /// How it is now.
        status: SandboxStatus,
    },
    /// Asks for more time for what may run once only. Since version 2 of the session.
    Renew {
        /// When this was sent, by the worker's own clock since boot, milliseconds; the answer brings it back.
        sent: u64,
    },
    /// Opens the session, as [`ToControl::Hello`] does. Nothing else is said before it is answered with [`ToWorker::Unwanted`], but
    /// for answers to [`ToWorker::Compare`]. Since version 3 of the session.
    Resume(Box<Resume>),
    /// Answers [`ToWorker::Compare`]. Since version 3 of the session.
    Held(Box<Difference>),
}

/// A job's spec with the contents of its files, as a worker needs it once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobBundle {
    /// Which.
    pub job: JobId,
    /// Its spec.
    pub spec: Arc<JobSpec>,
    /// Contents by SHA-256.
    pub blobs: Vec<(String, Blob)>,
}

/// A task given to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTask {
    /// Index in the job.
    pub index: u32,
    /// Attempt, from 1.
    pub attempt: u32,
    /// `results.json` for an aggregate.
    pub results: Option<Blob>,
}

/// Why the control plane stops a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopWhy {
    /// Its job was cancelled, or it is no longer wanted.
    Cancelled,
    /// The sweep's rule gave it up; what it printed last is its result.
    EarlyStopped,
}

/// What the control plane tells a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Answers [`ToControl::Hello`]: what the worker should hold. What it holds beyond that, it stops and drops.
    Desired {
        /// Tasks.
        tasks: Vec<TaskRef>,
        /// Sandboxes.
        sandboxes: Vec<SandboxId>,
    },
    /// A job's spec; comes before its first tasks in a session.
    Job(Box<JobBundle>),
    /// Tasks, and how many of the job may run at once here from now on.
    Assign {
        /// Which job.
        job: JobId,
        /// At most so many at once.
        lanes: u32,
        /// The tasks; may be empty when only `lanes` changes.
        tasks: Vec<AssignedTask>,
    },
    /// Ends tasks.
    Stop {
        /// Which.
        tasks: Vec<TaskRef>,
        /// Why.
        why: StopWhy,
    },
    /// These outcomes are recorded (or will never be): forget them.
    Ack(Vec<TaskRef>),
    /// Give back the tasks of this job that have not started: answered with [`ToControl::Returned`].
    Recall(JobId),
    /// A job is over: its files may go.
    JobOver(JobId),
    /// Starts sandboxes.
    SandboxStart(Vec<(SandboxId, Arc<SandboxSpec>)>),
    /// Removes sandboxes and their files.
    SandboxStop(Vec<SandboxId>),
    /// Answers [`ToControl::Renew`], once the leader knew that it led after it was asked: the lease runs from `sent` on. Since
    /// version 2 of the session.
    Renewed {
        /// As asked.
        sent: u64,
    },
    /// Asks what the worker holds where these sums are others than its own. Since version 3 of the session.
    Compare(Vec<Sum>),
    /// Answers [`ToControl::Resume`]: what of all that it holds the worker stops and drops. Since version 3 of the session.
    Unwanted {
        /// Tasks.
        tasks: Vec<TaskRef>,
        /// Sandboxes.
        sandboxes: Vec<SandboxId>,
    },
}

/// The control plane's end of a session.
#[derive(Debug)]
pub struct ControlEnd {
    /// To the worker.
    pub to_worker: mpsc::Sender<ToWorker>,
    /// From the worker; `None` when it is gone.
    pub from_worker: mpsc::Receiver<ToControl>,
}

/// The worker's end of a session.
#[derive(Debug)]
pub struct WorkerEnd {
    /// To the control plane.
    pub to_control: mpsc::Sender<ToControl>,
    /// From the control plane; `None` when it is gone.
    pub from_control: mpsc::Receiver<ToWorker>,
    /// Whether the control plane knows [`ToControl::Resume`]; true unless who carries the session says otherwise.
    pub resumes: bool,
}

/// The two ends of a session within one process.
pub fn pair() -> (ControlEnd, WorkerEnd) {
    let (to_worker, from_control) = mpsc::channel(QUEUE);
    let (to_control, from_worker) = mpsc::channel(QUEUE);
    (
        ControlEnd {
            to_worker,
            from_worker,
        },
        WorkerEnd {
            to_control,
            from_control,
            resumes: true,
        },
    )
}
