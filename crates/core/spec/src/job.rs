//! A job as the core keeps it: checked, complete, with every default filled in.

use std::collections::BTreeMap;

use prism_types::{Labels, Millis, Name, Resources};
use serde::{Deserialize, Serialize};

use crate::{Lines, SweepWork};

/// A batch of tasks. A sweep is a job whose work is [`Work::Sweep`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Its name; not unique, the id is.
    pub name: Name,
    /// Whose it is.
    pub namespace: Name,
    /// Jobs of one group can be waited for together.
    pub group: Option<Name>,
    /// One sentence for people: what this is for. A sweep passes it to each runner as `PRISM_TASK`.
    pub task: String,
    /// The tasks.
    pub work: Work,
    /// Environment of every task.
    pub env: BTreeMap<String, String>,
    /// Files sent along, put into the working directory of every task.
    pub files: Vec<FileSpec>,
    /// Root file system.
    pub image: ImageRef,
    /// How strictly each task is kept apart.
    pub isolation: IsolationSpec,
    /// What each task is given, and limited to.
    pub resources: Resources,
    /// Most processes and threads of one task.
    pub pids: u32,
    /// How often a failed task is tried again (so it runs at most `1 + retries` times, plus at most
    /// [`JobSpec::LOSSES_MAX`] times because a node or supervisor was lost).
    pub retries: u32,
    /// How long to wait between tries.
    pub backoff: Backoff,
    /// Wall time of one attempt.
    pub timeout: Option<Millis>,
    /// Most tasks of this job at once.
    pub concurrency: Option<u32>,
    /// Higher goes first; -100 to 100.
    pub priority: i32,
    /// The job fails, and the rest of it is cancelled, when more tasks than this have failed. `None`: never.
    pub max_failures: Option<u32>,
    /// Names or ids of jobs, or names of groups, that must complete first.
    pub after: Vec<String>,
    /// For finding it again.
    pub labels: Labels,
    /// No task of it ever runs twice at the same time, whatever becomes of nodes and networks: a node that hears from no leader
    /// ends it, and another waits until it has.
    pub single_instance: bool,
}

/// How long a failed task waits: `initial * factor^(failures-1)`, at most `max`, then spread by `jitter` (0.2 = plus or
/// minus 20%, drawn from the job's seed).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// First wait.
    pub initial: Millis,
    /// Growth per failure, 1 to 10.
    pub factor: f64,
    /// Longest wait.
    pub max: Millis,
    /// Spread, 0 to 1.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Millis(1_000),
            factor: 2.0,
            max: Millis(60_000),
            jitter: 0.2,
        }
    }
}

/// A file sent along; its content travels beside the spec, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Relative path beneath the working directory, without `..`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// SHA-256 of the content, 64 hexadecimal digits.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
}

/// A root file system by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageRef {
    /// The machine's own `/usr`, read-only.
    Host,
    /// An image that was loaded into the node.
    Named(String),
}

/// How strictly a task is kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationSpec {
    /// Everything that the host offers.
    Sandbox,
    /// A plain child process; only on nodes that allow it.
    None,
}

/// One task of a listed job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name, if it has one.
    pub name: Option<Name>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment on top of the job's.
    pub env: BTreeMap<String, String>,
}

/// The tasks of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// The same command `count` times; the index is in `PRISM_TASK_INDEX` and `{index}`.
    Array {
        /// Program and arguments.
        command: Vec<String>,
        /// How many.
        count: u32,
    },
    /// Each task spelled out.
    List {
        /// The tasks.
        tasks: Vec<TaskSpec>,
    },
    /// One task for each line; the line is in `PRISM_MAP_ITEM` and `{item}`.
    Map {
        /// Program and arguments.
        command: Vec<String>,
        /// The lines.
        lines: Lines,
    },
    /// One task for each point of a search space and runner, and one for the aggregate if there is one.
    Sweep(SweepWork),
}

impl JobSpec {
    /// Most tasks in one job.
    pub const TASKS_MAX: u32 = 10_000_000;
    /// Most times that a task is tried again because a node or supervisor was lost.
    pub const LOSSES_MAX: u32 = 20;
    /// Highest allowed `retries`.
    pub const RETRIES_MAX: u32 = 100;

    /// Number of tasks, the aggregate included.
    pub fn task_count(&self) -> u32 {
        match &self.work {
            Work::Array { count, .. } => *count,
            Work::List { tasks } => u32::try_from(tasks.len()).unwrap_or(u32::MAX),
            Work::Map { lines, .. } => u32::try_from(lines.len()).unwrap_or(u32::MAX),
            Work::Sweep(sweep) => sweep.beam_count() + u32::from(sweep.aggregate.is_some()),
        }
    }

    /// The same with only the first `most` of its listed tasks or lines, for showing it.
    pub fn shown(&self, most: usize) -> Self {
        let work = match &self.work {
            Work::List { tasks } => Work::List {
                tasks: tasks.iter().take(most).cloned().collect(),
            },
            Work::Map { command, lines } => Work::Map {
                command: command.clone(),
                lines: lines.iter().take(most).collect(),
            },
            whole @ (Work::Array { .. } | Work::Sweep(_)) => whole.clone(),
        };
        Self {
            work,
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            group: self.group.clone(),
            task: self.task.clone(),
            env: self.env.clone(),
            files: self.files.clone(),
            image: self.image.clone(),
            after: self.after.clone(),
            labels: self.labels.clone(),
            isolation: self.isolation,
            resources: self.resources,
            pids: self.pids,
            retries: self.retries,
            backoff: self.backoff,
            timeout: self.timeout,
            concurrency: self.concurrency,
            priority: self.priority,
            max_failures: self.max_failures,
            single_instance: self.single_instance,
        }
    }

    /// The sweep, if it is one.
    pub fn sweep(&self) -> Option<&SweepWork> {
        match &self.work {
            Work::Sweep(sweep) => Some(sweep),
            Work::Array { .. } | Work::List { .. } | Work::Map { .. } => None,
        }
    }
}
