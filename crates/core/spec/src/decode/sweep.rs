//! A sweep: what runs, over which space, and what is best.

use super::common::is_identifier;
use super::{common, files};
use crate::cursor::Cursor;
use crate::draft::{Draft, Program, SweepDraft, WorkDraft};
use crate::error::{SpecError, quoted};
use crate::job::JobSpec;
use crate::limits;
use crate::sweep::{Dimension, Direction, EarlyStop, Halving, Objective, Search, SweepWork};

const FIELDS: &[&str] = &[
    "sweep",
    "namespace",
    "group",
    "task",
    "command",
    "script",
    "runners",
    "space",
    "search",
    "objective",
    "early_stop",
    "aggregate",
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

pub(super) fn sweep(top: &Cursor<'_>) -> Result<Draft, SpecError> {
    top.only("a table with sweep: at its top", FIELDS)?;
    let spec = common::base(top, "sweep")?;
    let space = match top.get("space") {
        Some(c) => space(&c)?,
        None => Vec::new(),
    };
    let objective = top.get("objective").map(|c| objective(&c)).transpose()?;
    let early_stop = top
        .get("early_stop")
        .map(|c| early_stop(&c, objective.as_ref()))
        .transpose()?;
    let search = search(top, &space)?;
    let program = files::program(top, false)?;
    let draft = SweepDraft {
        runners: runners(top, &program)?,
        aggregate: top.get("aggregate").map(|c| aggregate(&c)).transpose()?,
        work: SweepWork {
            runners: Vec::new(),
            space,
            search,
            objective,
            early_stop,
            aggregate: None,
        },
        at: top.spot(),
    };
    let points = u64::from(draft.work.point_count());
    let beams = points * draft.runners.len().max(1) as u64;
    if beams >= u64::from(JobSpec::TASKS_MAX) {
        let most = JobSpec::TASKS_MAX;
        return Err(top.error(format!(
            "{points} points for each of {} runners; at most {most} tasks in one sweep",
            draft.runners.len()
        )));
    }
    Ok(Draft {
        spec,
        files: files::files(top)?,
        work: WorkDraft::Sweep(Box::new(draft)),
        program,
    })
}

/// `{name: {script | command, files}}`; empty when the sweep's own program is its one runner.
fn runners(top: &Cursor<'_>, own: &Program) -> Result<Vec<(String, Program)>, SpecError> {
    let Some(table) = top.get("runners") else {
        return Ok(Vec::new());
    };
    if own.command.is_some() || own.script.is_some() {
        return Err(table.error("runners together with command or script: expected one of them"));
    }
    let entries = table.entries("a table of runners, by name")?;
    if entries.is_empty() || entries.len() > limits::RUNNERS_MAX {
        let most = limits::RUNNERS_MAX;
        return Err(table.error(format!("{} runners; from 1 to {most}", entries.len())));
    }
    entries
        .iter()
        .map(|entry| {
            let c = table.enter(entry);
            let ok = (1..=63).contains(&entry.key.len())
                && entry
                    .key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            if !ok {
                return Err(c.error(format!(
                    "{} cannot name a runner: expected 1 to 63 letters, digits, _ and -",
                    quoted(&entry.key)
                )));
            }
            Ok((entry.key.to_string(), runner(&c, "a script or command")?))
        })
        .collect()
}

fn runner(c: &Cursor<'_>, what: &str) -> Result<Program, SpecError> {
    c.only(what, &["script", "command", "files"])?;
    files::program(c, true)
}

/// A command, or a table as a runner is.
fn aggregate(c: &Cursor<'_>) -> Result<Program, SpecError> {
    if c.is_table() {
        return runner(c, "a script or command");
    }
    Ok(Program {
        command: Some(files::command(c)?),
        script: None,
        files: Vec::new(),
        at: c.spot(),
    })
}

fn space(table: &Cursor<'_>) -> Result<Vec<(String, Dimension)>, SpecError> {
    let entries = table.entries("a table of parameters")?;
    if entries.len() > limits::PARAMETERS_MAX {
        let most = limits::PARAMETERS_MAX;
        return Err(table.error(format!("{} parameters; at most {most}", entries.len())));
    }
    let mut space: Vec<(String, Dimension)> = Vec::with_capacity(entries.len());
    for entry in entries {
        let c = table.enter(entry);
        if !is_identifier(&entry.key, 64) {
            return Err(c.error(format!(
                "{} cannot name a parameter: expected 1 to 64 letters, digits and _, not starting with a digit",
                quoted(&entry.key)
            )));
        }
        if let Some((other, _)) = space
            .iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(&entry.key))
        {
            return Err(c.error(format!(
                "differs from {other} only by case, so both would be the variable PRISM_PARAM_{}",
                other.to_ascii_uppercase()
            )));
        }
        space.push((entry.key.to_string(), dimension(&c)?));
    }
    Ok(space)
}

