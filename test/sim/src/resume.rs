//! How a session begins, as `crates/plane/control/src/resume.rs` has it: what the worker holds is compared with what the state says
//! of it, and the differences are settled one step after another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prism_link::resume::{Compared, Comparison, Holdings, Item, Phase, Summary, compare};
use prism_link::{Hello, Holding, StopWhy, ToControl, ToWorker};
use prism_state::{Command, Desired, DesiredJob, NodeFacts, Registration, State, TaskResult};
use prism_types::{JobId, NodeId, RunReport, StopCause, TaskRef, TimeMs};

use crate::bugs::Bug;
use crate::control::Origin;
use crate::invariants::a_comparison_adds_up::settled as adds_up;
use crate::net::Frame;
use crate::server::Server;
use crate::session::Session;
use crate::sim::Sim;

/// How far a session has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Register,
    Compare,
    Settle,
    Return,
    Lose,
    Start,
    Reports,
}

/// A connection that is being served.
#[derive(Debug)]
pub struct Serve {
    pub(crate) node: NodeId,
    hello: Box<Hello>,
    summary: Option<Summary>,
    comparison: Option<Comparison>,
    held: Held,
    pub(crate) step: Step,
    lost: Vec<TaskRef>,
    pub(crate) inbox: VecDeque<ToControl>,
    /// Reports whose answers are waited for, with what to acknowledge then.
    pub(crate) waiting: VecDeque<Vec<TaskRef>>,
}

/// What a worker holds as its session begins.
#[derive(Debug, Default)]
struct Held {
    tasks: BTreeMap<TaskRef, Phase>,
    /// Those that run and that the state may not know to.
    started: Vec<(TaskRef, TimeMs)>,
    jobs: BTreeMap<JobId, u32>,
    summed: bool,
}

impl Held {
    fn summed(items: BTreeSet<Item>) -> Self {
        let mut held = Self {
            summed: true,
            ..Self::default()
        };
        for item in items {
            match item {
                Item::Task(task, phase) => _ = held.tasks.insert(task, phase),
                Item::Job(job, lanes) => _ = held.jobs.insert(job, lanes),
                Item::Sandbox(..) => {}
            }
        }
        held
    }

    fn listed(hello: &Hello) -> Self {
        let tasks = Holdings {
            tasks: hello.tasks.clone(),
            ..Holdings::default()
        };
        Self {
            started: hello.tasks.iter().filter_map(running).collect(),
            summed: false,
            ..Self::summed(tasks.items().collect())
        }
    }
}

fn running((task, holding): &(TaskRef, Holding)) -> Option<(TaskRef, TimeMs)> {
    match holding {
        Holding::Running(at) => Some((*task, *at)),
        Holding::Waiting | Holding::Over => None,
    }
}

/// What a node holds as the state sees it.
fn seen(state: &State, node: NodeId) -> Vec<Item> {
    let mut items = Vec::new();
    for job in &state.desired_for(node).jobs {
        items.push(Item::Job(job.job, job.lanes));
        items.extend(job.runs().map(|(task, t)| match t.started {
            true => Item::Task(task, Phase::Running),
            false => Item::Task(task, Phase::Waiting),
        }));
    }
    items
}

impl Serve {
    /// The node is in the state: finds out what it holds; false when it has to be asked for that.
    fn registered(&mut self, state: &State, sim: &mut Sim, conn: u64) -> bool {
        self.step = Step::Settle;
        let Some(summary) = self.summary else {
            self.held = Held::listed(&self.hello);
            return true;
        };
        let own = seen(state, self.node);
        match compare(summary, own.clone()) {
            Compared::Known(items) => self.held = Held::summed(items),
            Compared::Differs(_) if sim.has(Bug::DifferenceMissed) => {
                self.held = Held::summed(own.into_iter().collect());
            }
            Compared::Differs(comparison) => {
                self.step = Step::Compare;
                let sums = comparison.sums();
                self.comparison = Some(comparison);
                let question = ToWorker::Compare(sums);
                sim.stream(conn, false, Frame::Down(Box::new(question)));
                return false;
            }
        }
        if !self.held.tasks.is_empty() {
            sim.sometimes("a worker came back with what it was thought to have");
        }
        true
    }
}

