//! `sweep`: parameter sweeps on a server.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use prism_api::{BeamStatus, Op, SweepSummary, SweepView};
use prism_client::Ask;
use prism_types::Millis;
use serde_json::Value;

use super::job::{self, WhichArgs, compact, shown_state};
use crate::exit::{Done, Exit, Failure};
use crate::listing::{ListArgs, show};
use crate::output::{Column, Out, Table, human};
use crate::server::{Server, now, typed, typed_all};
use crate::spec_file;

/// Submit parameter sweeps to a server and look at them.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Examples:
  prismctl sweep run examples/digits/sweep.yaml
  prismctl sweep ls
  prismctl sweep get digits-learning-rate -o json

Without a server, `prismctl run FILE` runs a sweep on this machine.")]
pub enum SweepCommand {
    /// Submit a sweep file, wait for it, and print its result
    Run(SweepRunArgs),
    /// List sweeps, newest first
    Ls {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Show one sweep with all its beams
    Get {
        /// Id or name
        sweep: String,
    },
    /// End a sweep; beams that have completed keep their result
    Cancel {
        /// Id or name
        sweep: String,
    },
    /// Go on with a sweep after a pause
    Resume {
        /// Id or name
        sweep: String,
    },
}

impl SweepCommand {
    /// The sweep it names, and whether it changes something.
    pub fn about(&self) -> (Option<String>, bool) {
        match self {
            Self::Run(_) => (None, true),
            Self::Ls { .. } => (None, false),
            Self::Get { sweep } => (Some(sweep.clone()), false),
            Self::Cancel { sweep } | Self::Resume { sweep } => (Some(sweep.clone()), true),
        }
    }
}

/// Submit a sweep file, wait for it, and print its result.
#[derive(Args, Debug)]
pub struct SweepRunArgs {
    /// Sweep file in YAML, JSON or TOML; `-` is standard input
    file: PathBuf,
    /// Only submit it, and print its id
    #[arg(short, long)]
    detach: bool,
}

/// Does it.
///
/// # Errors
/// What the server says, or when the output cannot be written.
pub async fn run(command: SweepCommand, server: &Server, out: &Out) -> Done {
    match command {
        SweepCommand::Run(args) => return submit(&args, server, out).await,
        SweepCommand::Ls { list, which } => {
            let ask = which.narrow(list.narrow(Ask::new(Op::SweepList)));
            show(server, out, ask, list.limit, list.watch, listing).await?;
        }
        SweepCommand::Get { sweep } => {
            let answer = server.ask(Ask::new(Op::SweepGet).at(sweep)).await?;
            one(&answer, out)?;
        }
        SweepCommand::Cancel { sweep } => {
            let answer = server.ask(Ask::new(Op::SweepCancel).at(sweep)).await?;
            one(&answer, out)?;
        }
        SweepCommand::Resume { sweep } => {
            let answer = server.ask(Ask::new(Op::SweepResume).at(sweep)).await?;
            one(&answer, out)?;
        }
    }
    Ok(Exit::Ok)
}

async fn submit(args: &SweepRunArgs, server: &Server, out: &Out) -> Done {
    let mut submission = spec_file::submission(&args.file)?;
    if submission.spec.sweep().is_none() {
        return Err(
            Failure::usage(format!("{} holds a job, not a sweep", args.file.display()))
                .next(format!("prismctl job submit {}", args.file.display())),
        );
    }
    spec_file::place(&mut submission, server.target().namespace.as_ref());
    let answer = job::send(server, &submission, None).await?;
    let sweep: SweepView = typed(&answer)?;
    if args.detach {
        out.print(&format!("{}\n", sweep.id))?;
        return Ok(Exit::Ok);
    }
    let id = sweep.id.to_string();
    out.note(&format!("sweep {id} is submitted"));
    let mut follow = job::Follow::new(out);
    let over = job::interruptible(follow.until_over(server, &id, job::LOOK_MIN)).await?;
    drop(follow);
    if over.is_none() {
        out.note(&format!(
            "no longer waiting; the sweep goes on: prismctl job wait {id}"
        ));
        return Ok(Exit::Interrupted);
    }
    let answer = server.ask(Ask::new(Op::SweepGet).at(id)).await?;
    one(&answer, out)?;
    Ok(ended(&typed(&answer)?))
}

/// Shows one sweep.
///
/// # Errors
/// When the answer is none, or the output cannot be written.
pub fn one(answer: &Value, out: &Out) -> Result<(), Failure> {
    let sweep: SweepView = typed(answer)?;
    if out.format != crate::output::Format::Table {
        return out.doc(answer, Table::fields);
    }
    let table = beams(&sweep);
    if !table.is_empty() {
        out.table(&table)?;
        out.print("\n")?;
    }
    out.table(&fields(&sweep))
}

/// The exit code that goes with how a sweep ended. A beam that was given up early by rule is no failure.
pub fn ended(sweep: &SweepView) -> Exit {
    let well = |s: &BeamStatus| matches!(s, BeamStatus::Done | BeamStatus::EarlyStopped);
    let counted = sweep.counts.failed + sweep.counts.cancelled == 0;
    let all_well = (!sweep.truncated || counted)
        && sweep.pending.is_empty()
        && sweep.completed.iter().all(|b| well(&b.status))
        && sweep
            .aggregate
            .as_ref()
            .is_none_or(|a| a.status.eq_ignore_ascii_case("done"));
    match job::ended(sweep.status) {
        Exit::Partial if all_well => Exit::Ok,
        other => other,
    }
}

fn listing(items: &[Value]) -> Result<Table, Failure> {
    let mut t = Table::new([
        ("id", Column::Whole),
        ("name", Column::Cut),
        ("status", Column::Whole),
        ("done", Column::Right),
        ("failed", Column::ExtraRight),
        ("best", Column::Cut),
        ("age", Column::ExtraRight),
    ]);
    let now = now();
    for s in typed_all::<SweepSummary>(items)? {
        t.row([
            s.id.to_string(),
            s.name,
            shown_state(s.status, s.paused),
            format!("{}/{}", s.counts.done(), s.counts.total),
            s.counts.failed.to_string(),
            s.best.map_or(String::new(), |b| compact(&b.result)),
            human::age(s.created, now),
        ]);
    }
    Ok(t)
}

/// Beams that are over, best first: the point, how it ended, the fields of its result.
fn beams(sweep: &SweepView) -> Table {
    let runners = sweep.runners.len() > 1;
    let metrics = result_fields(sweep);
    let mut columns = vec![("beam".to_owned(), Column::Right)];
    if runners {
        columns.push(("runner".to_owned(), Column::Cut));
    }
    columns.extend(sweep.parameters.iter().map(|p| (p.clone(), Column::Right)));
    columns.push(("status".to_owned(), Column::Whole));
    columns.extend(metrics.iter().map(|m| (m.clone(), Column::Cut)));
    columns.push(("time".to_owned(), Column::Right));
    let troubled = sweep
        .completed
        .iter()
        .any(|b| b.status == BeamStatus::Failed);
    if troubled {
        columns.push(("why".to_owned(), Column::Cut));
    }
    let mut t = Table::with(columns);
    for i in ranked(sweep) {
        let beam = &sweep.completed[i];
        let mut row = vec![beam.index.to_string()];
        if runners {
            row.push(beam.runner.clone());
        }
        row.extend(
            sweep
                .parameters
                .iter()
                .map(|p| beam.point.get(p).map_or(String::new(), job::scalar)),
        );
        row.push(beam.status.to_string());
        let field = |m: &String| {
            beam.result
                .as_ref()
                .and_then(|r| r.get(m))
                .map_or(String::new(), job::scalar)
        };
        row.extend(metrics.iter().map(field));
        row.push(
            beam.wall_ms
                .map_or(String::new(), |ms| human::duration(Millis(ms))),
        );
        if troubled {
            row.push(
                beam.message
                    .clone()
                    .filter(|_| beam.status == BeamStatus::Failed)
                    .unwrap_or_default(),
            );
        }
        t.row(row);
    }
    t
}

/// Fields that results have, the objective's first; at most eight, so that the table stays readable. Parameters that a
/// result repeats are left out.
fn result_fields(sweep: &SweepView) -> Vec<String> {
    let mut names: Vec<String> = sweep.objective.iter().map(|o| o.metric.clone()).collect();
    for beam in &sweep.completed {
        let fields = beam.result.as_ref().and_then(Value::as_object);
        for name in fields.into_iter().flat_map(|f| f.keys()) {
            if names.len() < 8 && !names.contains(name) && !sweep.parameters.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names
}

/// Indexes into `completed`: by the objective, then those without a value, each by index.
fn ranked(sweep: &SweepView) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sweep.completed.len()).collect();
    let Some(objective) = &sweep.objective else {
        return order;
    };
    let sign = if objective.direction == "minimize" {
        1.0
    } else {
        -1.0
    };
    let key = |i: &usize| {
        let beam = &sweep.completed[*i];
        let value = beam
            .result
            .as_ref()
            .and_then(|r| r.get(&objective.metric))
            .and_then(Value::as_f64);
        (
            beam.status != BeamStatus::Done,
            value.map_or(f64::INFINITY, |v| v * sign),
        )
    };
    order.sort_by(|a, b| {
        let ((ad, av), (bd, bv)) = (key(a), key(b));
        ad.cmp(&bd).then(av.total_cmp(&bv)).then(a.cmp(b))
    });
    order
}

fn fields(sweep: &SweepView) -> Table {
    let mut t = Table::fields();
    let c = &sweep.counts;
    t.row(["id", &sweep.id.to_string()]);
    t.row(["name", &sweep.name]);
    if !sweep.task.is_empty() {
        t.row(["task", &sweep.task]);
    }
    t.row(["status", &shown_state(sweep.status, sweep.paused)]);
    if let Some(message) = &sweep.message {
        t.row(["why", message]);
    }
    let stopped = sweep
        .completed
        .iter()
        .filter(|b| b.status == BeamStatus::EarlyStopped)
        .count();
    let mut beams = format!(
        "{} of {} over",
        human::count(c.done()),
        human::count(c.total)
    );
    for (n, what) in [
        (stopped as u64, "stopped early"),
        (c.failed, "failed"),
        (c.running, "running"),
    ] {
        if n > 0 {
            beams.push_str(&format!(", {} {what}", human::count(n)));
        }
    }
    t.row(["beams", &beams]);
    if sweep.truncated {
        t.row([
            "not shown",
            "all beams: they are too many for one answer; prismctl job results prints each",
        ]);
    }
    if let Some(best) = &sweep.best {
        t.row([
            "best",
            job::best(best, sweep.objective.as_ref()).trim_start_matches("best "),
        ]);
    }
    for r in sweep.results.iter().flatten() {
        let output = r.output.as_ref().map_or_else(|| r.status.clone(), compact);
        t.row([&format!("runner {}", r.runner), &output]);
    }
    if let Some(a) = &sweep.aggregate {
        let said = a.result.as_ref().map(compact).or_else(|| a.message.clone());
        t.row(["aggregate", &said.unwrap_or_else(|| a.status.clone())]);
    }
    if let (Some(started), Some(finished)) = (sweep.started, sweep.finished) {
        t.row(["took", &human::duration(finished.since(started))]);
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use prism_api::Described;
    use serde_json::json;

    /// The sample of the wire type with these fields: it keeps working when others are added.
    fn sample(status: &str, beams: Value) -> SweepView {
        let mut v = serde_json::to_value(SweepView::sample()).unwrap();
        let fields = json!({
            "status": status, "completed": beams, "pending": [], "aggregate": null, "parameters": ["lr"],
            "runners": ["main"], "truncated": false, "objective": {"direction": "maximize", "metric": "accuracy"},
        });
        v.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        serde_json::from_value(v).unwrap()
    }

    fn beam(index: u32, status: &str, accuracy: Value) -> Value {
        json!({"index": index, "point": {"lr": 0.1}, "runner": "main", "status": status,
               "result": {"accuracy": accuracy, "loss\u{1b}": 0.5}, "attempt": 1, "node": "n", "started": 1,
               "wall_ms": 1500, "cpu_us": 1, "memory_peak": 1})
    }

    #[test]
    fn beams_are_shown_best_first_and_safely() {
        let s = sample(
            "COMPLETED",
            json!([
                beam(0, "done", json!(0.5)),
                beam(1, "early_stopped", json!(0.99)),
                beam(2, "done", json!(0.9)),
                beam(3, "done", json!("text"))
            ]),
        );
        assert_eq!(ranked(&s), [2, 0, 3, 1]);
        let shown = beams(&s).render(Some(80), |_| None);
        assert!(shown.starts_with("BEAM   LR  STATUS"), "{shown}");
        assert!(
            shown.contains("LOSS\\X1B") && !shown.contains('\u{1b}'),
            "{shown}"
        );
        assert!(shown.lines().all(|l| crate::output::text::width(l) <= 80));
    }

    #[test]
    fn early_stopped_beams_are_fine() {
        let fine = json!([
            beam(0, "done", json!(1)),
            beam(1, "early_stopped", json!(0))
        ]);
        let bad = json!([beam(0, "done", json!(1)), beam(1, "failed", json!(0))]);
        assert_eq!(ended(&sample("COMPLETED", fine.clone())), Exit::Ok);
        assert_eq!(ended(&sample("PARTIALLY_COMPLETED", fine)), Exit::Ok);
        assert_eq!(ended(&sample("PARTIALLY_COMPLETED", bad)), Exit::Partial);
        assert_eq!(ended(&sample("FAILED", json!([]))), Exit::Failure);
    }
}
