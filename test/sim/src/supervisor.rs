//! A worker's supervisor: its process table and its journal. It outlives the daemon. What has ended is written down before it is
//! told, and kept until it is to be forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use prism_spec::JobSpec;
use prism_types::{ExitStatus, Millis, Resources, RunReport, StopCause, TaskRef, TimeMs};

use crate::bugs::Bug;
use crate::invariants::{Held, no_node_is_overcommitted};
use crate::sim::{Addr, Sim, Timer, task_note};
use crate::work;
use crate::worker::Worker;

/// A process, or what is remembered of one.
#[derive(Clone, Debug)]
pub struct Run {
    resources: Resources,
    endless: bool,
    /// Its program runs (or ran).
    pub begun: bool,
    /// Since when.
    pub started: TimeMs,
    /// Tells this run from another one of the same attempt.
    pub nonce: u64,
    /// It is not to live beyond this moment of its machine's clock.
    pub lease: Option<u64>,
    /// It was told to stop.
    pub stopping: bool,
    /// How it ended, and what it printed.
    pub exited: Option<(RunReport, Option<String>)>,
    /// That is written down.
    pub journaled: bool,
}

/// The process table of a node.
pub type Runs = BTreeMap<TaskRef, Run>;

/// A run begins that may be the only one.
fn single_begins(sim: &mut Sim, task: TaskRef, machine: u32, until: u64) -> Held {
    let (paused, now) = (&sim.paused, sim.now);
    // Whoever stands still wakes no earlier than now; drift is far below what a lease leaves.
    let still = |no| {
        let until = paused.get(&Addr::Worker(no)).copied();
        until.filter(|until| *until > now).map(|_| now)
    };
    sim.truth.singles.begins(task, (machine, until), still)
}

fn report(run: &Run, exit: ExitStatus, cause: StopCause, now: TimeMs) -> RunReport {
    RunReport {
        exit,
        cause,
        wall: now.since(run.started),
        cpu_us: run.nonce % 1_000_000,
        ..RunReport::not_started(run.started, "")
    }
}

impl Worker {
    fn wall(&self, sim: &Sim) -> TimeMs {
        TimeMs(self.clock.wall(sim.now))
    }

    fn supervise(&self, sim: &mut Sim, wait: u64, timer: Timer) {
        sim.timer(self.addr(), self.boot, wait, timer);
    }

    /// The daemon hands a task over.
    pub fn launch(&mut self, sim: &mut Sim, task: TaskRef, spec: &Arc<JobSpec>) {
        let run = Run {
            resources: spec.resources,
            endless: work::is_endless(work::number(spec)),
            begun: false,
            started: self.wall(sim),
            nonce: sim.rng.draw() >> 16,
            lease: self.lease.filter(|_| spec.single_instance),
            stopping: false,
            exited: None,
            journaled: false,
        };
        let nonce = run.nonce;
        if let Some(until) = run.lease {
            let left = until.saturating_sub(self.clock.monotonic(sim.now));
            self.supervise(sim, left, Timer::Lease(task, nonce));
        }
        self.runs.insert(task, run);
        let wait = sim.rng.within(1, 15);
        self.supervise(sim, wait, Timer::Begin(task));
    }

    /// Its program starts.
    pub fn on_begin(&mut self, sim: &mut Sim, task: TaskRef) {
        let now = self.wall(sim);
        let clock = self.clock.monotonic(sim.now);
        let Some(run) = self.runs.get_mut(&task) else {
            return;
        };
        if run.begun || run.exited.is_some() {
            return;
        }
        run.begun = true;
        run.started = now;
        let lease = run.lease;
        if lease.is_some_and(|until| until <= clock) && !sim.has(Bug::LeaseOutlived) {
            let nonce = run.nonce;
            return self.exits(
                sim,
                task,
                nonce,
                ExitStatus::Unknown,
                StopCause::LeaseExpired,
            );
        }
        if let Some(until) = lease {
            let held = single_begins(sim, task, self.no, until);
            sim.check("single_runs_never_overlap", held);
        }
        sim.note(
            "run.begins",
            [u64::from(self.no), task_note(task), run.nonce],
        );
        let (nonce, endless, stopped) = (run.nonce, run.endless, run.stopping);
        let held = sim.truth.recorded.started(task);
        sim.check("what_is_recorded_never_runs_again", held);
        let live = self.runs.iter();
        let live = live.filter(|(_, r)| r.begun && r.exited.is_none() && !r.stopping);
        let held =
            no_node_is_overcommitted::starts(&self.capacity, live.map(|(t, r)| (t, &r.resources)));
        sim.check("no_node_is_overcommitted", held);
        if stopped {
            return self.supervise(sim, 1, Timer::Killed(task, nonce));
        }
        if !endless {
            let takes = match sim.rng.below(10) {
                0..=5 => sim.rng.within(20, 800),
                6..=8 => sim.rng.within(800, 5_000),
                _ => sim.rng.within(5_000, 60_000),
            };
            self.supervise(sim, takes, Timer::End(task, nonce));
        }
        self.on_started(task, now);
        self.tell(sim);
    }

