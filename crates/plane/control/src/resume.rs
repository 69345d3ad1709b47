//! How a worker's session begins: what it holds is found out and settled with the state, and it is told what it does not know.
//!
//! A worker either lists all that it holds, or sums it up; then only what differs from the state is named ([`prism_link::resume`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prism_link::resume::{Compared, Item, Phase, Summary, compare};
use prism_link::{ControlEnd, Hello, Holding, SandboxStatus, ToControl, ToWorker};
use prism_state::{Command, Desired, DesiredJob, State, TaskResult};
use prism_types::{
    JobId, NodeId, Reason, Rejection, RunReport, SandboxId, StopCause, TaskRef, TimeMs,
};
use tokio::sync::mpsc;

use crate::Control;
use crate::session::sandbox_status;

/// How long a worker may take to say what it holds where that differs.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Jobs that a worker is told of at once as its session begins: at most four messages each.
const JOBS: usize = 64;

/// Waits until half of a queue to a worker is free; false when nobody reads it any more.
async fn room(to: &mpsc::Sender<ToWorker>) -> bool {
    // Given back at once: it is room that others leave, not room that is kept from them.
    to.reserve_many(to.max_capacity() / 2).await.is_ok()
}

/// What a worker holds as its session begins.
#[derive(Debug, Default)]
pub(crate) struct Held {
    tasks: BTreeSet<TaskRef>,
    /// Those that run and that the state may not know to.
    started: Vec<(TaskRef, TimeMs)>,
    /// Sandboxes that run, or are over and not forgotten.
    sandboxes: BTreeSet<SandboxId>,
    /// Those that are only being started.
    starting: BTreeSet<SandboxId>,
    /// What it says of sandboxes that the state may not know.
    news: Vec<(SandboxId, SandboxStatus)>,
    /// Jobs whose spec it has, with their lanes.
    pub(crate) jobs: BTreeMap<JobId, u32>,
    /// Whether it was summed up: then what is wanted is not listed either.
    summed: bool,
}

impl Held {
    /// By a greeting that lists it.
    pub(crate) fn listed(hello: &Hello) -> Self {
        Self {
            tasks: hello.tasks.iter().map(|(task, _)| *task).collect(),
            started: hello.tasks.iter().filter_map(running).collect(),
            sandboxes: hello.sandboxes.iter().map(|(id, _)| *id).collect(),
            news: hello.sandboxes.clone(),
            ..Self::default()
        }
    }

    /// By a summary, once all of it is known.
    fn summed(items: BTreeSet<Item>) -> Self {
        let mut held = Self {
            summed: true,
            ..Self::default()
        };
        for item in items {
            match item {
                Item::Task(task, _) => _ = held.tasks.insert(task),
                Item::Sandbox(id, Phase::Waiting) => _ = held.starting.insert(id),
                Item::Sandbox(id, _) => _ = held.sandboxes.insert(id),
                Item::Job(job, lanes) => _ = held.jobs.insert(job, lanes),
            }
        }
        held
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
    let desired = state.desired_for(node);
    let phase = |started: bool| match started {
        true => Phase::Running,
        false => Phase::Waiting,
    };
    let mut items = Vec::new();
    for job in &desired.jobs {
        items.push(Item::Job(job.job, job.lanes));
        let runs = job.runs();
        items.extend(runs.map(|(task, t)| Item::Task(task, phase(t.started))));
    }
    items.extend(desired.sandboxes.iter().map(|s| {
        let started = state.sandbox(s.id).is_some_and(|r| r.started.is_some());
        Item::Sandbox(s.id, phase(started))
    }));
    items
}

impl Control {
    /// Finds out what a worker holds that has summed it up: asks once if anything differs from the state.
    pub(crate) async fn compared(
        &self,
        node: NodeId,
        summary: Summary,
        end: &mut ControlEnd,
    ) -> Result<Held, Rejection> {
        let own = self.read(|s| seen(s, node)).await;
        let comparison = match compare(summary, own) {
            Compared::Known(items) => return Ok(Held::summed(items)),
            Compared::Differs(comparison) => comparison,
        };
        let gone = || Rejection::retryable(Reason::Lost, "it went away while it was greeted");
        let question = ToWorker::Compare(comparison.sums());
        end.to_worker.send(question).await.map_err(|_| gone())?;
        let said = tokio::time::timeout(ANSWER_WAIT, end.from_worker.recv());
        let answer = match said.await {
            Ok(Some(ToControl::Held(answer))) => *answer,
            Ok(None) => return Err(gone()),
            Ok(Some(_)) => return Err(invalid("it says something else when it is asked")),
            Err(_) => return Err(invalid("it does not say in time what it holds")),
        };
        let news = &answer.holdings;
        let unseen = |t: &&(TaskRef, Holding)| !comparison.sees(Item::Task(t.0, Phase::Running));
        let started = news.tasks.iter().filter(unseen).filter_map(running);
        let started = started.collect();
        let news = news.sandboxes.iter().filter_map(|(id, status)| {
            let running = matches!(status, Some(SandboxStatus::Running(_)));
            let known = running && comparison.sees(Item::Sandbox(*id, Phase::Running));
            Some((*id, status.clone().filter(|_| !known)?))
        });
        let news = news.collect();
        let items = comparison.settle(&answer);
        let items = items.map_err(|why| invalid(&why.to_string()))?;
        tracing::debug!(%node, holds = items.len(), buckets = answer.buckets.len(), "a node holds something else than the state says");
        Ok(Held {
            started,
            news,
            ..Held::summed(items)
        })
    }

