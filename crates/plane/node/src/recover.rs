//! Lost quorum: on the directory of a stopped server, what is left of the cluster is shown, and that server is made its only one.
//! Nothing else of a node runs meanwhile; the store's lock keeps a running server's directory from being touched.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prism_control::ControlError;
use prism_identity::ClusterId;
use prism_members::Membership;
use prism_raft::{OpenError, Remains};
use prism_state::{Command, State, encode_batch};
use prism_store::{Batch, BoxFuture, StoreError};
use prism_types::{Name, NodeId, Reason, Rejection, TimeMs};

use crate::node::NodeError;
use crate::{format, identity, members};

/// A server that is to be left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// Its number in the configuration of the store.
    pub number: u64,
    /// Its name, if the state knows it.
    pub name: Option<Name>,
    /// Where it was.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
}

/// What is left of a cluster on one of its servers.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The cluster.
    pub cluster: ClusterId,
    /// The server.
    pub name: Name,
    /// Its number in the configuration of the store.
    pub number: u64,
    /// Whether it votes: one that does not may lack much.
    pub voter: bool,
    /// The last entry of its log.
    pub last: u64,
    /// The latest term that it knows.
    pub term: u64,
    /// The last entry that it knew to be committed.
    pub committed: u64,
    /// When its log was written to last, by the clock of its machine.
    pub written: Option<SystemTime>,
    /// Jobs.
    pub jobs: usize,
    /// Those of them that are not over.
    pub open: usize,
    /// Sandboxes that are not over.
    pub sandboxes: usize,
    /// The other servers.
    pub others: Vec<LeftBehind>,
}

/// A stopped server that is to be the only one. Its directory is kept from others until this is gone.
#[derive(Debug)]
pub struct Survivor {
    /// What it has.
    pub survey: Survey,
    node: NodeId,
    state: State,
    remains: Remains,
}

fn refused(why: String) -> NodeError {
    NodeError::Refused(Rejection::new(Reason::WrongState, why))
}

fn store_failed(dir: &Path) -> impl Fn(StoreError) -> NodeError {
    let dir = dir.to_owned();
    move |why| {
        NodeError::Store(OpenError::Consensus {
            dir: dir.clone(),
            why: why.to_string(),
        })
    }
}

/// Looks at what is left in the directory of a stopped server. Changes nothing. Must be called on a Tokio runtime.
///
/// # Errors
/// When it is no server's directory, the server runs, it has no others to leave behind, or what it holds is damaged or newer.
pub fn survey(data: &Path) -> BoxFuture<'_, Result<Survivor, NodeError>> {
    Box::pin(async move {
        let shown = data.display();
        if data.is_dir() {
            format::read(data)?;
        }
        let me = members::kept(data)?.ok_or_else(|| {
        refused(format!(
            "{shown} is not the directory of one of several servers; there is nothing to recover"
        ))
    })?;
        let directory = |e| NodeError::Directory(shown.to_string(), e);
        let own = identity::kept(data).map_err(directory)?;
        let own = own.filter(|own| own.id == me.node).ok_or_else(|| {
            NodeError::Foreign(format!(
                "{shown} does not say in node.json that it is of server {}",
                me.node
            ))
        })?;
        let number = me.number();
        let store = data.join("store");
        let remains = prism_raft::remains(&store, number).await;
        let remains = remains.map_err(NodeError::Store)?;
        match look(data, &me, own.name, &remains) {
            Ok((survey, state)) => Ok(Survivor {
                survey,
                node: me.node,
                state,
                remains,
            }),
            Err(why) => {
                remains.close().await;
                Err(why)
            }
        }
    })
}

fn look(
    data: &Path,
    me: &Membership,
    name: Name,
    remains: &Remains,
) -> Result<(Survey, State), NodeError> {
    let store = data.join("store");
    let mut entries = Vec::new();
    for prefix in State::LOAD_PREFIXES {
        entries.extend(remains.items(prefix).map_err(store_failed(&store))?);
    }
    let state = State::load(entries.into_iter().map(|item| (item.key, item.value)));
    let state = state.map_err(|e| NodeError::Control(ControlError::Corrupt(e)))?;
    let cluster = me.cluster;
    if state.cluster() != Some(cluster.0) {
        return Err(refused(format!(
            "{} holds nothing of cluster {cluster} yet: this server has joined and not learned; recover another",
            store.display()
        )));
    }
    let number = remains.server();
    let all = remains.servers();
    let Some(own) = all.iter().find(|s| s.number == number) else {
        return Err(refused(format!(
            "server {name} was taken out of cluster {cluster}; recover another"
        )));
    };
    if all.len() < 2 && state.servers().count() < 2 {
        return Err(refused(format!(
            "server {name} is the only server of cluster {cluster} already; start it"
        )));
    }
    let named = |number| {
        let server = state.servers().find(|s| s.number == number)?;
        state.member(server.id).map(|m| m.name.clone())
    };
    let others = all.iter().filter(|s| s.number != number);
    let others = others.map(|server| LeftBehind {
        name: named(server.number),
        number: server.number,
        address: server.address.clone(),
        voter: server.voter,
    });
    let survey = Survey {
        data_dir: data.to_owned(),
        cluster,
        name,
        number,
        voter: own.voter,
        last: remains.last(),
        term: remains.term(),
        committed: remains.committed(),
        written: remains.written(),
        jobs: state.jobs().count(),
        open: state
            .jobs()
            .filter(|j| !j.record().state.is_final())
            .count(),
        sandboxes: state.sandboxes().filter(|s| !s.state.is_final()).count(),
        others: others.collect(),
    };
    Ok((survey, state))
}

impl Survivor {
    /// Leaves it as it is, and gives the directory back.
    pub fn leave(self) -> BoxFuture<'static, ()> {
        self.remains.close()
    }

    /// Makes it the only server of its cluster, with what it has. The others are no members any more: whoever of them comes back is
    /// refused.
    ///
    /// # Errors
    /// When the store cannot be written; it can be done again.
    pub fn recover(self) -> BoxFuture<'static, Result<(), NodeError>> {
        Box::pin(async move {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
            let now = TimeMs(now).max(self.state.latest_time());
            let command = Command::RecoverAlone { id: self.node };
            let decided = match prism_state::decide(&self.state, &command, now) {
                Ok(decided) => decided,
                Err(why) => {
                    self.remains.close().await;
                    return Err(NodeError::Refused(why));
                }
            };
            let mut batch = Batch::new();
            for (key, value) in encode_batch(&decided.changes) {
                match value {
                    Some(value) => batch.puts.push((key.into(), value.into())),
                    None => batch.deletes.push(key.into()),
                }
            }
            self.remains.recover(batch).await.map_err(NodeError::Store)
        })
    }
}
