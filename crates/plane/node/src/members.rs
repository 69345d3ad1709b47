//! Who a server is in its cluster, and its door to the others. The first server founds the cluster's authority when it first listens
//! for members; others join with a token; each goes on as what it was.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prism_control::{Control, Seats};
use prism_gateway::{Gateway, Joining};
use prism_identity::{ClusterId, Role};
use prism_members::{House, Links, MemberError, Membership, UNKNOWN, unix_now};
use prism_membership::mdns::Announcement;
use prism_state::{Command, MemberRecord, MemberRole};
use prism_types::{Name, Reason, Rejection, TimeMs, TokenId};
use prism_vault::Vault;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cohort::{self, Outcome};
use crate::gossip::{Rumours, Setting};
use crate::identity::{self, Identity};
use crate::keeper::Keeper;
use crate::node::NodeError;
use crate::worker_node::{Serves, enter, fresh_id, joining_key, lock, resolve};
use crate::{JoinConfig, NodeConfig, advertise, lan, strict};

/// Where a server that joins others listens, unless it is told.
const SERF: ([u8; 4], u16) = ([0, 0, 0, 0], 4200);
/// How long the first commit of a cluster may take.
const BEGIN: Duration = Duration::from_secs(10);
/// Says that a directory has had a store.
const STORED: &str = "stored";

/// A server before its store is open.
pub(crate) struct Opening {
    /// Who it is, if it is a member yet.
    pub(crate) me: Option<Membership>,
    /// Whether an empty store begins a cluster.
    pub(crate) founds: bool,
    /// Where the others reach it, if it listens.
    pub(crate) advertised: Option<String>,
    /// Servers that it was told of.
    pub(crate) peers: Vec<String>,
    pub(crate) lock: Option<fs::File>,
    /// Whether it needs an authority although nobody comes to it.
    signs: bool,
    listener: Option<TcpListener>,
    /// Who this node is, once that was read.
    pub(crate) own: Option<Identity>,
    /// Where it listens.
    listens: Option<SocketAddr>,
    /// What signs for members, if that is not the cluster's own authority.
    pub(crate) vault: Option<Arc<Vault>>,
}

/// What signs for a cluster is what it was founded with.
fn same_issuer(data: &Path, me: &Membership, by_vault: bool) -> Result<(), NodeError> {
    let data = data.display();
    match (me.vault.is_some(), by_vault) {
        (true, false) => Err(NodeError::Foreign(format!(
            "{data} is of a server of a cluster for which Vault signs: start it with --issuer=vault and its neighbours"
        ))),
        (false, true) => Err(NodeError::Foreign(format!(
            "{data} is of a server of a cluster with an authority of its own: start it without --issuer=vault; a cluster for which Vault \
             signs is founded with that, and can be given the other's work by a backup and its restore"
        ))),
        _ => Ok(()),
    }
}

/// What a directory says of who it is.
pub(crate) fn kept(data: &Path) -> Result<Option<Membership>, NodeError> {
    let kept = Membership::load(data).map_err(NodeError::Member)?;
    match kept {
        Some(me) if me.role != Role::Server => Err(NodeError::Foreign(format!(
            "{} is the directory of a {}, and this is to be a server",
            data.display(),
            me.role
        ))),
        Some(_) if data.join(STORED).exists() && !data.join("store/format").exists() => {
            Err(NodeError::StoreGone(data.display().to_string()))
        }
        kept => Ok(kept),
    }
}

