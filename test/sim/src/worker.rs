//! A worker's daemon, as `crates/plane/worker/src/session` has it: its queue, what it reports until that is acknowledged, and its
//! side of a session. What it runs is its supervisor's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prism_link::resume::{Holdings, Told};
use prism_link::{Hello, Holding, NodeFacts, Resume, StopWhy, TaskOutcome, ToControl, ToWorker};
use prism_spec::JobSpec;
use prism_types::{
    JobId, LEASE_KILL, Labels, Millis, NodeId, Resources, RunReport, StopCause, TaskRef, TimeMs,
};

use crate::bugs::Bug;
use crate::net::Frame;
use crate::queue::Queue;
use crate::rng::mix;
use crate::server::Clock;
use crate::sim::{Addr, Sim, Timer, task_note};
use crate::supervisor::Runs;
use crate::work;

/// Between two heartbeats, milliseconds.
const HEARTBEAT: u64 = 2_000;
/// An outcome that is not acknowledged for so long is told again.
const REPEAT: u64 = 10_000;
/// Between two attempts to reach a server: at first, and at most.
const SOON: u64 = 200;
const LATER: u64 = 5_000;
/// A session of this length was a good one: the next attempt is soon.
const GOOD: u64 = 10_000;
/// Tasks wanted waiting.
const CREDITS: u32 = 4;

/// A node that runs work.
#[derive(Debug)]
pub struct Worker {
    /// Which machine.
    pub no: u32,
    /// The node, for as long as its disk lives.
    pub node: NodeId,
    /// What it offers.
    pub capacity: Resources,
    /// The machine has power.
    pub on: bool,
    /// The daemon runs.
    pub up: bool,
    /// Counts the daemon's starts.
    pub life: u32,
    /// Counts the machine's.
    pub boot: u32,
    /// Its clocks.
    pub clock: Clock,
    /// Its supervisor's table.
    pub runs: Runs,
    /// Its session.
    pub conn: Option<u64>,
    /// Where to dial next.
    pub target: Option<u32>,
    /// Its loop is stuck until then.
    pub stuck_until: u64,
    since: u64,
    wait: u64,
    queue: Queue,
    jobs: BTreeMap<JobId, Arc<JobSpec>>,
    started: BTreeMap<TaskRef, TimeMs>,
    finished: Vec<TaskOutcome>,
    unacknowledged: BTreeMap<TaskRef, (TaskOutcome, u64)>,
    unexpected: BTreeSet<TaskRef>,
    /// Until when, by its own clock, what may run once only may live.
    pub lease: Option<u64>,
    forgets: bool,
    /// The session is open: all is told.
    open: bool,
    /// What was held as it began, until the server has said what of it is not wanted.
    told: Option<Told>,
}

impl Worker {
    /// A node with an empty disk.
    pub fn new(no: u32, clock: Clock, sim: &mut Sim) -> Self {
        let draw = sim.rng.draw();
        let mut worker = Self {
            no,
            node: NodeId::new(1, u128::from(draw >> 8)),
            capacity: work::capacity(mix(draw)),
            on: true,
            up: false,
            life: 0,
            boot: 1,
            clock,
            runs: Runs::new(),
            conn: None,
            target: None,
            stuck_until: 0,
            since: 0,
            wait: SOON,
            queue: Queue::default(),
            jobs: BTreeMap::new(),
            started: BTreeMap::new(),
            finished: Vec::new(),
            unacknowledged: BTreeMap::new(),
            unexpected: BTreeSet::new(),
            lease: None,
            forgets: false,
            open: false,
            told: None,
        };
        worker.start(sim);
        worker
    }

    /// Its address.
    pub fn addr(&self) -> Addr {
        Addr::Worker(self.no)
    }

    fn timer(&self, sim: &mut Sim, wait: u64, timer: Timer) {
        sim.timer(self.addr(), self.life, wait, timer);
    }

