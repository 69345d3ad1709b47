//! A job: its program, and how many tasks are made of it.

use super::{common, files};
use crate::cursor::Cursor;
use crate::draft::{Draft, FileDraft, ListedTask, MapDraft, Program, WorkDraft};
use crate::error::SpecError;
use crate::job::JobSpec;
use crate::limits;
use crate::lines::Lines;

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
    "single_instance",
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
    let mut tasks = Vec::new();
    let mut bytes = 0usize;
    let inherited = own.command.as_deref().map_or(256, size);
    list.each(
        "a list of tasks",
        "an empty list: expected at least one task",
        limits::LISTED_MAX,
        |c| {
            c.only(
                "a table of name, command and env",
                &["name", "command", "env"],
            )?;
            let command = c.get("command").map(|n| files::command(&n)).transpose()?;
            if command.is_none() && own.is_empty() {
                return Err(c.error("\"command\" is missing, and the job has none for all tasks"));
            }
            let env = common::env(c)?;
            let vars = env.iter().map(|(k, v)| k.len() + v.len() + 100);
            bytes += 80 + command.as_deref().map_or(inherited, size) + vars.sum::<usize>();
            if bytes > limits::TASKS_BYTES_MAX {
                let most = limits::TASKS_BYTES_MAX >> 20;
                return Err(c.error(format!(
                    "the tasks up to here take more than {most} MiB: use array or map, or several jobs"
                )));
            }
            tasks.push(ListedTask {
                name: c.get("name").map(|n| n.name()).transpose()?,
                command,
                env,
            });
            Ok(())
        },
    )?;
    Ok(WorkDraft::List { tasks })
}

/// About what a command takes in memory, in bytes.
fn size(command: &[String]) -> usize {
    16 + command
        .iter()
        .map(|arg| 24 + 16 + arg.len().max(16))
        .sum::<usize>()
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
    let mut lines = Lines::default();
    list.each(
        "a list of texts",
        "no lines: expected at least one",
        limits::LISTED_MAX,
        |item| {
            lines.push(item.scalar("a text or number", limits::LINE_MAX)?);
            match lines.bytes() > limits::LINES_BYTES_MAX {
                true => Err(list.error(format!(
                    "more than {} MiB of lines",
                    limits::LINES_BYTES_MAX >> 20
                ))),
                false => Ok(()),
            }
        },
    )?;
    Ok(MapDraft::Lines(lines.fit()))
}
