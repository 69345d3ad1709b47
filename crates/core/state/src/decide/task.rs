//! Tasks on nodes: started, given back, lost.

use prism_spec::JobSpec;
use prism_types::{
    ExitStatus, JobId, Millis, NodeId, NodeNo, Reason, RunReport, StopCause, TaskRef, TaskState,
    TimeMs,
};

use super::draft::Draft;
use super::single::{self, Known};
use crate::{Cell, Reply, ResultRecord, Subject, backoff};

/// Events about failing tasks that one job may cause.
const FAILURE_EVENTS_MAX: u32 = 100;

/// Why a placed task is no longer on its node, without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveBack {
    /// The node does not have it and did nothing with it that counts.
    Returned,
    /// The node or its supervisor went away with it.
    Lost,
    /// It has to go from its node, which does not know yet.
    Evicted,
}

/// The cell of the attempt `t` if that attempt is on node `no` now.
pub(super) fn held(d: &mut Draft<'_>, t: TaskRef, no: NodeNo) -> Option<Cell> {
    let cell = d.job(t.job)?.cell(t.index)?;
    (cell.attempt == t.attempt && cell.placed_on() == Some(no)).then_some(cell)
}

pub(super) fn node_no(d: &Draft<'_>, id: NodeId) -> Option<NodeNo> {
    d.state.nodes.get(&id).map(|n| n.record.no)
}

pub(super) fn started(d: &mut Draft<'_>, node: NodeId, tasks: &[(TaskRef, TimeMs)]) -> Reply {
    let no = node_no(d, node);
    let each = tasks.iter().map(|(task, _)| {
        let cell = no.and_then(|no| held(d, *task, no));
        match (cell, d.job(task.job)) {
            (Some(cell), Some(job)) if cell.state == TaskState::Assigned => {
                job.set(task.index, cell.running());
                true
            }
            _ => false,
        }
    });
    counted(each)
}

pub(super) fn returned(d: &mut Draft<'_>, node: NodeId, tasks: &[TaskRef]) -> Reply {
    let no = node_no(d, node);
    let each = tasks.iter().map(|task| {
        let here = no.and_then(|no| held(d, *task, no)).is_some();
        if here {
            give_back(d, task.job, task.index, GiveBack::Returned);
        }
        here
    });
    counted(each)
}

pub(super) fn counted(each: impl Iterator<Item = bool>) -> Reply {
    let (mut accepted, mut duplicates) = (0, 0);
    for yes in each {
        accepted += u32::from(yes);
        duplicates += u32::from(!yes);
    }
    Reply::Recorded {
        accepted,
        duplicates,
    }
}

/// Takes a placed task from its node. A task that was to be stopped is over; others wait or are queued again.
pub(super) fn give_back(d: &mut Draft<'_>, id: JobId, index: u32, why: GiveBack) {
    let now = d.now;
    let Some(job) = d.job(id) else { return };
    let Some(cell) = job.cell(index) else { return };
    let Some(no) = cell.placed_on() else { return };
    match (job.stop_reason(index), why) {
        (Some(Reason::EarlyStopped), _) => {
            let line = job.beam(index).map(|b| b.line.clone());
            let record = ResultRecord {
                result: line,
                ..without_report(index, cell, no, now, "it was stopped early")
            };
            end(
                d,
                id,
                cell,
                record,
                TaskState::Completed,
                Some(Reason::EarlyStopped),
            );
        }
        (Some(reason), _) => job.set(index, cell.ended(TaskState::Cancelled, Some(reason))),
        (None, GiveBack::Evicted) if job.job.spec.single_instance => {
            let due = now.after(single::hold(job, Known::Nothing));
            job.set(index, cell.retrying(Reason::Lost, due));
        }
        (None, GiveBack::Returned | GiveBack::Evicted) => job.set(index, cell.queued()),
        (None, GiveBack::Lost) => {
            let record = without_report(index, cell, no, now, "its node or supervisor went away");
            lost(d, id, cell, record, Known::Silent);
        }
    }
}

