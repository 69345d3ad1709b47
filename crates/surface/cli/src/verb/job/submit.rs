//! `job submit`: a file, or one command many times.

use std::path::PathBuf;

use clap::Args;
use prism_api::Op;
use prism_client::Ask;
use prism_spec::Submission;
use prism_types::{Bytes, MilliCpu, Name};
use serde_json::{Map, Value, json};

use super::wait;
use crate::exit::{Done, Exit, Failure};
use crate::output::{Format, Out};
use crate::server::Server;
use crate::spec_file;
use crate::verb::token::duration_text;

/// Submit a job file, or one command many times.
#[derive(Args, Debug)]
#[command(
    override_usage = "prismctl job submit FILE [OPTIONS]\n       prismctl job submit [--array N] [OPTIONS] -- COMMAND...",
    after_help = "\
Examples:
  prismctl job submit job.yaml --wait
  prismctl job submit - < job.yaml
  prismctl job submit --array 100 --cpu 250m -- sh -c 'echo $PRISM_TASK_INDEX'

The id of the job is printed on standard output. Repeating a submission under
the same --key is safe."
)]
pub struct SubmitArgs {
    /// Job or sweep file in YAML, JSON or TOML; `-` is standard input
    #[arg(required_unless_present = "command", conflicts_with = "command")]
    file: Option<PathBuf>,
    /// Wait until it is over; the exit code says how it went
    #[arg(short, long)]
    wait: bool,
    /// Call it so, instead of as the file says
    #[arg(long)]
    name: Option<Name>,
    /// Submitting twice under one key is the same as once
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// Run the command so many times
    #[arg(long, value_name = "N", requires = "command", conflicts_with = "file")]
    array: Option<u32>,
    /// Root file system of the command
    #[arg(long, requires = "command", conflicts_with = "file")]
    image: Option<String>,
    /// Processor time of each task, such as 500m
    #[arg(long, requires = "command", conflicts_with = "file")]
    cpu: Option<MilliCpu>,
    /// Memory of each task, such as 256Mi
    #[arg(long, requires = "command", conflicts_with = "file")]
    memory: Option<Bytes>,
    /// How often a failed task is tried again
    #[arg(long, value_name = "N", requires = "command", conflicts_with = "file")]
    retries: Option<u32>,
    /// Longest time of one attempt, such as 5m
    #[arg(long, value_name = "TIME", requires = "command", conflicts_with = "file", value_parser = duration_text)]
    time_limit: Option<String>,
    /// Most tasks at once
    #[arg(long, value_name = "N", requires = "command", conflicts_with = "file")]
    concurrency: Option<u32>,
    /// Program and arguments of a job without a file; `{index}` and $PRISM_TASK_INDEX are the task's number
    #[arg(last = true)]
    command: Vec<String>,
}

/// Submits, and waits if asked to.
///
/// # Errors
/// When the file is wrong, or what the server says.
pub async fn run(args: SubmitArgs, server: &Server, out: &Out) -> Done {
    let mut submission = match &args.file {
        Some(file) => spec_file::submission(file)?,
        None => spec_file::inline(&inline(&args))?,
    };
    if let Some(name) = args.name {
        submission.spec.name = name;
    }
    spec_file::place(&mut submission, server.target().namespace.as_ref());
    let answer = send(server, &submission, args.key).await?;
    submitted(&answer, args.wait, server, out).await
}

/// Sends a job or sweep; answers what the server says of it.
///
/// # Errors
/// What the server says.
pub async fn send(
    server: &Server,
    submission: &Submission,
    key: Option<String>,
) -> Result<Value, Failure> {
    let op = if submission.spec.sweep().is_some() {
        Op::SweepSubmit
    } else {
        Op::JobSubmit
    };
    let mut ask = Ask::new(op).json(&submission.to_wire());
    if let Some(key) = key {
        ask = ask.key(key);
    }
    server.ask(ask).await
}

/// Prints the id, or waits and prints what came of it.
async fn submitted(answer: &Value, wait: bool, server: &Server, out: &Out) -> Done {
    let id = answer["id"].as_str().unwrap_or_default().to_owned();
    if wait {
        out.note(&format!("job {id} is submitted"));
        return wait::run(&id, server, out).await;
    }
    if out.format == Format::Table {
        let name = answer["name"].as_str().unwrap_or_default();
        let total = answer["counts"]["total"].as_u64().unwrap_or(0);
        out.print(&format!("{id}\n"))?;
        let tasks = crate::output::human::plural(total, "task");
        out.note(&format!(
            "{name}: {tasks} accepted; wait for it with `prismctl job wait {id}`"
        ));
    } else {
        out.doc(answer, crate::output::Table::fields)?;
    }
    Ok(Exit::Ok)
}

fn inline(args: &SubmitArgs) -> Value {
    let mut job = Map::new();
    let name = args.name.as_ref().map_or("command", Name::as_str);
    job.insert("job".into(), json!(name));
    job.insert("command".into(), json!(args.command));
    job.insert("array".into(), json!(args.array.unwrap_or(1)));
    let mut resources = Map::new();
    let put = |map: &mut Map<String, Value>, name: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(name.to_owned(), value);
        }
    };
    put(&mut resources, "cpu", args.cpu.map(|c| json!(c)));
    put(&mut resources, "memory", args.memory.map(|m| json!(m)));
    put(&mut job, "image", args.image.as_ref().map(|i| json!(i)));
    put(&mut job, "retries", args.retries.map(|r| json!(r)));
    put(
        &mut job,
        "timeout",
        args.time_limit.as_ref().map(|t| json!(t)),
    );
    put(&mut job, "concurrency", args.concurrency.map(|c| json!(c)));
    if !resources.is_empty() {
        job.insert("resources".into(), Value::Object(resources));
    }
    Value::Object(job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SubmitArgs,
    }

    fn parse(line: &[&str]) -> Result<SubmitArgs, clap::Error> {
        Line::try_parse_from(std::iter::once(&"submit").chain(line)).map(|l| l.args)
    }

    #[test]
    fn a_command_is_the_same_as_a_file() {
        let args = parse(&[
            "--array",
            "7",
            "--cpu",
            "250m",
            "--retries",
            "1",
            "--time-limit",
            "5m",
            "--",
            "echo",
            "{index}",
        ]);
        let s = spec_file::inline(&inline(&args.unwrap())).unwrap();
        assert_eq!(s.spec.task_count(), 7);
        assert_eq!(s.spec.resources.cpu, MilliCpu(250));
        assert_eq!(
            (s.spec.retries, s.spec.timeout.map(|t| t.0)),
            (1, Some(300_000))
        );
    }

    #[test]
    fn a_file_and_a_command_exclude_each_other() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["f.yaml", "--", "true"]).is_err());
        assert!(parse(&["f.yaml", "--array", "3"]).is_err());
        assert!(parse(&["--array", "-1", "--", "true"]).is_err());
        assert!(parse(&["f.yaml", "--wait"]).is_ok());
    }
}
