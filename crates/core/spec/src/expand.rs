//! What a task is: program, environment and files, from the spec and the task's index alone.

use prism_types::JobId;
use serde_json::Value;

use crate::job::{FileSpec, JobSpec, Work};
use crate::placeholder::fill;
use crate::points::Point;
use crate::sweep::{Runner, SweepWork};

/// The working directory of every task.
pub const TASK_DIR: &str = "/work";

/// The search path of every task that does not set its own.
pub const TASK_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One task, ready to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskCommand<'a> {
    /// Program and arguments, placeholders filled in.
    pub argv: Vec<String>,
    /// The whole environment, each name once.
    pub env: Vec<(String, String)>,
    /// Where it runs.
    pub cwd: &'static str,
    /// Files sent along, to be put beneath `cwd`.
    pub files: Vec<&'a FileSpec>,
    /// Small files made for this task. The caller adds `results.json` to an aggregate's.
    pub inline_files: Vec<InlineFile>,
}

/// A small file made for one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Relative path beneath the working directory.
    pub path: String,
    /// Its bytes.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

impl JobSpec {
    /// The task of an index, or `None` beyond the last. `attempt` counts from 1.
    pub fn command_of(&self, index: u32, job: JobId, attempt: u32) -> Option<TaskCommand<'_>> {
        let mut task = match &self.work {
            Work::Array { command, count } => {
                let index = Some(index).filter(|i| i < count)?;
                self.plain(command, index, None)
            }
            Work::Map { command, lines } => {
                let line = lines.get(usize::try_from(index).ok()?)?;
                self.plain(command, index, Some(line))
            }
            Work::List { tasks } => {
                let listed = tasks.get(usize::try_from(index).ok()?)?;
                let mut task = self.plain(&listed.command, index, None);
                for (name, value) in &listed.env {
                    set(&mut task.env, name, value.clone());
                }
                task
            }
            Work::Sweep(sweep) => self.sweep_task(sweep, index)?,
        };
        let own = [
            ("PRISM_JOB_ID", job.to_string()),
            ("PRISM_JOB_NAME", self.name.to_string()),
            ("PRISM_TASK_INDEX", index.to_string()),
            ("PRISM_TASK_COUNT", self.task_count().to_string()),
            ("PRISM_TASK_ATTEMPT", attempt.to_string()),
            // Attempts of a task never repeat and only grow: whoever knows a greater one may refuse this run.
            ("PRISM_FENCE", attempt.to_string()),
        ];
        for (name, value) in own {
            set(&mut task.env, name, value);
        }
        if !self.task.is_empty() {
            set(&mut task.env, "PRISM_TASK", self.task.clone());
        }
        Some(task)
    }

    fn base(&self, argv: Vec<String>) -> TaskCommand<'_> {
        let mut env = vec![
            ("PATH".to_owned(), TASK_PATH.to_owned()),
            ("HOME".to_owned(), TASK_DIR.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ];
        for (name, value) in &self.env {
            set(&mut env, name, value.clone());
        }
        TaskCommand {
            argv,
            env,
            cwd: TASK_DIR,
            files: self.files.iter().collect(),
            inline_files: Vec::new(),
        }
    }

    fn plain(&self, command: &[String], index: u32, item: Option<&str>) -> TaskCommand<'_> {
        let value = |name: &str| match (name, item) {
            ("index", _) => Some(index.to_string()),
            ("item", Some(item)) => Some(item.to_owned()),
            _ => None,
        };
        let argv = command.iter().map(|arg| fill(arg, false, value)).collect();
        let mut task = self.base(argv);
        if let Some(item) = item {
            set(&mut task.env, "PRISM_MAP_ITEM", item.to_owned());
        }
        task
    }

    fn sweep_task<'a>(&'a self, sweep: &'a SweepWork, index: u32) -> Option<TaskCommand<'a>> {
        if sweep.is_aggregate(index) {
            let aggregate = sweep.aggregate.as_ref()?;
            let mut task = self.base(aggregate.command.clone());
            add_files(&mut task.files, &aggregate.files);
            return Some(task);
        }
        let (point_index, runner_index) = sweep.beam(index)?;
        let runner = sweep.runners.get(usize::try_from(runner_index).ok()?)?;
        let point = sweep.point(point_index)?;
        Some(self.beam_task(runner, &point, index))
    }

    fn beam_task<'a>(&'a self, runner: &'a Runner, point: &Point, index: u32) -> TaskCommand<'a> {
        let value = |name: &str| match (point.iter().find(|(n, _)| n == name), name) {
            (Some((_, value)), _) => Some(plain_text(value)),
            (None, "index") => Some(index.to_string()),
            (None, "runner") => Some(runner.name.clone()),
            (None, _) => None,
        };
        let argv = runner
            .command
            .iter()
            .map(|arg| fill(arg, true, value))
            .collect();
        let mut task = self.base(argv);
        add_files(&mut task.files, &runner.files);
        let params = point_json(point).to_string();
        set(&mut task.env, "PRISM_RUNNER", runner.name.clone());
        for (name, value) in point {
            let name = format!("PRISM_PARAM_{}", name.to_ascii_uppercase());
            set(&mut task.env, &name, plain_text(value));
        }
        set(&mut task.env, "PRISM_PARAMS", params.clone());
        task.inline_files.push(InlineFile {
            path: "params.json".to_owned(),
            content: (params + "\n").into_bytes(),
            mode: 0o644,
        });
        task
    }
}

impl SweepWork {
    /// The point and the runner of a beam, or `None` if the index is no beam.
    pub fn beam(&self, index: u32) -> Option<(u32, u32)> {
        let runners = u32::try_from(self.runners.len()).ok().filter(|n| *n > 0)?;
        (index < self.beam_count()).then_some((index / runners, index % runners))
    }

    /// Whether a task is the aggregate.
    pub fn is_aggregate(&self, index: u32) -> bool {
        self.aggregate_index() == Some(index)
    }
}

/// A point as a JSON object.
pub fn point_json(point: &Point) -> Value {
    Value::Object(point.iter().cloned().collect())
}

/// A value for a command line or variable: texts without quotes.
fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: String) {
    match env.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => *old = value,
        None => env.push((name.to_owned(), value)),
    }
}

/// A program's own files take the place of shared ones of the same path.
fn add_files<'a>(files: &mut Vec<&'a FileSpec>, own: &'a [FileSpec]) {
    files.retain(|f| own.iter().all(|o| o.path != f.path));
    files.extend(own);
}
