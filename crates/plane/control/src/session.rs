//! One worker's session: its greeting is reconciled with the state (`resume.rs`), then its reports become proposals.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prism_link::resume::Summary;
use prism_link::{ControlEnd, Hello, NodeService, SandboxStatus, ToControl, ToWorker};
use prism_scheduler::{JOBS_MAX, NodeView};
use prism_state::{Command, Metric, Registration, Reply, TaskResult};
use prism_store::BoxFuture;
use prism_types::{JobId, NodeId, NodeState, Reason, Rejection, StopCause, TaskRef};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::resume::Held;
use crate::{Control, LiveNode};

/// Reports taken at once.
const TAKE: usize = 64;
/// How long a node may wait to hear that this server leads.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);
/// Weight of one outcome in a node's reliability.
pub(crate) const RELIABILITY_STEP: f64 = 0.02;

/// What the leader keeps of a session.
pub(crate) struct Session {
    pub(crate) outbox: mpsc::Sender<ToWorker>,
    pub(crate) service: Arc<dyn NodeService>,
    pub(crate) live: LiveNode,
    pub(crate) credits: u32,
    /// Jobs whose spec the worker has: it said so, or it was sent in this session.
    pub(crate) jobs: BTreeSet<JobId>,
    pub(crate) reliability: f64,
    /// Whether it is a member's, who is bound to what it joined as.
    bound: bool,
    /// Ends it, when the same node begins another.
    over: CancellationToken,
}

/// Messages that must fit into a session's queue before its node is given more: what one round may send it, a job and its tasks for
/// each that has some placed there, and a quarter more for what else is to be said.
const ROOM: usize = 2 * JOBS_MAX + JOBS_MAX / 2;

impl Session {
    /// What the scheduler is told.
    pub(crate) fn view(&self) -> NodeView {
        let load = match (self.live.readings.load, self.live.facts.cpus) {
            (Some(load), cpus @ 1..) => load[0] / f64::from(cpus),
            _ => 0.0,
        };
        NodeView {
            credits: self.credits,
            rtt_ms: self.service.round_trip().unwrap_or_default().as_secs_f64() * 1000.0,
            load,
            pressure: self.live.readings.pressure,
            behind: self.outbox.capacity() < ROOM,
            reliability: self.reliability,
            leases: self.service.keeps_leases(),
        }
    }
}

/// What a worker says first.
struct Greeting {
    hello: Hello,
    /// Of all that it holds; `None`: the greeting lists that.
    summary: Option<Summary>,
}

/// What a worker says first; `None` when it says nothing.
async fn greeting(end: &mut ControlEnd) -> Result<Option<Greeting>, Rejection> {
    match end.from_worker.recv().await {
        Some(ToControl::Hello(hello)) => Ok(Some(Greeting {
            hello: *hello,
            summary: None,
        })),
        Some(ToControl::Resume(resume)) => Ok(Some(Greeting {
            hello: resume.hello,
            summary: Some(resume.summary),
        })),
        Some(other) => {
            let what = format!("a session begins with a greeting, not with {other:?}");
            let what: String = what.chars().take(200).collect();
            Err(Rejection::new(Reason::Invalid, what))
        }
        None => Ok(None),
    }
}

type Pending = (Vec<TaskRef>, oneshot::Receiver<Result<Reply, Rejection>>);

