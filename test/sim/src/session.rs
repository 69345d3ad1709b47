//! The server's half of a worker's session, as `crates/plane/control/src/session.rs` and `act.rs` have it: once it has begun
//! (`resume.rs`), reports become proposals, and what was decided is told.

use std::collections::BTreeSet;

use prism_link::{AssignedTask, JobBundle, StopWhy, ToControl, ToWorker};
use prism_scheduler::NodeView;
use prism_state::{Action, Command, Reply, TaskResult};
use prism_types::{
    JobId, NodeId, NodeState, Reason, Rejection, StopCause, TaskRef, TaskState, TimeMs,
};

use crate::bugs::Bug;
use crate::control::{Control, Origin};
use crate::invariants::a_lease_is_its_sessions_own::renewed;
use crate::net::Frame;
use crate::resume::Step;
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
    pub(crate) credits: u32,
    pub(crate) jobs: BTreeSet<JobId>,
    pub(crate) reliability: f64,
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
    pub(crate) fn read_reports(&mut self, sim: &mut Sim, conn: u64) {
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

    pub(crate) fn session(&mut self, node: NodeId) -> Option<&mut Session> {
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

    pub(crate) fn acknowledge(&mut self, sim: &mut Sim, node: NodeId, tasks: Vec<TaskRef>) {
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

    pub(crate) fn send_job(&mut self, sim: &mut Sim, node: NodeId, job: JobId) -> bool {
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
    pub(crate) fn end_session(&mut self, conn: u64) {
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
    pub(crate) fn note_heard(&mut self, node: NodeId, heard: TimeMs) {
        let latest = self.heard.entry(node).or_default();
        *latest = heard.max(*latest);
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