const FORMS: &str = "a list of values, or one of {choice: [...]}, {range: [from, to, step]}, {uniform: [low, high]} and {log_uniform: [low, high]}";

fn dimension(c: &Cursor<'_>) -> Result<Dimension, SpecError> {
    if c.is_list() {
        return choice(c);
    }
    c.only(
        FORMS,
        &["choice", "range", "uniform", "log_uniform", "steps"],
    )?;
    let steps = c.get("steps");
    let steps_count = steps.map(|s| s.count(1, limits::POINTS_MAX)).transpose()?;
    let forms = ["choice", "range", "uniform", "log_uniform"].map(|form| c.get(form));
    if let (Some(s), [Some(_), _, _, _] | [_, Some(_), _, _]) = (&steps, &forms) {
        return Err(s.error("steps goes with uniform and log_uniform only"));
    }
    match forms {
        [Some(form), None, None, None] => choice(&form),
        [None, Some(form), None, None] => range(&form),
        [None, None, Some(form), None] => {
            let (low, high) = bounds(&form, -1e300)?;
            let steps = steps_count;
            Ok(Dimension::Uniform { low, high, steps })
        }
        [None, None, None, Some(form)] => {
            let (low, high) = bounds(&form, 1e-300)?;
            let steps = steps_count;
            Ok(Dimension::LogUniform { low, high, steps })
        }
        _ => Err(c.error(format!("expected {FORMS}"))),
    }
}

fn choice(c: &Cursor<'_>) -> Result<Dimension, SpecError> {
    let values = c
        .items("a list of values", limits::CHOICES_MAX)?
        .map(|item| item.json_scalar("a text, number or truth value"))
        .collect::<Result<Vec<_>, _>>()?;
    if values.is_empty() {
        return Err(c.error("nothing to choose from: expected at least one value"));
    }
    Ok(Dimension::Choice(values))
}

fn range(c: &Cursor<'_>) -> Result<Dimension, SpecError> {
    let what = "[from, to] or [from, to, step] in whole numbers";
    let items: Vec<Cursor<'_>> = c.items(what, 3)?.collect();
    let (Some(from), Some(to)) = (items.first(), items.get(1)) else {
        return Err(c.error(format!("expected {what}")));
    };
    let edge = 1 << 53;
    let (low, high) = (from.whole(-edge, edge)?, to.whole(-edge, edge)?);
    if low > high {
        return Err(c.error(format!(
            "from {low} down to {high}: expected the lower one first"
        )));
    }
    let step = items.get(2).map_or(Ok(1), |s| s.whole(1, edge))?;
    Ok(Dimension::Range {
        from: low,
        to: high,
        step,
    })
}

fn bounds(c: &Cursor<'_>, lowest: f64) -> Result<(f64, f64), SpecError> {
    let items: Vec<Cursor<'_>> = c.items("[low, high]", 2)?.collect();
    let [low, high] = items.as_slice() else {
        return Err(c.error("expected [low, high]"));
    };
    let (low, high) = (low.number(lowest, 1e300)?, high.number(lowest, 1e300)?);
    if low < high {
        Ok((low, high))
    } else {
        Err(c.error(format!(
            "from {low} to {high}: expected the lower one first"
        )))
    }
}