/// Listens for members, if this server is to, and joins others if it has not yet.
pub(crate) async fn prepare(
    config: &NodeConfig,
    kept: Option<Membership>,
) -> Result<Opening, NodeError> {
    let data = &config.data_dir;
    let joins = config.join.as_ref().filter(|_| kept.is_none());
    // One that has decided to found goes on with that.
    let founding = kept.is_none() && config.expect.is_some() && cohort::founds(data)?;
    if let Some(me) = &kept {
        same_issuer(data, me, config.vault.is_some())?;
    }
    let vault = config.vault.clone().map(Vault::new).transpose();
    let vault = vault.map_err(NodeError::Vault)?.map(Arc::new);
    let mut opening = Opening {
        founds: kept.is_none() && (config.join.is_none() || founding),
        me: kept,
        advertised: None,
        peers: config
            .join
            .as_ref()
            .map_or_else(Vec::new, |j| j.servers.clone()),
        lock: None,
        signs: config.api_tls && config.tls.is_none(),
        listener: None,
        own: None,
        listens: None,
        vault,
    };
    let number = opening.number();
    if joins.is_some() || config.etcd.is_some() {
        opening.lock = Some(lock(data)?);
    }
    if joins.is_some() && data.join("store").exists() && !founding {
        return Err(NodeError::Foreign(format!(
            "{} is the directory of a cluster of its own, and this server is to join others",
            data.display()
        )));
    }
    let serf = match (config.serf, &config.join) {
        (None, Some(_)) => Some(SERF.into()),
        // One of several listens where it did, unless it is told.
        (None, None) if number > 1 => Some(SERF.into()),
        (serf, _) => serf,
    };
    let Some(serf) = serf else {
        return Ok(opening);
    };
    let listener = TcpListener::bind(serf).await;
    let listener = listener.map_err(|e| NodeError::Serf(serf, e))?;
    let listens = listener
        .local_addr()
        .map_err(|e| NodeError::Serf(serf, e))?;
    let mut found: Vec<SocketAddr> = Vec::new();
    for server in &opening.peers {
        found.extend(resolve(server).await.unwrap_or_default());
    }
    let (address, why) = advertise::choose(config.advertise.as_deref(), listens, &found)
        .map_err(NodeError::Advertise)?;
    tracing::info!(%address, %why, "where members reach this server");
    strict::check(config, opening.me.as_ref(), Some(&address)).await?;
    if let Some(joining) = joins {
        opening.come(config, joining, &listener, &address).await?;
    }
    opening.advertised = Some(address);
    opening.listener = Some(listener);
    opening.listens = Some(listens);
    Ok(opening)
}

/// What a token is made of: its public half, and its secret.
pub(crate) fn token_parts() -> (TokenId, [u8; 32]) {
    let mut bytes = [0; 48];
    let n = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(n, Ok(bytes.len()), "the kernel gives random bytes");
    let (mut secret, mut entropy) = ([0; 32], [0; 16]);
    secret.copy_from_slice(&bytes[..32]);
    entropy.copy_from_slice(&bytes[32..]);
    let ms = u64::try_from(unix_now()).unwrap_or_default() * 1000;
    (TokenId::new(ms, u128::from_le_bytes(entropy)), secret)
}

/// The id of the cluster, which the leader's first commit gives it.
async fn begun(control: &Control) -> Result<ClusterId, NodeError> {
    let mut changed = control.changed();
    let given = async {
        loop {
            if let Some(cluster) = control.read(|s| s.cluster()).await {
                return ClusterId(cluster);
            }
            // Whoever tells of changes is held by this handle.
            let _told = changed.changed().await;
        }
    };
    let late = |_| {
        let why = "the cluster has no id yet; start it again";
        NodeError::Refused(Rejection::retryable(Reason::Internal, why))
    };
    tokio::time::timeout(BEGIN, given).await.map_err(late)
}

impl Opening {
    /// Joins others for the first time, or founds a cluster together with them.
    async fn come(
        &mut self,
        config: &NodeConfig,
        joining: &JoinConfig,
        listener: &TcpListener,
        address: &str,
    ) -> Result<(), NodeError> {
        let data = &config.data_dir;
        let own = identity::load(data, config.name.as_ref(), fresh_id())
            .map_err(|e| NodeError::Directory(data.display().to_string(), e))?;
        match config.expect {
            Some(expect) => {
                match cohort::gather(config, expect, listener, (&own, address)).await? {
                    Outcome::Founds => self.founds = true,
                    Outcome::Joined(me) => self.me = Some(*me),
                }
            }
            None => {
                let key = joining_key(data)?;
                let serves = Serves {
                    address: address.to_owned(),
                    on_etcd: config.etcd.is_some(),
                    by_vault: config.vault.is_some(),
                };
                let me = enter(data, joining, &own, &key, Some(serves)).await?;
                let _only_a_copy = fs::remove_file(data.join("joining.key"));
                self.me = Some(me);
            }
        }
        self.own = Some(own);
        Ok(())
    }

