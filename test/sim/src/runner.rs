//! Many seeds one after the other: counts, the check that a seed replays, and the proof that planted faults are found.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bugs::Bug;
use crate::world::{Outcome, STEPS, run};

/// One seed in so many is run twice, and has to go the same way.
const REPLAYED: u64 = 100;
/// Seeds within which a planted fault is found.
pub const BUG_SEEDS: u64 = 500;
/// From so many seeds on everything that should sometimes happen has to have happened.
pub const ENOUGH: u64 = 2_000;
/// Tries in a hundred that have to succeed.
const CARRIED_OUT: u64 = 30;

/// What has to happen in some run.
const SOMETIMES: &[&str] = &[
    "a daemon was stuck",
    "a daemon fell while its runs went on",
    "a disk was full",
    "a disk was slow",
    "a fence refused a write",
    "a leader learned from its fence that it is deposed",
    "a job was over while its worker was away",
    "a leader lost in mid-commit",
    "a leader took over",
    "a leader was asked to hand over",
    "a learner became a voter",
    "a lease ended a run",
    "a lease was renewed",
    "a message doubled",
    "a message lost",
    "a node went offline",
    "a one-way partition",
    "a repeated submit was answered from its key",
    "a request passed on to the leader",
    "a request was repeated",
    "a result came again, or too late",
    "a server fell while it wrote",
    "a server was replaced",
    "a server fell right after its vote",
    "a session broke",
    "a snapshot installed",
    "a snapshot taken",
    "a supervisor died",
    "a sync failed",
    "a torn log tail dropped",
    "a wall clock jumped",
    "a watch fell behind what is kept",
    "a worker came back with a superseded run",
    "a worker came back with what it was thought to have",
    "a worker came back without what it had started",
    "a worker's machine lost power",
    "a worker was asked what it holds",
    "a worker was replaced",
    "a write passed on by a deposed leader",
    "all servers fell at once",
    "an offline node was heard of in its old session",
    "an unsynced write lost",
    "somebody stood still",
];

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Sum {
    /// Seeds.
    pub seeds: u64,
    /// Of them run twice.
    pub replayed: u64,
    /// Events.
    pub steps: u64,
    /// Jobs that clients were told of.
    pub jobs: u64,
    /// Requests carried out, and tries.
    pub requests: (u64, u64),
    /// How often things happened that should sometimes.
    pub seen: BTreeMap<&'static str, u64>,
    /// Time it took.
    pub took: Duration,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{} seeds in {seconds:.1} s ({:.0} a second), {} of them twice: {} events, {} requests carried out in {} tries, {} jobs; all invariants hold",
            self.seeds,
            self.seeds as f64 / seconds.max(0.001),
            self.replayed,
            self.steps,
            self.requests.0,
            self.requests.1,
            self.jobs
        )
    }
}

/// What a failed run is told as.
pub fn failure(seed: u64, bug: Option<Bug>, outcome: &Outcome) -> Option<String> {
    let violation = outcome.violation.as_ref()?;
    let planted = bug.map_or(String::new(), |b| format!(" --bug {}", b.name()));
    Some(format!(
        "seed {seed} breaks {}: {}\nthe last of what happened:\n{}replay it: cargo run --release -p prism-sim -- --seed {seed}{planted} --trace",
        violation.invariant, violation.what, outcome.trace
    ))
}

/// Runs seeds until there are enough of them or the time is over.
///
/// # Errors
/// When something does not hold, with all that is needed to replay it.
pub fn many(first: u64, seeds: u64, until: Option<Instant>, steps: u64) -> Result<Sum> {
    let started = Instant::now();
    let mut sum = Sum::default();
    let mut seed = first;
    loop {
        let over = match until {
            Some(until) => Instant::now() >= until,
            None => sum.seeds >= seeds,
        };
        if over {
            break;
        }
        let outcome = run(seed, None, steps, false);
        if let Some(failure) = failure(seed, None, &outcome) {
            bail!("{failure}");
        }
        if seed.is_multiple_of(REPLAYED) {
            sum.replayed += 1;
            let again = run(seed, None, steps, false);
            if again.fingerprint != outcome.fingerprint {
                bail!("seed {seed} does not replay: two runs of it differ");
            }
        }
        let (done, tries) = outcome.requests;
        if outcome.jobs == 0 || done == 0 {
            bail!(
                "seed {seed}: only {done} requests were carried out in {tries} tries, and {} jobs: the run shows nothing",
                outcome.jobs
            );
        }
        sum.seeds += 1;
        sum.steps += outcome.steps;
        sum.jobs += outcome.jobs as u64;
        sum.requests.0 += outcome.requests.0;
        sum.requests.1 += outcome.requests.1;
        for (what, times) in outcome.seen {
            *sum.seen.entry(what).or_default() += times;
        }
        seed += 1;
    }
    sum.took = started.elapsed();
    judge(&sum)?;
    Ok(sum)
}

/// Whether the runs did enough to mean anything.
fn judge(sum: &Sum) -> Result<()> {
    if sum.requests.0 * 100 < sum.requests.1 * CARRIED_OUT {
        let (done, all) = sum.requests;
        bail!("only {done} requests were carried out in {all} tries: such runs show nothing");
    }
    if sum.seeds < ENOUGH {
        return Ok(());
    }
    let never: Vec<&str> = {
        let all = SOMETIMES.iter().copied();
        all.filter(|what| !sum.seen.contains_key(what)).collect()
    };
    if !never.is_empty() {
        bail!(
            "over {} seeds there never was: {}",
            sum.seeds,
            never.join("; ")
        );
    }
    Ok(())
}

/// The seed that finds a planted fault, and the invariant that it breaks.
pub fn find(bug: Bug, first: u64) -> Option<(u64, String)> {
    (first..first + BUG_SEEDS).find_map(|seed| {
        let violation = run(seed, Some(bug), STEPS, false).violation?;
        Some((seed, format!("{}: {}", violation.invariant, violation.what)))
    })
}
