//! The server's half of a worker's session, as `crates/plane/control/src/session.rs`, `resume.rs` and `act.rs` have it: a greeting is
//! reconciled with the state, then reports become proposals, and what was decided is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prism_link::resume::{Compared, Comparison, Holdings, Item, Phase, Summary, compare};
use prism_link::{AssignedTask, Hello, Holding, JobBundle, StopWhy, ToControl, ToWorker};
use prism_scheduler::NodeView;
use prism_state::{
    Action, Command, Desired, DesiredJob, NodeFacts, Registration, Reply, State, TaskResult,
};
use prism_types::{
    JobId, NodeId, NodeState, Reason, Rejection, RunReport, StopCause, TaskRef, TaskState, TimeMs,
};

use crate::bugs::Bug;
use crate::control::{Control, Origin};
use crate::invariants::a_comparison_adds_up::settled as adds_up;
use crate::invariants::a_lease_is_its_sessions_own::renewed;
use crate::net::Frame;
use crate::server::Server;
use crate::sim::{Sim, short, task_note};

/// Reports taken at once.
const TAKE: usize = 64;
/// Weight of one outcome in a node's reliability.
const RELIABILITY_STEP: f64 = 0.02;

/// What the leader keeps of a session.
#[derive(Debug)]
pub struct Session {
    /// Its connection.
    pub conn: u64,
    /// When the node was last heard of.
    pub heard: TimeMs,
    credits: u32,
    jobs: BTreeSet<JobId>,
    reliability: f64,
}