    /// Its number in the configuration of the store.
    pub(crate) fn number(&self) -> u64 {
        self.me.as_ref().map_or(1, Membership::number)
    }

    /// Who this node is.
    pub(crate) fn identity(
        &mut self,
        data: &Path,
        name: Option<&Name>,
    ) -> Result<Identity, NodeError> {
        let directory = |e| NodeError::Directory(data.display().to_string(), e);
        let before = identity::kept(data).map_err(directory)?;
        if let (Some(me), Some(before), Some(name)) = (&self.me, &before, name)
            && me.node == before.id
            && before.name != *name
            && self.number() > 1
        {
            return Err(NodeError::Foreign(format!(
                "this server has joined as {}, and is started as {name}; leave --name out, or start with an empty directory",
                before.name
            )));
        }
        let own = match self.own.take() {
            Some(own) => own,
            None => identity::load(data, name, fresh_id()).map_err(directory)?,
        };
        match &self.me {
            Some(me) if me.node != own.id => Err(NodeError::Foreign(format!(
                "{} is of {} {}, and this is server {}",
                data.join("identity.json").display(),
                me.role,
                me.node,
                own.id
            ))),
            _ => Ok(own),
        }
    }

    /// Founds the authority of a new cluster, if it listens for members for the first time. It is kept before it is told to the cluster,
    /// so that a crash in between is made good by the next start.
    pub(crate) async fn found(
        &mut self,
        data: &Path,
        seats: &Seats,
        own: &Identity,
    ) -> Result<(), NodeError> {
        if let Some(me) = &mut self.me {
            // It may have been off for longer than its certificate is good.
            match &self.vault {
                Some(vault) => {
                    if let Err(why) = me.renew_by(vault).await {
                        tracing::error!(%why, "this server's certificate is not renewed; it is tried again");
                    }
                }
                None => drop(me.renew_own(unix_now()).map_err(NodeError::Member)?),
            }
            me.save(data).map_err(NodeError::Member)?;
        }
        let Some(control) = seats
            .here()
            .filter(|_| self.advertised.is_some() || self.signs)
        else {
            return Ok(());
        };
        let cluster = begun(&control).await?;
        let me = match &mut self.me {
            Some(me) if me.cluster != cluster => {
                return Err(NodeError::Foreign(format!(
                    "{} says that this is a server of cluster {}, and its store is of cluster {cluster}",
                    data.join("identity.json").display(),
                    me.cluster
                )));
            }
            Some(me) => me,
            none => {
                let me = match &self.vault {
                    Some(vault) => Membership::found_by(vault, cluster, own.id).await,
                    None => Membership::found(cluster, own.id, unix_now()),
                };
                none.insert(me.map_err(NodeError::Member)?)
            }
        };
        me.save(data).map_err(NodeError::Member)?;
        let Some(address) = self.advertised.clone() else {
            // It signs for its API alone: nobody comes to it.
            return Ok(());
        };
        let member = MemberRecord {
            id: me.node,
            role: MemberRole::Server,
            name: own.name.clone(),
            key: me.key.pin().0,
            labels: prism_types::Labels::new(),
            token: None,
            joined: TimeMs(0),
        };
        let found = Command::Found { member, address };
        control
            .propose(found, None)
            .await
            .map_err(NodeError::Refused)?;
        Ok(())
    }

    /// How others join by this server, if they can.
    pub(crate) fn joining(&self) -> Result<Option<Joining>, NodeError> {
        let (Some(me), Some(address)) = (&self.me, &self.advertised) else {
            return Ok(None);
        };
        let pin = me.root_pin().ok_or_else(|| {
            let why =
                "this server does not have the root of its cluster; restore its identity.json";
            NodeError::Refused(Rejection::new(Reason::Lost, why))
        })?;
        Ok(Some(Joining {
            pin,
            address: address.clone(),
        }))
    }

