//! What happened, and whether it was enough and well.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::jobs::Recorded;

/// Share of calls that must have been answered, percent: less shows nothing.
const ENOUGH: u64 = 40;
/// Texts of errors that are kept.
const TEXTS: usize = 60;

/// What is known of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// It was done, or refused by what the register holds.
    Known,
    /// It was certainly not done.
    Undone,
    /// Nobody knows.
    Unknown,
}

/// Calls of a kind: known, not done, unknown.
type Three = [u64; 3];

/// What a fault came to.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    applied: u64,
    /// The longest time until every server took a write again.
    longest: Duration,
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct Counts {
    seed: u64,
    /// The kinds of fault that belong to the run.
    wanted: &'static [Fault],
    calls: BTreeMap<&'static str, Three>,
    errors: BTreeMap<String, u64>,
    faults: BTreeMap<Fault, Met>,
    took: Duration,
    registers: u64,
    checked: u64,
    silence: Duration,
    recorded: Recorded,
    wrong: Option<String>,
}

impl Counts {
    /// Nothing yet, of a run of which these kinds of fault are to be given.
    pub fn new(seed: u64, wanted: &'static [Fault]) -> Self {
        Self {
            seed,
            wanted,
            ..Self::default()
        }
    }

    /// A call has ended, maybe with this error.
    pub fn call(&mut self, kind: &'static str, ended: Ended, error: Option<String>) {
        self.calls.entry(kind).or_default()[ended as usize] += 1;
        if ended == Ended::Known {
            return;
        }
        let Some(error) = error else { return };
        // What differs from call to call is left out: numbers and ids.
        let mut text: String = error.chars().take(160).collect();
        text.retain(|c| !c.is_ascii_digit());
        if self.errors.len() < TEXTS || self.errors.contains_key(&text) {
            *self.errors.entry(text).or_default() += 1;
        }
    }

    /// A fault was given, and all servers took writes again after so long.
    pub fn survived(&mut self, fault: Fault, after: Duration) {
        let met = self.faults.entry(fault).or_default();
        met.applied += 1;
        met.longest = met.longest.max(after);
    }

    /// Histories were checked: registers, calls, and the longest time without a write that was acknowledged.
    pub fn checked(&mut self, registers: u64, calls: u64, silence: Duration) {
        self.registers = registers;
        self.checked = calls;
        self.silence = silence;
    }

    /// What the jobs came to.
    pub fn recorded(&mut self, recorded: Recorded) {
        self.recorded = recorded;
    }

    /// How long it took.
    pub fn took(&mut self, time: Duration) {
        self.took = time;
    }

    /// Something is not as it must be; the first is kept.
    pub fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// Faults that were given.
    pub fn faults(&self) -> u64 {
        self.faults.values().map(|m| m.applied).sum()
    }

    fn percent(&self) -> u64 {
        let all: u64 = self.calls.values().flatten().sum();
        let known: u64 = self.calls.values().map(|of| of[0]).sum();
        (known * 100).checked_div(all).unwrap_or(0)
    }

    /// Why the run fails, if it does: something was wrong, or it shows nothing.
    pub fn complaint(&self) -> Option<String> {
        if self.wrong.is_some() {
            return self.wrong.clone();
        }
        if let Some(fault) = self.wanted.iter().find(|f| !self.faults.contains_key(f)) {
            return Some(format!("{} was never applied", fault.name()));
        }
        let percent = self.percent();
        if percent < ENOUGH {
            return Some(format!("only {percent} % of the calls were answered"));
        }
        let kinds = ["put", "create", "set", "remove", "get", "submit"];
        if let Some(kind) = kinds
            .iter()
            .find(|k| self.calls.get(**k).is_none_or(|of| of[0] == 0))
        {
            return Some(format!("no {kind} was ever answered"));
        }
        let nothing = self.checked == 0 || self.recorded.tasks == 0;
        nothing.then(|| "no history was checked, or no task recorded".to_owned())
    }

    /// A line for each minute.
    pub fn line(&self) -> String {
        let all: u64 = self.calls.values().flatten().sum();
        format!(
            "{all} calls, {} % answered; {} faults",
            self.percent(),
            self.faults()
        )
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let calls: serde_json::Map<_, _> = self
            .calls
            .iter()
            .map(|(kind, [known, undone, unknown])| {
                let of = json!({"answered": known, "not_done": undone, "unknown": unknown});
                ((*kind).to_owned(), of)
            })
            .collect();
        let faults: serde_json::Map<_, _> = self
            .wanted
            .iter()
            .map(|fault| {
                let met = self.faults.get(fault).copied().unwrap_or_default();
                let ms = u64::try_from(met.longest.as_millis()).unwrap_or(u64::MAX);
                let of = json!({"applied": met.applied, "writes_again_ms_max": ms});
                (fault.name().to_owned(), of)
            })
            .collect();
        json!({
            "seed": self.seed, "seconds": self.took.as_secs(),
            "calls": calls, "answered_percent": self.percent(),
            "faults": faults, "faults_applied": self.faults(),
            "registers_checked": self.registers, "calls_checked": self.checked,
            "longest_without_a_write_ms": u64::try_from(self.silence.as_millis()).unwrap_or(u64::MAX),
            "jobs": self.recorded.jobs, "tasks_recorded_once": self.recorded.tasks,
            "submissions_repeated": self.recorded.repeated, "attempts_beyond_the_first": self.recorded.attempts,
            "errors": self.errors, "complaint": self.complaint(),
        })
    }
}
