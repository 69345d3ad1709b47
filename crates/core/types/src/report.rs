//! What is known of a run when it is over.

use serde::{Deserialize, Serialize};

use crate::{Millis, Reason, TimeMs};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// `exit(n)`.
    Code(i32),
    /// Ended by a signal.
    Signal(i32),
    /// It never ran (the report's `detail` says why), or how it ended was not seen.
    Unknown,
}

/// Who ended a run, if it did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// It ended by itself.
    None,
    /// The kernel killed it at its memory limit.
    OutOfMemory,
    /// Its time limit passed.
    Timeout,
    /// Someone asked.
    Requested,
    /// It could not be started.
    StartFailed,
    /// Its supervisor died, so how it ended was not seen.
    Lost,
    /// It wrote more to disk than it was given.
    DiskExceeded,
    /// It may run once only, and its node had no answer of a leader for so long that another node may soon run it.
    LeaseExpired,
}

/// The report of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// How it ended.
    pub exit: ExitStatus,
    /// Why it ended, if not by itself.
    pub cause: StopCause,
    /// When it started.
    pub started: TimeMs,
    /// Wall time it ran.
    pub wall: Millis,
    /// Processor time of all its processes, microseconds.
    pub cpu_us: u64,
    /// Highest memory use in bytes (of its cgroup, or of its largest process where there is none).
    pub memory_peak: u64,
    /// Bytes it wrote to standard output.
    pub stdout_bytes: u64,
    /// Bytes it wrote to standard error.
    pub stderr_bytes: u64,
    /// For people, when something went wrong: what and why.
    pub detail: String,
}

impl RunReport {
    /// A report of a run that never started.
    pub fn not_started(now: TimeMs, detail: impl Into<String>) -> Self {
        Self {
            exit: ExitStatus::Unknown,
            cause: StopCause::StartFailed,
            started: now,
            wall: Millis(0),
            cpu_us: 0,
            memory_peak: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
            detail: detail.into(),
        }
    }

    /// The reason it did not succeed, or `None` if it did.
    pub fn failure(&self) -> Option<Reason> {
        match (self.cause, self.exit) {
            (StopCause::OutOfMemory, _) => Some(Reason::OutOfMemory),
            (StopCause::DiskExceeded, _) => Some(Reason::DiskExceeded),
            (StopCause::Timeout, _) => Some(Reason::Timeout),
            (StopCause::Requested, _) => Some(Reason::Cancelled),
            (StopCause::StartFailed, _) => Some(Reason::StartFailed),
            (StopCause::Lost | StopCause::LeaseExpired, _) => Some(Reason::Lost),
            (StopCause::None, ExitStatus::Code(0)) => None,
            (StopCause::None, ExitStatus::Code(_)) => Some(Reason::ExitCode),
            (StopCause::None, ExitStatus::Signal(_)) => Some(Reason::Signal),
            (StopCause::None, ExitStatus::Unknown) => Some(Reason::Lost),
        }
    }
}