    /// This server's gossip, if it is a member, listens, and has what servers seal with.
    pub(crate) fn gossip(
        &self,
        config: &NodeConfig,
        own: &Identity,
        desk: &Arc<crate::api::Desk>,
    ) -> Option<Arc<Rumours>> {
        let me = self.me.as_ref()?;
        let first = me.sealing_secrets();
        if first.is_empty() {
            return None;
        }
        let desk = desk.clone();
        Some(Rumours::new(Setting {
            cluster: me.cluster.0,
            secrets: Box::new(move || desk.sealing_secrets().unwrap_or_else(|| first.clone())),
            id: me.node,
            name: own.name.clone(),
            number: self.number(),
            labels: config.labels.clone(),
            listens: self.listens?,
            address: self.advertised.clone()?,
            remove_gone_after: config.remove_gone_after,
        }))
    }

    /// Announces this server on the local network, if it is a member, listens, and is told to.
    pub(crate) fn announce(&self, config: &NodeConfig, own: &Identity) -> Option<Announcement> {
        let (me, listens) = (self.me.as_ref()?, self.listens?);
        config
            .announce_mdns
            .then(|| lan::tell(me.cluster.0, &own.name, listens.port()))?
    }

    /// Opens the door to the others, if it is a member and listens.
    pub(crate) async fn open(
        &mut self,
        tasks: &mut Vec<JoinHandle<()>>,
        seats: &Seats,
        store: &Keeper,
        gateway: &Gateway,
        data: &Path,
        stop: &CancellationToken,
    ) -> Result<Option<Arc<House>>, NodeError> {
        let directory = |e| NodeError::Directory(data.display().to_string(), e);
        let (Some(address), Some(listener)) = (self.advertised.clone(), self.listener.take())
        else {
            return Ok(None);
        };
        let Some(me) = self.me.take() else {
            return Ok(None);
        };
        let raft = store.replicates();
        if raft.is_some() {
            fs::write(data.join(STORED), "").map_err(directory)?;
        }
        let api = gateway.clone();
        let links = Links {
            seats: seats.clone(),
            store: store.store(),
            address,
            on_etcd: raft.is_none(),
            raft,
            api: Some(Arc::new(move |stream| {
                let gateway = api.clone();
                Box::pin(async move {
                    gateway.answer(stream).await;
                    Ok(())
                })
            })),
        };
        let house = House::new(links, me).map_err(NodeError::Member)?;
        if let Some(vault) = &self.vault {
            house.issue_by(vault.clone());
        }
        // Nobody who was removed comes in between.
        house.settle(data).await;
        let serve = prism_members::serve(listener, house.clone(), UNKNOWN, stop.clone());
        let tend = house.clone().tend(data.to_owned(), stop.clone());
        tasks.extend([tokio::spawn(serve), tokio::spawn(tend)]);
        Ok(Some(house))
    }
}

impl NodeError {
    /// The code of the page about what went wrong between members.
    pub(crate) fn member_code(error: &MemberError) -> &'static str {
        use prism_types::Fault;
        match error {
            MemberError::Unreachable { .. } | MemberError::Unknown(..) => {
                Fault::Unreachable.as_code()
            }
            MemberError::Protocol { .. } => Fault::NotPrism.as_code(),
            MemberError::NotTrusted { .. } | MemberError::KeptOut { .. } => {
                Reason::Unauthenticated.as_code()
            }
            MemberError::Refused(why) => why.reason.as_code(),
            MemberError::Identity(_) => Reason::Internal.as_code(),
            MemberError::Kept(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                Fault::DataDamaged.as_code()
            }
            MemberError::Kept(e) if e.kind() == std::io::ErrorKind::Unsupported => {
                Fault::DataForeign.as_code()
            }
            MemberError::Kept(_) => Fault::DataDir.as_code(),
        }
    }
}
