//! What others read of the state. Nothing here changes anything.

use prism_spec::{FileSpec, JobSpec};
use prism_types::{
    Id, JobId, Millis, NodeId, NodeNo, Reason, Rejection, SandboxId, TaskRef, TaskState, TimeMs,
    TokenId, nearest,
};

use crate::{
    Cell, DeniedRecord, GossipRecord, Job, JoinTokenRecord, KeyRecord, MemberRecord, MetaRecord,
    Node, Phase, SandboxRecord, ServerRecord, State, TokenRecord,
};

/// One task as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskView {
    /// Its number.
    pub index: u32,
    /// Its state.
    pub state: TaskState,
    /// Why: of the last failure, the cancellation, or the early stop.
    pub reason: Option<Reason>,
    /// Number of the latest attempt; 0: never placed.
    pub attempt: u32,
    /// Failures that counted against `retries`.
    pub failures: u32,
    /// Times its node was lost.
    pub losses: u32,
    /// The node it is or ended on, if the cluster still knows it.
    pub node: Option<NodeId>,
    /// When it is due again.
    pub due: Option<TimeMs>,
}

/// What a node should have and do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Its tasks by job.
    pub jobs: Vec<DesiredJob>,
    /// Its sandboxes.
    pub sandboxes: Vec<DesiredSandbox>,
}

/// Tasks of one job that a node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredJob {
    /// The job.
    pub job: JobId,
    /// How many it may run at once.
    pub lanes: u32,
    /// What has not started there is to come back.
    pub recall: bool,
    /// The tasks.
    pub tasks: Vec<DesiredTask>,
}

impl DesiredJob {
    /// Its tasks, each by the name of this attempt.
    pub fn runs(&self) -> impl Iterator<Item = (TaskRef, &DesiredTask)> {
        self.tasks.iter().map(|t| {
            let task = TaskRef {
                job: self.job,
                index: t.index,
                attempt: t.attempt,
            };
            (task, t)
        })
    }

    /// Whether there is anything to tell of it to a node that knows it with so many lanes, or not at all.
    pub fn is_news_to(&self, lanes: Option<u32>) -> bool {
        let recall = self.recall && self.tasks.iter().any(|t| !t.started);
        let stop = self.tasks.iter().any(|t| t.stop.is_some());
        recall || stop || lanes != Some(self.lanes)
    }
}

/// One task that a node should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredTask {
    /// Its number.
    pub index: u32,
    /// Its attempt.
    pub attempt: u32,
    /// Whether the node has said that it started.
    pub started: bool,
    /// Set if it is to be stopped, and why.
    pub stop: Option<Reason>,
}

/// One sandbox that a node should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredSandbox {
    /// The sandbox.
    pub id: SandboxId,
    /// It is to be stopped.
    pub stop: bool,
}

impl State {
    /// The cluster's id, once it is initialised.
    pub fn cluster(&self) -> Option<Id> {
        self.meta.cluster
    }

    /// What there is one of.
    pub fn meta(&self) -> &MetaRecord {
        &self.meta
    }

