//! Several servers: who they are, who leads, and how the configuration is changed, one step at a time. That configuration is the
//! truth about who votes; whoever calls here decides who should.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::raft::{ClientWriteResponse, ReadPolicy};
use openraft::{BasicNode, ChangeMembers, Instant, ServerState};
use prism_store::{BoxFuture, Leadership, StoreError};
use prism_types::Fence;
use tokio::sync::watch;

use crate::RaftStore;
use crate::peers::{Progress, Server, Standing};
use crate::raft::{Raft, Types};

/// How long a change of the configuration may take. One that takes longer may still come about.
const CHANGE: Duration = Duration::from_secs(10);
/// How long handing over may take.
const TRANSFER: Duration = Duration::from_secs(3);

/// A leader that says nothing for so long is none that is known.
const SILENT: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// When a leader was heard of last.
#[derive(Debug)]
pub(crate) struct Heard(Mutex<std::time::Instant>);

impl Heard {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(std::time::Instant::now()))
    }

    pub(crate) fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = std::time::Instant::now();
    }

    fn is_silent(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed() > SILENT
    }
}

fn standing(metrics: &RaftServerMetrics<Types>) -> Standing {
    let membership = metrics.membership_config.membership();
    // While one configuration goes over into the next, the votes of both count: who is in one of them only is no voter yet, or no more.
    let configurations = membership.get_joint_config();
    let servers = membership.nodes().map(|(number, node)| Server {
        number: *number,
        address: node.addr.clone(),
        voter: configurations.iter().all(|c| c.contains(number)),
    });
    let committed = metrics.committed_membership_config == metrics.membership_config;
    Standing {
        term: metrics.vote.leader_id.term,
        leader: metrics.current_leader,
        leading: metrics.state == ServerState::Leader,
        servers: servers.collect(),
        settled: committed && configurations.len() == 1,
    }
}

/// Whether the configuration knows of this server only.
pub(crate) fn alone(raft: &Raft, me: u64) -> bool {
    let now = standing(&raft.server_metrics().borrow_watched());
    now.servers.iter().all(|s| s.number == me)
}

/// Follows where the cluster stands, and lets consensus have its timers while there is more than one server.
pub(crate) fn keep_time(
    raft: &Raft,
    heard: Arc<Heard>,
) -> (
    watch::Receiver<Standing>,
    impl Future<Output = ()> + Send + 'static,
) {
    let raft = raft.clone();
    let mut metrics = raft.server_metrics();
    let first = standing(&metrics.borrow_watched());
    let (sender, receiver) = watch::channel(first);
    let follow = async move {
        loop {
            let mut now = standing(&metrics.borrow_watched());
            if !now.leading && heard.is_silent() {
                now.leader = None;
            }
            let several = now.servers.len() > 1;
            raft.runtime_config().tick(several);
            sender.send_if_modified(|was| {
                let new = *was != now;
                *was = now;
                new
            });
            // Silence is no news of consensus; whoever is alone need not look for it.
            let look = if several { LOOK } else { Duration::MAX };
            if let Ok(Err(_)) = tokio::time::timeout(look, metrics.changed()).await {
                return;
            }
        }
    };
    (receiver, follow)
}

/// A leadership that is lost as well when consensus says that another server leads: whoever is cut off hears of no greater fence.
pub(crate) fn watched(granted: Leadership, mut standing: watch::Receiver<Standing>) -> Leadership {
    let fence = granted.fence;
    let (sender, latest) = watch::channel(fence.0);
    let mut granted = granted;
    tokio::spawn(async move {
        tokio::select! {
            () = granted.lost() => {}
            // An error means that the store is gone: lost as well.
            _ = standing.wait_for(|s| !s.leading) => {}
            () = sender.closed() => {}
        }
        // Nobody may be left to hear it.
        let _gone = sender.send(fence.0 + 1);
    });
    Leadership::new(fence, latest)
}

/// Whether the leadership of a fence still holds, at a moment after this was called: with several servers by the lease that the
/// others' answers give (Ongaro's thesis, section 6.4.1), or by asking them.
pub(crate) async fn confirm(store: &RaftStore, fence: Fence) -> Result<(), StoreError> {
    store.table.running()?;
    if !alone(&store.raft, store.server) {
        let asked = store.raft.ensure_linearizable(ReadPolicy::LeaseRead).await;
        asked.map_err(|why| StoreError::NotLeader {
            leader: why.to_string(),
        })?;
    }
    let latest = store.status_now();
    if latest.fence != fence || !latest.leader {
        return Err(StoreError::NotLeader {
            leader: "another leadership was granted".to_owned(),
        });
    }
    Ok(())
}

