//! One run: the cluster comes about, clients begin, faults come one after the other, all is healed, and everything is looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use prism_e2e::chaos::{Random, Wanted};

use crate::counts::Counts;
use crate::fault::Fault;
use crate::jobs::{self, Job};
use crate::linear::{Span, Verdict, check};
use crate::load::{self, Histories, Register};
use crate::register::{Answer, Ask, Call};
use crate::site::{Keeper, Site};

/// Clients of the registers.
const CLIENTS: usize = 4;
/// Steps of the search for each register.
const STEPS: u64 = 3_000_000;
/// Calls that are shown around one that has no place.
const AROUND: usize = 12;

fn held(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs it; whether all was well.
///
/// # Errors
/// When the cluster cannot be made here.
pub fn run(wanted: &Wanted, keeper: Keeper) -> Result<bool> {
    let mut random = wanted.random("chaos");
    let seed = random.seed();
    let minutes = wanted.minutes;
    println!("chaos: {minutes} minutes on {}, seed {seed}", keeper.name());
    let began = Instant::now();
    let counts = Mutex::new(Counts::new(seed, Fault::of(keeper)));
    let mut site = Site::new(keeper).context("the cluster does not come about")?;
    println!("{:>4} s  all are there", began.elapsed().as_secs());
    let done = catch_unwind(AssertUnwindSafe(|| {
        everything(wanted, &mut site, &mut random, &counts)
    }));
    let done = done.unwrap_or_else(|_| Err(anyhow!("see the panic above")));
    let logs = site.logs();
    let ended = match &done {
        Ok(()) => catch_unwind(AssertUnwindSafe(|| site.end()))
            .unwrap_or_else(|_| Err(anyhow!("see the panic above"))),
        Err(_) => Ok(()),
    };
    let mut counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    for e in [done.err(), ended.err()].into_iter().flatten() {
        counts.wrong(format!("{e:#}"));
    }
    counts.took(began.elapsed());
    println!("{}", counts.json());
    let Some(complaint) = counts.complaint() else {
        return Ok(true);
    };
    let kept = keep(seed, &logs)?;
    println!(
        "chaos: FAILED: {complaint}\nlogs: {kept}\nagain: cargo xtask chaos --store {} --minutes {minutes} --seed {seed}",
        keeper.name()
    );
    Ok(false)
}

/// Writes the logs of a failed run to where they stay.
fn keep(seed: u64, logs: &[(String, String)]) -> Result<String> {
    let directory = std::env::temp_dir().join(format!("prism-chaos-{seed}"));
    std::fs::create_dir_all(&directory)?;
    for (name, text) in logs {
        std::fs::write(directory.join(format!("{name}.log")), text)?;
    }
    Ok(directory.display().to_string())
}

/// All of it but the cluster's begin and end.
fn everything(
    wanted: &Wanted,
    site: &mut Site,
    random: &mut Random,
    counts: &Mutex<Counts>,
) -> Result<()> {
    let histories = Histories::new(random.seed());
    let stop = AtomicBool::new(false);
    let access = site.access.clone();
    let (faults, mut jobs) = std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let own = Random::of("client", random.number());
            let (access, histories, stop) = (&access, &histories, &stop);
            clients.push(scope.spawn(move || load::client(access, histories, counts, own, stop)));
        }
        let own = Random::of("jobs", random.number());
        let submits = scope.spawn(|| jobs::client(&access, counts, own, &stop));
        let faults = catch_unwind(AssertUnwindSafe(|| faults(wanted, site, random, counts)));
        stop.store(true, Ordering::Relaxed);
        let faults = faults.unwrap_or_else(|_| Err(anyhow!("see the panic above")));
        let mut ended = Ok(());
        for client in clients {
            let client = client
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a client panicked")));
            ended = ended.and(client);
        }
        let jobs = submits
            .join()
            .unwrap_or_else(|_| Err(anyhow!("a client panicked")));
        (faults.and(ended), jobs)
    });
    // What was seen is checked also when something else went wrong: it may be the reason.
    let healed = faults.and_then(|()| healed(site, counts, &histories, &mut jobs));
    let linear = histories_of(histories, counts);
    healed.and(linear)
}

