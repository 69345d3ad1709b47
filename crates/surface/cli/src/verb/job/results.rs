//! `job results`: one recorded result per task, as they come.

use clap::Args;
use prism_api::TaskView;
use prism_types::Millis;
use serde_json::Value;

use super::wait::scalar;
use crate::exit::{Done, Exit, Failure};
use crate::output::{Column, Format, Out, Table, doc, human};
use crate::server::Server;

/// Print the recorded result of each task, by index.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  prismctl job results digits -o ndjson > results.ndjson
  prismctl job results digits --state FAILED
  prismctl job results digits --follow -o ndjson")]
pub struct ResultsArgs {
    /// Id or name
    pub(super) job: String,
    /// Only tasks in this state, such as FAILED
    #[arg(long)]
    state: Option<String>,
    /// Go on until the job is over
    #[arg(short, long)]
    follow: bool,
}

/// Rows of a table that are fitted together; a longer list is printed in such parts, so that it needs no memory.
const PART: usize = 500;

/// Prints them.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(args: &ResultsArgs, server: &Server, out: &Out) -> Done {
    let state = args.state.as_ref().map(|s| s.to_uppercase());
    let mut lines = server
        .client()
        .jobs()
        .results(&args.job, state.as_deref(), args.follow)
        .await?;
    let mut part = Vec::new();
    let mut first = true;
    let mut headed = false;
    while let Some(line) = lines.next_raw().await? {
        let value: Value = serde_json::from_slice(&line).map_err(|e| {
            Failure::failed(
                prism_types::Fault::NotPrism,
                format!("the server sent a result that is not JSON: {e}"),
            )
        })?;
        match out.format {
            Format::Ndjson => out.print(&doc::json_line(&value))?,
            Format::Yaml => out.print(&doc::yaml(&Value::Array(vec![value])))?,
            Format::Json => {
                let text = doc::json(&value);
                out.print(&format!(
                    "{}{}",
                    if first { "[\n" } else { ",\n" },
                    text.trim_end()
                ))?;
            }
            Format::Table => {
                part.push(crate::server::typed::<TaskView>(&value)?);
                if part.len() >= PART || args.follow {
                    let shown = table(&part);
                    out.table(&if headed {
                        shown.without_headers()
                    } else {
                        shown
                    })?;
                    headed = true;
                    part.clear();
                }
            }
        }
        first = false;
    }
    match out.format {
        Format::Json => out.print(if first { "[]\n" } else { "\n]\n" })?,
        Format::Table if first => out.note("there are no results"),
        Format::Table if !part.is_empty() => {
            let shown = table(&part);
            out.table(&if headed {
                shown.without_headers()
            } else {
                shown
            })?;
        }
        _ => {}
    }
    Ok(Exit::Ok)
}

/// Tasks as rows.
pub fn table(tasks: &[TaskView]) -> Table {
    let named = tasks.iter().any(|t| t.name.is_some());
    let mut columns = vec![("task".to_owned(), Column::Right)];
    if named {
        columns.push(("name".to_owned(), Column::Cut));
    }
    for (name, column) in [
        ("status", Column::Whole),
        ("try", Column::Right),
        ("node", Column::Cut),
        ("time", Column::Right),
        ("memory", Column::Right),
        ("result", Column::Cut),
    ] {
        columns.push((name.to_owned(), column));
    }
    let mut t = Table::with(columns);
    for task in tasks {
        let mut row = vec![task.index.to_string()];
        if named {
            row.push(task.name.clone().unwrap_or_default());
        }
        row.extend([
            task.status.to_string(),
            task.attempt.to_string(),
            task.node.clone().unwrap_or_default(),
            task.wall_ms
                .map_or(String::new(), |ms| human::duration(Millis(ms))),
            task.memory_peak
                .filter(|m| *m > 0)
                .map_or(String::new(), human::size),
            said(task),
        ]);
        t.row(row);
    }
    t
}

/// Its result; or why it has none.
fn said(task: &TaskView) -> String {
    if let Some(result) = &task.result {
        return compact(result);
    }
    match (&task.reason, &task.message) {
        (Some(reason), Some(message)) => format!("{reason}: {message}"),
        (Some(reason), None) => reason.to_string(),
        (None, message) => message.clone().unwrap_or_default(),
    }
}

/// `{"a":1,"b":0.5}` as `a=1 b=0.5`.
pub fn compact(result: &Value) -> String {
    match result {
        Value::Object(fields) => {
            let each: Vec<String> = fields
                .iter()
                .map(|(k, v)| format!("{k}={}", scalar(v)))
                .collect();
            each.join(" ")
        }
        other => scalar(other),
    }
}