    /// The daemon starts.
    pub fn start(&mut self, sim: &mut Sim) {
        if self.up || !self.on {
            return;
        }
        self.up = true;
        self.life += 1;
        self.wait = SOON;
        self.forgets = sim.has(Bug::WorkerForgets) && self.life > 1;
        let wait = sim.rng.within(10, 300);
        self.timer(sim, wait, Timer::Dial);
        self.timer(sim, wait, Timer::Heartbeat);
        sim.note(
            "worker.starts",
            [u64::from(self.no), self.runs.len() as u64, 0],
        );
    }

    /// The daemon ends; what it has in memory is gone.
    pub fn fall(&mut self, sim: &mut Sim) {
        if !self.up {
            return;
        }
        self.up = false;
        self.life += 1;
        sim.note(
            "worker.falls",
            [u64::from(self.no), self.runs.len() as u64, 0],
        );
        if let Some(conn) = self.conn.take() {
            sim.close(conn, false);
        }
        self.queue = Queue::default();
        self.jobs.clear();
        self.started.clear();
        self.finished.clear();
        self.unacknowledged.clear();
        self.unexpected.clear();
        self.lease = None;
        self.told = None;
        self.stuck_until = 0;
    }

    /// The machine loses power: nothing that ran is there any more, and no record of it counts.
    pub fn lose_power(&mut self, sim: &mut Sim) {
        self.fall(sim);
        self.on = false;
        self.boot += 1;
        self.runs.clear();
        sim.truth.singles.lost(self.no);
        sim.sometimes("a worker's machine lost power");
    }

    /// Dials again after a while.
    pub fn dial_later(&mut self, sim: &mut Sim) {
        if self.conn.is_none() {
            let wait = self.wait + sim.rng.below(50);
            self.wait = (self.wait * 2).min(LATER);
            self.timer(sim, wait, Timer::Dial);
        }
    }

    /// Its session is over.
    pub fn on_hang_up(&mut self, sim: &mut Sim, conn: u64) {
        sim.close(conn, false);
        if self.conn != Some(conn) {
            return;
        }
        self.conn = None;
        if sim.now > self.since + GOOD {
            self.wait = SOON;
        }
        self.dial_later(sim);
    }

    /// A server has picked up.
    pub fn on_connected(&mut self, sim: &mut Sim, conn: u64) {
        self.conn = Some(conn);
        self.since = sim.now;
        self.started.clear();
        let greeting = self.opening(sim);
        sim.stream(conn, true, Frame::Up(Box::new(greeting)));
        for (outcome, _) in std::mem::take(&mut self.unacknowledged).into_values() {
            self.finished.push(outcome);
        }
        self.tell(sim);
    }

    /// What is said first, and all that is said until the session is open. Some servers are of an older version.
    fn opening(&mut self, sim: &mut Sim) -> ToControl {
        (self.open, self.told) = (false, None);
        let mut hello = self.hello();
        if sim.rng.permille(200) {
            return ToControl::Hello(Box::new(hello));
        }
        let lanes = |job: &JobId| (*job, self.queue.lanes(*job));
        let holdings = Holdings {
            tasks: std::mem::take(&mut hello.tasks),
            sandboxes: Vec::new(),
            jobs: self.jobs.keys().map(lanes).collect(),
        };
        let nonce = u128::from(sim.rng.draw()) << 64 | u128::from(sim.rng.draw());
        let told = Told::new(nonce.to_le_bytes(), holdings);
        let summary = told.summary();
        self.told = Some(told);
        ToControl::Resume(Box::new(Resume { hello, summary }))
    }

