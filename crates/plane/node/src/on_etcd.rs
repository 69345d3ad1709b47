//! A server whose cluster keeps its state in an etcd. Which cluster that is, and beneath which prefix, stands in the directory before
//! anything is written to etcd: so this server never takes another's state for its own, nor an empty prefix for its cluster.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prism_control::{Control, ControlError, Leader, Seat as Leads, Seats};
use prism_etcd::{Config, EtcdStore, Seat};
use prism_gateway::{Peer, Peers, StoreGauge, StoreHealth, StoreTrouble};
use prism_identity::ClusterId;
use prism_runtime::sealed;
use prism_state::{ServerRecord, State};
use prism_store::{Store, StoreError};
use prism_types::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::NodeConfig;
use crate::identity::Identity;
use crate::keeper::Turn;
use crate::members::Opening;
use crate::node::{NodeError, STOP_WAIT};
use crate::seat::lost;
use crate::way::Way;
use crate::worker_node::fresh_id;

/// How long a start waits for a leadership without which it cannot go on: longer than that of an earlier process of this server lasts.
const FIRST: Duration = Duration::from_secs(15);
/// How often it is looked whether the store still runs, and what the servers are.
const LOOK: Duration = Duration::from_secs(2);
/// Between two words of a server's worker; one that is not overdue counts as heard of now.
const BEAT: Duration = Duration::from_secs(2);
/// Where a directory says which state is its own.
pub(crate) const RECORD: &str = "store.json";

/// Which state is a directory's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    /// What keeps it.
    store: Kind,
    /// Beneath what it lies there.
    pub(crate) prefix: String,
    /// The cluster.
    cluster: ClusterId,
    /// Whether the cluster has its id in etcd since.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Etcd,
}

/// What a directory says of it, if it is of a server whose state an etcd keeps.
pub(crate) fn kept(data: &Path) -> Result<Option<Kept>, NodeError> {
    let path = data.join(RECORD);
    let failed = |e| NodeError::Directory(path.display().to_string(), e);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let text = sealed::unseal(&path, &bytes).map_err(failed)?;
    let read = serde_json::from_slice(text);
    read.map(Some)
        .map_err(|e| failed(sealed::damaged(&path, e.column(), &e.to_string())))
}

fn keep(data: &Path, kept: &Kept) -> Result<(), NodeError> {
    let path = data.join(RECORD);
    let written = serde_json::to_vec_pretty(kept)
        .map_err(io::Error::other)
        .and_then(|text| replace(data, &path, &sealed::seal(text)));
    written.map_err(|e| NodeError::Directory(path.display().to_string(), e))
}

fn replace(data: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(data)?.sync_all()
}

/// Which state is this server's, when this one lies beneath the prefix.
fn own_state(
    data: &Path,
    kept: Option<Kept>,
    prefix: &str,
    joined: Option<ClusterId>,
    found: Option<ClusterId>,
) -> Result<Kept, NodeError> {
    let data = data.display();
    let foreign = |what: String| Err(NodeError::ForeignState(what));
    if let Some(kept) = kept.as_ref().filter(|kept| kept.prefix != prefix) {
        let Kept {
            cluster,
            prefix: other,
            ..
        } = kept;
        return foreign(format!(
            "{data} is of a server of cluster {cluster}, whose state lies beneath {other} in etcd, and is started with the prefix {prefix}"
        ));
    }
    let begun = kept.as_ref().map_or(joined.is_some(), |kept| kept.begun);
    let expected = joined.or(kept.as_ref().map(|kept| kept.cluster));
    let cluster = match (expected, found) {
        (Some(expected), Some(found)) if expected != found => {
            return foreign(format!(
                "beneath {prefix} in etcd lies the state of cluster {found}, and {data} is of a server of cluster {expected}"
            ));
        }
        (Some(expected), None) if begun => {
            return foreign(format!(
                "{data} is of a server of cluster {expected}, and beneath {prefix} in etcd lies no state of a cluster: either this is not the etcd that keeps it, or etcd has lost it and is to be restored from its backup"
            ));
        }
        (None, Some(found)) => {
            return foreign(format!(
                "beneath {prefix} in etcd lies the state of cluster {found}, and {data} is of none of its servers: it does not begin a cluster there; to let it join that one, use --join and --token-file"
            ));
        }
        (Some(expected), _) => expected,
        (None, None) => {
            let NodeId(id) = fresh_id();
            ClusterId(id)
        }
    };
    Ok(Kept {
        store: Kind::Etcd,
        prefix: prefix.to_owned(),
        cluster,
        begun: begun || found.is_some(),
    })
}

