//! Jobs and their tasks on the wire.

use prism_types::{JobId, JobState, Labels, Reason, TaskState, TimeMs};
use serde_json::{Map, Value};

words! {
    /// What kind of job.
    pub enum JobKind {
        /// The same command many times.
        Array = "array",
        /// Tasks spelled out.
        List = "list",
        /// One task for each line.
        Map = "map",
        /// Points of a search space.
        Sweep = "sweep",
    }
}

wire! {
    /// Tasks by state; the states add up to `total`.
    pub struct TaskCounts {
        /// All.
        pub total: u64,
        /// Wait for a place.
        pub queued: u64,
        /// Given to a node.
        pub assigned: u64,
        /// Run.
        pub running: u64,
        /// Ended well.
        pub completed: u64,
        /// Ended badly for good.
        pub failed: u64,
        /// Wait to be tried again.
        pub retrying: u64,
        /// Ended by request.
        pub cancelled: u64,
    }

    /// A job.
    pub struct JobView {
        /// Its id.
        pub id: JobId,
        /// Its name.
        pub name: String,
        /// Whose it is.
        pub namespace: String,
        /// What kind.
        pub kind: JobKind,
        /// What it is for.
        pub task: String,
        /// Its state.
        pub status: JobState,
        /// Whether nothing new of it is placed, by request.
        pub paused: bool,
        /// Tasks by state.
        pub counts: TaskCounts,
        /// Higher goes first.
        pub priority: i32,
        /// Its group.
        pub group: Option<String>,
        /// What it waits for.
        pub after: Vec<String>,
        /// Its labels.
        pub labels: Labels,
        /// Why it did not complete.
        pub reason: Option<Reason>,
        /// The same for people.
        pub message: Option<String>,
        /// When it was accepted.
        pub created: TimeMs,
        /// When its first task was placed.
        pub started: Option<TimeMs>,
        /// When it was over.
        pub finished: Option<TimeMs>,
        /// Its whole spec; only when one job is asked for.
        pub spec: Option<Value>,
    }

    /// A task; also one line of a job's results. Fields without a value are left out.
    pub struct TaskView {
        /// Its index in the job, from 0.
        pub index: u32,
        /// Its name, if it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Its state.
        pub status: TaskState,
        /// The last attempt, from 1; 0 before the first.
        pub attempt: u32,
        /// The fencing number of the last attempt, if no two may run at the same time: of two, the greater is the later one's.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub fence: Option<u32>,
        /// Name of the node of the last attempt.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub node: Option<String>,
        /// Its point in the search space, in a sweep.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub point: Option<Map<String, Value>>,
        /// Its runner, in a sweep.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub runner: Option<String>,
        /// The last JSON line of its standard output.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub result: Option<Value>,
        /// Why it did not complete (yet).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub reason: Option<Reason>,
        /// The same for people, or the end of its standard error.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub message: Option<String>,
        /// Exit code, if it ended by itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub exit_code: Option<i32>,
        /// Signal that ended it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub signal: Option<i32>,
        /// When the last attempt started.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub started: Option<TimeMs>,
        /// When it will be tried again.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub retry_at: Option<TimeMs>,
        /// Wall time, milliseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub wall_ms: Option<u64>,
        /// Processor time, microseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cpu_us: Option<u64>,
        /// Highest memory use, bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub memory_peak: Option<u64>,
    }
}

impl TaskCounts {
    /// Tasks that nothing will change any more.
    pub fn done(&self) -> u64 {
        self.completed + self.failed + self.cancelled
    }
}