    /// Every job, oldest first; `rev()` for newest first.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = &Job> {
        self.jobs.values()
    }

    /// The jobs after one, oldest first: the next page.
    pub fn jobs_after(&self, id: JobId) -> impl DoubleEndedIterator<Item = &Job> {
        use std::ops::Bound;
        self.jobs
            .range((Bound::Excluded(id), Bound::Unbounded))
            .map(|(_, j)| j)
    }

    /// The jobs before one; `rev()` gives the next page of newest first.
    pub fn jobs_before(&self, id: JobId) -> impl DoubleEndedIterator<Item = &Job> {
        self.jobs.range(..id).map(|(_, j)| j)
    }

    /// A job by id.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// Open jobs that have tasks to place: highest priority first, then oldest.
    pub fn queue(&self) -> impl Iterator<Item = &Job> {
        self.index
            .queue
            .iter()
            .filter_map(|(_, id)| self.jobs.get(id))
    }

    /// One task.
    pub fn task(&self, job: JobId, index: u32) -> Option<TaskView> {
        let cell = self.jobs.get(&job)?.cell(index)?;
        Some(self.task_view(index, cell))
    }

    /// A job's tasks from number `from` on, in order.
    pub fn tasks(&self, job: JobId, from: u32) -> impl Iterator<Item = TaskView> + '_ {
        let cells = self
            .jobs
            .get(&job)
            .into_iter()
            .flat_map(move |j| j.cells(from));
        cells.map(|(index, cell)| self.task_view(index, cell))
    }

    fn task_view(&self, index: u32, cell: Cell) -> TaskView {
        TaskView {
            index,
            state: cell.state,
            reason: cell.reason,
            attempt: cell.attempt,
            failures: cell.failures.into(),
            losses: cell.losses.into(),
            node: cell.node().and_then(|no| self.node_id(no)),
            due: cell.due(),
        }
    }

    /// Every node, by id.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node by id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// A node by its small number.
    pub fn node_by_no(&self, no: NodeNo) -> Option<&Node> {
        self.nodes.get(self.index.node_by_no.get(&no)?)
    }

    /// The id behind a node's small number.
    pub fn node_id(&self, no: NodeNo) -> Option<NodeId> {
        self.index.node_by_no.get(&no).copied()
    }

    /// A node by id or name.
    ///
    /// # Errors
    /// When there is none; the message suggests the nearest name.
    pub fn find_node(&self, text: &str) -> Result<&Node, Rejection> {
        let by_id = text.parse().ok().and_then(|id| self.nodes.get(&id));
        let by_name = || {
            let name = text.parse().ok()?;
            self.nodes.get(self.index.node_by_name.get(&name)?)
        };
        by_id.or_else(by_name).ok_or_else(|| {
            not_found(
                "node",
                text,
                self.index.node_by_name.keys().map(|n| n.as_str()),
            )
        })
    }

    /// Every sandbox, oldest first; those that are over stay for an hour.
    pub fn sandboxes(&self) -> impl DoubleEndedIterator<Item = &SandboxRecord> {
        self.sandboxes.values()
    }

    /// A sandbox by id.
    pub fn sandbox(&self, id: SandboxId) -> Option<&SandboxRecord> {
        self.sandboxes.get(&id)
    }

    /// Sandboxes that wait for a place, oldest first.
    pub fn sandboxes_pending(&self) -> impl Iterator<Item = &SandboxRecord> {
        let ids = self.index.sandboxes_pending.iter();
        ids.filter_map(|id| self.sandboxes.get(id))
    }

    /// Every token, oldest first.
    pub fn tokens(&self) -> impl DoubleEndedIterator<Item = &TokenRecord> {
        self.tokens.values()
    }

    /// A token by id.
    pub fn token(&self, id: TokenId) -> Option<&TokenRecord> {
        self.tokens.get(&id)
    }

    /// The token with this SHA-256 of its secret, if it is valid at `now`.
    pub fn token_by_hash(&self, hash: &[u8; 32], now: TimeMs) -> Option<&TokenRecord> {
        let token = self.tokens.get(self.index.token_by_hash.get(hash)?)?;
        let expired = token.expires.is_some_and(|at| at <= now);
        (!expired).then_some(token)
    }

    /// Every join token, oldest first.
    pub fn join_tokens(&self) -> impl DoubleEndedIterator<Item = &JoinTokenRecord> {
        self.join_tokens.values()
    }

    /// Every member, oldest first.
    pub fn members(&self) -> impl DoubleEndedIterator<Item = &MemberRecord> {
        self.members.values()
    }

    /// Every server, oldest first.
    pub fn servers(&self) -> impl Iterator<Item = &ServerRecord> {
        self.servers.values().filter(|s| !s.gone)
    }

    /// Servers that were removed.
    pub fn gone_servers(&self) -> impl Iterator<Item = &ServerRecord> {
        self.servers.values().filter(|s| s.gone)
    }

    /// A server by id, also one that has gone.
    pub fn server(&self, id: NodeId) -> Option<&ServerRecord> {
        self.servers.get(&id)
    }

    /// A member by id.
    pub fn member(&self, id: NodeId) -> Option<&MemberRecord> {
        self.members.get(&id)
    }

    /// All who are kept out.
    pub fn denied(&self) -> impl Iterator<Item = &DeniedRecord> {
        self.denied.values()
    }

    /// Whether somebody is kept out.
    pub fn is_denied(&self, whom: &crate::Whom) -> bool {
        self.denied.contains_key(whom)
    }

    /// The keys that gossip is sealed with, once there are any.
    pub fn gossip(&self) -> Option<&GossipRecord> {
        self.gossip.as_ref()
    }

    /// What an idempotency key was answered.
    pub fn key(&self, key: &str) -> Option<&KeyRecord> {
        self.keys.get(key)
    }

    /// Whether the content of a file with this SHA-256 is stored.
    pub fn has_blob(&self, sha256: &str) -> bool {
        self.index.blobs.contains(sha256)
    }

    /// The latest moment at which something is known to have been decided. A leader's clock must not start before it: retries and
    /// leases would wait for as long as its clock is behind that of the leader before.
    pub fn latest_time(&self) -> TimeMs {
        let jobs = self.jobs.values().map(|j| {
            let r = &j.record;
            let of = [Some(r.created), r.started, r.finished];
            of.into_iter().flatten().max().unwrap_or_default()
        });
        let nodes = self.nodes.values().map(|n| n.record.since);
        let sandboxes = self.sandboxes.values().map(|s| {
            let of = [Some(s.created), s.finished];
            of.into_iter().flatten().max().unwrap_or_default()
        });
        // What is due later was decided no longer ago than it may wait.
        let keys = self.index.key_timer.last();
        let keys = keys.map(|(at, _)| before(*at, crate::decide::KEY_MEMORY));
        let due = self.index.due.iter().map(|(at, job, _)| {
            let spec = self.jobs.get(job).map(|j| j.spec.backoff);
            let longest = spec.map_or(Millis(0), |b| crate::backoff::longest(&b));
            before(*at, longest)
        });
        let moments = jobs.chain(nodes).chain(sandboxes).chain(keys).chain(due);
        moments.max().unwrap_or_default()
    }

    /// When [`crate::Command::Tick`] has something to do, if ever: the earliest timer.
    pub fn next_timer(&self) -> Option<TimeMs> {
        let i = &self.index;
        let due = i.due.first().map(|(at, ..)| *at);
        let sandbox = i.sandbox_timer.first().map(|(at, _)| *at);
        let key = i.key_timer.first().map(|(at, _)| *at);
        let join = i.join_token_timer.first().map(|(at, _)| *at);
        let draining = i.draining.iter().filter_map(|id| self.nodes.get(id));
        let drain = crate::decide::next_drain(draining);
        [due, sandbox, key, join, drain].into_iter().flatten().min()
    }

    /// What a node should have and do: what a worker's session starts from.
    pub fn desired_for(&self, id: NodeId) -> Desired {
        let Some(node) = self.nodes.get(&id) else {
            return Desired::default();
        };
        let no = node.record.no;
        let phase = node.record.drain.map(|drain| drain.phase);
        let drained = (phase == Some(Phase::Stopping)).then_some(Reason::Cancelled);
        let jobs = node.jobs.iter().filter_map(|id| self.jobs.get(id));
        let jobs = jobs.map(|job| DesiredJob {
            job: job.id(),
            lanes: job.lanes_on(no),
            recall: job.record.paused || phase.is_some(),
            tasks: job
                .tasks_on(no)
                .filter_map(|i| desired_task(job, i, drained))
                .collect(),
        });
        let sandboxes = node
            .sandboxes
            .iter()
            .filter_map(|id| self.sandboxes.get(id));
        Desired {
            jobs: jobs.collect(),
            sandboxes: sandboxes
                .map(|s| DesiredSandbox {
                    id: s.id,
                    stop: s.state == prism_types::SandboxState::Stopping,
                })
                .collect(),
        }
    }
}

