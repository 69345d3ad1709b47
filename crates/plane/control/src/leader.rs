//! The leader loop: takes proposals in batches, decides each against the state in memory, places what waits, commits all of it
//! as one batch, and only then answers and acts.
//!
//! The state is changed before the commit and locked until it is durable, so no reader ever sees what may be lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prism_scheduler::NodeView;
use prism_state::{Action, Change, Command, Reply, State, encode_batch};
use prism_store::{Batch, BoxFuture, KeyRange, Leadership, Store, StoreError};
use prism_types::{Fence, Id, JobId, LEASE, NodeId, NodeState, Reason, Rejection, TimeMs};
use tokio::sync::{Notify, RwLock, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::handle::{Counters, Request, Shared};
use crate::{Clock, Control, ControlError};

/// Proposals that wait for the loop; more callers wait in turn.
const QUEUE: usize = 4096;
/// Proposals decided in one round.
const ROUND: usize = 1024;
/// Bytes of contents and results after which a round takes no more proposals.
const ROUND_BYTES: usize = 8 << 20;
/// Items read at once when the state is loaded.
const PAGE: usize = 4096;
/// How soon is planned again when a node is behind with what was sent to it: nothing tells when it is not any more.
const BEHIND: Duration = Duration::from_millis(10);
/// How often leases are looked at.
const LEASE_CHECK: Duration = Duration::from_secs(1);
/// A look at the leases that comes so late says that this leader itself was held up: stopped, or by a slow disk.
const HELD_UP: Duration = Duration::from_secs(3);
/// A node that has not been heard of for so long is `SUSPECT`.
const SUSPECT_AFTER_MS: u64 = 6_000;
/// A node that has not been heard of for so long is `OFFLINE`: its lease is over then, whoever gave it.
const OFFLINE_AFTER_MS: u64 = LEASE.0;

type Answer = (
    oneshot::Sender<Result<Reply, Rejection>>,
    Result<Reply, Rejection>,
);

/// The loop; [`Leader::run`] it.
pub struct Leader {
    pub(crate) control: Control,
    pub(crate) leadership: Leadership,
    requests: mpsc::Receiver<Request>,
    restores: mpsc::Receiver<crate::restore::Job>,
    /// When each node was last heard of; nodes without a session count from the start of this leader.
    started: TimeMs,
    lease_checked: Instant,
    /// Whether the last look at the leases was put off.
    held_up: bool,
    placement: prism_scheduler::Config,
    /// When to plan again though nothing happens.
    plan_again: Option<Instant>,
    /// What a cluster that has no id yet is to be called.
    id: Option<Id>,
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader")
            .field("fence", &self.leadership.fence)
            .finish_non_exhaustive()
    }
}

/// Takes the leadership of a store and loads its state.
///
/// # Errors
/// When the store does not grant it, or what is stored cannot be read.
pub fn open(store: Arc<dyn Store>) -> BoxFuture<'static, Result<(Control, Leader), ControlError>> {
    Box::pin(async move {
        let leadership = store.lead().await.map_err(ControlError::Store)?;
        crate::restore::sweep(&*store, leadership.fence).await?;
        let state = load(&*store, State::LOAD_PREFIXES).await?;
        let (control, requests, restores) = handle(store, state, leadership.fence);
        let leader = Leader {
            restores,
            started: control.now(),
            control: control.clone(),
            leadership,
            requests,
            lease_checked: Instant::now(),
            held_up: false,
            placement: prism_scheduler::Config::default(),
            plan_again: None,
            id: None,
        };
        Ok((control, leader))
    })
}

type Handle = (
    Control,
    mpsc::Receiver<Request>,
    mpsc::Receiver<crate::restore::Job>,
);

fn handle(store: Arc<dyn Store>, state: State, fence: Fence) -> Handle {
    let clock = Clock::start(state.latest_time());
    let (sender, requests) = mpsc::channel(QUEUE);
    let (restores, inbox) = mpsc::channel(1);
    let shared = Shared {
        state: RwLock::new(state),
        store,
        over: AtomicBool::new(false),
        fence,
        requests: sender,
        restores,
        changed: watch::channel(0).0,
        waits: Arc::default(),
        admission: watch::channel(0).0,
        sessions: std::sync::Mutex::default(),
        past: std::sync::Mutex::default(),
        poke: Notify::new(),
        clock,
        numbers: Counters::default(),
    };
    let control = Control {
        shared: Arc::new(shared),
    };
    (control, requests, inbox)
}