impl Server {
    pub(crate) fn greet(
        &mut self,
        sim: &mut Sim,
        conn: u64,
        hello: Box<Hello>,
        summary: Option<Summary>,
    ) {
        let node = hello.node;
        let careless = sim.has(Bug::OldHeartbeatRenews);
        let Some(control) = &mut self.control else {
            return;
        };
        sim.note(
            "session.greets",
            [
                u64::from(self.id),
                conn,
                summary.map_or(hello.tasks.len() as u64, |s| u64::from(s.count)),
            ],
        );
        let before = control.sessions.remove(&node);
        if let Some(before) = &before {
            control.note_heard(node, before.heard);
        }
        if let Some(before) = before.filter(|_| !careless) {
            control.serving.remove(&before.conn);
            sim.close(before.conn, true);
        }
        let registration = Registration {
            id: node,
            name: hello.name.clone(),
            labels: hello.labels.clone(),
            capacity: hello.capacity,
            allow_plain: hello.facts.allow_plain,
            facts: NodeFacts {
                isolation: hello.facts.isolation,
                ..NodeFacts::default()
            },
        };
        let serve = Serve {
            node,
            hello,
            summary,
            comparison: None,
            held: Held::default(),
            step: Step::Register,
            lost: Vec::new(),
            inbox: VecDeque::new(),
            waiting: VecDeque::new(),
        };
        control.serving.insert(conn, serve);
        let command = Command::RegisterNode(registration);
        self.suggest(sim, command.into(), Origin::Serve(conn));
    }

    /// The next difference between what the state says of the node and what the node holds.
    pub(crate) fn next_step(&mut self, sim: &mut Sim, conn: u64) {
        let time = self.leader_time(sim);
        let Some(control) = &mut self.control else {
            return;
        };
        let Some(serve) = control.serving.get_mut(&conn) else {
            return;
        };
        let node = serve.node;
        if serve.step == Step::Register && !serve.registered(&control.state, sim, conn) {
            return;
        }
        if serve.step == Step::Settle {
            serve.step = Step::Return;
            let held = &serve.held.tasks;
            let mut returned = Vec::new();
            for job in &control.state.desired_for(node).jobs {
                let known = control.state.job(job.job);
                let single = known.is_some_and(|j| j.spec().single_instance);
                for (task, t) in job.runs() {
                    match (held.contains_key(&task), t.started || single) {
                        (true, _) => {}
                        (false, false) => returned.push(task),
                        (false, true) => serve.lost.push(task),
                    }
                }
            }
            if !returned.is_empty() {
                let tasks = returned;
                let command = Command::Returned { node, tasks };
                return self.suggest(sim, command.into(), Origin::Serve(conn));
            }
        }
        if serve.step == Step::Return {
            serve.step = Step::Lose;
            if !serve.lost.is_empty() {
                sim.sometimes("a worker came back without what it had started");
                let lost = std::mem::take(&mut serve.lost);
                let results = lost
                    .into_iter()
                    .map(|task| lost_result(task, time))
                    .collect();
                let command = Command::Finished { node, results };
                return self.suggest(sim, command.into(), Origin::Serve(conn));
            }
        }
        if serve.step == Step::Lose {
            serve.step = Step::Start;
            let tasks = std::mem::take(&mut serve.held.started);
            if !tasks.is_empty() {
                let command = Command::Started { node, tasks };
                return self.suggest(sim, command.into(), Origin::Serve(conn));
            }
        }
        self.begin_session(sim, conn);
    }

    /// The worker has said what it holds where that differs.
    pub(crate) fn on_held(&mut self, sim: &mut Sim, conn: u64, message: ToControl) {
        let control = self.control.as_mut();
        let Some(serve) = control.and_then(|c| c.serving.get_mut(&conn)) else {
            return;
        };
        let (ToControl::Held(answer), Some(comparison)) = (message, serve.comparison.take()) else {
            return self.on_hang_up(sim, conn);
        };
        let tasks = answer.holdings.tasks.iter();
        let unseen = |t: &&(TaskRef, Holding)| !comparison.sees(Item::Task(t.0, Phase::Running));
        let started = tasks.filter(unseen).filter_map(running).collect();
        let settled = comparison.settle(&answer);
        sim.check("a_comparison_adds_up", adds_up(&settled));
        if let Ok(items) = settled {
            serve.held = Held {
                started,
                ..Held::summed(items)
            };
            serve.step = Step::Settle;
            sim.sometimes("a worker was asked what it holds");
            self.next_step(sim, conn);
        }
    }