impl Control {
    /// Serves a worker of this process until it goes away.
    ///
    /// # Errors
    /// When its greeting is refused (its name is taken, say).
    pub fn serve_worker(
        &self,
        mut end: ControlEnd,
        service: Arc<dyn NodeService>,
    ) -> BoxFuture<'_, Result<(), Rejection>> {
        Box::pin(async move {
            match greeting(&mut end).await? {
                Some(greeting) => self.serve(greeting, false, end, service).await,
                None => Ok(()),
            }
        })
    }

    /// Serves a worker whose connection proves that it is this member. It speaks for nobody else: its name is the one that it
    /// joined with, and the labels from its token count above its own.
    ///
    /// # Errors
    /// As of [`Control::serve_worker`]; and `forbidden` when it says that it is somebody else.
    pub fn serve_member(
        &self,
        member: NodeId,
        mut end: ControlEnd,
        service: Arc<dyn NodeService>,
    ) -> BoxFuture<'_, Result<(), Rejection>> {
        Box::pin(async move {
            let Some(mut greeting) = greeting(&mut end).await? else {
                return Ok(());
            };
            self.bind(member, &mut greeting.hello).await?;
            self.serve(greeting, true, end, service).await
        })
    }

    /// Holds a greeting to what the member joined as.
    async fn bind(&self, member: NodeId, hello: &mut Hello) -> Result<(), Rejection> {
        let forbidden = |what: String| Err(Rejection::new(Reason::Forbidden, what));
        if hello.node != member {
            let node = hello.node;
            return forbidden(format!("node {member} says that it is node {node}"));
        }
        let record = self.read(|s| s.member(member).cloned()).await;
        let Some(record) = record else {
            return forbidden(format!("node {member} is no member of this cluster"));
        };
        // A server runs work too, under the name that it joined with.
        if record.name != hello.name {
            return forbidden(format!(
                "node {member} joined as {} {}, not as {}",
                record.role, record.name, hello.name
            ));
        }
        hello.labels.extend(record.labels);
        Ok(())
    }

    async fn serve(
        &self,
        Greeting { hello, summary }: Greeting,
        bound: bool,
        mut end: ControlEnd,
        service: Arc<dyn NodeService>,
    ) -> Result<(), Rejection> {
        let node = hello.node;
        // A node whose connection broke may be back before that was noticed here.
        self.end_session(node);
        let over = CancellationToken::new();
        // Before it is in the state: who looks at the leases between that and the session would find a node that was never heard of, and
        // give it up.
        self.note_greeting(node);
        self.register(&hello).await?;
        let held = match summary {
            None => Held::listed(&hello),
            Some(summary) => self.compared(node, summary, &mut end).await?,
        };
        self.reconcile(node, &held).await?;
        let now = self.now();
        let live = LiveNode {
            readings: Default::default(),
            facts: hello.facts.clone(),
            since: now,
            last_heartbeat: now,
            round_trip: None,
        };
        let session = Session {
            outbox: end.to_worker.clone(),
            service,
            live,
            credits: 0,
            jobs: held.jobs.keys().copied().collect(),
            reliability: self.past(node).reliability,
            bound,
            over: over.clone(),
        };
        // First what it should hold, then the session: from then on the leader assigns, and nothing assigned may be dropped.
        self.send_desired(node, &held, &end.to_worker).await;
        {
            let mut sessions = self.sessions();
            if let Some(before) = sessions.insert(node, session) {
                self.note_past(node, &before);
                before.over.cancel();
            }
        }
        // What it still has to be told takes as long as it takes to read it; what it says is heard meanwhile.
        let to = end.to_worker.clone();
        let told = async {
            self.send_rest(node, &held, &to).await;
            std::future::pending().await
        };
        tokio::select! {
            () = told => {}
            () = self.read_reports(node, &mut end.from_worker) => {}
            () = over.cancelled() => return Ok(()),
        }
        let mut sessions = self.sessions();
        let own = |s: &Session| s.outbox.same_channel(&end.to_worker);
        if sessions.get(&node).is_some_and(own)
            && let Some(session) = sessions.remove(&node)
        {
            self.note_past(node, &session);
        }
        Ok(())
    }

    async fn register(&self, hello: &Hello) -> Result<(), Rejection> {
        let f = &hello.facts;
        let facts = prism_state::NodeFacts {
            os: f.os.clone(),
            kernel: f.kernel.clone(),
            arch: f.arch.clone(),
            cpus: f.cpus,
            memory: f.memory,
            disk: f.disk,
            version: f.version.clone(),
            isolation: f.isolation,
            images: f.images.iter().cloned().collect(),
        };
        let registration = Registration {
            id: hello.node,
            name: hello.name.clone(),
            labels: hello.labels.clone(),
            capacity: hello.capacity,
            allow_plain: f.allow_plain,
            facts,
        };
        self.propose(Command::RegisterNode(registration), None)
            .await
            .map(|_| ())
    }

    /// Turns reports into proposals: all that have arrived are queued together, so that they share a commit.
    async fn read_reports(&self, node: NodeId, from: &mut mpsc::Receiver<ToControl>) {
        let mut reports = Vec::new();
        while from.recv_many(&mut reports, TAKE).await > 0 {
            let mut pending: Vec<Pending> = Vec::new();
            for report in reports.drain(..) {
                match self.report(node, report).await {
                    Ok(Some(p)) => pending.push(p),
                    Ok(None) => {}
                    Err(e) => {
                        tracing::warn!(%node, error = %e, "a worker's session ends: its reports are not taken");
                        return;
                    }
                }
            }
            for (tasks, answer) in pending {
                match answer.await {
                    Ok(Ok(_)) if tasks.is_empty() => {}
                    Ok(Ok(_)) => self.acknowledge(node, tasks),
                    Ok(Err(e)) => {
                        tracing::warn!(%node, error = %e, "a worker's report was refused")
                    }
                    Err(_) => return,
                }
            }
        }
    }

    async fn report(&self, node: NodeId, report: ToControl) -> Result<Option<Pending>, Rejection> {
        let (tasks, command) = match report {
            ToControl::Heartbeat { readings, credits } => {
                self.heartbeat(node, readings, credits).await;
                return Ok(None);
            }
            ToControl::Renew { sent } => {
                self.renew(node, sent).await;
                return Ok(None);
            }
            ToControl::Hello(mut hello) => {
                let bound = self.sessions().get(&node).is_some_and(|s| s.bound);
                if bound {
                    self.bind(node, &mut hello).await?;
                }
                self.register(&hello).await?;
                if let Some(session) = self.sessions().get_mut(&node) {
                    session.live.facts = hello.facts;
                }
                return Ok(None);
            }
            ToControl::Resume(_) | ToControl::Held(_) => {
                let what = "what a session begins with is said in the middle of it";
                return Err(Rejection::new(Reason::Invalid, what));
            }
            ToControl::Started(tasks) => (Vec::new(), Command::Started { node, tasks }),
            ToControl::Returned(tasks) => (Vec::new(), Command::Returned { node, tasks }),
            ToControl::Progress(metrics) => {
                let metrics = metrics
                    .into_iter()
                    .map(|m| Metric {
                        task: m.task,
                        step: m.step,
                        value: m.value,
                        line: m.line.into(),
                    })
                    .collect();
                (Vec::new(), Command::Progress { node, metrics })
            }
            ToControl::Finished(outcomes) => {
                self.judge(node, &outcomes);
                let tasks = outcomes.iter().map(|o| o.task).collect();
                let results = outcomes.into_iter().map(task_result).collect();
                (tasks, Command::Finished { node, results })
            }
            ToControl::Sandbox { id, status } => {
                let status = sandbox_status(status);
                (Vec::new(), Command::SandboxReport { node, id, status })
            }
        };
        let answer = self.send(command.into()).await?;
        Ok(Some((tasks, answer)))
    }

    async fn heartbeat(&self, node: NodeId, readings: prism_link::Readings, credits: u32) {
        let now = self.now();
        let wake = {
            let mut sessions = self.sessions();
            let Some(session) = sessions.get_mut(&node) else {
                return;
            };
            let wake =
                credits > session.credits || session.live.readings.pressure != readings.pressure;
            session.live.readings = readings;
            session.live.last_heartbeat = now;
            session.credits = credits;
            wake
        };
        if wake {
            self.shared.poke.notify_one();
        }
        let state = self.read(|s| s.node(node).map(|n| n.record().state)).await;
        match state {
            None | Some(NodeState::Healthy) => {}
            // What it runs was given to others meanwhile: it greets again, and is told what to stop.
            Some(NodeState::Offline) => self.end_session(node),
            Some(NodeState::Suspect) => {
                let back = Command::SetNodeState {
                    id: node,
                    state: NodeState::Healthy,
                };
                if let Err(e) = self.propose(back, None).await {
                    tracing::warn!(%node, error = %e, "could not note that a node is back");
                }
            }
        }
    }

    /// Gives a node more time for what it may run once only, from when it asked. What makes that safe is the order: first it is
    /// noted that the node was heard of, which holds back [`NodeState::Offline`] for as long as the lease lasts; then that its
    /// work was not given up before; then that this leader still led after it was asked.
    async fn renew(&self, node: NodeId, sent: u64) {
        match self.sessions().get_mut(&node) {
            Some(session) => session.live.last_heartbeat = self.now(),
            None => return,
        }
        let state = self.read(|s| s.node(node).map(|n| n.record().state)).await;
        if matches!(state, None | Some(NodeState::Offline)) {
            return;
        }
        match tokio::time::timeout(CONFIRM_WAIT, self.confirm()).await {
            Ok(Ok(())) => self.tell(node, ToWorker::Renewed { sent }),
            Ok(Err(why)) => {
                tracing::info!(%node, %why, "a lease is not renewed here");
            }
            Err(_) => {
                tracing::info!(%node, "a lease is not renewed: it is not known in time whether this server still leads")
            }
        }
    }

    /// Ends a node's session, so that the node begins another.
    pub(crate) fn end_session(&self, node: NodeId) {
        // Under one lock: at no moment is it unknown when the node was heard of.
        let mut sessions = self.sessions();
        if let Some(session) = sessions.remove(&node) {
            self.note_past(node, &session);
            session.over.cancel();
        }
    }

    /// Folds outcomes into a node's reliability: what the node did wrong, not what the task did.
    fn judge(&self, node: NodeId, outcomes: &[prism_link::TaskOutcome]) {
        if let Some(session) = self.sessions().get_mut(&node) {
            for o in outcomes {
                let good = match o.report.cause {
                    StopCause::Lost | StopCause::StartFailed => 0.0,
                    _ => 1.0,
                };
                session.reliability += RELIABILITY_STEP * (good - session.reliability);
            }
        }
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

pub(crate) fn sandbox_status(status: SandboxStatus) -> prism_state::SandboxStatus {
    match status {
        SandboxStatus::Running(at) => prism_state::SandboxStatus::Running { at },
        SandboxStatus::Exited(report) => prism_state::SandboxStatus::Exited(report),
    }
}
