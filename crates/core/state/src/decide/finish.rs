//! Results of tasks: recorded exactly once, by attempt and node.

use std::sync::Arc;

use prism_types::{NodeId, NodeNo, Reason, TaskState};

use super::draft::Draft;
use super::single::Known;
use super::task::{self, counted, held, node_no};
use crate::job::aggregate_of;
use crate::sweep::compare;
use crate::{
    Best, Cell, RESULT_MAX, Reply, ResultRecord, STDERR_TAIL_MAX, SweepRecord, TaskResult,
};

pub(super) fn finished(d: &mut Draft<'_>, node: NodeId, results: &[TaskResult]) -> Reply {
    let no = node_no(d, node);
    let each = results.iter().map(|result| {
        let held = no.and_then(|no| Some((no, held(d, result.task, no)?)));
        if let Some((no, cell)) = held {
            record(d, no, cell, result);
        }
        held.is_some()
    });
    counted(each)
}

fn record(d: &mut Draft<'_>, no: NodeNo, cell: Cell, r: &TaskResult) {
    let id = r.task.job;
    let index = r.task.index;
    let stop = d.job(id).and_then(|job| job.stop_reason(index));
    let kept = to_record(d, no, r);
    match (r.report.failure(), stop) {
        (None, _) => {
            note_best(d, r, kept.result.as_ref());
            task::end(d, id, cell, kept, TaskState::Completed, None);
        }
        (Some(_), Some(Reason::EarlyStopped)) => {
            let line = d.job(id).and_then(|j| Some(j.beam(index)?.line.clone()));
            let result = kept.result.clone().or(line);
            note_best(d, r, result.as_ref());
            let kept = ResultRecord { result, ..kept };
            let reason = Some(Reason::EarlyStopped);
            task::end(d, id, cell, kept, TaskState::Completed, reason);
        }
        (Some(_), Some(reason)) => {
            task::end(d, id, cell, kept, TaskState::Cancelled, Some(reason));
        }
        // Stopped so that its node can go: no fault of the task, nor of the node.
        (Some(Reason::Cancelled), None) if drains(d, no) => {
            if let Some(job) = d.job(id) {
                job.set(index, cell.queued());
            }
        }
        // Ended by request although nobody here asked: its node let go of it.
        (Some(Reason::Lost | Reason::Cancelled), None) => {
            let known = Known::by(r.report.cause);
            task::lost(d, id, cell, kept, known);
        }
        (Some(why), None) => task::failed(d, id, cell, kept, why),
    }
}

fn drains(d: &Draft<'_>, no: NodeNo) -> bool {
    let node = d.state.node_by_no(no);
    node.is_some_and(|node| node.record.drain.is_some())
}

fn to_record(d: &Draft<'_>, no: NodeNo, r: &TaskResult) -> ResultRecord {
    let result = r.result.as_ref().filter(|text| text.len() <= RESULT_MAX);
    let stderr_tail = match r.stderr_tail.len() <= STDERR_TAIL_MAX {
        true => Arc::clone(&r.stderr_tail),
        false => tail(&r.stderr_tail, STDERR_TAIL_MAX).into(),
    };
    ResultRecord {
        index: r.task.index,
        attempt: r.task.attempt,
        node: no,
        state: TaskState::Running,
        reason: None,
        recorded: d.now,
        report: r.report.clone(),
        result: result.cloned(),
        stderr_tail,
        output: r.output.clone(),
    }
}

/// The end of a text, at most `max` bytes, cut between characters.
fn tail(text: &str, max: usize) -> &str {
    let from = text.len().saturating_sub(max);
    let from = (from..=text.len()).find(|i| text.is_char_boundary(*i));
    from.map_or("", |from| &text[from..])
}

/// Keeps a beam's result as the best if it is.
fn note_best(d: &mut Draft<'_>, r: &TaskResult, result: Option<&Arc<str>>) {
    let Some(job) = d.job(r.task.job) else { return };
    let spec = &job.job.spec;
    let Some(objective) = spec.sweep().and_then(|s| s.objective.as_ref()) else {
        return;
    };
    if aggregate_of(spec) == Some(r.task.index) {
        return;
    }
    let Some((value, result)) =
        result.and_then(|text| Some((metric(text, &objective.metric)?, text)))
    else {
        return;
    };
    let stored = || job.job.sweep.as_deref().and_then(|s| s.best());
    let best = match &job.sweep {
        Some(drafted) => drafted.best.as_ref(),
        None => stored(),
    };
    // Of equal ones the lowest number is best, whichever ended first.
    let better = best.is_none_or(|b| {
        let by_value = compare(objective.direction, value, b.value);
        by_value.then(r.task.index.cmp(&b.index)).is_lt()
    });
    if better {
        job.sweep = Some(SweepRecord {
            best: Some(Best {
                index: r.task.index,
                value,
                result: Arc::clone(result),
            }),
        });
    }
}

/// A number in a JSON object, if it is there and finite.
fn metric(text: &str, name: &str) -> Option<f64> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.get(name)?.as_f64().filter(|v| v.is_finite())
}
