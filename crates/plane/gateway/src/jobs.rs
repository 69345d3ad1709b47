//! `/jobs`: listing, reading, and the verbs that change one.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{JobKind, JobView, Op, TaskCounts};
use prism_spec::Work;
use prism_state::{Command, Counts, Job, Sight, State};
use prism_types::{JobId, JobState, TaskState};

use crate::answer;
use crate::app::App;
use crate::ask::Ask;
use crate::list::{Filter, cursor, limit, page};
use crate::refuse::{Answered, Refusal};

pub(crate) fn no_tasks() -> TaskCounts {
    counts(Counts::default())
}

pub(crate) fn counts(counts: Counts) -> TaskCounts {
    let of = |state| u64::from(counts.of(state));
    TaskCounts {
        total: u64::from(counts.total()),
        queued: of(TaskState::Queued),
        assigned: of(TaskState::Assigned),
        running: of(TaskState::Running),
        completed: of(TaskState::Completed),
        failed: of(TaskState::Failed),
        retrying: of(TaskState::Retrying),
        cancelled: of(TaskState::Cancelled),
    }
}

pub(crate) fn add(a: &TaskCounts, b: &TaskCounts) -> TaskCounts {
    TaskCounts {
        total: a.total + b.total,
        queued: a.queued + b.queued,
        assigned: a.assigned + b.assigned,
        running: a.running + b.running,
        completed: a.completed + b.completed,
        failed: a.failed + b.failed,
        retrying: a.retrying + b.retrying,
        cancelled: a.cancelled + b.cancelled,
    }
}

/// A text, if there is any.
pub(crate) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(crate) fn view(job: &Job, whole: bool) -> JobView {
    let (record, spec) = (job.record(), job.spec());
    JobView {
        id: record.id,
        name: spec.name.to_string(),
        namespace: spec.namespace.to_string(),
        kind: match spec.work {
            Work::Array { .. } => JobKind::Array,
            Work::List { .. } => JobKind::List,
            Work::Map { .. } => JobKind::Map,
            Work::Sweep(_) => JobKind::Sweep,
        },
        task: spec.task.clone(),
        status: record.state,
        paused: record.paused,
        counts: counts(job.counts()),
        priority: spec.priority,
        group: spec.group.as_ref().map(ToString::to_string),
        after: spec.after.clone(),
        labels: spec.labels.clone(),
        reason: record.cancel,
        message: some(&record.message),
        created: record.created,
        started: record.started,
        finished: record.finished,
        spec: whole.then(|| shown_spec(job)).flatten(),
    }
}

/// The spec as JSON, with only the first of its listed tasks or lines (they can be many).
fn shown_spec(job: &Job) -> Option<serde_json::Value> {
    serde_json::to_value(job.spec().shown(100)).ok()
}

/// Jobs that pass, newest first, one more than wanted; `read` makes the item while the state is held.
pub(crate) async fn select<T: Send>(
    app: &App,
    ask: &Ask,
    wanted: impl Fn(&Job) -> bool,
    read: impl Fn(&Job) -> T,
) -> Answered<Vec<T>> {
    let filter = Filter::of(ask)?;
    let after: Option<JobId> = cursor(ask, "j")?;
    let take = limit(ask)? + 1;
    let state = ask.query.text("state").map(job_state);
    let name = ask.query.text("name");
    let passes = |job: &Job| {
        let spec = job.spec();
        wanted(job)
            && filter.takes(&spec.labels, &spec.namespace)
            && state.is_none_or(|s| Some(job.record().state) == s)
            && name.is_none_or(|n| n == spec.name.as_str())
    };
    let found = app
        .control
        .read(|s| {
            let passing = |job: &&Job| passes(job);
            match after {
                Some(id) => s
                    .jobs_before(id)
                    .rev()
                    .filter(passing)
                    .take(take)
                    .map(&read)
                    .collect(),
                None => s
                    .jobs()
                    .rev()
                    .filter(passing)
                    .take(take)
                    .map(&read)
                    .collect(),
            }
        })
        .await;
    Ok(found)
}

fn job_state(text: &str) -> Option<JobState> {
    JobState::ALL.iter().copied().find(|s| s.as_str() == text)
}

pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let items = select(app, ask, |_| true, |job| view(job, false)).await?;
    answer::json(&page(items, limit(ask)?, "j", |j| j.id.to_string()))
}

pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let text = ask.param("id")?;
    let sight = ask.sight();
    let found = app
        .control
        .read(|s| s.find_job(text, &sight).map(|job| view(job, true)))
        .await?;
    answer::json(&found)
}

/// Finds a job; with `sweep`, only if it is one.
pub(crate) fn find<'a>(
    state: &'a State,
    text: &str,
    sight: &Sight,
    sweep: bool,
) -> Answered<&'a Job> {
    let job = state.find_job(text, sight)?;
    if sweep && job.spec().sweep().is_none() {
        return Err(Refusal::not_found(format!(
            "{text} is a job, not a sweep; see GET /api/v1/jobs/{text}"
        )));
    }
    Ok(job)
}

/// Proposes the verb of the route; answers with the job's id.
pub(crate) async fn change(app: &Arc<App>, ask: &Ask, sweep: bool) -> Answered<JobId> {
    let text = ask.param("id")?;
    let sight = ask.sight();
    let id = app
        .control
        .read(|s| find(s, text, &sight, sweep).map(Job::id))
        .await?;
    let command = match ask.route.op {
        Op::JobRetry => Command::RetryJob { id },
        Op::JobPause | Op::SweepPause => Command::PauseJob { id },
        Op::JobResume | Op::SweepResume => Command::ResumeJob { id },
        _ => Command::CancelJob { id },
    };
    app.propose(ask, command).await?;
    Ok(id)
}

pub(crate) async fn act(app: &Arc<App>, ask: Ask) -> Answered<Response<Body>> {
    let id = change(app, &ask, false).await?;
    by_id(app, id).await
}

/// The answer about a job that was just changed.
pub(crate) async fn by_id(app: &Arc<App>, id: JobId) -> Answered<Response<Body>> {
    let found = app
        .control
        .read(|s| s.job(id).map(|job| view(job, false)))
        .await;
    match found {
        Some(job) => answer::json(&job),
        None => Err(Refusal::not_found(format!("job {id} is gone"))),
    }
}
