//! One worker's session: its greeting is reconciled with the state, then its reports become proposals.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prism_link::{ControlEnd, Hello, Holding, NodeService, SandboxStatus, ToControl, ToWorker};
use prism_scheduler::NodeView;
use prism_state::{Command, Desired, Metric, Registration, Reply, State, TaskResult};
use prism_store::BoxFuture;
use prism_types::{
    JobId, NodeId, NodeState, Reason, Rejection, RunReport, SandboxId, StopCause, TaskRef,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{Control, LiveNode};

/// Reports taken at once.
const TAKE: usize = 64;
/// How long a node may wait to hear that this server leads.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);
/// Weight of one outcome in a node's reliability.
pub(crate) const RELIABILITY_STEP: f64 = 0.02;

/// Jobs that a worker is told of at once as its session begins: at most four messages each.
const JOBS: usize = 64;

/// Waits until half of a queue to a worker is free; false when nobody reads it any more.
async fn room(to: &mpsc::Sender<ToWorker>) -> bool {
    // Given back at once: it is room that others leave, not room that is kept from them.
    to.reserve_many(to.max_capacity() / 2).await.is_ok()
}

/// What the leader keeps of a session.
pub(crate) struct Session {
    pub(crate) outbox: mpsc::Sender<ToWorker>,
    pub(crate) service: Arc<dyn NodeService>,
    pub(crate) live: LiveNode,
    pub(crate) credits: u32,
    /// Jobs whose spec was sent in this session.
    pub(crate) jobs: BTreeSet<JobId>,
    pub(crate) reliability: f64,
    /// Whether it is a member's, who is bound to what it joined as.
    bound: bool,
    /// Ends it, when the same node begins another.
    over: CancellationToken,
}

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
            reliability: self.reliability,
            leases: self.service.keeps_leases(),
        }
    }
}

