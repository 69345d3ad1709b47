//! `/sweeps`: a sweep with its beams, made of its job, its tasks and their recorded results.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{
    AggregateView, BeamStatus, BeamView, BestBeam, ObjectiveView, PendingBeam, RunnerOutput,
    SweepSummary, SweepView,
};
use prism_spec::{BeamRow, Direction, JobSpec, SweepWork};
use prism_state::{BLOCK, Job, ResultRecord};
use prism_types::{JobId, Reason, TaskState};
use serde_json::Value;

use crate::app::App;
use crate::ask::Ask;
use crate::list::{limit, page};
use crate::refuse::{Answered, Refusal};
use crate::tasks::{self, TaskRow};
use crate::{answer, jobs};

/// Most beams in one answer; `GET /jobs/{id}/results` streams any number.
const BEAMS_MAX: usize = 20_000;

fn best(job: &Job) -> Option<BestBeam> {
    let best = job.sweep()?.best()?;
    let (point, runner) = tasks::beam(job.spec(), best.index)?;
    Some(BestBeam {
        index: best.index,
        point,
        runner,
        result: serde_json::from_str(&best.result).ok()?,
    })
}

fn summary(job: &Job) -> SweepSummary {
    let (record, spec) = (job.record(), job.spec());
    SweepSummary {
        id: record.id,
        name: spec.name.to_string(),
        namespace: spec.namespace.to_string(),
        task: spec.task.clone(),
        status: record.state,
        paused: record.paused,
        counts: jobs::counts(job.counts()),
        best: best(job),
        labels: spec.labels.clone(),
        created: record.created,
        finished: record.finished,
    }
}

/// The sweep without its beams.
fn frame(job: &Job) -> Option<SweepView> {
    let (record, spec) = (job.record(), job.spec());
    let work = spec.sweep()?;
    Some(SweepView {
        id: record.id,
        name: spec.name.to_string(),
        namespace: spec.namespace.to_string(),
        task: spec.task.clone(),
        status: record.state,
        paused: record.paused,
        objective: work.objective.as_ref().map(|o| ObjectiveView {
            direction: match o.direction {
                Direction::Maximize => "maximize",
                Direction::Minimize => "minimize",
            }
            .to_owned(),
            metric: o.metric.clone(),
        }),
        parameters: work.space.iter().map(|(name, _)| name.clone()).collect(),
        runners: work.runners.iter().map(|r| r.name.clone()).collect(),
        completed: Vec::new(),
        pending: Vec::new(),
        best: best(job),
        results: None,
        aggregate: None,
        counts: jobs::counts(job.counts()),
        truncated: false,
        reason: record.cancel,
        message: jobs::some(&record.message),
        labels: spec.labels.clone(),
        created: record.created,
        started: record.started,
        finished: record.finished,
    })
}

fn status_of(row: &TaskRow) -> Option<BeamStatus> {
    match row.task.state {
        TaskState::Completed if row.task.reason == Some(Reason::EarlyStopped) => {
            Some(BeamStatus::EarlyStopped)
        }
        TaskState::Completed => Some(BeamStatus::Done),
        TaskState::Failed => Some(BeamStatus::Failed),
        TaskState::Cancelled => Some(BeamStatus::Cancelled),
        TaskState::Queued | TaskState::Assigned | TaskState::Running | TaskState::Retrying => None,
    }
}

/// A beam's view, or the aggregate's.
enum Part {
    Completed(Box<BeamView>),
    Pending(PendingBeam),
    Aggregate(AggregateView),
}

fn part(spec: &JobSpec, row: &TaskRow, record: Option<ResultRecord>, line: Option<Value>) -> Part {
    let word = row.task.state.as_str().to_ascii_lowercase();
    let status = status_of(row);
    let result = record.as_ref().and_then(tasks::parsed);
    let message = record.as_ref().and_then(tasks::message);
    let Some((point, runner)) = tasks::beam(spec, row.task.index) else {
        return Part::Aggregate(AggregateView {
            status: status.map_or(word, |s| s.to_string()),
            result,
            reason: row.task.reason,
            message,
        });
    };
    let Some(status) = status else {
        return Part::Pending(PendingBeam {
            index: row.task.index,
            point,
            runner,
            status: word,
        });
    };
    let report = record.as_ref().map(|r| &r.report);
    Part::Completed(Box::new(BeamView {
        index: row.task.index,
        point,
        runner,
        status,
        result: result.or(line),
        reason: row.task.reason,
        message,
        attempt: row.task.attempt,
        node: row.node.clone(),
        started: report.map(|r| r.started),
        wall_ms: report.map(|r| r.wall.0),
        cpu_us: report.map(|r| r.cpu_us),
        memory_peak: report.map(|r| r.memory_peak),
    }))
}