/// `grid`, `{grid: true}` or `{random: N, seed: S}`; a grid where nothing is said.
fn search(top: &Cursor<'_>, space: &[(String, Dimension)]) -> Result<Search, SpecError> {
    let what = "grid, or {random: N, seed: S}";
    let Some(c) = top.get("search") else {
        return grid(top, space);
    };
    if let Some(word) = c.as_text() {
        return match word {
            "grid" => grid(&c, space),
            _ => Err(c.error(format!("expected {what}, found {}", quoted(word)))),
        };
    }
    c.only(what, &["grid", "random", "seed"])?;
    match (c.get("grid"), c.get("random")) {
        (Some(on), None) if on.is_true() => grid(&c, space),
        (None, Some(n)) => Ok(Search::Random {
            points: n.count(1, limits::POINTS_MAX)?,
            seed: match c.get("seed") {
                None => 0,
                Some(seed) => u64::try_from(seed.whole(0, i64::MAX)?).expect("it is not negative"),
            },
        }),
        _ => Err(c.error(format!("expected {what}"))),
    }
}

fn grid(c: &Cursor<'_>, space: &[(String, Dimension)]) -> Result<Search, SpecError> {
    let mut points: u64 = 1;
    for (name, dimension) in space {
        if let Dimension::Uniform { steps: None, .. } | Dimension::LogUniform { steps: None, .. } =
            dimension
        {
            return Err(c.error(format!(
                "a grid over {name}, which takes any number between two: give it steps: N, or add search: {{random: N, seed: S}}"
            )));
        }
        points = points.saturating_mul(dimension.grid_len());
    }
    let most = limits::POINTS_MAX;
    if points > u64::from(most) {
        return Err(c.error(format!(
            "a grid of {points} points; at most {most}: take fewer values, or search: {{random: N, seed: S}}"
        )));
    }
    Ok(Search::Grid)
}

/// A field of the results: a name without control characters.
fn metric(c: &Cursor<'_>) -> Result<String, SpecError> {
    let text = c.text("the name of a field of the result", 128)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(c.error("expected the name of a field of the result"));
    }
    Ok(text.to_owned())
}

fn objective(c: &Cursor<'_>) -> Result<Objective, SpecError> {
    let what = "{maximize: field} or {minimize: field}";
    c.only(what, &["maximize", "minimize"])?;
    let (direction, field) = match (c.get("maximize"), c.get("minimize")) {
        (Some(field), None) => (Direction::Maximize, field),
        (None, Some(field)) => (Direction::Minimize, field),
        _ => return Err(c.error(format!("expected {what}"))),
    };
    Ok(Objective {
        direction,
        metric: metric(&field)?,
    })
}

fn early_stop(c: &Cursor<'_>, objective: Option<&Objective>) -> Result<EarlyStop, SpecError> {
    c.only("{halving: {metric, rounds}}", &["halving"])?;
    let h = c.need("halving")?;
    h.only(
        "a table of metric, rounds, factor, first and direction",
        &["metric", "rounds", "factor", "first", "direction"],
    )?;
    let direction = match h.get("direction") {
        None => objective.map_or(Direction::Maximize, |o| o.direction),
        Some(d) => match d.text("maximize or minimize", 64)? {
            "maximize" => Direction::Maximize,
            "minimize" => Direction::Minimize,
            other => {
                let found = quoted(other);
                return Err(d.error(format!("expected maximize or minimize, found {found}")));
            }
        },
    };
    let metric = match (h.get("metric"), objective) {
        (Some(m), _) => metric(&m)?,
        (None, Some(o)) => o.metric.clone(),
        (None, None) => return Err(h.error("\"metric\" is missing")),
    };
    Ok(EarlyStop::Halving(Halving {
        metric,
        direction,
        rounds: h.need("rounds")?.count(1, 16)?,
        factor: h.get("factor").map_or(Ok(2), |f| f.count(2, 16))?,
        first: h.get("first").map_or(Ok(1), |f| f.count(1, 1_000_000))?,
    }))
}
