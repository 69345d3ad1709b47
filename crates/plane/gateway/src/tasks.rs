//! A job's tasks, and their recorded results read from the store, block by block.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use prism_api::{Page, TaskView};
use prism_spec::{JobSpec, Work, point_json};
use prism_state::{BLOCK, ResultRecord, decode_results, results_prefix};
use prism_store::{Key, KeyRange};
use prism_types::{ExitStatus, JobId, TaskState};
use serde_json::{Map, Value};

use crate::app::App;
use crate::ask::Ask;
use crate::list::{cursor, limit, page};
use crate::refuse::{Answered, Refusal};
use crate::{answer, jobs};

/// Values that are read from the store at once.
const RANGE_ITEMS: usize = 64;
/// About what the results of one answer may take, bytes.
pub(crate) const PAGE_BYTES: usize = 12 << 20;
/// About what a JSON value takes, bytes.
const VALUE_BYTES: usize = 64;

/// A task's place in a sweep.
pub(crate) fn beam(spec: &JobSpec, index: u32) -> Option<(Map<String, Value>, String)> {
    let sweep = spec.sweep()?;
    let (point, runner) = sweep.beam(index)?;
    let runner = sweep.runners.get(usize::try_from(runner).ok()?)?;
    match point_json(&sweep.point(point)?) {
        Value::Object(point) => Some((point, runner.name.clone())),
        _ => None,
    }
}

fn name(spec: &JobSpec, index: u32) -> Option<String> {
    match &spec.work {
        Work::List { tasks } => {
            let task = tasks.get(usize::try_from(index).ok()?)?;
            task.name.as_ref().map(ToString::to_string)
        }
        Work::Sweep(sweep) => sweep.is_aggregate(index).then(|| "aggregate".to_owned()),
        Work::Array { .. } | Work::Map { .. } => None,
    }
}

/// A task of a block with its node's name, copied out of the state.
#[derive(Clone, Debug)]
pub(crate) struct TaskRow {
    pub(crate) task: prism_state::TaskView,
    pub(crate) node: Option<String>,
}

/// The tasks of a job from `from` on, at most `take`.
pub(crate) async fn rows(app: &App, job: JobId, from: u32, take: usize) -> Vec<TaskRow> {
    app.control
        .read(|s| {
            s.tasks(job, from)
                .take(take)
                .map(|task| TaskRow {
                    node: task
                        .node
                        .and_then(|id| Some(s.node(id)?.record().name.to_string())),
                    task,
                })
                .collect()
        })
        .await
}

/// A task as clients see it, with its record if there is one.
pub(crate) fn view(spec: &JobSpec, row: &TaskRow, record: Option<ResultRecord>) -> TaskView {
    let (point, runner) = beam(spec, row.task.index).unzip();
    let mut view = TaskView {
        index: row.task.index,
        name: name(spec, row.task.index),
        status: row.task.state,
        attempt: row.task.attempt,
        fence: (spec.single_instance && row.task.attempt > 0).then_some(row.task.attempt),
        node: row.node.clone(),
        point,
        runner,
        result: None,
        reason: row.task.reason,
        message: None,
        exit_code: None,
        signal: None,
        started: None,
        retry_at: row.task.due,
        wall_ms: None,
        cpu_us: None,
        memory_peak: None,
    };
    if let Some(record) = record {
        view.result = parsed(&record);
        view.message = message(&record);
        match record.report.exit {
            ExitStatus::Code(code) => view.exit_code = Some(code),
            ExitStatus::Signal(signal) => view.signal = Some(signal),
            ExitStatus::Unknown => {}
        }
        view.started = Some(record.report.started);
        view.wall_ms = Some(record.report.wall.0);
        view.cpu_us = Some(record.report.cpu_us);
        view.memory_peak = Some(record.report.memory_peak);
    }
    view
}

/// The result as JSON.
pub(crate) fn parsed(record: &ResultRecord) -> Option<Value> {
    serde_json::from_str(record.result.as_deref()?).ok()
}

/// Why, for people: what the runtime says, then the end of standard error. `None` for a task that simply completed.
pub(crate) fn message(record: &ResultRecord) -> Option<String> {
    if record.state == TaskState::Completed && record.reason.is_none() {
        return None;
    }
    let parts = [record.report.detail.as_str(), record.stderr_tail.trim_end()];
    let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    if parts.is_empty() {
        return Some(unsaid(record));
    }
    jobs::some(&parts.join("\n"))
}

