//! What follows from a decision for the jobs it touched: too many failures, a sweep's aggregate without input, lanes that
//! shrink with the work, the end of a job, and what waited for it.

use std::collections::BTreeMap;

use prism_types::{JobId, JobState, NodeNo, Reason, TaskRef, TaskState};

use super::draft::Draft;
use crate::job::{aggregate_of, beams_over};
use crate::{Action, Subject};

/// Settles every touched job, and the jobs touched by that.
pub(super) fn settle(d: &mut Draft<'_>) {
    let mut todo = d.touched_jobs();
    while let Some(id) = todo.pop() {
        limit_failures(d, id);
        drop_aggregate(d, id);
        shrink_lanes(d, id);
        todo.extend(end(d, id));
    }
}

fn limit_failures(d: &mut Draft<'_>, id: JobId) {
    let Some(job) = d.job(id) else { return };
    let failed = job.counts.of(TaskState::Failed);
    let too_many = job.job.spec.max_failures.is_some_and(|max| failed > max);
    let open = !job.record().state.is_final() && job.record().cancel.is_none();
    if too_many && open {
        let message = format!("{failed} tasks failed, which is more than max_failures allows");
        cancel(d, id, Reason::TooManyFailures, message);
    }
}

/// An aggregate over no result at all has nothing to do.
fn drop_aggregate(d: &mut Draft<'_>, id: JobId) {
    let Some(job) = d.job(id) else { return };
    let Some(index) = aggregate_of(&job.job.spec) else {
        return;
    };
    let nothing = beams_over(&job.counts, index) && job.counts.of(TaskState::Completed) == 0;
    if let Some(cell) = job.cell(index)
        && nothing
        && cell.state == TaskState::Queued
    {
        job.set(
            index,
            cell.ended(TaskState::Cancelled, Some(Reason::DependencyFailed)),
        );
    }
}

fn shrink_lanes(d: &mut Draft<'_>, id: JobId) {
    let Some(job) = d.job(id) else { return };
    for no in job.touched_nodes() {
        let Some(job) = d.job(id) else { return };
        let placed = job.placed_on(no);
        if job.lanes_on(no) > placed {
            d.set_lanes(id, no, placed);
        }
    }
}

/// Ends the job if all its tasks are over; gives the jobs that this touches.
fn end(d: &mut Draft<'_>, id: JobId) -> Vec<JobId> {
    let now = d.now;
    let Some(job) = d.job(id) else {
        return Vec::new();
    };
    let tasks = job.job.record.tasks;
    if job.record().state.is_final() || job.counts.finished() < tasks {
        return Vec::new();
    }
    let completed = job.counts.of(TaskState::Completed);
    let failed = job.counts.of(TaskState::Failed);
    let cancel = job.record().cancel;
    let state = match cancel {
        _ if completed == tasks => JobState::Completed,
        Some(Reason::TooManyFailures) => JobState::Failed,
        Some(_) => JobState::Cancelled,
        None if completed == 0 => JobState::Failed,
        None => JobState::PartiallyCompleted,
    };
    let record = job.record_mut();
    record.state = state;
    record.finished = Some(now);
    record.paused = false;
    if record.message.is_empty() && state != JobState::Completed {
        record.message = format!("{completed} of {tasks} tasks completed, {failed} failed");
    }
    let message = match state {
        JobState::Completed => format!("all {tasks} tasks completed"),
        _ => record.message.clone(),
    };
    let kind = match state {
        JobState::Completed => "job.completed",
        JobState::PartiallyCompleted => "job.partially_completed",
        JobState::Cancelled => "job.cancelled",
        _ => "job.failed",
    };
    d.event(kind, Subject::Job(id), cancel, message);
    release(d, id, state)
}

/// Lets the jobs that waited for this one go on, or cancels them.
fn release(d: &mut Draft<'_>, id: JobId, state: JobState) -> Vec<JobId> {
    let waiting = d.state.index.dependents.get(&id);
    let waiting: Vec<JobId> = waiting.into_iter().flatten().copied().collect();
    for dependent in &waiting {
        let Some(job) = d.job(*dependent) else {
            continue;
        };
        if job.record().state.is_final() || job.record().cancel.is_some() {
            continue;
        }
        if state == JobState::Completed {
            job.record_mut().waiting_for.remove(&id);
        } else {
            let message = format!("it was to run after job {id}, which ended as {state}");
            cancel(d, *dependent, Reason::DependencyFailed, message);
        }
    }
    waiting
}

/// Cancels a job: what waits is over at once, what is placed is stopped and over when its node says so.
pub(super) fn cancel(d: &mut Draft<'_>, id: JobId, reason: Reason, message: String) {
    let Some(job) = d.job(id) else { return };
    let record = job.record_mut();
    record.cancel = Some(reason);
    record.message = message;
    for index in job.tasks_in(&[TaskState::Queued, TaskState::Retrying]) {
        if let Some(cell) = job.cell(index) {
            job.set(index, cell.ended(TaskState::Cancelled, Some(reason)));
        }
    }
    let mut stop: BTreeMap<NodeNo, Vec<TaskRef>> = BTreeMap::new();
    for index in job.tasks_in(&[TaskState::Assigned, TaskState::Running]) {
        if let Some(cell) = job.cell(index)
            && let Some(no) = cell.placed_on()
        {
            stop.entry(no).or_default().push(TaskRef {
                job: id,
                index,
                attempt: cell.attempt,
            });
        }
    }
    for (no, tasks) in stop {
        if let Some(node) = d.state.node_id(no) {
            d.actions.push(Action::StopTasks {
                node,
                tasks,
                reason,
            });
        }
    }
}
