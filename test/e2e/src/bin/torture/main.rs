//! The long mode: a random mix of load, kills, faults of disk and clock against one node, checked against what was acknowledged.
//! Run by `cargo xtask torture`; prints a line a minute and one JSON object at the end.

#![forbid(unsafe_code)]

mod counts;
mod epoch;
mod fault;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use prism_e2e::chaos::{Daemon, Shim, Wanted};
use prism_e2e::{Leftovers, Oracle, Sandboxes};

use counts::Counts;
use epoch::{Epoch, Phase};
use fault::Fault;

/// Epochs whose jobs are looked at again after every further epoch.
const RECENT: usize = 4;

fn main() -> ExitCode {
    match Wanted::of_arguments(30).and_then(|wanted| torture(&wanted)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("torture: {e:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs until the time is over or something is wrong; whether all was well.
fn torture(wanted: &Wanted) -> Result<bool> {
    let mut random = wanted.random("torture");
    println!(
        "torture: {} minutes, seed {}",
        wanted.minutes,
        random.seed()
    );
    let mut counts = Counts::new(random.seed());
    let shim = Shim::new()?;
    let [preload, control] = shim.env();
    let mut daemon = Daemon::new()
        .with_env(preload.0, preload.1)
        .with_env(control.0, control.1);
    daemon.start()?;
    let mut leftovers = Leftovers::default();
    leftovers.note(&daemon.place);
    let mut oracles: Vec<Oracle> = Vec::new();
    let began = Instant::now();
    let (mut told, mut number) = (0, 0);
    while began.elapsed() < Duration::from_secs(wanted.minutes * 60) && counts.is_well() {
        // Each kind in turn first, then at random: none is left out of a short run.
        let fault = *Fault::ALL
            .get(number)
            .unwrap_or_else(|| random.of_these(Fault::ALL));
        let mut epoch = Epoch {
            number,
            fault,
            phase: Phase::Load,
            daemon: &mut daemon,
            shim: &shim,
            random: &mut random,
            counts: &mut counts,
            oracles: &mut oracles,
        };
        let result = catch_unwind(AssertUnwindSafe(|| epoch.run()));
        let phase = epoch.phase;
        let result = result.unwrap_or_else(|_| bail!("see the panic above"));
        if let Err(e) = result {
            println!(
                "epoch {number}, {fault:?}, {phase:?}: {e:?}\n{}",
                daemon.stderr()
            );
            counts.wrong(phase, &format!("{e:?}"));
        }
        number += 1;
        let minute = began.elapsed().as_secs() / 60;
        if minute > told {
            told = minute;
            println!("{minute:>3} min  {}", counts.line());
        }
    }
    if counts.is_well() {
        finish(&mut daemon, &mut oracles, &leftovers, &mut counts);
    }
    counts.took(began.elapsed());
    println!("{}", counts.json());
    Ok(counts.is_well() && counts.complaint().is_none())
}

/// All that was ever acknowledged is looked at once more, and nothing is left when the node has ended.
fn finish(daemon: &mut Daemon, oracles: &mut [Oracle], leftovers: &Leftovers, counts: &mut Counts) {
    let api = daemon.api().clone();
    for oracle in oracles {
        if let Err(e) = oracle.check(&api, Sandboxes::MayBeLost) {
            println!("at the end: {e:?}");
            counts.wrong(Phase::Check, &format!("{e:?}"));
        }
    }
    let ended = catch_unwind(AssertUnwindSafe(|| {
        daemon.stop().map(|output| output.expect(0))?;
        leftovers.assert_none(&daemon.place);
        daemon.place.assert_no_panic();
        anyhow::Ok(())
    }));
    if !matches!(ended, Ok(Ok(()))) {
        counts.wrong(Phase::Recovery, "the node did not end as it should");
    }
}