/// One sentence for a task that ended without a word.
fn unsaid(record: &ResultRecord) -> String {
    let reason = record
        .reason
        .map_or("ended", prism_types::Reason::as_str)
        .replace('_', " ");
    match record.report.exit {
        ExitStatus::Code(code) => {
            format!("{reason}: it ended with code {code} and printed nothing")
        }
        ExitStatus::Signal(signal) => {
            format!("{reason}: signal {signal} ended it, and it printed nothing")
        }
        ExitStatus::Unknown => reason,
    }
}

/// Recorded results of one block, by task, each the last one of its task.
#[derive(Debug)]
pub(crate) struct Records {
    found: BTreeMap<u32, ResultRecord>,
    bytes: usize,
    /// Nothing is known of tasks from here on.
    pub(crate) until: u32,
}

impl Records {
    pub(crate) fn none(until: u32) -> Self {
        Self {
            found: BTreeMap::new(),
            bytes: 0,
            until,
        }
    }

    /// Takes a record in; when all together are too large, the ones of the last tasks are left for another time.
    fn add(&mut self, record: ResultRecord, most: usize) {
        self.bytes += size(&record);
        if let Some(before) = self.found.insert(record.index, record) {
            self.bytes -= size(&before);
        }
        while self.bytes > most && self.found.len() > 1 {
            if let Some((index, last)) = self.found.pop_last() {
                self.bytes -= size(&last);
                self.until = index;
            }
        }
    }
}

/// About what a record takes in memory when its result was read as JSON, bytes.
pub(crate) fn size(record: &ResultRecord) -> usize {
    let result = record.result.as_deref().unwrap_or_default();
    let values = result.bytes().filter(|b| *b == b',').count();
    result.len() + values * VALUE_BYTES + record.stderr_tail.len()
}

/// The recorded results of the tasks of `from`'s block from it on, as many as fit into `most` bytes, but at least one.
pub(crate) async fn records(app: &App, job: JobId, from: u32, most: usize) -> Answered<Records> {
    let block = from / BLOCK;
    let mut found = Records::none((block + 1) * BLOCK);
    let mut range = KeyRange::prefix(Key::from(results_prefix(job, block)));
    loop {
        let page = app
            .control
            .store()
            .range(range.clone(), None, RANGE_ITEMS)
            .await?;
        for item in &page.items {
            for record in decode_results(&item.key, &item.value)? {
                if (from..found.until).contains(&record.index) {
                    found.add(record, most);
                }
            }
        }
        match page.items.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => return Ok(found),
        }
    }
}

/// The record that counts for a task: of the attempt at which it ended.
pub(crate) fn record_of(row: &TaskRow, records: &mut Records) -> Option<ResultRecord> {
    let record = records.found.remove(&row.task.index)?;
    (row.task.state.is_final() && record.attempt == row.task.attempt).then_some(record)
}

pub(crate) fn wanted_state(ask: &Ask) -> Option<TaskState> {
    let text = ask.query.text("state")?;
    TaskState::ALL.iter().copied().find(|s| s.as_str() == text)
}

/// `GET /jobs/{id}/tasks`
pub(crate) async fn list(app: &Arc<App>, ask: &Ask) -> Answered<Response<Body>> {
    let text = ask.param("id")?;
    let (id, spec, total) = app
        .control
        .read(|s| {
            let job = s.find_job(text, &ask.sight())?;
            Ok::<_, Refusal>((job.id(), job.spec().clone(), job.record().tasks))
        })
        .await?;
    let limit = limit(ask)?;
    let after: Option<u32> = cursor(ask, "t")?;
    let wanted = wanted_state(ask);
    let mut from = after.map_or(0, |index| index.saturating_add(1));
    let mut views: Vec<TaskView> = Vec::new();
    let mut left = PAGE_BYTES;
    while from < total && views.len() <= limit && left > 0 {
        let end = ((from / BLOCK + 1) * BLOCK).min(total);
        let rows = rows(app, id, from, usize::try_from(end - from).unwrap_or(0)).await;
        let picked: Vec<_> = rows
            .into_iter()
            .filter(|row| wanted.is_none_or(|state| row.task.state == state))
            .take(limit + 1 - views.len())
            .collect();
        let mut records = if picked.iter().any(|row| row.task.state.is_final()) {
            records(app, id, from, left).await?
        } else {
            Records::none(end)
        };
        from = end;
        for row in picked {
            if row.task.index >= records.until {
                left = 0;
                break;
            }
            let record = record_of(&row, &mut records);
            left = left.saturating_sub(record.as_ref().map_or(0, size));
            views.push(view(&spec, &row, record));
        }
    }
    let at = |v: &TaskView| v.index.to_string();
    if left == 0 && views.len() <= limit {
        // There may be more; the next page says.
        let next = views.last().map(|last| format!("t.{}", at(last)));
        return answer::json(&Page { items: views, next });
    }
    answer::json(&page(views, limit, "t", at))
}
