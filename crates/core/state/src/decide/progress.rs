//! Metrics of running beams, and successive halving over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use prism_spec::{EarlyStop, Halving};
use prism_types::{JobId, NodeId, Reason, TaskRef};

use super::draft::Draft;
use super::job_draft::JobDraft;
use super::task::{counted, held, node_no};
use crate::job::aggregate_of;
use crate::sweep::{gives_up, place, rung_step};
use crate::{Action, BeamRecord, METRIC_LINE_MAX, Metric, Reply};

pub(super) fn progress(d: &mut Draft<'_>, node: NodeId, metrics: &[Metric]) -> Reply {
    let no = node_no(d, node);
    let mut stop: BTreeMap<JobId, Vec<TaskRef>> = BTreeMap::new();
    let each = metrics.iter().map(|metric| {
        let here = no.and_then(|no| held(d, metric.task, no)).is_some();
        let Some(job) = d.job(metric.task.job).filter(|_| here) else {
            return false;
        };
        let took = take(job, metric);
        if took && judge(job, metric.task.index) {
            stop.entry(metric.task.job).or_default().push(metric.task);
        }
        took
    });
    let reply = counted(each);
    for tasks in stop.into_values() {
        d.actions.push(Action::StopTasks {
            node,
            tasks,
            reason: Reason::EarlyStopped,
        });
    }
    reply
}

/// Takes a metric into the beam's record; false if it is none or was known.
fn take(job: &mut JobDraft<'_>, m: &Metric) -> bool {
    let index = m.task.index;
    let beam = job.job.sweep.is_some() && aggregate_of(&job.job.spec) != Some(index);
    let sound = m.step > 0 && m.value.is_finite();
    if !beam || !sound || m.line.len() > METRIC_LINE_MAX {
        return false;
    }
    let old = job.beam(index).cloned().unwrap_or_default();
    let known = old.attempt == m.task.attempt && m.step <= old.step;
    if known {
        return false;
    }
    let new = BeamRecord {
        attempt: m.task.attempt,
        step: m.step,
        value: m.value,
        line: Arc::clone(&m.line),
        ..old
    };
    job.beams.insert(index, new);
    true
}

/// Moves a beam onto the rungs that its last metric reaches; true if the rule now gives it up.
fn judge(job: &mut JobDraft<'_>, index: u32) -> bool {
    let spec = Arc::clone(&job.job.spec);
    let Some(EarlyStop::Halving(halving)) = spec.sweep().and_then(|s| s.early_stop.as_ref()) else {
        return false;
    };
    let Some(beam) = job.beam(index).cloned() else {
        return false;
    };
    let mut beam = beam;
    let was_stopped = beam.stopped;
    let reached = u32::try_from(beam.rungs.len()).unwrap_or(u32::MAX);
    for rung in reached..halving.rounds {
        if u64::from(beam.step) < rung_step(halving, rung) {
            break;
        }
        let (rank, all) = climb(job, halving, rung, beam.value, index);
        beam.rungs.push(beam.value);
        if gives_up(halving, rank, all) {
            beam.stopped = true;
            break;
        }
    }
    let stop = beam.stopped && !was_stopped;
    job.beams.insert(index, beam);
    stop
}

/// Puts a beam on a rung; its rank there, and how many are there now.
fn climb(job: &mut JobDraft<'_>, h: &Halving, rung: u32, value: f64, index: u32) -> (usize, usize) {
    let stored = job.job.sweep.as_deref().map(|s| s.rungs());
    let standing = job.rungs.entry(rung).or_insert_with(|| {
        let rung = stored.and_then(|s| s.get(rung as usize));
        rung.cloned().unwrap_or_default()
    });
    let rank = match place(standing, h.direction, value, index) {
        Ok(rank) => rank,
        Err(rank) => {
            standing.insert(rank, (value, index));
            rank
        }
    };
    (rank, standing.len())
}
