//! `cargo xtask test`: the groups, in order and then in two lanes, quiet unless something fails, and a last line that sums them up.

pub mod build;
mod groups;
mod readme;
mod report;
mod session;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::repo::Repo;
use groups::{Beside, GROUPS, Group};
use report::{Outcome, Report};
use session::Session;

/// How many programs `--times` names.
const SLOWEST: usize = 40;

struct Wanted {
    require_all: bool,
    times: bool,
    groups: Vec<&'static Group>,
}

/// Runs the groups that the arguments name.
pub fn main(repo: &Repo, args: &[String]) -> Result<ExitCode> {
    if args.iter().any(|a| a == "--list") {
        for group in GROUPS {
            println!("{:<14}{}", group.name, group.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = parse(args)?;
    let mut session = Session::new(repo)?;
    let mut report = Report::new(wanted.require_all);
    if wanted.groups.iter().any(|g| g.needs_build) {
        let started = Instant::now();
        let built = session.build()?;
        report.add("build", started.elapsed(), built);
    }
    let report = Mutex::new(report);
    run_all(&wanted.groups, &session, &report)?;
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    if wanted.times {
        println!("{:>10} {:>6}  program", "time", "busy");
        for took in session.slowest(SLOWEST) {
            let seconds = took.time.as_secs_f64();
            println!("{seconds:>8.1} s {:>4} %  {}", took.busy, took.program);
        }
    }
    Ok(report.finish())
}

/// First what has nothing beside it; then what works in one lane, and what waits in another.
fn run_all(groups: &[&'static Group], session: &Session<'_>, report: &Mutex<Report>) -> Result<()> {
    let lane = |beside: Beside, session: &Session<'_>| {
        for group in groups.iter().filter(|g| g.beside == beside) {
            let (took, outcome) = run(group, session);
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            report.add(group.name, took, outcome);
        }
    };
    lane(Beside::Nothing, session);
    let other = session.beside()?;
    std::thread::scope(|scope| {
        scope.spawn(|| lane(Beside::Working, &other));
        lane(Beside::Waiting, session);
    });
    Ok(())
}

fn run(group: &Group, session: &Session<'_>) -> (Duration, Outcome) {
    let started = Instant::now();
    let outcome = if group.needs_build && !session.is_built() {
        Outcome::broken("not run: the build failed".to_owned())
    } else {
        (group.run)(session).unwrap_or_else(|e| Outcome::broken(format!("{e:#}")))
    };
    (started.elapsed(), outcome)
}

fn parse(args: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted {
        require_all: false,
        times: false,
        groups: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--require" => match args.next().map(String::as_str) {
                Some("all") => wanted.require_all = true,
                other => bail!("--require expects all, found {other:?}"),
            },
            "--times" => wanted.times = true,
            "--require=all" => wanted.require_all = true,
            name => match GROUPS.iter().find(|g| g.name == name) {
                Some(group) => wanted.groups.push(group),
                None => {
                    let names: Vec<_> = GROUPS.iter().map(|g| g.name).collect();
                    bail!("no group {name:?}: expected {}", names.join(", "));
                }
            },
        }
    }
    if wanted.groups.is_empty() {
        wanted.groups = GROUPS.iter().collect();
    }
    Ok(wanted)
}
