//! Sweeps on the wire.

use prism_types::{JobId, JobState, Labels, Reason, TimeMs};
use serde_json::{Map, Value};

use crate::TaskCounts;

words! {
    /// How a beam ended.
    pub enum BeamStatus {
        /// Completed.
        Done = "done",
        /// Given up by the sweep's rule; its last metrics are its result.
        EarlyStopped = "early_stopped",
        /// Failed for good.
        Failed = "failed",
        /// Ended by request.
        Cancelled = "cancelled",
    }

}

wire! {
    /// A beam that is over: one point, run by one runner.
    pub struct BeamView {
        /// Its index.
        pub index: u32,
        /// Its point.
        pub point: Map<String, Value>,
        /// Its runner; `main` in a sweep with one.
        pub runner: String,
        /// How it ended.
        pub status: BeamStatus,
        /// The last JSON line it printed; `null` if none.
        pub result: Option<Value>,
        /// Why it is not done.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub reason: Option<Reason>,
        /// The same for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub message: Option<String>,
        /// The attempt that counts, from 1.
        pub attempt: u32,
        /// Name of the node it ran on.
        pub node: Option<String>,
        /// When that attempt started.
        pub started: Option<TimeMs>,
        /// Wall time, milliseconds.
        pub wall_ms: Option<u64>,
        /// Processor time, microseconds.
        pub cpu_us: Option<u64>,
        /// Highest memory use, bytes.
        pub memory_peak: Option<u64>,
    }

    /// A beam that is not over.
    pub struct PendingBeam {
        /// Its index.
        pub index: u32,
        /// Its point.
        pub point: Map<String, Value>,
        /// Its runner.
        pub runner: String,
        /// `queued`, `assigned`, `running` or `retrying`.
        pub status: String,
    }

    /// The best beam so far.
    pub struct BestBeam {
        /// Its index.
        pub index: u32,
        /// Its point.
        pub point: Map<String, Value>,
        /// Its runner.
        pub runner: String,
        /// Its result.
        pub result: Value,
    }

    /// What is best.
    pub struct ObjectiveView {
        /// `maximize` or `minimize`.
        pub direction: String,
        /// Field of the result.
        pub metric: String,
    }

    /// One runner's answer to the task.
    pub struct RunnerOutput {
        /// Its name.
        pub runner: String,
        /// Its result; `null` if none.
        pub output: Option<Value>,
        /// `done`, `early_stopped`, `failed`, `cancelled`, or a pending beam's status.
        pub status: String,
    }

    /// The command over all results.
    pub struct AggregateView {
        /// Its state: `queued`, `running`, `done`, `failed` and so on.
        pub status: String,
        /// What it printed last as JSON.
        pub result: Option<Value>,
        /// Why it failed.
        pub reason: Option<Reason>,
        /// The same for people.
        pub message: Option<String>,
    }

    /// A sweep in a list.
    pub struct SweepSummary {
        /// Its id.
        pub id: JobId,
        /// Its name.
        pub name: String,
        /// Whose it is.
        pub namespace: String,
        /// What it is for.
        pub task: String,
        /// Its state.
        pub status: JobState,
        /// Whether nothing new of it is placed, by request.
        pub paused: bool,
        /// Beams (and the aggregate) by state.
        pub counts: TaskCounts,
        /// The best beam so far.
        pub best: Option<BestBeam>,
        /// Its labels.
        pub labels: Labels,
        /// When it was accepted.
        pub created: TimeMs,
        /// When it was over.
        pub finished: Option<TimeMs>,
    }

    /// A sweep with all its beams.
    pub struct SweepView {
        /// Its id.
        pub id: JobId,
        /// Its name.
        pub name: String,
        /// Whose it is.
        pub namespace: String,
        /// What it is for: the one task that goes to every runner.
        pub task: String,
        /// Its state.
        pub status: JobState,
        /// Whether nothing new of it is placed, by request.
        pub paused: bool,
        /// What is best.
        pub objective: Option<ObjectiveView>,
        /// Names of the parameters, in the order of the file.
        pub parameters: Vec<String>,
        /// Names of the runners.
        pub runners: Vec<String>,
        /// Beams that are over, by index.
        pub completed: Vec<BeamView>,
        /// Beams that are not, by index.
        pub pending: Vec<PendingBeam>,
        /// The best beam so far.
        pub best: Option<BestBeam>,
        /// Each beam as runner, output and status; only when there are several runners.
        pub results: Option<Vec<RunnerOutput>>,
        /// The command over all results, if there is one.
        pub aggregate: Option<AggregateView>,
        /// Beams (and the aggregate) by state.
        pub counts: TaskCounts,
        /// Whether `completed` and `pending` leave beams out because there are too many; `GET /jobs/{id}/results` has them all.
        pub truncated: bool,
        /// Why it did not complete.
        pub reason: Option<Reason>,
        /// The same for people.
        pub message: Option<String>,
        /// Its labels.
        pub labels: Labels,
        /// When it was accepted.
        pub created: TimeMs,
        /// When its first beam was placed.
        pub started: Option<TimeMs>,
        /// When it was over.
        pub finished: Option<TimeMs>,
    }
}