/// What this server knows now, whoever leads: reads are answered, perhaps with what is no longer so, and every change is refused.
///
/// # Errors
/// When the store has stopped, or what is stored cannot be read.
pub fn frozen(store: Arc<dyn Store>) -> BoxFuture<'static, Result<Control, ControlError>> {
    Box::pin(async move {
        let state = load(&*store, State::LOAD_PREFIXES).await?;
        let fence = store.status().fence;
        Ok(handle(store, state, fence).0)
    })
}

/// The members and who is kept out, as far as this server knows: the rest of the state is left out.
///
/// # Errors
/// As of [`frozen`].
pub fn admission(store: &dyn Store) -> BoxFuture<'_, Result<State, ControlError>> {
    Box::pin(load(
        store,
        &["meta", "members/", "servers/", "denied/", "rotation/"],
    ))
}

/// The servers and the keys of their gossip, as far as this server knows: the rest of the state is left out.
///
/// # Errors
/// As of [`frozen`].
pub fn servers(store: &dyn Store) -> BoxFuture<'_, Result<State, ControlError>> {
    Box::pin(load(store, &["servers/", "gossip"]))
}

async fn load(store: &dyn Store, prefixes: &[&str]) -> Result<State, ControlError> {
    let revision = store.status().revision;
    let mut entries = Vec::new();
    for prefix in prefixes {
        let mut range = KeyRange::prefix(*prefix);
        loop {
            let page = store.range(range.clone(), Some(revision), PAGE).await;
            let page = page.map_err(ControlError::Store)?;
            let Some(last) = page.items.last() else { break };
            range = range.after(&last.key);
            entries.extend(page.items.into_iter().map(|i| (i.key, i.value)));
            if !page.more {
                break;
            }
        }
    }
    State::load(entries).map_err(ControlError::Corrupt)
}

impl Leader {
    /// The same, which gives a cluster that has no id yet this one. Whoever wrote it down before can tell its own cluster from
    /// others after a crash.
    #[must_use]
    pub fn founding(mut self, cluster: Id) -> Self {
        self.id = Some(cluster);
        self
    }