    /// What is held, from the supervisor's own account.
    fn hello(&mut self) -> Hello {
        let waiting = self.queue.waiting().into_iter();
        let mut tasks: Vec<(TaskRef, Holding)> = waiting.map(|t| (t, Holding::Waiting)).collect();
        for (task, run) in &self.runs {
            match &run.exited {
                Some(exited) if run.journaled => {
                    tasks.push((*task, Holding::Over));
                    let known = self.finished.iter().any(|o| o.task == *task);
                    if !known && !self.forgets {
                        self.finished.push(outcome(*task, exited));
                    }
                }
                _ => {
                    tasks.push((*task, Holding::Running(run.started)));
                    self.queue.adopt(*task);
                }
            }
        }
        let name = format!("w{}-{}", self.no, self.node.0.0 & 0xffff_ffff);
        Hello {
            node: self.node,
            name: name.parse().expect("letters, digits and a dash are a name"),
            labels: Labels::new(),
            capacity: self.capacity,
            facts: NodeFacts {
                isolation: true,
                ..NodeFacts::default()
            },
            tasks,
            sandboxes: Vec::new(),
        }
    }

    /// Renews the lease, and tells again what was not acknowledged.
    pub fn on_heartbeat(&mut self, sim: &mut Sim) {
        self.timer(sim, HEARTBEAT, Timer::Heartbeat);
        self.beat(sim);
    }

    fn beat(&mut self, sim: &mut Sim) {
        let Some(conn) = self.conn.filter(|_| self.open) else {
            return;
        };
        let heartbeat = ToControl::Heartbeat {
            readings: Default::default(),
            credits: CREDITS,
        };
        sim.stream(conn, true, Frame::Up(Box::new(heartbeat)));
        if self.queue.any(|job| self.is_single(job)) {
            self.ask_for_time(sim);
        }
        let old = self.unacknowledged.iter();
        let old = old.filter(|(_, (_, told))| sim.now > told + REPEAT);
        let old: Vec<TaskRef> = old.map(|(task, _)| *task).collect();
        for task in old {
            if let Some((outcome, _)) = self.unacknowledged.remove(&task) {
                self.finished.push(outcome);
            }
        }
        self.tell(sim);
    }

    fn is_single(&self, job: &JobId) -> bool {
        self.jobs.get(job).is_some_and(|spec| spec.single_instance)
    }

    fn ask_for_time(&mut self, sim: &mut Sim) {
        let sent = self.clock.monotonic(sim.now);
        if let Some(conn) = self.conn.filter(|_| self.open) {
            sim.stream(conn, true, Frame::Up(Box::new(ToControl::Renew { sent })));
        }
    }

    /// A leader has answered: what may run once only has more time.
    fn on_renewed(&mut self, sim: &mut Sim, sent: u64) {
        let now = self.clock.monotonic(sim.now);
        let until = self
            .lease
            .unwrap_or_default()
            .max(sent.min(now) + LEASE_KILL.0);
        self.lease = Some(until);
        let running = self.queue.running().into_iter();
        let single: Vec<TaskRef> = running.filter(|t| self.is_single(&t.job)).collect();
        self.renew(sim, &single, until);
    }

    /// Reports what is new.
    pub fn tell(&mut self, sim: &mut Sim) {
        let free = self.open && self.stuck_until <= sim.now;
        let Some(conn) = self.conn.filter(|_| free) else {
            return;
        };
        if !self.started.is_empty() {
            let started = std::mem::take(&mut self.started).into_iter().collect();
            sim.stream(conn, true, Frame::Up(Box::new(ToControl::Started(started))));
        }
        if self.finished.is_empty() {
            return;
        }
        let outcomes = std::mem::take(&mut self.finished);
        for outcome in &outcomes {
            let held = sim.truth.outcomes.told(self.node, outcome);
            sim.check("an_attempt_has_one_outcome", held);
            let told = (outcome.clone(), sim.now);
            self.unacknowledged.insert(outcome.task, told);
        }
        sim.stream(
            conn,
            true,
            Frame::Up(Box::new(ToControl::Finished(outcomes))),
        );
    }

    /// The supervisor tells that a program runs.
    pub fn on_started(&mut self, task: TaskRef, at: TimeMs) {
        if self.up {
            self.started.insert(task, at);
        }
    }

