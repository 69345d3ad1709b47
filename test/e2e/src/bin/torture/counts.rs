//! What happened, and whether it was enough and well.

use std::collections::BTreeMap;
use std::time::Duration;

use prism_e2e::Acknowledged;
use prism_e2e::chaos::Loaded;
use serde_json::{Value, json};

use crate::epoch::Phase;
use crate::fault::Fault;

/// Share of requests that must have succeeded, percent: less shows nothing.
const ENOUGH: u64 = 40;

/// What happened so far.
#[derive(Debug)]
pub struct Counts {
    seed: u64,
    seconds: u64,
    jobs: u64,
    tasks: u64,
    sandboxes: u64,
    sweeps: u64,
    controls: u64,
    done: u64,
    failed: u64,
    recoveries: u64,
    faults: BTreeMap<Fault, u64>,
    lost: u64,
    doubled: u64,
    left_over: u64,
}

impl Counts {
    /// Nothing yet.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            seconds: 0,
            jobs: 0,
            tasks: 0,
            sandboxes: 0,
            sweeps: 0,
            controls: 0,
            done: 0,
            failed: 0,
            recoveries: 0,
            faults: BTreeMap::new(),
            lost: 0,
            doubled: 0,
            left_over: 0,
        }
    }

    /// A fault was given, and survived.
    pub fn survived(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
        self.recoveries += u64::from(fault.is_kill() || fault.ends_prismd());
    }

    /// An epoch's load.
    pub fn loaded(&mut self, loaded: &Loaded) {
        self.done += loaded.done;
        self.failed += loaded.failed;
    }

    /// What an epoch's oracle knows in the end.
    pub fn acknowledged(&mut self, all: Acknowledged) {
        self.jobs += all.jobs;
        self.tasks += all.tasks;
        self.sandboxes += all.sandboxes;
    }

    /// A job with all its tasks that no oracle knows of.
    pub fn run(&mut self, tasks: u64) {
        self.jobs += 1;
        self.tasks += tasks;
    }

    /// A sweep that came out right.
    pub fn sweep(&mut self) {
        self.sweeps += 1;
    }

    /// A job that was cancelled, or paused and resumed, and did what it was told.
    pub fn control(&mut self) {
        self.controls += 1;
    }

    /// Something is not as it must be.
    pub fn wrong(&mut self, phase: Phase, what: &str) {
        let twice = what.contains(" times") || what.contains("is now job");
        let count = match phase {
            Phase::Recovery => &mut self.left_over,
            _ if twice => &mut self.doubled,
            _ => &mut self.lost,
        };
        *count += 1;
    }

    /// Whether all was well so far.
    pub fn is_well(&self) -> bool {
        self.lost + self.doubled + self.left_over == 0
    }

    /// How long it took.
    pub fn took(&mut self, time: Duration) {
        self.seconds = time.as_secs();
    }

    fn percent(&self) -> u64 {
        (self.done * 100)
            .checked_div(self.done + self.failed)
            .unwrap_or(0)
    }

    /// Why a run that was well shows nothing all the same.
    pub fn complaint(&self) -> Option<String> {
        let never = Fault::ALL.iter().find(|f| !self.faults.contains_key(f));
        if let Some(fault) = never {
            return Some(format!("{} never happened", fault.name()));
        }
        let percent = self.percent();
        (percent < ENOUGH).then(|| format!("only {percent} % of the requests succeeded"))
    }

    /// One line.
    pub fn line(&self) -> String {
        let kills: u64 = self
            .faults
            .iter()
            .filter(|(f, _)| f.is_kill())
            .map(|(_, n)| n)
            .sum();
        format!(
            "{} jobs, {} tasks, {} sandboxes, {kills} kills, {} recoveries, {} % of requests done; lost {}, doubled {}, left over {}",
            self.jobs,
            self.tasks,
            self.sandboxes,
            self.recoveries,
            self.percent(),
            self.lost,
            self.doubled,
            self.left_over
        )
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let of = |kills: bool| -> Value {
            let these = Fault::ALL
                .iter()
                .filter(|f| f.is_kill() == kills && **f != Fault::None);
            these
                .map(|f| (f.name().to_owned(), json!(self.faults.get(f).unwrap_or(&0))))
                .collect()
        };
        json!({
            "seed": self.seed, "seconds": self.seconds,
            "jobs_acknowledged": self.jobs, "tasks_recorded": self.tasks,
            "sandboxes": self.sandboxes, "sweeps": self.sweeps, "controls": self.controls,
            "requests": {"done": self.done, "failed": self.failed, "done_percent": self.percent()},
            "kills": of(true), "recoveries": self.recoveries, "faults": of(false),
            "lost": self.lost, "doubled": self.doubled, "left_over": self.left_over,
            "complaint": self.complaint(),
        })
    }
}
