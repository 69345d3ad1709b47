//! `job`: submit, look, wait, results, logs, and what can be done to one.

mod logs;
mod results;
mod submit;
mod wait;

use clap::Subcommand;
use prism_api::{JobView, Op};
use prism_client::Ask;
use prism_types::{JobState, LEASE_KILL, LEASE_WAIT, TimeMs};
use serde_json::Value;

use crate::exit::{Done, Exit, Failure};
use crate::listing::{ListArgs, show};
use crate::output::{Column, Out, Table, human};
use crate::server::{Server, now, typed, typed_all};

pub(crate) use logs::copy;
pub use results::{compact, table as task_table};
pub use submit::send;
pub use wait::{Follow, LOOK_MIN, best, ended, interruptible, scalar};

/// Label by which `run` finds its runs again.
pub const RUN_LABEL: &str = "prism-run-digest";

/// Submit jobs, look at them, and get their results.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl job submit examples/hello-job/job.yaml --wait
  prismctl job submit --array 1000 --wait -- sh -c 'echo $PRISM_TASK_INDEX'
  prismctl job ls --state RUNNING --watch
  prismctl job results hello -o ndjson
  prismctl job logs hello --task 3 --follow

A job is named by its id, or by its name: then the newest of that name is meant.")]
pub enum JobCommand {
    /// Submit a job file, or one command many times
    Submit(submit::SubmitArgs),
    /// List jobs, newest first, sweeps included
    Ls {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Show one job
    Get {
        /// Id or name
        job: String,
    },
    /// Wait until a job is over, and say how far it is meanwhile
    Wait {
        /// Id or name
        job: String,
    },
    /// Print the recorded result of each task, by index
    Results(results::ResultsArgs),
    /// Print the output of one task
    Logs(logs::LogsArgs),
    /// End a job; what has completed keeps its result
    Cancel {
        /// Id or name
        job: String,
    },
    /// Run the failed and cancelled tasks of a job again
    Retry {
        /// Id or name
        job: String,
    },
    /// Place nothing new of a job; what runs goes on
    Pause {
        /// Id or name
        job: String,
    },
    /// Go on with a job after a pause
    Resume {
        /// Id or name
        job: String,
    },
}

impl JobCommand {
    /// The job it names, and whether it changes something.
    pub fn about(&self) -> (Option<String>, bool) {
        match self {
            Self::Submit(_) => (None, true),
            Self::Ls { .. } => (None, false),
            Self::Get { job } | Self::Wait { job } => (Some(job.clone()), false),
            Self::Results(args) => (Some(args.job.clone()), false),
            Self::Logs(args) => (Some(args.job.clone()), false),
            Self::Cancel { job }
            | Self::Retry { job }
            | Self::Pause { job }
            | Self::Resume { job } => (Some(job.clone()), true),
        }
    }
}

/// Narrows lists of jobs and sweeps.
#[derive(clap::Args, Debug)]
pub struct WhichArgs {
    /// Only those in this state
    #[arg(long, value_parser = state)]
    state: Option<JobState>,
    /// Only those with this name
    #[arg(long)]
    name: Option<String>,
}

impl WhichArgs {
    /// Adds what is wanted to a question.
    pub fn narrow(&self, ask: Ask) -> Ask {
        ask.maybe("state", self.state)
            .maybe("name", self.name.as_ref())
    }
}

fn state(s: &str) -> Result<JobState, String> {
    let found = JobState::ALL
        .iter()
        .find(|j| j.as_str().eq_ignore_ascii_case(s));
    found.copied().ok_or_else(|| {
        let all: Vec<_> = JobState::ALL.iter().map(|j| j.as_str()).collect();
        format!("expected one of {}", all.join(", "))
    })
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: JobCommand, server: &Server, out: &Out) -> Done {
    match command {
        JobCommand::Submit(args) => return submit::run(args, server, out).await,
        JobCommand::Ls { list, which } => {
            let ask = which.narrow(list.narrow(Ask::new(Op::JobList)));
            show(server, out, ask, list.limit, list.watch, listing).await?;
        }
        JobCommand::Get { job } => {
            let answer = server.ask(Ask::new(Op::JobGet).at(job)).await?;
            one(&answer, out)?;
        }
        JobCommand::Wait { job } => return wait::run(&job, server, out).await,
        JobCommand::Results(args) => return results::run(&args, server, out).await,
        JobCommand::Logs(args) => return logs::run(&args, server, out).await,
        JobCommand::Cancel { job } => act(Op::JobCancel, job, server, out).await?,
        JobCommand::Retry { job } => act(Op::JobRetry, job, server, out).await?,
        JobCommand::Pause { job } => act(Op::JobPause, job, server, out).await?,
        JobCommand::Resume { job } => act(Op::JobResume, job, server, out).await?,
    }
    Ok(Exit::Ok)
}

async fn act(op: Op, job: String, server: &Server, out: &Out) -> Result<(), Failure> {
    let answer = server.ask(Ask::new(op).at(job)).await?;
    one(&answer, out)
}

/// Shows one job.
///
/// # Errors
/// When the answer is none, or the output cannot be written.
pub fn one(answer: &Value, out: &Out) -> Result<(), Failure> {
    let job: JobView = typed(answer)?;
    out.doc(answer, || fields(&job, now()))
}

/// The state as lists show it.
pub fn shown_state(status: JobState, paused: bool) -> String {
    if paused && !status.is_final() {
        format!("{status},PAUSED")
    } else {
        status.to_string()
    }
}

fn listing(items: &[Value]) -> Result<Table, Failure> {
    let mut t = Table::new([
        ("id", Column::Whole),
        ("name", Column::Cut),
        ("kind", Column::Extra),
        ("status", Column::Whole),
        ("done", Column::Right),
        ("failed", Column::ExtraRight),
        ("age", Column::ExtraRight),
    ]);
    let now = now();
    for job in typed_all::<JobView>(items)? {
        t.row([
            job.id.to_string(),
            job.name.clone(),
            job.kind.to_string(),
            shown_state(job.status, job.paused),
            format!("{}/{}", job.counts.done(), job.counts.total),
            job.counts.failed.to_string(),
            human::age(job.created, now),
        ]);
    }
    Ok(t)
}

fn fields(job: &JobView, now: TimeMs) -> Table {
    let mut t = Table::fields();
    let c = &job.counts;
    t.row(["id", &job.id.to_string()]);
    t.row(["name", &job.name]);
    t.row(["namespace", &job.namespace]);
    t.row(["kind", job.kind.as_str()]);
    if !job.task.is_empty() {
        t.row(["task", &job.task]);
    }
    t.row(["status", &shown_state(job.status, job.paused)]);
    if let Some(message) = &job.message {
        t.row(["why", message]);
    }
    t.row(["tasks", &human::count(c.total)]);
    for (name, n) in [
        ("  queued", c.queued),
        ("  assigned", c.assigned),
        ("  running", c.running),
        ("  retrying", c.retrying),
        ("  completed", c.completed),
        ("  failed", c.failed),
        ("  cancelled", c.cancelled),
    ] {
        if n > 0 {
            t.row([name, &human::count(n)]);
        }
    }
    let single = job.spec.as_ref().map(|spec| &spec["single_instance"]);
    if single == Some(&Value::Bool(true)) {
        t.row([
            "single instance",
            &format!("a run ends {LEASE_KILL} after its node's last confirmed word; the next begins {LEASE_WAIT} after it at the earliest"),
        ]);
    }
    if !job.after.is_empty() {
        t.row(["after", &job.after.join(", ")]);
    }
    let labels: Vec<String> = job
        .labels
        .iter()
        // That of `prismctl run` is its own affair.
        .filter(|(k, _)| k.as_str() != RUN_LABEL)
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    if !labels.is_empty() {
        t.row(["labels", &labels.join(", ")]);
    }
    t.row(["created", &human::moment(job.created)]);
    if let Some(started) = job.started {
        t.row(["started", &human::moment(started)]);
        t.row([
            "took",
            &human::duration(job.finished.unwrap_or(now).since(started)),
        ]);
    }
    t
}
