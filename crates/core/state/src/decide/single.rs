//! Jobs whose tasks never run twice at the same time: a task that was given up without its node's word waits until the node's lease,
//! which nobody has renewed since, is over for sure.
//!
//! The node ends such a run by itself before that. What holds it back is a due time in the state, so every leader sees it; and since
//! leaders' clocks may differ, a new one begins the wait anew.

use prism_types::{JobId, LEASE_GRACE, LEASE_WAIT, Millis, Reason, StopCause, TaskState};

use super::draft::Draft;
use super::job_draft::JobDraft;
use crate::{Cell, Reply};

/// What is known of a run that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its node says that it is over.
    Over,
    /// Its node was not heard of for as long as its lease could last.
    Silent,
    /// Nothing: its node's lease may have been renewed just now.
    Nothing,
}

impl Known {
    /// What a node's report of a lost run tells.
    pub(super) fn by(cause: StopCause) -> Self {
        match cause {
            StopCause::Lost => Self::Nothing,
            _ => Self::Over,
        }
    }

    /// How long the next run has to wait.
    fn wait(self) -> Millis {
        match self {
            Self::Over => Millis(0),
            Self::Silent => LEASE_GRACE,
            Self::Nothing => LEASE_WAIT,
        }
    }
}

/// How long the next run of a lost task has to wait, whatever else it waits for.
pub(super) fn hold(job: &JobDraft<'_>, known: Known) -> Millis {
    match job.job.spec.single_instance {
        true => known.wait(),
        false => Millis(0),
    }
}

/// Whether a run of a task that is over may still be there: its end is not its node's word.
pub(super) fn may_live(cell: Cell) -> bool {
    let told = matches!(
        cell.reason,
        Some(
            Reason::ExitCode
                | Reason::Signal
                | Reason::OutOfMemory
                | Reason::DiskExceeded
                | Reason::Timeout
                | Reason::StartFailed
        )
    );
    cell.attempt > 0 && !told
}

/// A new leader begins the waits anew.
pub(super) fn take_over(d: &mut Draft<'_>) -> Reply {
    let due = d.now.after(LEASE_WAIT);
    let jobs = d.state.jobs.values();
    let single = jobs.filter(|j| j.spec.single_instance && !j.record.state.is_final());
    let ids: Vec<JobId> = single.map(crate::Job::id).collect();
    for id in ids {
        let Some(job) = d.job(id) else { continue };
        for index in job.tasks_in(&[TaskState::Queued, TaskState::Retrying]) {
            let Some(cell) = job.cell(index).filter(|c| may_live(*c)) else {
                continue;
            };
            let later = cell.due().map_or(due, |at| at.max(due));
            job.set(index, cell.retrying(Reason::Lost, later));
        }
    }
    Reply::Ok
}