impl Session {
    /// What the scheduler is told.
    pub fn view(&self) -> NodeView {
        NodeView {
            credits: self.credits,
            reliability: self.reliability,
            ..NodeView::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
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
    node: NodeId,
    hello: Box<Hello>,
    summary: Option<Summary>,
    comparison: Option<Comparison>,
    held: Held,
    step: Step,
    lost: Vec<TaskRef>,
    inbox: VecDeque<ToControl>,
    /// Reports whose answers are waited for, with what to acknowledge then.
    waiting: VecDeque<Vec<TaskRef>>,
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
    /// A worker says something.
    pub fn on_frame(&mut self, sim: &mut Sim, conn: u64, message: ToControl) {
        let Some(control) = &mut self.control else {
            sim.stream(conn, false, Frame::Elsewhere(self.hint()));
            return sim.close(conn, true);
        };
        if let Some(serve) = control.serving.get_mut(&conn) {
            serve.inbox.push_back(message);
            return self.read_reports(sim, conn);
        }
        match message {
            ToControl::Hello(hello) => self.greet(sim, conn, hello, None),
            ToControl::Resume(resume) => {
                self.greet(sim, conn, Box::new(resume.hello), Some(resume.summary));
            }
            _ => sim.close(conn, true),
        }
    }

    /// The connection is over, or has been silent for too long.
    pub fn on_hang_up(&mut self, sim: &mut Sim, conn: u64) {
        sim.close(conn, true);
        if let Some(control) = &mut self.control {
            control.end_session(conn);
        }
    }

    fn greet(&mut self, sim: &mut Sim, conn: u64, hello: Box<Hello>, summary: Option<Summary>) {
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

    /// One of the session's proposals is answered.
    pub fn on_serve_answer(&mut self, sim: &mut Sim, conn: u64, answer: Result<Reply, Rejection>) {
        let Some(control) = &mut self.control else {
            return;
        };
        let Some(serve) = control.serving.get_mut(&conn) else {
            return;
        };
        if serve.step == Step::Reports {
            let tasks = serve.waiting.pop_front().unwrap_or_default();
            let node = serve.node;
            if answer.is_ok() && !tasks.is_empty() {
                self.acknowledge(sim, node, tasks);
            }
            return self.read_reports(sim, conn);
        }
        match answer {
            Ok(_) => self.next_step(sim, conn),
            Err(_) => self.on_hang_up(sim, conn),
        }
    }

    /// The next difference between what the state says of the node and what the node holds.
    fn next_step(&mut self, sim: &mut Sim, conn: u64) {
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
    fn on_held(&mut self, sim: &mut Sim, conn: u64, message: ToControl) {
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

    /// The state may be read again: those that waited go on.
    pub fn resume_sessions(&mut self, sim: &mut Sim) {
        let Some(control) = &self.control else {
            return;
        };
        let conns: Vec<u64> = control.serving.keys().copied().collect();
        for conn in conns {
            self.read_reports(sim, conn);
        }
    }

    /// Turns reports into proposals, all that have arrived at once.
    fn read_reports(&mut self, sim: &mut Sim, conn: u64) {
        let Some(control) = &mut self.control else {
            return;
        };
        // The state is locked until it is durable.
        if control.is_committing() {
            return;
        }
        let Some(serve) = control.serving.get_mut(&conn) else {
            return;
        };
        if serve.step == Step::Compare
            && let Some(message) = serve.inbox.pop_front()
        {
            return self.on_held(sim, conn, message);
        }
        if serve.step != Step::Reports || !serve.waiting.is_empty() {
            return;
        }
        let many = serve.inbox.len().min(TAKE);
        let reports: Vec<ToControl> = serve.inbox.drain(..many).collect();
        let node = serve.node;
        for report in reports {
            self.report(sim, conn, node, report);
        }
    }

    fn report(&mut self, sim: &mut Sim, conn: u64, node: NodeId, report: ToControl) {
        let (tasks, command) = match report {
            ToControl::Heartbeat { credits, .. } => {
                return self.heartbeat(sim, conn, node, credits);
            }
            ToControl::Renew { sent } => return self.on_renew(sim, conn, node, sent),
            ToControl::Started(tasks) => (Vec::new(), Command::Started { node, tasks }),
            ToControl::Returned(tasks) => (Vec::new(), Command::Returned { node, tasks }),
            ToControl::Finished(outcomes) => {
                let tasks: Vec<TaskRef> = outcomes.iter().map(|o| o.task).collect();
                if let Some(session) = self.session(node) {
                    for o in &outcomes {
                        let bad =
                            matches!(o.report.cause, StopCause::Lost | StopCause::StartFailed);
                        let good = if bad { 0.0 } else { 1.0 };
                        session.reliability += RELIABILITY_STEP * (good - session.reliability);
                    }
                }
                let results = outcomes.into_iter().map(task_result).collect();
                (tasks, Command::Finished { node, results })
            }
            ToControl::Resume(_) | ToControl::Held(_) => return self.on_hang_up(sim, conn),
            ToControl::Hello(_) | ToControl::Progress(_) | ToControl::Sandbox { .. } => return,
        };
        let Some(control) = &mut self.control else {
            return;
        };
        if let Some(serve) = control.serving.get_mut(&conn) {
            serve.waiting.push_back(tasks);
            self.suggest(sim, command.into(), Origin::Serve(conn));
        }
    }

    fn session(&mut self, node: NodeId) -> Option<&mut Session> {
        self.control.as_mut()?.sessions.get_mut(&node)
    }

    fn heartbeat(&mut self, sim: &mut Sim, conn: u64, node: NodeId, credits: u32) {
        let now = self.leader_time(sim);
        let Some(session) = self.session(node) else {
            return;
        };
        let held = renewed(session.conn, conn);
        let wake = credits > session.credits;
        session.heard = now;
        session.credits = credits;
        sim.check("a_lease_is_its_sessions_own", held);
        if wake {
            self.poke(sim);
        }
        let control = self.control.as_ref();
        let known = control.and_then(|c| c.state.node(node));
        let state = known.map(|n| n.record().state);
        match state {
            None | Some(NodeState::Healthy) => {}
            // What it had was given to others: it greets again, and is told what to stop.
            Some(NodeState::Offline) if !sim.has(Bug::OfflineKeepsSession) => {
                sim.sometimes("an offline node was heard of in its old session");
                self.on_hang_up(sim, conn);
            }
            Some(_) => {
                let back = Command::SetNodeState {
                    id: node,
                    state: NodeState::Healthy,
                };
                self.suggest(sim, back.into(), Origin::Nobody);
            }
        }
    }

    /// First it is noted that the node was heard of, then that its work was not given up before, then that this server leads.
    fn on_renew(&mut self, sim: &mut Sim, conn: u64, node: NodeId, sent: u64) {
        let now = self.leader_time(sim);
        let Some(session) = self.session(node) else {
            return;
        };
        session.heard = now;
        let control = self.control.as_ref();
        let known = control.and_then(|c| c.state.node(node));
        let state = known.map(|n| n.record().state);
        if matches!(state, Some(NodeState::Healthy | NodeState::Suspect)) {
            self.renew(sim, conn, node, sent);
        }
    }

    fn acknowledge(&mut self, sim: &mut Sim, node: NodeId, tasks: Vec<TaskRef>) {
        if let Some(control) = &self.control {
            for task in &tasks {
                let job = control.state.job(task.job);
                let cell = job.and_then(|j| j.cell(task.index));
                let own = cell.filter(|c| c.attempt == task.attempt);
                if own.is_some_and(|c| c.state == TaskState::Completed) {
                    sim.truth.recorded.completed(*task);
                }
            }
        }
        self.tell(sim, node, ToWorker::Ack(tasks));
    }

    /// Sends a message to a node's worker, if it has a session. One that does not keep up starts over.
    pub fn tell(&mut self, sim: &mut Sim, node: NodeId, message: ToWorker) {
        let Some(conn) = self.session(node).map(|s| s.conn) else {
            return;
        };
        let bound = sim.setup.outbox;
        let full = sim
            .conns
            .get(&conn)
            .is_some_and(|c| c.at_worker.waits() >= bound);
        if full {
            sim.sometimes("a worker did not keep up with its messages");
            if sim.has(Bug::FullKeepsConnection) {
                if let Some(control) = &mut self.control {
                    control.sessions.remove(&node);
                }
                return;
            }
        }
        if full || !sim.stream(conn, false, Frame::Down(Box::new(message))) {
            self.on_hang_up(sim, conn);
        }
    }

    fn send_job(&mut self, sim: &mut Sim, node: NodeId, job: JobId) -> bool {
        let Some(control) = &mut self.control else {
            return false;
        };
        let Some(session) = control.sessions.get_mut(&node) else {
            return false;
        };
        if !session.jobs.insert(job) {
            return true;
        }
        let Some(spec) = control.state.job(job).map(|j| j.spec().clone()) else {
            return false;
        };
        let bundle = JobBundle {
            job,
            spec,
            blobs: Vec::new(),
        };
        self.tell(sim, node, ToWorker::Job(Box::new(bundle)));
        true
    }

    /// What follows from a round once it is durable.
    pub fn act(&mut self, sim: &mut Sim, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Assign {
                    node,
                    job,
                    lanes,
                    tasks,
                } => {
                    if !self.send_job(sim, node, job) {
                        continue;
                    }
                    let each = tasks.into_iter().map(|(index, attempt)| {
                        let task = TaskRef {
                            job,
                            index,
                            attempt,
                        };
                        sim.note("control.assigns", [0, task_note(task), 0]);
                        AssignedTask {
                            index,
                            attempt,
                            results: None,
                        }
                    });
                    let tasks = each.collect();
                    self.tell(sim, node, ToWorker::Assign { job, lanes, tasks });
                }
                Action::SetLanes { node, job, lanes } => {
                    let tasks = Vec::new();
                    self.tell(sim, node, ToWorker::Assign { job, lanes, tasks });
                }
                Action::StopTasks {
                    node,
                    tasks,
                    reason,
                } => {
                    let why = match reason {
                        Reason::EarlyStopped => StopWhy::EarlyStopped,
                        _ => StopWhy::Cancelled,
                    };
                    self.tell(sim, node, ToWorker::Stop { tasks, why });
                }
                Action::Recall { node, job } => self.tell(sim, node, ToWorker::Recall(job)),
                Action::StartSandbox { .. } | Action::StopSandbox { .. } => {}
            }
        }
    }

    /// Tells the workers that know a job that it is over.
    pub fn job_over(&mut self, sim: &mut Sim, job: JobId) {
        sim.note("control.job_over", [u64::from(self.id), short(job), 0]);
        let Some(control) = &mut self.control else {
            return;
        };
        let sessions = control.sessions.iter_mut();
        let told: Vec<NodeId> = sessions
            .filter_map(|(node, s)| s.jobs.remove(&job).then_some(*node))
            .collect();
        for node in told {
            self.tell(sim, node, ToWorker::JobOver(job));
        }
    }
}

impl Control {
    /// A connection is over: its session too, if it still is the node's.
    fn end_session(&mut self, conn: u64) {
        let Some(serve) = self.serving.remove(&conn) else {
            return;
        };
        let node = serve.node;
        if self.sessions.get(&node).is_some_and(|s| s.conn == conn)
            && let Some(session) = self.sessions.remove(&node)
        {
            self.note_heard(node, session.heard);
        }
    }

    /// Keeps when a node was heard of as its session ends.
    fn note_heard(&mut self, node: NodeId, heard: TimeMs) {
        let latest = self.heard.entry(node).or_default();
        *latest = heard.max(*latest);
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

fn task_result(o: prism_link::TaskOutcome) -> TaskResult {
    TaskResult {
        task: o.task,
        report: o.report,
        result: o.result.map(Into::into),
        stderr_tail: o.tail.into(),
        output: None,
    }
}