    /// Runs until `shutdown`, or until the store fails or another leader takes over.
    ///
    /// # Errors
    /// When it had to stop; every answer it gave is durable.
    pub fn run(
        mut self,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, Result<(), ControlError>> {
        Box::pin(async move {
            self.init().await?;
            let mut batch: Vec<Request> = Vec::new();
            loop {
                let until = self.next_wake().await;
                let control = self.control.clone();
                tokio::select! {
                    n = self.requests.recv_many(&mut batch, ROUND) => if n == 0 { return Ok(()) },
                    Some(job) = self.restores.recv() => self.restore(job).await?,
                    () = control.shared.poke.notified() => {}
                    () = tokio::time::sleep_until(until.into()) => {}
                    () = self.leadership.lost() => {
                        let why = StoreError::NotLeader { leader: "another server".to_owned() };
                        return Err(ControlError::Store(why));
                    }
                    () = shutdown.cancelled() => return Ok(()),
                }
                self.check_leases();
                self.round(&mut batch).await?;
                while !batch.is_empty() {
                    self.round(&mut batch).await?;
                }
            }
        })
    }

    /// What a leader decides before all else.
    async fn init(&mut self) -> Result<(), ControlError> {
        let mut first = vec![Command::TakeOver];
        if self.control.read(|s| s.cluster().is_none()).await {
            let (ms, entropy) = self.control.mint();
            first.push(Command::Init {
                cluster: self.id.unwrap_or_else(|| Id::new(ms, entropy)),
            });
        }
        let requests = first.into_iter().map(|command| Request {
            proposal: command.into(),
            answer: oneshot::channel().0,
        });
        self.round(&mut requests.collect()).await
    }

    /// When the loop has something to do by itself.
    async fn next_wake(&self) -> Instant {
        let now = self.control.now();
        let timer = self.control.read(State::next_timer).await;
        let timer = timer.map(|t| Instant::now() + Duration::from_millis(t.since(now).0));
        let lease = self.lease_checked + LEASE_CHECK;
        let others = timer.into_iter().chain(self.plan_again);
        others.fold(lease, Instant::min)
    }

    /// Queues what the leases say: late nodes are suspect, then offline.
    fn check_leases(&mut self) {
        let since = self.lease_checked.elapsed();
        if since < LEASE_CHECK {
            return;
        }
        self.lease_checked = Instant::now();
        // What nodes said while this leader did not listen waits to be read: they are not judged before that, but at the next look.
        let postpone = since >= HELD_UP && !self.held_up;
        self.held_up = postpone;
        if postpone {
            tracing::warn!(
                ms = since.as_millis(),
                "this leader was held up; nodes are judged at the next look"
            );
            return;
        }
        let control = self.control.clone();
        let started = self.started;
        tokio::spawn(async move {
            let now = control.now();
            let late = control
                .read(|s| late_nodes(s, &control, started, now))
                .await;
            for (id, state) in late {
                tracing::warn!(node = %id, %state, "a node is not heard of");
                if state == NodeState::Offline {
                    let runs = control.read(|s| s.node(id).map_or(0, prism_state::Node::tasks));
                    control.note_lost(id, runs.await.max(1));
                }
                if let Err(e) = control
                    .propose(Command::SetNodeState { id, state }, None)
                    .await
                {
                    tracing::warn!(node = %id, error = %e, "could not change a node's state");
                }
            }
        });
    }

    /// One round: decide, place, commit, answer, act. Takes from the front of `batch` what fits.
    async fn round(&mut self, batch: &mut Vec<Request>) -> Result<(), ControlError> {
        let shared = self.control.shared.clone();
        let now = shared.clock.now();
        let mut state = shared.state.write().await;
        let mut round = Round::default();
        let mut taken = 0;
        for request in batch.iter() {
            if round.bytes > ROUND_BYTES {
                break;
            }
            taken += 1;
            if let Some(why) = self.not_given_up(&request.proposal.command, now) {
                round.answers.push(Err(why));
                continue;
            }
            round.propose(&mut state, request, now);
        }
        if state.next_timer().is_some_and(|t| t <= now) {
            round.command(&mut state, &Command::Tick, now);
        }
        self.plan(&mut state, &mut round, now);
        if !round.changes.is_empty() {
            let committed = self.commit(&round.changes).await;
            if let Err(why) = &committed {
                // Before the state is given up: it holds what was not committed.
                shared.over.store(true, Ordering::SeqCst);
                if let Some(refusal) = undone(why) {
                    for request in batch.drain(..taken) {
                        // A caller that is gone does not change what was decided.
                        let _gone = request.answer.send(Err(refusal.clone()));
                    }
                }
            }
            committed?;
        }
        drop(state);
        self.finish(round, batch.drain(..taken)).await;
        Ok(())
    }

    /// Places what waits, as far as one round goes.
    fn plan(&mut self, state: &mut State, round: &mut Round, now: TimeMs) {
        self.plan_again = None;
        if !prism_scheduler::has_work(state) {
            return;
        }
        let views = self.control.views();
        let plan = prism_scheduler::plan(state, &views, &self.placement);
        if prism_scheduler::is_cut(state, &plan, &self.placement) {
            self.plan_again = Some(Instant::now());
        } else if views.values().any(|v| v.behind) {
            self.plan_again = Some(Instant::now() + BEHIND);
        }
        if !plan.is_empty() {
            round.command(state, &Command::Assign(plan), now);
        }
    }

    /// Why a node that is to be given up is not: it was heard of after all since that was asked for, and its lease may have been renewed.
    fn not_given_up(&self, command: &Command, now: TimeMs) -> Option<Rejection> {
        let Command::SetNodeState {
            id,
            state: NodeState::Offline,
        } = command
        else {
            return None;
        };
        let heard = self.control.last_heard(*id).unwrap_or_default();
        let silent = now.since(heard.max(self.started)).0;
        let why = format!("node {id} was heard of {silent} ms ago, and is not given up");
        (silent < OFFLINE_AFTER_MS).then(|| Rejection::new(Reason::WrongState, why))
    }

    async fn commit(&self, changes: &[Change]) -> Result<(), ControlError> {
        let mut write = Batch::new();
        for (key, value) in encode_batch(changes) {
            match value {
                Some(value) => write.puts.push((key.into(), value.into())),
                None => write.deletes.push(key.into()),
            }
        }
        let numbers = &self.control.shared.numbers;
        numbers
            .bytes
            .fetch_add(write.bytes() as u64, Ordering::Relaxed);
        let start = Instant::now();
        let store = &self.control.shared.store;
        store
            .commit(self.leadership.fence, write)
            .await
            .map_err(ControlError::Store)?;
        let us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        numbers.commit_us.fetch_add(us, Ordering::Relaxed);
        numbers.rounds.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// After the commit: tells everyone.
    async fn finish(&self, round: Round, requests: impl Iterator<Item = Request>) {
        let numbers = &self.control.shared.numbers;
        let refused = round.answers.iter().filter(|a| a.is_err()).count() as u64;
        numbers
            .commands
            .fetch_add(round.answers.len() as u64 - refused, Ordering::Relaxed);
        numbers.rejected.fetch_add(refused, Ordering::Relaxed);
        let answers: Vec<Answer> = requests.map(|r| r.answer).zip(round.answers).collect();
        for (sender, answer) in answers {
            // A caller that is gone does not change what was decided.
            let _gone = sender.send(answer);
        }
        if !round.changes.is_empty() {
            self.control.shared.changed.send_modify(|n| *n += 1);
            for change in &round.changes {
                match change {
                    Change::Sandbox(record) => self.control.shared.waits.changed(record.id),
                    Change::SandboxRemoved(id) => self.control.shared.waits.changed(*id),
                    Change::Denied(_)
                    | Change::DeniedRemoved(_)
                    | Change::Member(_)
                    | Change::MemberRemoved(_)
                    | Change::Server(_)
                    | Change::Rotation(_)
                    | Change::Gossip(_) => {
                        self.control.shared.admission.send_modify(|n| *n += 1);
                    }
                    _ => {}
                }
            }
        }
        self.control.act(round.actions, &round.over).await;
    }
}

/// What one round has decided so far.
#[derive(Default)]
struct Round {
    changes: Vec<Change>,
    actions: Vec<Action>,
    answers: Vec<Result<Reply, Rejection>>,
    over: Vec<JobId>,
    bytes: usize,
}

impl Round {
    fn propose(&mut self, state: &mut State, request: &Request, now: TimeMs) {
        self.bytes += size_of(&request.proposal.command);
        let decided = prism_state::propose(state, &request.proposal, now);
        let answer = decided.map(|changes| {
            self.take(state, changes.changes, changes.actions);
            changes.reply
        });
        self.answers.push(answer);
    }

    fn command(&mut self, state: &mut State, command: &Command, now: TimeMs) {
        match prism_state::decide(state, command, now) {
            Ok(changes) => self.take(state, changes.changes, changes.actions),
            Err(e) => {
                tracing::error!(error = %e, ?command, "the core refused what the leader itself asked")
            }
        }
    }

    fn take(&mut self, state: &mut State, changes: Vec<Change>, actions: Vec<Action>) {
        state.apply(&changes);
        for change in &changes {
            if let Change::Job(record) = change
                && record.state.is_final()
            {
                self.over.push(record.id);
            }
        }
        self.changes.extend(changes);
        self.actions.extend(actions);
    }
}

/// What to answer when what keeps the store has refused a commit and says that nothing of it was done.
fn undone(why: &ControlError) -> Option<Rejection> {
    let ControlError::Store(error) = why else {
        return None;
    };
    let reason = match error {
        StoreError::Full { .. } => Reason::Pressure,
        StoreError::Unavailable { .. } => Reason::NotLeader,
        _ => return None,
    };
    let message = format!("{error}; what runs goes on");
    Some(Rejection::retryable(reason, message))
}

/// Roughly what a command adds to a commit.
fn size_of(command: &Command) -> usize {
    match command {
        Command::SubmitJob(s) => {
            4096 + s.blobs.iter().map(|(_, b)| b.len()).sum::<usize>() + spec_size(&s.spec)
        }
        Command::Finished { results, .. } => results
            .iter()
            .map(|r| 64 + r.result.as_ref().map_or(0, |t| t.len()) + r.stderr_tail.len())
            .sum(),
        _ => 256,
    }
}

fn spec_size(spec: &prism_spec::JobSpec) -> usize {
    match &spec.work {
        prism_spec::Work::Map { lines, .. } => lines.bytes() + 4 * lines.len(),
        prism_spec::Work::List { tasks } => tasks.len() * 128,
        prism_spec::Work::Array { .. } | prism_spec::Work::Sweep(_) => 1024,
    }
}

/// Nodes whose state is better than their lease allows.
fn late_nodes(
    state: &State,
    control: &Control,
    started: TimeMs,
    now: TimeMs,
) -> Vec<(NodeId, NodeState)> {
    let mut late = Vec::new();
    let heard_of = control.all_heard();
    for node in state.nodes() {
        let record = node.record();
        let heard = heard_of.get(&record.id).copied();
        let heard = heard.unwrap_or_default().max(started);
        let want = match now.since(heard).0 {
            OFFLINE_AFTER_MS.. => NodeState::Offline,
            SUSPECT_AFTER_MS.. => NodeState::Suspect,
            _ => continue,
        };
        if record.state < want {
            late.push((record.id, want));
        }
    }
    late
}

impl Control {
    /// What the scheduler is told of the nodes that have a session.
    pub(crate) fn views(&self) -> BTreeMap<NodeId, NodeView> {
        self.sessions()
            .iter()
            .map(|(id, s)| (*id, s.view()))
            .collect()
    }
}