    /// The supervisor tells that a run has ended.
    pub fn on_exited(&mut self, sim: &mut Sim, task: TaskRef) {
        if !self.up {
            return;
        }
        let known =
            self.unacknowledged.contains_key(&task) || self.finished.iter().any(|o| o.task == task);
        let here = self.queue.over(task);
        if here || !known {
            if !here {
                self.unexpected.insert(task);
            }
            if let Some(exited) = self.runs.get(&task).and_then(|r| r.exited.as_ref()) {
                let outcome = outcome(task, exited);
                self.task_over(outcome);
            }
        }
        self.tell(sim);
        self.start_tasks(sim);
    }

    fn task_over(&mut self, outcome: TaskOutcome) {
        self.started.remove(&outcome.task);
        let again = self.finished.iter().any(|o| o.task == outcome.task);
        if !again {
            self.finished.push(outcome);
        }
    }

    /// The supervisor was replaced: what was only handed to the old one is lost.
    pub fn on_restarted(&mut self, sim: &mut Sim) {
        if !self.up {
            return;
        }
        for task in self.queue.running() {
            if !self.runs.contains_key(&task) && self.queue.over(task) {
                self.task_over(not_run(task, StopCause::Lost, "its supervisor died"));
            }
        }
        self.tell(sim);
        self.start_tasks(sim);
    }

    /// The control plane says something.
    pub fn on_order(&mut self, sim: &mut Sim, order: ToWorker) {
        match order {
            ToWorker::Desired { tasks, .. } => {
                self.told = None;
                self.on_desired(sim, &tasks.into_iter().collect());
            }
            ToWorker::Compare(sums) => match self.told.as_ref().map(|told| told.answer(&sums)) {
                Some(Ok(answer)) => {
                    let answer = ToControl::Held(Box::new(answer));
                    if let Some(conn) = self.conn {
                        sim.stream(conn, true, Frame::Up(Box::new(answer)));
                    }
                }
                _ => self.hang_up(sim),
            },
            ToWorker::Unwanted { tasks, .. } => match self.told.take() {
                Some(told) => self.on_desired(sim, &told.keep(&tasks, &[]).0),
                None => self.hang_up(sim),
            },
            ToWorker::Job(bundle) => {
                let single = bundle.spec.single_instance;
                self.jobs.insert(bundle.job, bundle.spec);
                if single {
                    self.ask_for_time(sim);
                }
            }
            ToWorker::Assign { job, lanes, tasks } => {
                let each = tasks.into_iter().map(|t| TaskRef {
                    job,
                    index: t.index,
                    attempt: t.attempt,
                });
                let tasks: Vec<TaskRef> = each.collect();
                let add = sim.has(Bug::CapacityTwice) && tasks.is_empty();
                self.queue.assign(job, lanes, tasks, add);
            }
            ToWorker::Stop { tasks, why } => self.on_stop(sim, &tasks, why),
            ToWorker::Ack(tasks) => self.on_ack(sim, &tasks),
            ToWorker::Recall(job) => {
                let tasks = self.queue.recall(job);
                if let Some(conn) = self.conn {
                    sim.stream(conn, true, Frame::Up(Box::new(ToControl::Returned(tasks))));
                }
            }
            ToWorker::JobOver(job) => {
                if !self.queue.holds(job) {
                    self.jobs.remove(&job);
                }
            }
            ToWorker::Renewed { sent } => self.on_renewed(sim, sent),
            ToWorker::SandboxStart(_) | ToWorker::SandboxStop(_) => {}
        }
        self.tell(sim);
        self.start_tasks(sim);
    }

    fn hang_up(&mut self, sim: &mut Sim) {
        if let Some(conn) = self.conn {
            self.on_hang_up(sim, conn);
        }
    }

