//! What keeps the cluster's state: the servers themselves, or an etcd. Here is what a node needs of either beyond what a store is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prism_control::{Control, ControlError, Leader, Seats};
use prism_gateway::{Peer, Peers, StoreGauge};
use prism_members::Hook;
use prism_raft::{RaftStore, Standing};
use prism_store::{BoxFuture, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::members::Opening;
use crate::node::NodeError;
use crate::on_etcd::{EtcdTurns, OnEtcd, kept};
use crate::way::Way;
use crate::{NodeConfig, outcast, servers};

/// Between two attempts to take a leadership that consensus gives.
const AGAIN: Duration = Duration::from_millis(20);
/// The same where an etcd gives it, which may be away for longer.
const LATER: Duration = Duration::from_millis(250);

/// Whose turn it is to lead, as far as this server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// This server's, or it leads already.
    Mine,
    /// The server's at this address.
    Other(String),
    /// Nobody's that is known.
    Nobody,
}

/// Follows whose turn it is.
#[derive(Debug)]
pub(crate) enum Turns {
    Raft(watch::Receiver<Standing>),
    Etcd(EtcdTurns),
}

impl Turns {
    /// Now; [`Turns::changed`] counts from here.
    pub(crate) fn look(&mut self) -> Turn {
        match self {
            Self::Raft(standing) => {
                let now = standing.borrow_and_update();
                match now.leader_address() {
                    _ if now.leading => Turn::Mine,
                    Some(address) if !address.is_empty() => Turn::Other(address.to_owned()),
                    _ => Turn::Nobody,
                }
            }
            Self::Etcd(turns) => turns.look(),
        }
    }

    /// Waits until it may be another's turn; whether there will be any more.
    pub(crate) async fn changed(&mut self) -> bool {
        match self {
            Self::Raft(standing) => standing.changed().await.is_ok(),
            Self::Etcd(turns) => turns.changed().await,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum Keeper {
    Raft(Arc<RaftStore>),
    Etcd(Arc<OnEtcd>),
}

/// Whether a directory is of a server whose state is kept as it is to be kept now.
///
/// # Errors
/// When it was used with the other store, or its record of that is damaged.
pub(crate) fn fits(data: &Path, config: &NodeConfig) -> Result<(), NodeError> {
    let shown = data.display();
    let own = data.join("store");
    match (&config.etcd, kept(data)?) {
        (None, Some(kept)) => Err(NodeError::OtherStore(format!(
            "{shown} is of a server that keeps its state in an etcd, beneath {}, and is started without --store=etcd",
            kept.prefix
        ))),
        (Some(_), _) if own.exists() => Err(NodeError::OtherStore(format!(
            "{shown} is of a server that keeps its state itself, in {}, and is started with --store=etcd",
            own.display()
        ))),
        _ => Ok(()),
    }
}

impl Keeper {
    /// Opens what the configuration names.
    pub(crate) async fn open(
        config: &NodeConfig,
        opening: &mut Opening,
        way: &Way,
    ) -> Result<Self, NodeError> {
        if let Some(etcd) = &config.etcd {
            return Ok(Self::Etcd(OnEtcd::open(config, etcd, opening).await?));
        }
        let mut settings = prism_raft::Config::new(config.data_dir.join("store"));
        settings.server = opening.number();
        settings.bootstrap = opening.founds;
        settings.dial = Some(Arc::new(way.clone()));
        // Its lock keeps a second node out of the directory before anything else is touched.
        let store = prism_raft::open(settings).await.map_err(NodeError::Store)?;
        way.follow(store.standing());
        Ok(Self::Raft(store))
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Raft(store) => store.clone(),
            Self::Etcd(on) => on.store(),
        }
    }

    pub(crate) fn turns(&self) -> Turns {
        match self {
            Self::Raft(store) => Turns::Raft(store.standing()),
            Self::Etcd(on) => Turns::Etcd(on.turns()),
        }
    }

    /// Takes the leadership, when it is this server's turn.
    ///
    /// # Errors
    /// Also that it is another's turn by now.
    pub(crate) async fn take(&self) -> Result<(Control, Leader), ControlError> {
        match self {
            Self::Raft(store) => prism_control::open(store.clone()).await,
            Self::Etcd(on) => on.take().await,
        }
    }

    /// A leadership without which this server cannot start, if it is to have one.
    pub(crate) async fn first(&self) -> Result<Option<(Control, Leader)>, NodeError> {
        match self {
            Self::Raft(store) => {
                let standing = store.standing().borrow().clone();
                if standing.servers.len() != 1 || !standing.leading {
                    return Ok(None);
                }
                self.take().await.map(Some).map_err(NodeError::Control)
            }
            Self::Etcd(on) => on.first().await,
        }
    }

    /// Notes why this server leads no more, or could not begin to; how long to wait before it tries again.
    pub(crate) fn lost(&self, why: &ControlError) -> Duration {
        match self {
            Self::Raft(_) => AGAIN,
            Self::Etcd(on) => {
                on.note(Some(why));
                LATER
            }
        }
    }

    /// Whether there is no other server, and so nobody else can ever lead.
    pub(crate) fn is_alone(&self) -> bool {
        match self {
            Self::Raft(store) => store.standing().borrow().servers.len() == 1,
            Self::Etcd(_) => false,
        }
    }

    /// Whether there are servers that know each other, of which this is to be one.
    pub(crate) fn has_others(&self) -> bool {
        match self {
            Self::Raft(store) => store.standing().borrow().servers.len() > 1,
            Self::Etcd(on) => !on.servers().is_empty(),
        }
    }

    /// Where the other servers are, as far as this one knows.
    pub(crate) fn others<'a>(&self, told: impl Iterator<Item = &'a String>) -> Vec<String> {
        match self {
            Self::Raft(store) => servers::others(store, told),
            Self::Etcd(on) => on.others(told),
        }
    }

    /// Follows who the servers are, until it is told to stop.
    pub(crate) fn tend(&self, seats: Seats, way: Way, stop: CancellationToken) -> JoinHandle<()> {
        match self {
            Self::Raft(store) => {
                let (store, number) = (store.clone(), store.number());
                tokio::spawn(servers::tend(store, (seats, way), number, stop))
            }
            Self::Etcd(on) => tokio::spawn(on.clone().tend(seats, way, stop)),
        }
    }

    /// Until this server is told that the cluster goes on without it. Beneath an etcd it learns that from the state.
    pub(crate) fn outcast(
        &self,
        seats: Seats,
        way: Way,
        stop: CancellationToken,
    ) -> BoxFuture<'static, ControlError> {
        match self {
            Self::Raft(store) => Box::pin(outcast::watch(store.clone(), seats, way, stop)),
            Self::Etcd(_) => Box::pin(std::future::pending()),
        }
    }

