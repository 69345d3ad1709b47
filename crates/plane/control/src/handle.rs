//! The handle that the gateway and the sessions hold: propose, read, look at live nodes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prism_link::{NodeFacts, NodeService, Readings};
use prism_scheduler::{Config, Explanation, explain_job, explain_sandbox};
use prism_state::{Command, IdempotencyKey, Origin, Proposal, Reply, Sight, State};
use prism_store::{BoxFuture, Store};
use prism_types::{Fence, NodeId, Reason, Rejection, SandboxId, TimeMs};
use tokio::sync::{Notify, RwLock, mpsc, oneshot, watch};

use crate::Clock;
use crate::session::{RELIABILITY_STEP, Session};
use crate::waits::{SandboxWait, Waits};

/// What the loop is asked.
pub(crate) struct Request {
    pub(crate) proposal: Proposal,
    pub(crate) answer: oneshot::Sender<Result<Reply, Rejection>>,
}

/// What the loop, the sessions and the handles share.
pub(crate) struct Shared {
    pub(crate) state: RwLock<State>,
    pub(crate) store: Arc<dyn Store>,
    /// Whether this leader decides no more: what it holds may never have been committed.
    pub(crate) over: AtomicBool,
    /// Of the leadership that decides here.
    pub(crate) fence: Fence,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) restores: mpsc::Sender<crate::restore::Job>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) waits: Arc<Waits>,
    pub(crate) admission: watch::Sender<u64>,
    pub(crate) sessions: Mutex<BTreeMap<NodeId, Session>>,
    /// What is known of nodes from sessions that are over: the end of one alone makes no node late, nor good again.
    pub(crate) past: Mutex<BTreeMap<NodeId, Past>>,
    pub(crate) poke: Notify,
    pub(crate) clock: Clock,
    pub(crate) numbers: Counters,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rounds: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) commit_us: AtomicU64,
}

/// What the loop has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Commits; each is one write to disk.
    pub rounds: u64,
    /// Commands carried out.
    pub commands: u64,
    /// Commands refused.
    pub rejected: u64,
    /// Bytes of keys and values committed.
    pub bytes: u64,
    /// Time spent waiting for commits, microseconds.
    pub commit_us: u64,
}

/// What is known of a node from sessions that are over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Past {
    /// Last word from it.
    pub(crate) heard: TimeMs,
    /// Decayed share of runs that it did not lose.
    pub(crate) reliability: f64,
}

impl Default for Past {
    fn default() -> Self {
        Self {
            heard: TimeMs(0),
            reliability: 1.0,
        }
    }
}

/// A node with a live session.
#[derive(Clone, Debug)]
pub struct LiveNode {
    /// Its latest measurements.
    pub readings: Readings,
    /// What it is.
    pub facts: NodeFacts,
    /// Session since.
    pub since: TimeMs,
    /// Last word from it.
    pub last_heartbeat: TimeMs,
    /// Time to it and back; `None` for a node of this process, and until it was measured.
    pub round_trip: Option<Duration>,
}

/// A handle on the leader. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}