/// The whole sweep.
async fn whole(app: &Arc<App>, id: JobId) -> Answered<SweepView> {
    let found = app
        .control
        .read(|s| {
            let job = s.job(id)?;
            Some((frame(job)?, job.spec().clone(), job.record().tasks))
        })
        .await;
    let Some((mut view, spec, total)) = found else {
        return Err(Refusal::not_found(format!("sweep {id} is gone")));
    };
    let Some(work) = spec.sweep() else {
        return Err(Refusal::not_found(format!("{id} is no sweep")));
    };
    let mut outputs = Vec::new();
    let mut left = tasks::PAGE_BYTES;
    for block in 0..total.div_ceil(BLOCK) {
        let rows = tasks::rows(app, id, block * BLOCK, BLOCK as usize).await;
        let lines = stopped_lines(app, id, &rows).await;
        let mut records = tasks::Records::none(block * BLOCK);
        for row in &rows {
            if row.task.state.is_final() && left == 0 {
                view.truncated = true;
                continue;
            }
            if row.task.state.is_final() && row.task.index >= records.until {
                records = tasks::records(app, id, row.task.index, left).await?;
            }
            let record = tasks::record_of(row, &mut records);
            left = left.saturating_sub(record.as_ref().map_or(0, tasks::size));
            let line = lines.get(&row.task.index).cloned();
            let part = part(&spec, row, record, line);
            if work.runners.len() > 1 && outputs.len() < BEAMS_MAX {
                outputs.extend(output(&part));
            }
            put(&mut view, part);
        }
    }
    view.results = (work.runners.len() > 1).then_some(outputs);
    Ok(view)
}

/// The last metric lines of beams that the rule gave up: their results when nothing better was recorded.
async fn stopped_lines(
    app: &App,
    id: JobId,
    rows: &[TaskRow],
) -> std::collections::BTreeMap<u32, Value> {
    let stopped: Vec<u32> = rows
        .iter()
        .filter(|r| r.task.reason == Some(Reason::EarlyStopped))
        .map(|r| r.task.index)
        .collect();
    if stopped.is_empty() {
        return Default::default();
    }
    let lines: Vec<(u32, Arc<str>)> = app
        .control
        .read(|s| {
            let sweep = s.job(id).and_then(Job::sweep);
            let beam = |index: &u32| Some((*index, sweep?.beam(*index)?.line.clone()));
            stopped.iter().filter_map(beam).collect()
        })
        .await;
    let parsed = |(index, line): (u32, Arc<str>)| Some((index, serde_json::from_str(&line).ok()?));
    lines.into_iter().filter_map(parsed).collect()
}

fn put(view: &mut SweepView, part: Part) {
    match part {
        Part::Completed(_) if view.completed.len() >= BEAMS_MAX => view.truncated = true,
        Part::Pending(_) if view.pending.len() >= BEAMS_MAX => view.truncated = true,
        Part::Completed(beam) => view.completed.push(*beam),
        Part::Pending(beam) => view.pending.push(beam),
        Part::Aggregate(aggregate) => view.aggregate = Some(aggregate),
    }
}

fn output(part: &Part) -> Option<RunnerOutput> {
    match part {
        Part::Completed(beam) => Some(RunnerOutput {
            runner: beam.runner.clone(),
            output: beam.result.clone(),
            status: beam.status.to_string(),
        }),
        Part::Pending(beam) => Some(RunnerOutput {
            runner: beam.runner.clone(),
            output: None,
            status: beam.status.clone(),
        }),
        Part::Aggregate(_) => None,
    }
}

async fn id_of(app: &App, ask: &Ask) -> Answered<JobId> {
    let text = ask.param("id")?;
    app.control
        .read(|s| jobs::find(s, text, &ask.sight(), true).map(Job::id))
        .await
}

pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let id = id_of(app, ask).await?;
    answer::json(&whole(app, id).await?)
}

/// The answer about a sweep that was just submitted or changed.
pub(crate) async fn by_id(app: &Arc<App>, id: JobId) -> Answered<Response<Body>> {
    answer::json(&whole(app, id).await?)
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let is_sweep = |job: &Job| job.spec().sweep().is_some();
    let items = jobs::select(app, ask, is_sweep, summary).await?;
    answer::json(&page(items, limit(ask)?, "j", |s| s.id.to_string()))
}

pub(crate) async fn act(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let id = jobs::change(app, &ask, true).await?;
    by_id(app, id).await
}

/// `GET /sweeps/{id}/results`
pub(crate) async fn results(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let id = id_of(app, ask).await?;
    let view = whole(app, id).await?;
    if ask.query.text("format") != Some("csv") && !ask.accepts("text/csv") {
        return answer::json(&view.completed);
    }
    let spec = app
        .control
        .read(|s| s.job(id).map(|j| j.spec().clone()))
        .await;
    let work = spec.as_ref().and_then(|s| s.sweep());
    let rows: Vec<BeamRow> = view
        .completed
        .iter()
        .map(|beam| beam_row(work, beam))
        .collect();
    let csv = if rows.is_empty() {
        "index,status\r\n".to_owned()
    } else {
        prism_spec::table(&rows).csv()
    };
    Ok(answer::of("text/csv; charset=utf-8", csv))
}

fn beam_row(work: Option<&SweepWork>, beam: &BeamView) -> BeamRow {
    let point = work.and_then(|w| w.point(w.beam(beam.index)?.0));
    BeamRow {
        index: beam.index,
        runner: beam.runner.clone(),
        point: point.unwrap_or_default(),
        status: beam.status.to_string(),
        reason: beam.reason.map(|r| r.to_string()),
        result: beam.result.clone(),
    }
}