type Written = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

async fn made(change: impl Future<Output = Written>) -> Result<(), StoreError> {
    match tokio::time::timeout(CHANGE, change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
            Err(StoreError::NotLeader {
                leader: format!("{:?} does", to.leader_id),
            })
        }
        Ok(Err(other)) => Err(StoreError::Unanswered(other.to_string())),
        Err(_) => Err(StoreError::Unanswered(
            "a change of the configuration takes too long".to_owned(),
        )),
    }
}

impl RaftStore {
    /// Takes a server in, as one that learns: it is sent all that there is, and does not vote.
    ///
    /// # Errors
    /// When this server does not lead, or the change is not made in time.
    pub fn add(&self, number: u64, address: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        let node = BasicNode::new(address);
        Box::pin(made(self.raft.add_learner(number, node, false)))
    }

    /// Lets a server vote that learned.
    ///
    /// # Errors
    /// As of [`RaftStore::add`].
    pub fn promote(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.change(ChangeMembers::AddVoterIds(BTreeSet::from([number]))))
    }

    /// Takes a server out: first its vote, then all of it.
    ///
    /// # Errors
    /// As of [`RaftStore::add`].
    pub fn remove(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let gone = BTreeSet::from([number]);
            let metrics = self.raft.server_metrics().borrow_watched().clone();
            let mut voters = metrics.membership_config.membership().voter_ids();
            if voters.any(|v| v == number) {
                self.change(ChangeMembers::RemoveVoters(gone.clone()))
                    .await?;
            }
            let still = |s: &Server| s.number == number;
            if standing(&self.raft.server_metrics().borrow_watched())
                .servers
                .iter()
                .any(still)
            {
                self.change(ChangeMembers::RemoveNodes(gone)).await?;
            }
            Ok(())
        })
    }

    /// Says where a server is from now on.
    ///
    /// # Errors
    /// As of [`RaftStore::add`].
    pub fn readdress(&self, number: u64, address: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        let nodes = BTreeMap::from([(number, BasicNode::new(address))]);
        Box::pin(self.change(ChangeMembers::SetNodes(nodes)))
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), StoreError> {
        let change = self.raft.change_membership(change, false);
        made(change).await
    }

    /// How far each other server is behind; empty when this one does not lead.
    pub fn progress(&self) -> Vec<Progress> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let last = metrics.last_log_index.unwrap_or_default();
        let heard = metrics.heartbeat.unwrap_or_default();
        let ago = |number: &u64| heard.get(number)?.as_ref().map(|at| at.elapsed());
        let others = metrics.replication.into_iter().flatten();
        others
            .filter(|(number, _)| *number != self.server)
            .map(|(number, matched)| Progress {
                heard: ago(&number),
                number,
                behind: matched.map(|id| last.saturating_sub(id.index)),
            })
            .collect()
    }

    /// Finishes a change of the configuration that is under way: those who stay would otherwise need the vote of the one that goes.
    async fn settle(&self) {
        let mut standing = self.standing();
        if standing.borrow().settled {
            return;
        }
        // Adds nobody; that makes one configuration of two.
        let nobody = ChangeMembers::AddVoterIds(BTreeSet::new());
        let settled = async {
            // Refused while the first half is not committed; whoever began it goes on then.
            let _refused = self.change(nobody).await;
            // An error means that the store is gone.
            let _gone = standing.wait_for(|s| s.settled || !s.leading).await;
        };
        if tokio::time::timeout(TRANSFER, settled).await.is_err() {
            tracing::warn!("the configuration is still being changed; who leads next finishes it");
        }
    }

    /// Hands the leadership to the voter that has the most, if this server leads and there is another; waits a moment for it.
    pub fn hand_over(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if !self.raft.is_leader() {
                return;
            }
            self.settle().await;
            let voters = self.standing().borrow().servers.clone();
            let votes = |n: u64| voters.iter().any(|s| s.voter && s.number == n);
            let best = self
                .progress()
                .into_iter()
                .filter(|p| votes(p.number) && p.behind.is_some())
                .min_by_key(|p| p.behind);
            let Some(best) = best else { return };
            if let Err(why) = self.raft.trigger().transfer_leader(best.number).await {
                tracing::warn!(%why, "the leadership could not be handed over");
                return;
            }
            let mut standing = self.standing();
            let taken = standing.wait_for(|s| !s.leading);
            if tokio::time::timeout(TRANSFER, taken).await.is_err() {
                tracing::warn!(
                    "no other server has taken the leadership in time; an election will follow"
                );
            }
        })
    }
}
