//! Jobs: cancel, pause, resume, retry.

use std::collections::BTreeSet;

use prism_types::{JobId, JobState, LEASE_WAIT, Reason, Rejection, TaskState};

use super::draft::Draft;
use super::{settle, single};
use crate::job::aggregate_of;
use crate::{Action, Change, Job, Reply, Subject};

fn over(job: &Job, verb: &str) -> Rejection {
    Rejection::new(
        Reason::WrongState,
        format!(
            "job {} is over ({}); it cannot be {verb}",
            job.id(),
            job.record.state
        ),
    )
}

pub(super) fn cancel(d: &mut Draft<'_>, id: JobId) -> Result<Reply, Rejection> {
    let job = d.known_job(id)?;
    if job.record.state == JobState::Cancelled || job.record.cancel.is_some() {
        return Ok(Reply::Ok);
    }
    if job.record.state.is_final() {
        return Err(over(job, "cancelled"));
    }
    settle::cancel(d, id, Reason::Cancelled, "cancelled by request".to_owned());
    d.event(
        "job.cancelling",
        Subject::Job(id),
        Some(Reason::Cancelled),
        format!("{} tasks are still on nodes", job.counts.placed()),
    );
    Ok(Reply::Ok)
}

pub(super) fn pause(d: &mut Draft<'_>, id: JobId) -> Result<Reply, Rejection> {
    let job = d.known_job(id)?;
    if job.record.state.is_final() {
        return Err(over(job, "paused"));
    }
    if job.record.paused {
        return Ok(Reply::Ok);
    }
    set_paused(d, id, true);
    for no in job.on.keys() {
        if let Some(node) = d.state.node_id(*no) {
            d.actions.push(Action::Recall { node, job: id });
        }
    }
    let message = "tasks that run go on, nothing new is placed".to_owned();
    d.event("job.paused", Subject::Job(id), None, message);
    Ok(Reply::Ok)
}

pub(super) fn resume(d: &mut Draft<'_>, id: JobId) -> Result<Reply, Rejection> {
    let job = d.known_job(id)?;
    if job.record.state.is_final() {
        return Err(over(job, "resumed"));
    }
    if job.record.paused {
        set_paused(d, id, false);
        d.event("job.resumed", Subject::Job(id), None, "resumed".to_owned());
    }
    Ok(Reply::Ok)
}

fn set_paused(d: &mut Draft<'_>, id: JobId, paused: bool) {
    if let Some(job) = d.job(id) {
        job.record_mut().paused = paused;
    }
}

pub(super) fn retry(d: &mut Draft<'_>, id: JobId) -> Result<Reply, Rejection> {
    let known = d.known_job(id)?;
    let waiting_for = still_waiting(d, known)?;
    super::namespace::admit(d.state, &known.spec.namespace, &known.spec.resources, 1)?;
    if known.record.cancel.is_some() && !known.record.state.is_final() {
        return Err(Rejection::retryable(
            Reason::WrongState,
            format!("job {id} is being cancelled; retry it when it is over"),
        ));
    }
    let now = d.now;
    let Some(job) = d.job(id) else {
        return Ok(Reply::Retried { tasks: 0 });
    };
    let again = job.tasks_in(&[TaskState::Failed, TaskState::Cancelled]);
    if again.is_empty() {
        return Err(Rejection::new(
            Reason::WrongState,
            format!("job {id} has no failed or cancelled task to retry"),
        ));
    }
    let aggregate = aggregate_of(&known.spec);
    // The aggregate saw results that are going to change.
    let stale = aggregate.filter(|a| {
        job.cell(*a)
            .is_some_and(|c| c.state == TaskState::Completed)
    });
    for index in again.iter().copied().chain(stale) {
        if let Some(cell) = job.cell(index) {
            let renewed = cell.renewed();
            let cell = match known.spec.single_instance && single::may_live(cell) {
                true => renewed.retrying(Reason::Lost, now.after(LEASE_WAIT)),
                false => renewed,
            };
            job.set(index, cell);
        }
        if let Some(beam) = job.beam(index).filter(|b| b.stopped).cloned() {
            let beam = crate::BeamRecord {
                stopped: false,
                ..beam
            };
            job.beams.insert(index, beam);
        }
    }
    let record = job.record_mut();
    if record.state.is_final() {
        record.state = JobState::Queued;
        record.finished = None;
    }
    record.cancel = None;
    record.message = String::new();
    record.waiting_for = waiting_for;
    record.failure_events = 0;
    let tasks = u32::try_from(again.len()).unwrap_or(u32::MAX);
    let message = format!("{tasks} tasks run again");
    d.event("job.retried", Subject::Job(id), None, message);
    Ok(Reply::Retried { tasks })
}

/// The jobs that this one still has to wait for.
fn still_waiting(d: &Draft<'_>, job: &Job) -> Result<BTreeSet<JobId>, Rejection> {
    let mut waiting = BTreeSet::new();
    for dep in &job.record.after {
        let state = d.state.jobs.get(dep).map(|j| j.record.state);
        match state {
            Some(JobState::Completed) | None => {}
            Some(JobState::Queued | JobState::Running) => {
                waiting.insert(*dep);
            }
            Some(state) => {
                return Err(Rejection::new(
                    Reason::DependencyFailed,
                    format!("job {dep}, which it runs after, ended as {state}; retry that first"),
                ));
            }
        }
    }
    Ok(waiting)
}

/// The changes of a job that is cancelled the moment it is accepted.
pub(super) fn born_cancelled(job: &Job, reason: Reason) -> Vec<Change> {
    let cancelled = crate::Cell::UNTOUCHED.ended(TaskState::Cancelled, Some(reason));
    let blocks = 0..job.record.tasks.div_ceil(crate::BLOCK);
    blocks
        .map(|number| Change::Block {
            job: job.id(),
            number,
            block: crate::Block::new(&vec![cancelled; job.block_len(number)], 0),
        })
        .collect()
}