    /// Settles the differences between what the state says of a node and what the node holds.
    pub(crate) async fn reconcile(&self, node: NodeId, held: &Held) -> Result<(), Rejection> {
        let desired = self.read(|s| s.desired_for(node)).await;
        let (mut returned, mut lost) = (Vec::new(), Vec::new());
        for job in &desired.jobs {
            let single = self.is_single(job.job).await;
            for (task, t) in job.runs() {
                // Of what may run once only, that it is not named is not enough to say that it never began.
                match (held.tasks.contains(&task), t.started || single) {
                    (true, _) => {}
                    (false, false) => returned.push(task),
                    (false, true) => lost.push(task),
                }
            }
        }
        if !returned.is_empty() {
            let tasks = returned;
            self.propose(Command::Returned { node, tasks }, None)
                .await?;
        }
        if !lost.is_empty() {
            let results = lost.into_iter().map(|task| self.lost(task)).collect();
            self.propose(Command::Finished { node, results }, None)
                .await?;
        }
        if !held.started.is_empty() {
            let tasks = held.started.clone();
            self.propose(Command::Started { node, tasks }, None).await?;
        }
        self.reconcile_sandboxes(node, held, &desired).await
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

    async fn reconcile_sandboxes(
        &self,
        node: NodeId,
        held: &Held,
        desired: &Desired,
    ) -> Result<(), Rejection> {
        for (id, status) in &held.news {
            if self.read(|s| s.sandbox(*id).is_some()).await {
                let status = sandbox_status(status.clone());
                self.report_sandbox(node, *id, status).await?;
            }
        }
        let not_held = |id| !held.sandboxes.contains(&id);
        for sandbox in desired.sandboxes.iter().filter(|s| not_held(s.id)) {
            let started = self
                .read(|s| s.sandbox(sandbox.id).is_some_and(|r| r.started.is_some()))
                .await;
            // One that never started is started by `send_rest`; one that did is gone.
            if started || sandbox.stop {
                let status = prism_state::SandboxStatus::Gone;
                self.report_sandbox(node, sandbox.id, status).await?;
            }
        }
        Ok(())
    }

    async fn report_sandbox(
        &self,
        node: NodeId,
        id: SandboxId,
        status: prism_state::SandboxStatus,
    ) -> Result<(), Rejection> {
        let report = Command::SandboxReport { node, id, status };
        self.propose(report, None).await.map(drop)
    }

    /// Tells a worker what it should hold, or, if it has summed up what it holds, what of that it should not.
    pub(crate) async fn send_desired(
        &self,
        node: NodeId,
        held: &Held,
        to: &mpsc::Sender<ToWorker>,
    ) {
        let desired = self.read(|s| s.desired_for(node)).await;
        let tasks = desired
            .jobs
            .iter()
            .flat_map(DesiredJob::runs)
            .map(|(task, _)| task);
        let sandboxes = desired.sandboxes.iter().map(|s| s.id);
        let message = if held.summed {
            let (tasks, sandboxes): (BTreeSet<_>, BTreeSet<_>) =
                (tasks.collect(), sandboxes.collect());
            let ids = held.sandboxes.iter().chain(&held.starting).copied();
            ToWorker::Unwanted {
                tasks: held.tasks.difference(&tasks).copied().collect(),
                sandboxes: ids.filter(|id| !sandboxes.contains(id)).collect(),
            }
        } else {
            ToWorker::Desired {
                tasks: tasks.collect(),
                sandboxes: sandboxes.collect(),
            }
        };
        // A worker that is gone already ends its session at once.
        let _gone = to.send(message).await;
    }

    /// Tells a worker what it needs for what it holds, and what of it to stop or to start: of a few jobs at a time, so that what is
    /// said never fills the queue that everything else is said through, however many jobs there are.
    pub(crate) async fn send_rest(&self, node: NodeId, held: &Held, to: &mpsc::Sender<ToWorker>) {
        if !self.forget_jobs(node, held, to).await {
            return;
        }
        // What changes after this is said by the leader as it happens.
        let lacking = |s: &State| -> Vec<JobId> {
            let jobs = s.desired_for(node).jobs;
            let jobs = jobs
                .iter()
                .filter(|j| j.is_news_to(held.jobs.get(&j.job).copied()));
            jobs.map(|job| job.job).collect()
        };
        let lacking = self.read(lacking).await;
        for jobs in lacking.chunks(JOBS) {
            if !room(to).await {
                return;
            }
            for job in jobs {
                self.send_job(node, *job).await;
            }
            // As it is at the moment at which it is said: the leader says what changes later after this.
            let say = |desired: &Desired| {
                let these = desired.jobs.iter().filter(|j| jobs.contains(&j.job));
                these.for_each(|job| self.tell_job(node, job));
            };
            self.read(|s| say(&s.desired_for(node))).await;
        }
        if !room(to).await {
            return;
        }
        let desired = self.read(|s| s.desired_for(node)).await;
        let mut start = Vec::new();
        let mut stop = Vec::new();
        for sandbox in &desired.sandboxes {
            match sandbox.stop {
                true => stop.push(sandbox.id),
                false if held.sandboxes.contains(&sandbox.id) => {}
                false => start.push(sandbox.id),
            }
        }
        self.start_sandboxes(node, start).await;
        self.tell(node, ToWorker::SandboxStop(stop));
    }

    /// Tells a worker which of the jobs that it has are over: they may have come to their end while it was away. False when nobody
    /// reads it any more.
    async fn forget_jobs(&self, node: NodeId, held: &Held, to: &mpsc::Sender<ToWorker>) -> bool {
        let over = |s: &State| -> Vec<JobId> {
            let live = |job: &JobId| s.job(*job).is_some_and(|j| !j.record().state.is_final());
            held.jobs.keys().copied().filter(|job| !live(job)).collect()
        };
        for jobs in self.read(over).await.chunks(JOBS) {
            if !room(to).await {
                return false;
            }
            for job in jobs {
                // Under one lock: what is sent of the job after this is sent with its spec.
                let mut sessions = self.sessions();
                let Some(session) = sessions.get_mut(&node) else {
                    return false;
                };
                let over = ToWorker::JobOver(*job);
                if session.jobs.remove(job) && session.outbox.try_send(over).is_err() {
                    drop(sessions);
                    self.end_session(node);
                    return false;
                }
            }
        }
        true
    }

    /// How many of a job's tasks may run on a node at once, and which of them are to go.
    fn tell_job(&self, node: NodeId, desired: &DesiredJob) {
        let (job, lanes) = (desired.job, desired.lanes);
        let tasks = Vec::new();
        self.tell(node, ToWorker::Assign { job, lanes, tasks });
        if desired.recall {
            self.tell(node, ToWorker::Recall(job));
        }
        let stop = desired.runs().filter(|(_, t)| t.stop.is_some());
        let tasks: Vec<TaskRef> = stop.map(|(task, _)| task).collect();
        if !tasks.is_empty() {
            let why = prism_link::StopWhy::Cancelled;
            self.tell(node, ToWorker::Stop { tasks, why });
        }
    }
}

fn invalid(what: &str) -> Rejection {
    let what = format!("a session does not begin: the worker was asked what it holds, and {what}");
    Rejection::new(Reason::Invalid, what)
}
