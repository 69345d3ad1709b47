//! A job: its program, and how many tasks are made of it.

use super::{common, files};
use crate::cursor::Cursor;
use crate::draft::{Draft, FileDraft, ListedTask, MapDraft, Program, WorkDraft};
use crate::error::SpecError;
use crate::job::JobSpec;
use crate::limits;

const FIELDS: &[&str] = &[
    "job",
    "namespace",
    "group",
    "task",
    "command",
    "script",
    "array",
    "tasks",
    "map",
    "env",
    "files",
    "image",
    "isolation",
    "resources",
    "pids",
    "retries",
    "backoff",
    "timeout",
    "concurrency",
    "priority",
    "max_failures",
    "after",
    "labels",
];

pub(super) fn job(top: &Cursor<'_>) -> Result<Draft, SpecError> {
    top.only("a table with job: at its top", FIELDS)?;
    let spec = common::base(top, "job")?;
    let program = files::program(top, false)?;
    Ok(Draft {
        spec,
        files: files::files(top)?,
        work: work(top, &program)?,
        program,
    })
}

fn work(top: &Cursor<'_>, own: &Program) -> Result<WorkDraft, SpecError> {
    match (top.get("array"), top.get("tasks"), top.get("map")) {
        (None, None, None) => Ok(WorkDraft::Array { count: 1 }),
        (Some(c), None, None) => Ok(WorkDraft::Array {
            count: c.count(1, JobSpec::TASKS_MAX)?,
        }),
        (None, Some(c), None) => tasks(&c, own),
        (None, None, Some(c)) => map(&c).map(WorkDraft::Map),
        _ => Err(top.error("expected only one of array, tasks and map")),
    }
}

fn tasks(list: &Cursor<'_>, own: &Program) -> Result<WorkDraft, SpecError> {
    let items = list.items("a list of tasks", limits::LISTED_MAX)?;
    if items.len() == 0 {
        return Err(list.error("an empty list: expected at least one task"));
    }
    let tasks = items
        .map(|c| {
            c.only(
                "a table of name, command and env",
                &["name", "command", "env"],
            )?;
            let command = c.get("command").map(|n| files::command(&n)).transpose()?;
            if command.is_none() && own.is_empty() {
                return Err(c.error("\"command\" is missing, and the job has none for all tasks"));
            }
            Ok(ListedTask {
                name: c.get("name").map(|n| n.name()).transpose()?,
                command,
                env: common::env(&c)?,
            })
        })
        .collect::<Result<_, SpecError>>()?;
    Ok(WorkDraft::List { tasks })
}

/// A path of a file of lines, `{file: path}`, or `{lines: [...]}`.
fn map(c: &Cursor<'_>) -> Result<MapDraft, SpecError> {
    let what = "a path, {file: path} or {lines: [...]}";
    if c.as_text().is_none() {
        c.only(what, &["file", "lines"])?;
        if let Some(list) = c.get("lines") {
            if c.get("file").is_some() {
                return Err(c.error("both file and lines: expected one of them"));
            }
            return lines(&list);
        }
    }
    let holder = if c.is_table() {
        Some(c.need("file")?)
    } else {
        None
    };
    let file = holder.as_ref().unwrap_or(c);
    if c.request {
        return Err(file.error(
            "the server cannot read files of your machine; send the lines as {lines: [...]}",
        ));
    }
    Ok(MapDraft::File(FileDraft {
        path: files::path_of(file)?,
        mode: None,
        content: None,
        at: file.spot(),
    }))
}

fn lines(list: &Cursor<'_>) -> Result<MapDraft, SpecError> {
    let items = list.items("a list of texts", limits::LISTED_MAX)?;
    if items.len() == 0 {
        return Err(list.error("no lines: expected at least one"));
    }
    let mut lines = Vec::with_capacity(items.len());
    let mut bytes = 0usize;
    for item in items {
        let line = item.scalar("a text or number", limits::LINE_MAX)?;
        bytes += line.len();
        lines.push(line.to_owned());
    }
    if bytes > limits::LINES_BYTES_MAX {
        let most = limits::LINES_BYTES_MAX >> 20;
        return Err(list.error(format!("{bytes} bytes of lines; at most {most} MiB")));
    }
    Ok(MapDraft::Lines(lines))
}
