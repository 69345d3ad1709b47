//! `/explain/{id}`: why a job, task, sandbox or node is as it is, with a verdict for each node.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{CandidateView, ExplainView};
use prism_scheduler::{Explanation, Verdict};
use prism_state::{Sight, State};
use prism_types::{JobId, NodeState, Reason, Rejection, TaskState};
use serde_json::{Value, json};

use crate::app::App;
use crate::ask::Ask;
use crate::refuse::{Answered, Refusal};
use crate::{answer, tasks};

/// What a text names.
enum Subject {
    Job(JobId),
    Task(JobId, u32),
    Sandbox(String),
    Node,
}

type Named = (Subject, String, Option<Reason>);

fn resolve(state: &State, text: &str, sight: &Sight) -> Result<Named, Rejection> {
    let task = text
        .rsplit_once('.')
        .and_then(|(job, index)| Some((state.find_job(job, sight).ok()?, index.parse().ok()?)));
    if let Some((job, index)) = task
        && let Some(view) = state.task(job.id(), index)
    {
        let status = view.state.to_string();
        return Ok((Subject::Task(job.id(), index), status, view.reason));
    }
    if let Ok(job) = state.find_job(text, sight) {
        let record = job.record();
        return Ok((
            Subject::Job(job.id()),
            record.state.to_string(),
            record.cancel,
        ));
    }
    if let Ok(sandbox) = state.find_sandbox(text, sight) {
        let id = sandbox.id.to_string();
        return Ok((
            Subject::Sandbox(id),
            sandbox.state.to_string(),
            sandbox.reason,
        ));
    }
    match state.find_node(text) {
        Ok(node) => Ok((Subject::Node, node.record().state.to_string(), None)),
        Err(_) => Err(Rejection::new(
            Reason::NotFound,
            format!("there is no job, task (JOB.INDEX), sandbox or node {text:?}"),
        )),
    }
}

pub(crate) async fn get(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let text = ask.param("id")?;
    let sight = ask.sight();
    let (subject, status, reason) = app.control.read(|s| resolve(s, text, &sight)).await?;
    let blank = |kind: &str| ExplainView {
        subject: text.to_owned(),
        kind: kind.to_owned(),
        status: status.clone(),
        summary: String::new(),
        advice: String::new(),
        candidates: Vec::new(),
        details: json!({}),
    };
    let mut view = match subject {
        Subject::Job(id) => {
            let found = app.control.explain(&id.to_string()).await?;
            filled(blank("job"), found)
        }
        Subject::Sandbox(id) => {
            let found = app.control.explain(&id).await?;
            filled(blank("sandbox"), found)
        }
        Subject::Task(job, index) => task(app, job, index, blank("task")).await?,
        Subject::Node => node(app, text, blank("node")).await?,
    };
    // The page about it, for those who look further.
    view.details["code"] = reason.map_or(Value::Null, |r| r.as_code().into());
    answer::json(&view)
}

fn filled(mut view: ExplainView, found: Explanation) -> ExplainView {
    view.summary = found.sentence;
    let candidates = found.nodes.into_iter().map(|n| match n.verdict {
        Verdict::Fits(score) => CandidateView {
            node: n.name,
            fits: true,
            score: Some(score.total()),
            reason: None,
        },
        Verdict::Dropped(why) => CandidateView {
            node: n.name,
            fits: false,
            score: None,
            reason: Some(why),
        },
    });
    view.candidates = candidates.collect();
    view
}

async fn task(app: &App, job: JobId, index: u32, mut view: ExplainView) -> Answered<ExplainView> {
    let gone = || Refusal::not_found(format!("task {index} of job {job} is gone"));
    let row = tasks::rows(app, job, index, 1)
        .await
        .pop()
        .ok_or_else(gone)?;
    let mut records = tasks::records(app, job, index, 0).await?;
    let message = tasks::record_of(&row, &mut records).and_then(|r| tasks::message(&r));
    let on = row.node.as_deref().unwrap_or("no node");
    let why = row
        .task
        .reason
        .map_or_else(String::new, |r| format!(" ({r})"));
    let text = match row.task.state {
        TaskState::Queued => {
            let found = app.control.explain(&job.to_string()).await?;
            view = filled(view, found);
            format!("it waits for a place: {}", view.summary)
        }
        TaskState::Retrying => {
            let (failures, losses) = (row.task.failures, row.task.losses);
            format!(
                "it failed {failures} times and was lost {losses} times{why}, and will be tried again"
            )
        }
        TaskState::Assigned => format!("it is placed on {on} and waits to start there"),
        TaskState::Running => format!("attempt {} runs on {on}", row.task.attempt),
        TaskState::Completed | TaskState::Failed | TaskState::Cancelled => {
            format!(
                "it ended {} on {on} at attempt {}{why}",
                row.task.state, row.task.attempt
            )
        }
    };
    view.summary = match message {
        Some(message) => format!("{text}: {message}"),
        None => text,
    };
    view.details = json!({
        "attempt": row.task.attempt,
        "failures": row.task.failures,
        "losses": row.task.losses,
        "retry_at": row.task.due,
        "node": row.node,
    });
    Ok(view)
}

async fn node(app: &App, text: &str, mut view: ExplainView) -> Answered<ExplainView> {
    let health = app
        .control
        .read(|s| {
            s.find_node(text)
                .map(|n| crate::nodes::health_view(&app.control, n))
        })
        .await?;
    view.summary = if health.ready {
        "it takes work".to_owned()
    } else {
        health.reasons.join("; ")
    };
    if health.state == NodeState::Offline {
        view.advice = "start prismd on it again".to_owned();
    }
    view.details = serde_json::to_value(&health).unwrap_or(Value::Null);
    Ok(view)
}