/// One fault after the other: each kind once in an order of the seed, then at random until the time is over.
fn faults(
    wanted: &Wanted,
    site: &mut Site,
    random: &mut Random,
    counts: &Mutex<Counts>,
) -> Result<()> {
    let began = Instant::now();
    let all = Fault::of(site.keeper());
    let mut first: Vec<Fault> = all.to_vec();
    while !first.is_empty() || began.elapsed() < Duration::from_secs(wanted.minutes * 60) {
        let fault = match first.len() as u64 {
            0 => *random.of_these(all),
            n => first.swap_remove(random.below(n) as usize),
        };
        std::thread::sleep(Duration::from_millis(500) + random.moment(2_500));
        let given = Instant::now();
        let whom = fault
            .give(site, random)
            .with_context(|| format!("{} was not given", fault.name()))?;
        let took = given.elapsed();
        let after = site
            .takes_writes()
            .with_context(|| format!("after {} of {whom}", fault.name()))?;
        site.assert_runs()
            .with_context(|| format!("after {} of {whom}", fault.name()))?;
        let mut counts = held(counts);
        counts.survived(fault, after);
        println!(
            "{:>4} s  {} of {whom} for {:.1} s; writes at every server after {:.1} s more; {}",
            began.elapsed().as_secs(),
            fault.name(),
            took.as_secs_f64(),
            after.as_secs_f64(),
            counts.line()
        );
    }
    Ok(())
}

/// All is healed: the cluster converges, each job has its results once, each register is read once more.
fn healed(
    site: &mut Site,
    counts: &Mutex<Counts>,
    histories: &Histories,
    jobs: &mut Result<Vec<Job>>,
) -> Result<()> {
    site.heal()?;
    site.takes_writes()?;
    let took = site.all_there()?;
    println!("all are there again after {:.1} s", took.as_secs_f64());
    let jobs = match jobs {
        Ok(jobs) => jobs,
        Err(e) => bail!("the client of jobs: {e:#}"),
    };
    let recorded = jobs::check(&site.access, counts, jobs)?;
    held(counts).recorded(recorded);
    histories.read_all(&site.access, counts)
}

/// Checks every history.
fn histories_of(histories: Histories, counts: &Mutex<Counts>) -> Result<()> {
    let registers = histories.all();
    let calls: usize = registers.iter().map(|r| r.calls.len()).sum();
    let silence = silence(&registers);
    held(counts).checked(registers.len() as u64, calls as u64, silence);
    for register in &registers {
        match check(&crate::register::Register, &register.calls, STEPS) {
            Verdict::Linearizable => {}
            Verdict::Undecided => bail!("{} is not decided within {STEPS} steps", register.name),
            Verdict::Not { placed, stuck } => bail!(
                "the history of {} is not linearizable: {placed} of its {} calls can be put in order, then this has no place:\n{}",
                register.name,
                register.calls.len(),
                around(&register.calls, stuck)
            ),
        }
    }
    Ok(())
}

/// The longest time between two writes that were acknowledged, whatever the register.
fn silence(registers: &[Register]) -> Duration {
    let write = |s: &&Span<Call>| s.call.ask != Ask::Get && s.call.answer == Answer::Done;
    let calls = registers.iter().flat_map(|r| &r.calls);
    let mut ends: Vec<u64> = calls.filter(write).filter_map(|s| s.to).collect();
    ends.sort_unstable();
    let longest = ends.windows(2).map(|two| two[1] - two[0]).max();
    Duration::from_nanos(longest.unwrap_or(0))
}

/// The calls around one, in order of their begins, with times in milliseconds.
fn around(calls: &[Span<Call>], stuck: usize) -> String {
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|at| calls[*at].from);
    let place = order.iter().position(|at| *at == stuck).unwrap_or(0);
    let shown = order
        .iter()
        .skip(place.saturating_sub(AROUND))
        .take(2 * AROUND);
    let line = |at: &usize| {
        let span = &calls[*at];
        let ms = |t: u64| t as f64 / 1e6;
        let to = span
            .to
            .map_or_else(|| "?".to_owned(), |t| format!("{:.1}", ms(t)));
        let mark = if *at == stuck { ">" } else { " " };
        format!("{mark} {:.1} to {to} ms: {:?}", ms(span.from), span.call)
    };
    shown.map(line).collect::<Vec<_>>().join("\n")
}