/// A loss: tried again without using up `retries`, but not for ever.
pub(super) fn lost(
    d: &mut Draft<'_>,
    id: JobId,
    mut cell: Cell,
    record: ResultRecord,
    known: Known,
) {
    let now = d.now;
    let Some(job) = d.job(id) else { return };
    let spec = &job.job.spec;
    let losses = u32::from(cell.losses) + 1;
    cell.losses = cell.losses.saturating_add(1);
    if losses > JobSpec::LOSSES_MAX {
        return end(d, id, cell, record, TaskState::Failed, Some(Reason::Lost));
    }
    // The first loss is most likely not the task's fault, so it waits only for the next tick.
    let wait = match losses {
        1 => Millis(0),
        n => backoff::wait(
            &spec.backoff,
            n - 1,
            job.record().seed,
            record.index,
            cell.attempt,
        ),
    };
    let wait = wait.max(single::hold(job, known));
    job.set(record.index, cell.retrying(Reason::Lost, now.after(wait)));
}

/// A failure: tried again after a while as long as there are retries left.
pub(super) fn failed(
    d: &mut Draft<'_>,
    id: JobId,
    mut cell: Cell,
    record: ResultRecord,
    why: Reason,
) {
    let now = d.now;
    let Some(job) = d.job(id) else { return };
    let spec = &job.job.spec;
    let failures = u32::from(cell.failures) + 1;
    cell.failures = cell.failures.saturating_add(1);
    let detail = describe(&record.report, why);
    let index = record.index;
    if failures > spec.retries {
        end(d, id, cell, record, TaskState::Failed, Some(why));
        let message = format!("attempt {}: {detail}; it is not tried again", cell.attempt);
        return failure_event(d, id, index, "task.failed", why, message);
    }
    let wait = backoff::wait(
        &spec.backoff,
        failures,
        job.record().seed,
        index,
        cell.attempt,
    );
    job.set(index, cell.retrying(why, now.after(wait)));
    let message = format!("attempt {}: {detail}; tried again in {wait}", cell.attempt);
    failure_event(d, id, index, "task.retrying", why, message);
}

/// Ends a task and keeps its one result.
pub(super) fn end(
    d: &mut Draft<'_>,
    id: JobId,
    cell: Cell,
    record: ResultRecord,
    state: TaskState,
    reason: Option<Reason>,
) {
    let Some(job) = d.job(id) else { return };
    job.set(record.index, cell.ended(state, reason));
    job.push_result(ResultRecord {
        state,
        reason,
        ..record
    });
}

fn failure_event(
    d: &mut Draft<'_>,
    id: JobId,
    index: u32,
    kind: &str,
    reason: Reason,
    message: String,
) {
    let Some(job) = d.job(id) else { return };
    if job.record().failure_events >= FAILURE_EVENTS_MAX {
        return;
    }
    job.record_mut().failure_events += 1;
    d.event(kind, Subject::Task(id, index), Some(reason), message);
}

fn describe(report: &RunReport, why: Reason) -> String {
    let what = match (why, report.exit) {
        (Reason::ExitCode, ExitStatus::Code(n)) => format!("exit code {n}"),
        (Reason::Signal, ExitStatus::Signal(n)) => format!("ended by signal {n}"),
        (Reason::OutOfMemory, _) => "hit its memory limit".to_owned(),
        (Reason::DiskExceeded, _) => "hit its disk limit".to_owned(),
        (Reason::Timeout, _) => format!("hit its time limit after {}", report.wall),
        (Reason::StartFailed, _) => "could not be started".to_owned(),
        _ => why.to_string(),
    };
    if report.detail.is_empty() {
        return what;
    }
    let detail: String = report.detail.chars().take(300).collect();
    format!("{what}: {detail}")
}

/// The record of a task whose node never reported.
fn without_report(index: u32, cell: Cell, no: NodeNo, now: TimeMs, why: &str) -> ResultRecord {
    ResultRecord {
        index,
        attempt: cell.attempt,
        node: no,
        state: cell.state,
        reason: None,
        recorded: now,
        report: RunReport {
            cause: StopCause::Lost,
            ..RunReport::not_started(now, why)
        },
        result: None,
        stderr_tail: "".into(),
        output: None,
    }
}