    /// It ends by itself.
    pub fn on_end(&mut self, sim: &mut Sim, task: TaskRef, nonce: u64) {
        let code = if sim.rng.permille(180) { 1 } else { 0 };
        self.exits(sim, task, nonce, ExitStatus::Code(code), StopCause::None);
    }

    /// It ends because it was told to.
    pub fn on_killed(&mut self, sim: &mut Sim, task: TaskRef, nonce: u64) {
        self.exits(
            sim,
            task,
            nonce,
            ExitStatus::Signal(15),
            StopCause::Requested,
        );
    }

    /// Its lease may be over, or has been renewed.
    pub fn on_lease(&mut self, sim: &mut Sim, task: TaskRef, nonce: u64) {
        let clock = self.clock.monotonic(sim.now);
        let run = self.runs.get(&task).filter(|r| r.nonce == nonce);
        let Some(until) = run.filter(|r| r.exited.is_none()).and_then(|r| r.lease) else {
            return;
        };
        if clock < until {
            // A slow clock takes longer.
            let wait = (until - clock).max(1);
            return self.supervise(sim, wait, Timer::Lease(task, nonce));
        }
        if sim.has(Bug::LeaseOutlived) {
            return;
        }
        sim.sometimes("a lease ended a run");
        self.exits(
            sim,
            task,
            nonce,
            ExitStatus::Signal(9),
            StopCause::LeaseExpired,
        );
    }

    /// Runs that are not being ended have more time.
    pub fn renew(&mut self, sim: &mut Sim, tasks: &[TaskRef], until: u64) {
        for task in tasks {
            let run = self.runs.get_mut(task);
            let Some(run) = run.filter(|r| !r.stopping && r.exited.is_none()) else {
                continue;
            };
            if let Some(lease) = &mut run.lease {
                *lease = until.max(*lease);
                sim.truth.singles.renewed(*task, self.no, *lease);
            }
        }
    }

    fn exits(
        &mut self,
        sim: &mut Sim,
        task: TaskRef,
        nonce: u64,
        exit: ExitStatus,
        cause: StopCause,
    ) {
        let now = self.wall(sim);
        let running = self.runs.get_mut(&task).filter(|r| r.nonce == nonce);
        let Some(run) = running.filter(|r| r.begun && r.exited.is_none()) else {
            return;
        };
        let report = report(run, exit, cause, now);
        let result = (report.failure().is_none()).then(|| format!("{{\"run\":{nonce}}}"));
        sim.note("run.ends", [u64::from(self.no), task_note(task), nonce]);
        sim.truth.singles.ended(task, self.no);
        sim.truth
            .runs
            .ended(self.node, task, &report, result.as_deref());
        run.exited = Some((report, result));
        let slow = sim.rng.permille(60);
        let wait = if slow {
            sim.rng.within(100, 2_000)
        } else {
            sim.rng.within(1, 10)
        };
        self.supervise(sim, wait, Timer::Journaled(task, nonce));
        if sim.has(Bug::ReportedBeforeJournal) {
            self.on_exited(sim, task);
        }
    }

    /// Its end is written down: only now it is told.
    pub fn on_journaled(&mut self, sim: &mut Sim, task: TaskRef, nonce: u64) {
        let run = self.runs.get_mut(&task).filter(|r| r.nonce == nonce);
        let Some(run) = run.filter(|r| r.exited.is_some()) else {
            return;
        };
        run.journaled = true;
        if !sim.has(Bug::ReportedBeforeJournal) {
            self.on_exited(sim, task);
        }
    }

    /// Runs are told to stop, with some time to do so.
    pub fn stop_runs(&mut self, sim: &mut Sim, tasks: &[TaskRef], grace: Millis) {
        for task in tasks {
            let Some(run) = self.runs.get_mut(task) else {
                continue;
            };
            if run.stopping || run.exited.is_some() {
                continue;
            }
            run.stopping = true;
            sim.note("run.stops", [u64::from(self.no), task_note(*task), grace.0]);
            if run.begun {
                let nonce = run.nonce;
                let wait = 1 + sim.rng.below(grace.0 + 4);
                self.supervise(sim, wait, Timer::Killed(*task, nonce));
            }
        }
    }

    /// The supervisor dies, and another takes its place at once: what ran is lost, what was only handed over is not known.
    pub fn on_supervisor_death(&mut self, sim: &mut Sim) {
        if !self.on {
            return;
        }
        sim.note(
            "supervisor.dies",
            [u64::from(self.no), self.runs.len() as u64, 0],
        );
        sim.sometimes("a supervisor died");
        self.runs.retain(|_, run| run.begun);
        sim.truth.singles.lost(self.no);
        let now = self.wall(sim);
        let mut lost = Vec::new();
        for (task, run) in &mut self.runs {
            if run.journaled {
                continue;
            }
            let report = report(run, ExitStatus::Unknown, StopCause::Lost, now);
            run.exited = Some((report, None));
            run.journaled = true;
            lost.push(*task);
        }
        for task in lost {
            self.on_exited(sim, task);
        }
        self.on_restarted(sim);
    }
}