/// What a worker says first; `None` when it says nothing.
async fn greeting(end: &mut ControlEnd) -> Result<Option<Hello>, Rejection> {
    match end.from_worker.recv().await {
        Some(ToControl::Hello(hello)) => Ok(Some(*hello)),
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
                Some(hello) => self.serve(hello, false, end, service).await,
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
            let Some(mut hello) = greeting(&mut end).await? else {
                return Ok(());
            };
            self.bind(member, &mut hello).await?;
            self.serve(hello, true, end, service).await
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
        hello: Hello,
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
        self.reconcile(&hello).await?;
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
            jobs: BTreeSet::new(),
            reliability: self.past(node).reliability,
            bound,
            over: over.clone(),
        };
        // First what it should hold, then the session: from then on the leader assigns, and nothing assigned may be dropped.
        self.send_desired(node, &end.to_worker).await;
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
            self.send_rest(&hello, &to).await;
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

    /// Settles the differences between what the state says of a node and what the node holds.
    async fn reconcile(&self, hello: &Hello) -> Result<(), Rejection> {
        let node = hello.node;
        let desired = self.read(|s| s.desired_for(node)).await;
        let held: BTreeSet<TaskRef> = hello.tasks.iter().map(|(t, _)| *t).collect();
        let (mut returned, mut lost) = (Vec::new(), Vec::new());
        for job in &desired.jobs {
            let single = self.is_single(job.job).await;
            for t in &job.tasks {
                let task = TaskRef {
                    job: job.job,
                    index: t.index,
                    attempt: t.attempt,
                };
                // Of what may run once only, that it is not named is not enough to say that it never began.
                match (held.contains(&task), t.started || single) {
                    (true, _) => {}
                    (false, false) => returned.push(task),
                    (false, true) => lost.push(task),
                }
            }
        }
        if !returned.is_empty() {
            self.propose(
                Command::Returned {
                    node,
                    tasks: returned,
                },
                None,
            )
            .await?;
        }
        if !lost.is_empty() {
            let results = lost.into_iter().map(|task| self.lost(task)).collect();
            self.propose(Command::Finished { node, results }, None)
                .await?;
        }
        let running: Vec<_> = hello
            .tasks
            .iter()
            .filter_map(|(t, h)| match h {
                Holding::Running(at) => Some((*t, *at)),
                Holding::Waiting | Holding::Over => None,
            })
            .collect();
        if !running.is_empty() {
            self.propose(
                Command::Started {
                    node,
                    tasks: running,
                },
                None,
            )
            .await?;
        }
        self.reconcile_sandboxes(hello, &desired).await
    }

    async fn is_single(&self, job: JobId) -> bool {
        let single = |s: &State| s.job(job).is_some_and(|j| j.spec().single_instance);
        self.read(single).await
    }

    fn lost(&self, task: TaskRef) -> TaskResult {
        let detail = "the node came back without it: its supervisor and its records were gone";
        let report = RunReport {
            cause: StopCause::Lost,
            ..RunReport::not_started(self.now(), detail)
        };
        TaskResult {
            task,
            report,
            result: None,
            stderr_tail: "".into(),
            output: None,
        }
    }

    async fn reconcile_sandboxes(&self, hello: &Hello, desired: &Desired) -> Result<(), Rejection> {
        let node = hello.node;
        for (id, status) in &hello.sandboxes {
            self.report_sandbox(node, *id, status.clone()).await?;
        }
        let held: BTreeSet<SandboxId> = hello.sandboxes.iter().map(|(id, _)| *id).collect();
        for sandbox in desired.sandboxes.iter().filter(|s| !held.contains(&s.id)) {
            let started = self
                .read(|s| s.sandbox(sandbox.id).is_some_and(|r| r.started.is_some()))
                .await;
            // One that never started is started by `send_desired`; one that did is gone.
            if started || sandbox.stop {
                let status = prism_state::SandboxStatus::Gone;
                self.propose(
                    Command::SandboxReport {
                        node,
                        id: sandbox.id,
                        status,
                    },
                    None,
                )
                .await?;
            }
        }
        Ok(())
    }

    /// Tells a worker what it should hold; what it holds beyond that, it drops.
    async fn send_desired(&self, node: NodeId, to: &mpsc::Sender<ToWorker>) {
        let desired = self.read(|s| s.desired_for(node)).await;
        let tasks = desired.jobs.iter().flat_map(tasks_of);
        let message = ToWorker::Desired {
            tasks: tasks.map(|(task, _)| task).collect(),
            sandboxes: desired.sandboxes.iter().map(|s| s.id).collect(),
        };
        // A worker that is gone already ends its session at once.
        let _gone = to.send(message).await;
    }

    /// Tells a worker what it needs for what it holds, and what of it to stop or to start: of a few jobs at a time, so that what is
    /// said never fills the queue that everything else is said through, however many jobs there are.
    async fn send_rest(&self, hello: &Hello, to: &mpsc::Sender<ToWorker>) {
        let node = hello.node;
        let mut after = None;
        loop {
            let next = |desired: &Desired| -> Vec<JobId> {
                let jobs = desired.jobs.iter().map(|j| j.job);
                jobs.filter(|j| after < Some(*j)).take(JOBS).collect()
            };
            let jobs = self.read(|s| next(&s.desired_for(node))).await;
            let Some(last) = jobs.last() else { break };
            if !room(to).await {
                return;
            }
            for job in &jobs {
                self.send_job(node, *job).await;
            }
            // As it is at the moment at which it is said: the leader says what changes later after this.
            let say = |desired: &Desired| {
                let these = desired.jobs.iter().filter(|j| jobs.contains(&j.job));
                these.for_each(|job| self.tell_job(node, job));
            };
            self.read(|s| say(&s.desired_for(node))).await;
            after = Some(*last);
        }
        if !room(to).await {
            return;
        }
        let desired = self.read(|s| s.desired_for(node)).await;
        let held: BTreeSet<SandboxId> = hello.sandboxes.iter().map(|(id, _)| *id).collect();
        let mut start = Vec::new();
        let mut stop = Vec::new();
        for sandbox in &desired.sandboxes {
            match sandbox.stop {
                true => stop.push(sandbox.id),
                false if held.contains(&sandbox.id) => {}
                false => start.push(sandbox.id),
            }
        }
        self.start_sandboxes(node, start).await;
        self.tell(node, ToWorker::SandboxStop(stop));
    }

    /// How many of a job's tasks may run on a node at once, and which of them are to go.
    fn tell_job(&self, node: NodeId, desired: &prism_state::DesiredJob) {
        let (job, lanes) = (desired.job, desired.lanes);
        let tasks = Vec::new();
        self.tell(node, ToWorker::Assign { job, lanes, tasks });
        if desired.recall {
            self.tell(node, ToWorker::Recall(job));
        }
        let stop = tasks_of(desired).filter(|(_, stop)| *stop);
        let tasks: Vec<TaskRef> = stop.map(|(task, _)| task).collect();
        if !tasks.is_empty() {
            let why = prism_link::StopWhy::Cancelled;
            self.tell(node, ToWorker::Stop { tasks, why });
        }
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

    async fn report_sandbox(
        &self,
        node: NodeId,
        id: SandboxId,
        status: SandboxStatus,
    ) -> Result<(), Rejection> {
        let known = self.read(|s| s.sandbox(id).is_some()).await;
        if !known {
            return Ok(());
        }
        let status = sandbox_status(status);
        self.propose(Command::SandboxReport { node, id, status }, None)
            .await
            .map(|_| ())
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

fn sandbox_status(status: SandboxStatus) -> prism_state::SandboxStatus {
    match status {
        SandboxStatus::Running(at) => prism_state::SandboxStatus::Running { at },
        SandboxStatus::Exited(report) => prism_state::SandboxStatus::Exited(report),
    }
}

/// The tasks of a job that a node should have, and whether each is to be stopped.
fn tasks_of(job: &prism_state::DesiredJob) -> impl Iterator<Item = (TaskRef, bool)> {
    job.tasks.iter().map(|t| {
        let task = TaskRef {
            job: job.job,
            index: t.index,
            attempt: t.attempt,
        };
        (task, t.stop.is_some())
    })
}