impl Control {
    /// Decides, commits, answers: an answer means that it is durable.
    ///
    /// # Errors
    /// The rejection, with its reason. When the loop has stopped: `not_leader`, and what became of the request is not known.
    pub fn propose(
        &self,
        command: Command,
        key: Option<IdempotencyKey>,
    ) -> BoxFuture<'_, Result<Reply, Rejection>> {
        self.propose_for(command, key, None)
    }

    /// The same for somebody, who is kept in an audit event with what changes.
    ///
    /// # Errors
    /// As [`Control::propose`].
    pub fn propose_for(
        &self,
        command: Command,
        key: Option<IdempotencyKey>,
        origin: Option<Origin>,
    ) -> BoxFuture<'_, Result<Reply, Rejection>> {
        Box::pin(async move {
            let proposal = Proposal {
                command,
                key,
                origin,
            };
            self.send(proposal)
                .await?
                .await
                .unwrap_or_else(|_| Err(stopped()))
        })
    }

    /// Has an audit event kept of a change that went to a node: waits for a place in the queue and not for the commit, so that
    /// no exec pays for one.
    ///
    /// # Errors
    /// When the loop has stopped.
    pub fn note(&self, command: Command, origin: Origin) -> BoxFuture<'_, Result<(), Rejection>> {
        Box::pin(async move {
            let proposal = Proposal {
                command,
                key: None,
                origin: Some(origin),
            };
            self.send(proposal).await.map(drop)
        })
    }

    /// Queues a proposal; the answer comes later. Proposals of one sender keep their order.
    pub(crate) async fn send(
        &self,
        proposal: Proposal,
    ) -> Result<oneshot::Receiver<Result<Reply, Rejection>>, Rejection> {
        let (answer, receiver) = oneshot::channel();
        self.shared
            .requests
            .send(Request { proposal, answer })
            .await
            .map_err(|_| gone())?;
        Ok(receiver)
    }

    /// Whether what was read before this call is the truth: another server may lead by now. To be asked before an answer is given.
    ///
    /// # Errors
    /// `not_leader`: the answer is not to be given.
    pub fn confirm(&self) -> BoxFuture<'_, Result<(), Rejection>> {
        Box::pin(async move {
            let refuse = |why: &dyn std::fmt::Display| {
                Rejection::retryable(
                    Reason::NotLeader,
                    format!(
                        "another server may lead the cluster by now ({why}): repeat the request"
                    ),
                )
            };
            let held = self.shared.store.confirm(self.shared.fence).await;
            held.map_err(|why| refuse(&why))?;
            // Set before the state is given up that a commit has failed for; whoever has read it since sees this too.
            if self.shared.over.load(Ordering::SeqCst) {
                return Err(refuse(&"this one has stopped deciding"));
            }
            Ok(())
        })
    }

    /// Whether this is a handle on the same leader.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Reads committed state. Keep the closure short: decisions wait for it.
    pub async fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&*self.shared.state.read().await)
    }

    /// For waiting until one sandbox changes.
    pub fn await_sandbox(&self, id: SandboxId) -> SandboxWait {
        self.shared.waits.begin(id)
    }

    /// Grows with every commit: for those who wait for any change.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Grows when somebody is kept out or let in again, or a member comes or goes.
    pub fn admission_changed(&self) -> watch::Receiver<u64> {
        self.shared.admission.subscribe()
    }

    /// The store, for what the state does not keep in memory: results, events, contents of files.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// A node that has a session.
    pub fn node(&self, id: NodeId) -> Option<Arc<dyn NodeService>> {
        self.sessions().get(&id).map(|s| s.service.clone())
    }

    /// What a node with a session measured last.
    pub fn readings(&self, id: NodeId) -> Option<LiveNode> {
        self.sessions().get(&id).map(|s| LiveNode {
            round_trip: s.service.round_trip(),
            ..s.live.clone()
        })
    }

    /// When a node was last heard of; `None` if not since this server leads.
    pub fn last_heard(&self, id: NodeId) -> Option<TimeMs> {
        let live = self.sessions().get(&id).map(|s| s.live.last_heartbeat);
        let past = self.past(id).heard;
        live.max((past > TimeMs(0)).then_some(past))
    }

    /// When each node was last heard of, of all at once.
    pub(crate) fn all_heard(&self) -> HashMap<NodeId, TimeMs> {
        let live = self.sessions();
        let past = self.all_past();
        let mut all: HashMap<NodeId, TimeMs> = past.iter().map(|(id, p)| (*id, p.heard)).collect();
        for (id, session) in live.iter() {
            let heard = all.entry(*id).or_default();
            *heard = (*heard).max(session.live.last_heartbeat);
        }
        all
    }

    pub(crate) fn sessions(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Session>> {
        self.shared
            .sessions
            .lock()
            .expect("no holder of this lock panics")
    }

    /// A node has greeted: it was heard of, although it has no session yet.
    pub(crate) fn note_greeting(&self, node: NodeId) {
        let now = self.now();
        let mut all = self.all_past();
        let past = all.entry(node).or_default();
        past.heard = past.heard.max(now);
    }

    /// Keeps what is known of a node as its session ends.
    pub(crate) fn note_past(&self, node: NodeId, session: &Session) {
        let mut all = self.all_past();
        let past = all.entry(node).or_default();
        past.heard = past.heard.max(session.live.last_heartbeat);
        past.reliability = session.reliability;
    }

    /// What is known of a node from its earlier sessions with this leader.
    pub(crate) fn past(&self, node: NodeId) -> Past {
        self.all_past().get(&node).copied().unwrap_or_default()
    }

    /// Counts runs that went away with their node against it.
    pub(crate) fn note_lost(&self, node: NodeId, runs: u32) {
        let kept = (1.0 - RELIABILITY_STEP).powi(i32::try_from(runs.min(1_000)).unwrap_or(1_000));
        self.all_past().entry(node).or_default().reliability *= kept;
        if let Some(session) = self.sessions().get_mut(&node) {
            session.reliability *= kept;
        }
    }

    fn all_past(&self) -> MutexGuard<'_, BTreeMap<NodeId, Past>> {
        self.shared
            .past
            .lock()
            .expect("no holder of this lock panics")
    }

    /// Why a job or sandbox waits, or where it runs, node by node.
    ///
    /// # Errors
    /// `not_found` when there is no such thing.
    pub fn explain<'a>(
        &'a self,
        subject: &'a str,
    ) -> BoxFuture<'a, Result<Explanation, Rejection>> {
        Box::pin(async move {
            let views = self.views();
            let config = Config::default();
            self.read(|state| {
                let sight = Sight::everything();
                if let Ok(sandbox) = state.find_sandbox(subject, &sight) {
                    return Ok(explain_sandbox(state, &views, &config, sandbox));
                }
                state
                    .find_job(subject, &sight)
                    .map(|job| explain_job(state, &views, &config, job))
            })
            .await
        })
    }

    /// The time that decisions are made with.
    pub fn now(&self) -> TimeMs {
        self.shared.clock.now()
    }

    /// What a new id is made of: the time in milliseconds and 80 bits of entropy.
    ///
    /// # Panics
    /// When the kernel gives no random bytes, which it never does after boot.
    pub fn mint(&self) -> (u64, u128) {
        let mut entropy = [0u8; 16];
        let n = rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty());
        assert_eq!(n, Ok(entropy.len()), "the kernel gives random bytes");
        (self.now().0, u128::from_le_bytes(entropy))
    }

    /// What the loop has done since it started.
    pub fn numbers(&self) -> Numbers {
        let n = &self.shared.numbers;
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Numbers {
            rounds: get(&n.rounds),
            commands: get(&n.commands),
            rejected: get(&n.rejected),
            bytes: get(&n.bytes),
            commit_us: get(&n.commit_us),
        }
    }
}

/// The loop had ended before the request was handed over.
pub(crate) fn gone() -> Rejection {
    Rejection::retryable(
        Reason::NotLeader,
        "this server has stopped deciding; nothing was changed: start prismd again and repeat the request",
    )
}

/// The loop ended while it had the request.
pub(crate) fn stopped() -> Rejection {
    Rejection::unknown(
        Reason::NotLeader,
        "this server stopped before it answered; the request may or may not have been carried out: repeat it with the same idempotency key",
    )
}
