//! What a run that is over prints.

use prism_api::{JobView, Op, TaskView};
use prism_client::{Ask, LogsQuery};
use prism_spec::Submission;
use prism_types::TaskState;
use serde_json::Value;

use crate::exit::{Done, Failure};
use crate::listing::pages;
use crate::output::{Format, Out, doc, human};
use crate::server::{Server, typed, typed_all};
use crate::verb::{job, sweep};

/// Tasks that are shown as rows; of more, only those that failed.
const ROWS: u32 = 200;
/// Output of a task that is looked at for its last line.
const OUTPUT_MAX: usize = 64 << 10;

/// Prints the result of a job or sweep, and answers the exit code.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn show(server: &Server, submission: &Submission, id: &str, out: &Out) -> Done {
    if submission.spec.sweep().is_some() {
        let answer = server.ask(Ask::new(Op::SweepGet).at(id)).await?;
        match out.format {
            Format::Ndjson => each_result(server, id, out).await?,
            _ => sweep::one(&answer, out)?,
        }
        return Ok(sweep::ended(&typed(&answer)?));
    }
    let answer = server.ask(Ask::new(Op::JobGet).at(id)).await?;
    let view: JobView = typed(&answer)?;
    match out.format {
        Format::Ndjson => each_result(server, id, out).await?,
        Format::Json | Format::Yaml => job::one(&answer, out)?,
        Format::Table => {
            tasks(server, id, view.counts.total, out).await?;
            job::one(&answer, out)?;
        }
    }
    Ok(job::ended(view.status))
}

async fn each_result(server: &Server, id: &str, out: &Out) -> Result<(), Failure> {
    let mut lines = server.client().jobs().results(id, None, false).await?;
    while let Some(line) = lines.next_raw().await? {
        let value: Value = serde_json::from_slice(&line).map_err(|e| {
            Failure::failed(
                prism_types::Fault::NotPrism,
                format!("the server sent a result that is not JSON: {e}"),
            )
        })?;
        out.print(&doc::json_line(&value))?;
    }
    Ok(())
}

async fn tasks(server: &Server, id: &str, total: u64, out: &Out) -> Result<(), Failure> {
    let all = total <= u64::from(ROWS);
    let ask = Ask::new(Op::JobTasks)
        .at(id)
        .maybe("state", (!all).then_some(TaskState::Failed));
    let list = pages(server, &ask, ROWS).await?;
    let mut tasks: Vec<TaskView> =
        typed_all(list["items"].as_array().map_or(&[][..], Vec::as_slice))?;
    for task in tasks
        .iter_mut()
        .filter(|t| t.result.is_none() && t.status == TaskState::Completed)
    {
        task.result = last_line(server, id, task.index).await.map(Value::String);
    }
    if !tasks.is_empty() {
        out.table(&job::task_table(&tasks))?;
        out.print("\n")?;
    }
    if !all {
        let shown = human::plural(tasks.len() as u64, "failed task");
        out.note(&format!(
            "of {}, {shown} shown; -o ndjson prints every result",
            human::plural(total, "task")
        ));
    }
    Ok(())
}

/// The last line that a task wrote, for tasks that have no JSON result. Output that is gone is no failure of the run.
async fn last_line(server: &Server, id: &str, index: u32) -> Option<String> {
    let query = LogsQuery {
        task: Some(index),
        ..LogsQuery::default()
    };
    let mut stream = server.client().jobs().logs(id, &query).await.ok()?;
    let mut bytes = Vec::new();
    while bytes.len() < OUTPUT_MAX {
        match stream.next().await {
            Ok(Some(data)) => bytes.extend_from_slice(&data),
            Ok(None) => break,
            Err(_) => return None,
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|l| !l.trim().is_empty())?;
    Some(line.chars().take(500).collect())
}