    /// First what it should hold, then the session: from then on the leader assigns.
    fn begin_session(&mut self, sim: &mut Sim, conn: u64) {
        let time = self.leader_time(sim);
        let Some(control) = &mut self.control else {
            return;
        };
        let Some(serve) = control.serving.get_mut(&conn) else {
            return;
        };
        serve.step = Step::Reports;
        let node = serve.node;
        let desired = control.state.desired_for(node);
        let runs = desired.jobs.iter().flat_map(DesiredJob::runs);
        let tasks: BTreeSet<TaskRef> = runs.map(|(task, _)| task).collect();
        let held = std::mem::take(&mut serve.held);
        let unwanted = held.tasks.iter().filter(|(task, _)| !tasks.contains(task));
        if unwanted.clone().any(|(_, phase)| *phase == Phase::Running) {
            sim.sometimes("a worker came back with a superseded run");
        }
        let sandboxes = Vec::new();
        let message = match held.summed {
            true => ToWorker::Unwanted {
                tasks: unwanted.map(|(task, _)| *task).collect(),
                sandboxes,
            },
            false => ToWorker::Desired {
                tasks: tasks.into_iter().collect(),
                sandboxes,
            },
        };
        sim.stream(conn, false, Frame::Down(Box::new(message)));
        let session = Session {
            conn,
            heard: time,
            credits: 0,
            jobs: held.jobs.keys().copied().collect(),
            reliability: 1.0,
        };
        let before = control.sessions.insert(node, session);
        if let Some(before) = &before {
            control.note_heard(node, before.heard);
        }
        if let Some(before) = before.filter(|b| b.conn != conn) {
            sim.sometimes("two greetings of one node crossed");
            if !sim.has(Bug::OldHeartbeatRenews) {
                control.serving.remove(&before.conn);
                sim.close(before.conn, true);
            }
        }
        self.send_rest(sim, node, &held, &desired);
        self.read_reports(sim, conn);
    }

    /// What a worker needs to know besides.
    fn send_rest(&mut self, sim: &mut Sim, node: NodeId, held: &Held, desired: &Desired) {
        for job in held.jobs.keys() {
            let control = self.control.as_ref();
            let known = control.and_then(|c| c.state.job(*job));
            if known.is_none_or(|j| j.record().state.is_final())
                && self.session(node).is_some_and(|s| s.jobs.remove(job))
            {
                sim.sometimes("a job was over while its worker was away");
                self.tell(sim, node, ToWorker::JobOver(*job));
            }
        }
        for job in desired
            .jobs
            .iter()
            .filter(|j| j.is_news_to(held.jobs.get(&j.job).copied()))
        {
            self.send_job(sim, node, job.job);
            let (id, lanes) = (job.job, job.lanes);
            let assign = ToWorker::Assign {
                job: id,
                lanes,
                tasks: Vec::new(),
            };
            self.tell(sim, node, assign);
            if job.recall {
                self.tell(sim, node, ToWorker::Recall(id));
            }
            let stop = job.runs().filter(|(_, t)| t.stop.is_some());
            let tasks: Vec<TaskRef> = stop.map(|(task, _)| task).collect();
            if !tasks.is_empty() && !sim.has(Bug::CancelLost) {
                let why = StopWhy::Cancelled;
                self.tell(sim, node, ToWorker::Stop { tasks, why });
            }
        }
    }
}

fn lost_result(task: TaskRef, now: TimeMs) -> TaskResult {
    let detail = "the node came back without it";
    TaskResult {
        task,
        report: RunReport {
            cause: StopCause::Lost,
            ..RunReport::not_started(now, detail)
        },
        result: None,
        stderr_tail: "".into(),
        output: None,
    }
}
