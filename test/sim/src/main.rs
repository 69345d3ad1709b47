//! `prism-sim`: runs seeds of the simulation, one of them with its trace, or the planted faults.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use prism_sim::bugs::Bug;
use prism_sim::runner::{self, BUG_SEEDS};
use prism_sim::world::{STEPS, run};

const USAGE: &str = "usage: prism-sim [--seeds N] [--first S] [--steps N] [--minutes M] [--counts]
       prism-sim --seed S [--bug NAME] [--trace]
       prism-sim --bugs [--first S]";

#[derive(Default)]
struct Wanted {
    seeds: u64,
    first: u64,
    steps: u64,
    minutes: Option<f64>,
    seed: Option<u64>,
    trace: bool,
    bugs: bool,
    bug: Option<Bug>,
    counts: bool,
}

fn main() -> ExitCode {
    match wanted().and_then(|w| carry_out(&w)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("prism-sim: {e:#}");
            ExitCode::from(1)
        }
    }
}

fn wanted() -> Result<Wanted> {
    let mut wanted = Wanted {
        seeds: runner::ENOUGH,
        first: 1,
        steps: STEPS,
        ..Wanted::default()
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        match name.as_str() {
            "--trace" => wanted.trace = true,
            "--bugs" => wanted.bugs = true,
            "--counts" => wanted.counts = true,
            "--help" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            _ => {
                let value = args.next();
                let value = value.with_context(|| format!("{name} needs a value\n{USAGE}"))?;
                let number = || value.parse::<u64>().context("expected a number");
                match name.as_str() {
                    "--seeds" => wanted.seeds = number()?,
                    "--first" => wanted.first = number()?,
                    "--steps" => wanted.steps = number()?,
                    "--seed" => wanted.seed = Some(number()?),
                    "--minutes" => wanted.minutes = Some(value.parse()?),
                    "--bug" => wanted.bug = Some(value.parse()?),
                    other => bail!("unknown argument {other}\n{USAGE}"),
                }
            }
        }
    }
    Ok(wanted)
}

fn carry_out(wanted: &Wanted) -> Result<()> {
    if let Some(seed) = wanted.seed {
        let outcome = run(seed, wanted.bug, wanted.steps, wanted.trace);
        return match runner::failure(seed, wanted.bug, &outcome) {
            Some(failure) => bail!("{failure}"),
            None => Ok(()),
        };
    }
    if wanted.bugs {
        return bugs(wanted);
    }
    let until = wanted
        .minutes
        .map(|m| Instant::now() + Duration::from_secs_f64(m * 60.0));
    let sum = runner::many(wanted.first, wanted.seeds, until, wanted.steps)?;
    if wanted.counts {
        for (what, times) in &sum.seen {
            println!("{times:>9}  {what}");
        }
    }
    println!("{sum}");
    Ok(())
}

fn bugs(wanted: &Wanted) -> Result<()> {
    let mut missed = Vec::new();
    let chosen = Bug::ALL.iter().copied();
    for bug in chosen.filter(|b| wanted.bug.is_none_or(|w| w == *b)) {
        match runner::find(bug, wanted.first) {
            Some((seed, how)) => println!("{:<26}seed {seed:<5} {how}", bug.name()),
            None => missed.push(bug.name()),
        }
    }
    if !missed.is_empty() {
        bail!("not found within {BUG_SEEDS} seeds: {}", missed.join(", "));
    }
    println!("all planted faults are found");
    Ok(())
}