/// See the module.
#[derive(Debug)]
pub(crate) struct OnEtcd {
    store: Arc<EtcdStore>,
    me: Identity,
    own: Kept,
    /// Whether it cannot start without leading.
    founds: bool,
    /// It is not to lead any more.
    retired: watch::Sender<bool>,
    servers: watch::Sender<Vec<ServerRecord>>,
    trouble: Mutex<Option<StoreTrouble>>,
}

impl OnEtcd {
    pub(crate) async fn open(
        config: &NodeConfig,
        etcd: &Config,
        opening: &mut Opening,
    ) -> Result<Arc<Self>, NodeError> {
        let data = &config.data_dir;
        let before = kept(data)?;
        let me = opening.identity(data, config.name.as_ref())?;
        opening.own = Some(me.clone());
        let mut settings = etcd.clone();
        settings.name = me.name.to_string();
        settings.address = opening.advertised.clone().unwrap_or_default();
        let store = prism_etcd::open(settings).await.map_err(NodeError::Etcd)?;
        let opened = Self::begin(config, etcd, opening, before, me, store.clone()).await;
        if opened.is_err() {
            store.close().await;
        }
        opened.map(Arc::new)
    }

    async fn begin(
        config: &NodeConfig,
        etcd: &Config,
        opening: &Opening,
        before: Option<Kept>,
        me: Identity,
        store: Arc<EtcdStore>,
    ) -> Result<Self, NodeError> {
        let data = &config.data_dir;
        let state = prism_control::admission(&*store).await;
        let state = state.map_err(NodeError::Control)?;
        let found = state.cluster().map(ClusterId);
        let joined = opening.me.as_ref().map(|me| me.cluster);
        let own = own_state(data, before.clone(), &etcd.prefix, joined, found)?;
        if state.server(me.id).is_some_and(|server| server.gone) {
            return Err(NodeError::Foreign(format!(
                "{} is of server {}, which was taken out of cluster {}",
                data.display(),
                me.name,
                own.cluster
            )));
        }
        if before.as_ref() != Some(&own) {
            keep(data, &own)?;
        }
        let founder = opening.number() == 1 && state.member(me.id).is_none();
        Ok(Self {
            founds: found.is_none() || founder && opening.advertised.is_some(),
            store,
            me,
            own,
            retired: watch::Sender::new(false),
            servers: watch::Sender::new(state.servers().cloned().collect()),
            trouble: Mutex::default(),
        })
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    pub(crate) fn turns(self: &Arc<Self>) -> EtcdTurns {
        EtcdTurns {
            seat: self.store.seat(),
            retired: self.retired.subscribe(),
            on: self.clone(),
        }
    }

    fn turn(&self, seat: Option<&Seat>) -> Turn {
        if self.store.running().is_err() {
            // The attempt to lead tells why, and ends this server.
            return Turn::Mine;
        }
        match seat {
            // An earlier process of this server; its lease ends.
            Some(seat) if !self.store.is_mine(seat) && seat.name == self.me.name.as_str() => {
                Turn::Nobody
            }
            Some(seat) if !self.store.is_mine(seat) && seat.address.is_empty() => Turn::Nobody,
            Some(seat) if !self.store.is_mine(seat) => {
                self.note(None);
                Turn::Other(seat.address.clone())
            }
            _ if *self.retired.borrow() => Turn::Nobody,
            _ => Turn::Mine,
        }
    }

    pub(crate) async fn take(&self) -> Result<(Control, Leader), ControlError> {
        let (control, leader) = prism_control::open(self.store.clone()).await?;
        let cluster = control.read(|s| s.cluster()).await.map(ClusterId);
        if cluster.map_or(self.own.begun, |cluster| cluster != self.own.cluster) {
            // As when it was started: whoever changes what is in etcd under a server ends it.
            self.store.resign().await;
            let there = cluster.map_or("no cluster".to_owned(), |c| format!("cluster {c}"));
            return Err(ControlError::Store(StoreError::Stopped(format!(
                "beneath {} in etcd lies the state of {there}, and this is a server of cluster {}",
                self.own.prefix, self.own.cluster
            ))));
        }
        let gone = |s: &State| s.server(self.me.id).is_some_and(|server| server.gone);
        if control.read(gone).await {
            tracing::error!("this server was taken out of the cluster; it does not lead any more");
            self.retire().await;
        }
        if *self.retired.borrow() {
            let leader = "this server is not to lead any more".to_owned();
            return Err(ControlError::Store(StoreError::NotLeader { leader }));
        }
        self.note(None);
        Ok((control, leader.founding(self.own.cluster.0)))
    }

    pub(crate) async fn first(self: &Arc<Self>) -> Result<Option<(Control, Leader)>, NodeError> {
        if !self.founds {
            return Ok(None);
        }
        let mut turns = self.turns();
        let end = Instant::now() + FIRST;
        loop {
            let why = match turns.look() {
                Turn::Mine => match self.take().await {
                    Ok(taken) => return Ok(Some(taken)),
                    Err(ControlError::Store(why)) if lost(&why) => why.to_string(),
                    Err(ControlError::Store(StoreError::Stopped(why))) => {
                        return Err(NodeError::ForeignState(why));
                    }
                    Err(why) => return Err(NodeError::Control(why)),
                },
                Turn::Other(_) | Turn::Nobody => match &*self.store.seat().borrow() {
                    Some(seat) => format!("server {} has it", seat.name),
                    None => "nobody has it".to_owned(),
                },
            };
            if Instant::now() > end {
                return Err(NodeError::NoLead {
                    prefix: self.own.prefix.clone(),
                    why,
                });
            }
            let _changed = tokio::time::timeout(LOOK / 8, turns.changed()).await;
        }
    }

    /// Notes why nobody leads here; nothing any more when somebody does.
    pub(crate) fn note(&self, why: Option<&ControlError>) {
        let trouble = match why {
            Some(ControlError::Store(StoreError::Full { why, advice })) => {
                Some(StoreTrouble::Full(format!(
                    "etcd, which keeps the cluster's state, has no room left ({why}); nothing was changed: {advice}"
                )))
            }
            Some(ControlError::Store(StoreError::Unavailable { why, advice })) => {
                Some(StoreTrouble::Away(format!(
                    "etcd, which keeps the cluster's state, cannot be used now ({why}); nothing was changed: {advice}"
                )))
            }
            // Whoever leads instead is told by its seat; until then what is known stays.
            Some(_) => return,
            None => None,
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(crate) fn servers(&self) -> Vec<ServerRecord> {
        self.servers.borrow().clone()
    }

    pub(crate) fn others<'a>(&self, told: impl Iterator<Item = &'a String>) -> Vec<String> {
        let known = self.servers();
        let known = known.iter().filter(|s| s.id != self.me.id);
        let mut all: Vec<String> = known.map(|s| s.address.clone()).collect();
        all.extend(told.cloned());
        all.dedup();
        all
    }

    /// Follows who the servers are, and tells where this one is while it leads.
    pub(crate) async fn tend(self: Arc<Self>, mut seats: Seats, way: Way, stop: CancellationToken) {
        loop {
            let seat = seats.look();
            let look = async {
                let Leads::Here(control) = &seat else {
                    match prism_control::admission(&*self.store).await {
                        Ok(state) if self.follow(&state) => self.leave().await,
                        Ok(_) => {}
                        Err(why) => {
                            tracing::debug!(%why, "the servers are not read from the store")
                        }
                    }
                    return tokio::time::sleep(LOOK).await;
                };
                let mut admission = control.admission_changed();
                if let Some(house) = way.house()
                    && let Err(why) = house.note_address(control).await
                {
                    tracing::warn!(%why, "where this server is was not noted yet");
                }
                if control.read(|s| self.follow(s)).await {
                    self.leave().await;
                }
                let _either = tokio::time::timeout(LOOK, admission.changed()).await;
            };
            tokio::select! {
                () = look => {}
                () = seats.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// It was taken out of the cluster. Whoever waits for it may stop waiting, and it is done all the same.
    async fn leave(self: &Arc<Self>) {
        if *self.retired.borrow() {
            return;
        }
        tracing::error!("this server was taken out of the cluster; it does not lead any more");
        let on = self.clone();
        let _done = tokio::spawn(async move { on.retire().await }).await;
    }

    /// Takes over who the servers are; whether this one was taken out.
    fn follow(&self, state: &State) -> bool {
        let servers: Vec<ServerRecord> = state.servers().cloned().collect();
        self.servers.send_if_modified(|now| {
            let changed = *now != servers;
            *now = servers;
            changed
        });
        state.server(self.me.id).is_some_and(|server| server.gone)
    }

    /// None of them votes. When one was heard of is known by the session of what runs work there.
    pub(crate) fn peers(self: &Arc<Self>, seats: &Seats) -> Peers {
        let (on, seats) = (self.clone(), seats.clone());
        Peers::new(move || {
            let control = seats.here();
            let leader = on.store.seat().borrow().clone();
            let heard = |id: NodeId| {
                let control = control.as_ref()?;
                let last = control.readings(id)?.last_heartbeat;
                let since = Duration::from_millis(control.now().since(last).0);
                Some(since.saturating_sub(BEAT))
            };
            let of = |server: ServerRecord| {
                let mine = server.id == on.me.id;
                let leads = match &leader {
                    Some(seat) if on.store.is_mine(seat) => mine && control.is_some(),
                    Some(seat) => seat.address == server.address,
                    None => false,
                };
                Peer {
                    number: server.number,
                    leader: leads,
                    voter: false,
                    behind: None,
                    heard: if mine {
                        Some(Duration::ZERO)
                    } else {
                        heard(server.id)
                    },
                    address: server.address,
                }
            };
            on.servers().into_iter().map(of).collect()
        })
    }

    pub(crate) fn gauge(self: &Arc<Self>) -> StoreGauge {
        let on = self.clone();
        StoreGauge::new(move || {
            let health = on.store.health();
            let noted = on.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            let trouble = match &*noted {
                Some(trouble) => trouble.clone(),
                None if !health.reachable && !health.warnings.is_empty() => {
                    let why = health.warnings.join("; ");
                    StoreTrouble::Away(format!(
                        "etcd, which keeps the cluster's state, cannot be used now: {why}; nothing was changed"
                    ))
                }
                None => StoreTrouble::Away(
                    "no server has the lead in the etcd that keeps the cluster's state: the lease of the last leader may not be over, or etcd does not answer; nothing was changed, try again"
                        .to_owned(),
                ),
            };
            StoreHealth {
                trouble: Some(trouble),
                warnings: health.warnings,
            }
        })
    }

    /// Notes that the cluster has its id in etcd: from then on an empty prefix is not taken for it.
    pub(crate) async fn began(&self, data: &Path, seats: &Seats) -> Result<(), NodeError> {
        let Some(control) = seats.here().filter(|_| !self.own.begun) else {
            return Ok(());
        };
        if control.read(|s| s.cluster()).await != Some(self.own.cluster.0) {
            return Ok(());
        }
        let begun = Kept {
            begun: true,
            ..self.own.clone()
        };
        keep(data, &begun)
    }

    pub(crate) async fn retire(&self) {
        self.retired.send_replace(true);
        self.store.resign().await;
    }

    pub(crate) async fn close(&self) {
        if tokio::time::timeout(STOP_WAIT, self.store.close())
            .await
            .is_err()
        {
            tracing::warn!("etcd does not answer; the lead ends with its lease");
        }
    }
}

/// Follows whose turn it is.
#[derive(Debug)]
pub(crate) struct EtcdTurns {
    on: Arc<OnEtcd>,
    seat: watch::Receiver<Option<Seat>>,
    retired: watch::Receiver<bool>,
}

impl EtcdTurns {
    pub(crate) fn look(&mut self) -> Turn {
        self.retired.borrow_and_update();
        let seat = self.seat.borrow_and_update().clone();
        self.on.turn(seat.as_ref())
    }

    pub(crate) async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.seat.changed() => changed.is_ok(),
            changed = self.retired.changed() => changed.is_ok(),
            // Whether the store still runs nobody tells.
            () = tokio::time::sleep(LOOK) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]
    use super::*;

    fn cluster(n: u128) -> ClusterId {
        ClusterId(prism_types::Id::new(1, n))
    }

    fn before(n: u128, begun: bool) -> Option<Kept> {
        Some(Kept {
            store: Kind::Etcd,
            prefix: "/p/".to_owned(),
            cluster: cluster(n),
            begun,
        })
    }

    #[test]
    fn a_directory_takes_up_its_own_state_and_no_other() {
        let own = |kept, joined: Option<u128>, found: Option<u128>| {
            let (joined, found) = (joined.map(cluster), found.map(cluster));
            own_state(Path::new("/d"), kept, "/p/", joined, found)
        };
        let fresh = own(None, None, None).unwrap();
        assert!(!fresh.begun);
        // A crash before, and after, its first write.
        assert_eq!(own(Some(fresh.clone()), None, None).unwrap(), fresh);
        let going = own(before(1, false), None, Some(1)).unwrap();
        assert_eq!(Some(going.clone()), before(1, true));
        assert_eq!(own(before(1, true), Some(1), Some(1)).unwrap(), going);
        // One that has joined.
        assert_eq!(own(None, Some(1), Some(1)).unwrap(), going);
        for (kept, joined, found, says) in [
            (None, None, Some(2), "of none of its servers"),
            (None, Some(1), Some(2), "lies the state of cluster"),
            (None, Some(1), None, "no state of a cluster"),
            (before(1, false), None, Some(2), "lies the state of cluster"),
            (before(1, true), None, None, "no state of a cluster"),
            (
                before(1, true),
                Some(1),
                Some(2),
                "lies the state of cluster",
            ),
        ] {
            let why = own(kept, joined, found).unwrap_err();
            assert!(matches!(why, NodeError::ForeignState(_)), "{why}");
            assert!(why.to_string().contains(says), "{why}");
        }
        let why = own_state(Path::new("/d"), before(1, true), "/q/", None, None).unwrap_err();
        assert!(why.to_string().contains("beneath /p/"), "{why}");
    }

    #[test]
    fn what_is_kept_reads_back_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kept(dir.path()).unwrap(), None);
        let record = before(3, true).unwrap();
        keep(dir.path(), &record).unwrap();
        assert_eq!(kept(dir.path()).unwrap(), Some(record));
        let path = dir.path().join(RECORD);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut turned = good.clone();
            turned[at] ^= 4;
            fs::write(&path, &turned).unwrap();
            let why = kept(dir.path()).unwrap_err();
            assert_eq!(
                why.code(),
                prism_types::Fault::DataDamaged.as_code(),
                "{at}"
            );
        }
    }
}