fn before(at: TimeMs, by: Millis) -> TimeMs {
    TimeMs(at.0.saturating_sub(by.0))
}

fn desired_task(job: &Job, index: u32, drained: Option<Reason>) -> Option<DesiredTask> {
    let cell = job.cell(index)?;
    Some(DesiredTask {
        index,
        attempt: cell.attempt,
        started: cell.state == TaskState::Running,
        stop: job.stop_reason(index).or(drained),
    })
}

/// "no job `x`; did you mean `y`".
pub(crate) fn not_found<'a>(
    what: &str,
    text: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Rejection {
    let text: String = text.chars().take(80).collect();
    let hint = match nearest(&text, known) {
        Some(near) => format!("; did you mean {near}"),
        None => String::new(),
    };
    Rejection::new(
        Reason::NotFound,
        format!("there is no {what} {text:?}{hint}"),
    )
}

/// Every file that a job sends along.
pub(crate) fn files_of(spec: &JobSpec) -> impl Iterator<Item = &FileSpec> {
    let sweep = spec.sweep();
    let runners = sweep.into_iter().flat_map(|s| &s.runners);
    let aggregate = sweep.and_then(|s| s.aggregate.as_ref());
    spec.files
        .iter()
        .chain(runners.flat_map(|r| &r.files))
        .chain(aggregate.into_iter().flat_map(|a| &a.files))
}