    /// Tells the gateway of the servers.
    pub(crate) fn peers(&self, seats: &Seats) -> Peers {
        match self {
            Self::Raft(store) => raft_peers(store),
            Self::Etcd(on) => on.peers(seats),
        }
    }

    /// Tells the gateway how what keeps the state is, if that is not these servers.
    pub(crate) fn gauge(&self) -> Option<StoreGauge> {
        match self {
            Self::Raft(_) => None,
            Self::Etcd(on) => Some(on.gauge()),
        }
    }

    /// Whether writes wait for room on this server's disk.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::Raft(store) => store.is_disk_full(),
            Self::Etcd(_) => false,
        }
    }

    /// What answers other servers that replicate the store, if that is how it is kept.
    pub(crate) fn replicates(&self) -> Option<Hook> {
        let Self::Raft(store) = self else {
            return None;
        };
        let raft = Arc::downgrade(store);
        Some(Arc::new(move |stream| {
            let store = raft.upgrade();
            Box::pin(async move {
                match store {
                    Some(store) => store.serve(stream).await,
                    None => Ok(()),
                }
            })
        }))
    }

    /// Notes in the directory that this server has begun to work.
    pub(crate) async fn began(&self, data: &Path, seats: &Seats) -> Result<(), NodeError> {
        match self {
            Self::Raft(_) => Ok(()),
            Self::Etcd(on) => on.began(data, seats).await,
        }
    }

    /// Lets another server lead, if there is one and this one does; it does not lead again before it is started anew.
    pub(crate) async fn hand_over(&self) {
        match self {
            Self::Raft(store) => store.hand_over().await,
            Self::Etcd(on) => on.retire().await,
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Raft(store) => store.close().await,
            Self::Etcd(on) => on.close().await,
        }
    }
}

fn raft_peers(store: &Arc<RaftStore>) -> Peers {
    let store = store.clone();
    Peers::new(move || {
        let standing = store.standing().borrow().clone();
        let progress = store.progress();
        let of = |server: prism_raft::Server| {
            let known = progress.iter().find(|p| p.number == server.number);
            let leader = standing.leader == Some(server.number);
            Peer {
                number: server.number,
                address: server.address,
                leader,
                voter: server.voter,
                behind: known.map_or(leader.then_some(0), |p| p.behind),
                heard: known.map_or(leader.then_some(Duration::ZERO), |p| p.heard),
            }
        };
        standing.servers.iter().cloned().map(of).collect()
    })
}