    /// Ends what is held but not wanted. From here on the session is open, and what waited to be said is said.
    fn on_desired(&mut self, sim: &mut Sim, wanted: &BTreeSet<TaskRef>) {
        self.open = true;
        self.beat(sim);
        for task in self.queue.waiting() {
            if !wanted.contains(&task) {
                self.queue.withdraw(task);
            }
        }
        let mut stop = self.queue.running();
        stop.retain(|t| !wanted.contains(t));
        if !sim.has(Bug::SupersededNotStopped) {
            self.stop_runs(sim, &stop, Millis(0));
        }
    }

    fn on_stop(&mut self, sim: &mut Sim, tasks: &[TaskRef], why: StopWhy) {
        let mut running = Vec::new();
        for task in tasks {
            if self.queue.withdraw(*task) {
                let why = "stopped before it started";
                self.task_over(not_run(*task, StopCause::Requested, why));
            } else if self.queue.is_running(*task) {
                running.push(*task);
            }
        }
        let grace = match why {
            StopWhy::Cancelled => Millis(2_000),
            StopWhy::EarlyStopped => Millis(0),
        };
        self.stop_runs(sim, &running, grace);
    }

    /// The control plane has these for good.
    fn on_ack(&mut self, sim: &mut Sim, tasks: &[TaskRef]) {
        let mut runs = Vec::new();
        for task in tasks {
            let given_anew = self.unexpected.remove(task);
            if given_anew && !self.queue.withdraw(*task) && self.queue.over(*task) {
                runs.push(*task);
            }
            self.unacknowledged.remove(task);
        }
        self.stop_runs(sim, &runs, Millis(0));
        for task in tasks {
            // A run that has not ended is not forgotten.
            if self.runs.get(task).is_some_and(|r| r.exited.is_some()) {
                self.runs.remove(task);
                sim.note("worker.forgets", [u64::from(self.no), task_note(*task), 0]);
            }
        }
    }

    /// Starts what the lanes allow.
    fn start_tasks(&mut self, sim: &mut Sim) {
        if !self.up {
            return;
        }
        let now = self.clock.monotonic(sim.now);
        let leased = self.lease.is_some_and(|until| now < until);
        let jobs = &self.jobs;
        let single = |job: &JobId| jobs.get(job).is_some_and(|spec| spec.single_instance);
        for task in self.queue.starts(|job| leased || !single(job)) {
            match self.jobs.get(&task.job).cloned() {
                Some(spec) => self.launch(sim, task, &spec),
                None => {
                    self.queue.over(task);
                    let why = "its job's spec never arrived";
                    self.task_over(not_run(task, StopCause::StartFailed, why));
                    sim.sometimes("a task came without its job");
                }
            }
        }
        self.tell(sim);
    }

    /// What runs here and was not told to stop.
    pub fn running(&self) -> impl Iterator<Item = TaskRef> {
        let live = self.runs.iter();
        let live = live.filter(|(_, r)| r.exited.is_none() && !r.stopping);
        live.map(|(task, _)| *task)
    }

    /// Runs that are there, and tasks and outcomes that are held.
    pub fn left(&self) -> (usize, usize) {
        let running = self.runs.values().filter(|r| r.exited.is_none()).count();
        let held = self.queue.waiting().len() + self.queue.running().len();
        let told = self.finished.len() + self.unacknowledged.len();
        (running, self.runs.len() - running + held + told)
    }
}

fn outcome(task: TaskRef, (report, result): &(RunReport, Option<String>)) -> TaskOutcome {
    TaskOutcome {
        task,
        report: report.clone(),
        result: result.clone(),
        tail: String::new(),
    }
}

fn not_run(task: TaskRef, cause: StopCause, why: &str) -> TaskOutcome {
    let report = RunReport {
        cause,
        ..RunReport::not_started(TimeMs(0), why)
    };
    TaskOutcome {
        task,
        report,
        result: None,
        tail: String::new(),
    }
}
