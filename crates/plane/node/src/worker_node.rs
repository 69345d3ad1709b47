//! A node that runs work and nothing else: it joins with a token, then dials a server of its cluster, again and again, and opens no
//! port. What it runs goes on while no server can be reached.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use prism_identity::{ClusterId, JoinToken, Key, Role, again_in, renew_at};
use prism_link::NodeService;
use prism_members::{
    Dialled, Joining, Leads, MemberError, Membership, dial_session, join, renew, unix_now,
    who_leads,
};
use prism_sandbox::ProcessRuntime;
use prism_store::BoxFuture;
use prism_types::{Name, NodeId};
use prism_wire::{WireError, carry_greeted, greet_control};
use prism_worker::Worker;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::identity::{self, Identity};
use crate::node::{NodeError, STOP_WAIT, Vital, open_worker};
use crate::on_etcd::RECORD;
use crate::{NodeConfig, format, lan, strict};

/// Between two attempts to reach a server: at first, and at most.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(5);
/// Of more servers than these some are long gone.
const SERVERS_MAX: usize = 64;

/// A session of this length was a good one: the next attempt is soon.
const GOOD: Duration = Duration::from_secs(10);

/// How a worker comes to its cluster.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// Servers, `HOST:PORT`; any of them will do.
    pub servers: Vec<String>,
    /// What it joins with; needed once.
    pub token: Option<JoinToken>,
}

/// A node that runs work.
#[derive(Debug)]
pub struct WorkerNode {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// Its cluster.
    pub cluster: ClusterId,
    runtime: Arc<ProcessRuntime>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _lock: File,
}

/// Starts a node that runs work; it joins first, if it has not before.
///
/// # Errors
/// When the directory cannot be used, or the cluster does not let it in. Later no server need be reachable.
pub fn start_worker(
    config: NodeConfig,
    joining: JoinConfig,
) -> BoxFuture<'static, Result<WorkerNode, NodeError>> {
    Box::pin(async move {
        let data = &config.data_dir.clone();
        let directory = |e| NodeError::Directory(data.display().to_string(), e);
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(data).map_err(directory)?;
        let lock = lock(data)?;
        format::check(data)?;
        if data.join("store").exists() || data.join(RECORD).exists() {
            let data = data.display();
            return Err(NodeError::Foreign(format!(
                "{data} is the directory of a server, and this is to be a worker"
            )));
        }
        let mut config = config;
        config.join = Some(joining.clone());
        let kept = Membership::load(data).map_err(NodeError::Member)?;
        strict::check(&config, kept.as_ref(), None).await?;
        let (own, me) = member(&config, &joining).await?;
        let settings = (config.clone(), own.clone());
        let opening = tokio::task::spawn_blocking(move || open_worker(&settings.0, &settings.1));
        let (worker, runtime) = opening.await.expect("opening a worker does not panic")?;
        let stop = CancellationToken::new();
        let cluster = me.cluster;
        let trust = me.trust().map_err(NodeError::Member)?;
        let member = Arc::new(Member {
            servers: joining.servers,
            known: std::sync::Mutex::default(),
            me: Mutex::new(me),
            trust,
            data: data.clone(),
        });
        let tasks = vec![
            tokio::spawn(keep_session(member.clone(), worker, stop.clone())),
            tokio::spawn(keep_certificate(member, data.clone(), stop.clone())),
        ];
        Ok(WorkerNode {
            id: own.id,
            name: own.name,
            cluster,
            runtime,
            stop,
            tasks,
            _lock: lock,
        })
    })
}

/// Who this node is, as it was kept or after it has joined.
async fn member(
    config: &NodeConfig,
    joining: &JoinConfig,
) -> Result<(Identity, Membership), NodeError> {
    let data = &config.data_dir;
    let directory = |e| NodeError::Directory(data.display().to_string(), e);
    let kept = Membership::load(data).map_err(NodeError::Member)?;
    let before = identity::kept(data).map_err(directory)?;
    if let (Some(_), Some(before), Some(name)) = (&kept, &before, &config.name)
        && before.name != *name
    {
        return Err(NodeError::Foreign(format!(
            "this node has joined as {}, and is started as {name}; leave --name out, or start with an empty directory",
            before.name
        )));
    }
    let own = identity::load(data, config.name.as_ref(), fresh_id()).map_err(directory)?;
    let me = match kept {
        Some(me) if me.role == Role::Worker && me.node == own.id => {
            if me.life.until > unix_now() {
                known_root(data, joining, &own, me).await?
            } else if joining.token.is_some() {
                // With the key that it has: to the cluster it is the member that it was.
                enter(data, joining, &own, &me.key, None).await?
            } else {
                return Err(NodeError::Expired);
            }
        }
        Some(me) => {
            return Err(NodeError::Foreign(format!(
                "{} is of {} {}, and this is worker {}",
                data.join("identity.json").display(),
                me.role,
                me.node,
                own.id
            )));
        }
        None => {
            let me = enter(data, joining, &own, &joining_key(data)?, None).await?;
            let _only_a_copy = fs::remove_file(data.join("joining.key"));
            me
        }
    };
    Ok((own, me))
}

/// A member whose token is of another root than those that it trusts joins again: the root was changed while it was away. If that fails,
/// it stays who it is: the token may be an old one.
async fn known_root(
    data: &Path,
    joining: &JoinConfig,
    own: &Identity,
    me: Membership,
) -> Result<Membership, NodeError> {
    let pins = prism_identity::pins_in(&me.roots).map_err(|e| NodeError::Member(e.into()))?;
    let other = joining.token.filter(|token| !pins.contains(&token.pin));
    if other.is_none() {
        return Ok(me);
    }
    match enter(data, joining, own, &me.key, None).await {
        Ok(joined) => Ok(joined),
        Err(why) => {
            tracing::warn!(%why, "the join token is of another root, and is of no use; going on without it");
            Ok(me)
        }
    }
}

impl WorkerNode {
    /// Stops in order. What runs goes on, and is taken up again at the next start.
    pub fn stop(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.stop.cancel();
            for task in self.tasks {
                if tokio::time::timeout(STOP_WAIT, task).await.is_err() {
                    tracing::warn!("a part of the node does not stop; going on without it");
                }
            }
            drop(self.runtime);
        })
    }
}

/// Keeps a second node out of a directory.
pub(crate) fn lock(data: &Path) -> Result<File, NodeError> {
    let path = data.join("node.lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| NodeError::Directory(path.display().to_string(), e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(NodeError::InUse(data.display().to_string())),
        Err(fs::TryLockError::Error(e)) => Err(NodeError::Directory(path.display().to_string(), e)),
    }
}

pub(crate) fn fresh_id() -> NodeId {
    let mut entropy = [0; 16];
    let n = rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty());
    assert_eq!(n, Ok(entropy.len()), "the kernel gives random bytes");
    let ms = u64::try_from(unix_now()).unwrap_or_default() * 1000;
    NodeId::new(ms, u128::from_le_bytes(entropy))
}

/// The key that this node joins with: kept before it is used, so that it is the same when the answer to a join was lost.
pub(crate) fn joining_key(data: &Path) -> Result<Key, NodeError> {
    let path = data.join("joining.key");
    let failed = |e| NodeError::Directory(path.display().to_string(), e);
    match fs::read_to_string(&path) {
        Ok(pem) => return Key::from_pem(&pem).map_err(|e| NodeError::Member(e.into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let key = Key::generate().map_err(|e| NodeError::Member(e.into()))?;
    let temporary = path.with_extension("tmp");
    let write = || {
        let _left_by_a_crash = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(key.to_pem().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(data)?.sync_all()
    };
    write().map_err(failed)?;
    Ok(key)
}

/// What a server says of itself when it joins.
pub(crate) struct Serves {
    /// Where the others reach it, `HOST:PORT`.
    pub(crate) address: String,
    /// Whether an etcd keeps its state.
    pub(crate) on_etcd: bool,
    /// Whether it asks Vault for certificates.
    pub(crate) by_vault: bool,
}

/// Joins: tries each server in turn, and says of the last why not.
pub(crate) async fn enter(
    data: &Path,
    joining: &JoinConfig,
    own: &Identity,
    key: &Key,
    server: Option<Serves>,
) -> Result<Membership, NodeError> {
    let token = joining.token.ok_or(NodeError::NoToken)?;
    let who = Joining {
        node: own.id,
        name: own.name.clone(),
        on_etcd: server.as_ref().is_some_and(|s| s.on_etcd),
        by_vault: server.as_ref().is_some_and(|s| s.by_vault),
        server: server.map(|s| s.address),
    };
    let mut last = None;
    for server in &joining.servers {
        for address in resolve(server).await? {
            let key = Key::from_pem(&key.to_pem()).map_err(|e| NodeError::Member(e.into()))?;
            match join(address, &token, &who, key).await {
                Ok(me) => {
                    me.save(data).map_err(NodeError::Member)?;
                    return Ok(me);
                }
                Err(e @ MemberError::Refused(_)) => return Err(NodeError::Member(e)),
                Err(e) => last = Some(e),
            }
        }
    }
    Err(last.map_or(NodeError::NoServer, NodeError::Member))
}

pub(crate) async fn resolve(server: &str) -> Result<Vec<SocketAddr>, NodeError> {
    if server == lan::MDNS {
        return Ok(lan::search().await);
    }
    let found = tokio::net::lookup_host(server).await;
    let found = found.map_err(|e| NodeError::Unknown(server.to_owned(), e))?;
    Ok(found.collect())
}

/// What this node is, and where its cluster is.
struct Member {
    /// Those that it was told of.
    servers: Vec<String>,
    /// All that the cluster has, as it said last.
    known: std::sync::Mutex<Vec<String>>,
    me: Mutex<Membership>,
    trust: Arc<prism_identity::Trust>,
    data: std::path::PathBuf,
}

impl Member {
    /// Every server that it knows of.
    fn all(&self) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = known.clone();
        all.extend(self.servers.iter().filter(|s| !known.contains(s)).cloned());
        all
    }

    /// A connection to the leader: whichever server answers knows where it is.
    async fn dial(&self) -> Result<Dialled, NodeError> {
        let mut me = self.me.lock().await;
        if me.life.until < unix_now() {
            // No server takes it any more, and would only say that something is wrong with its certificate.
            return Err(NodeError::Expired);
        }
        let mut last = NodeError::NoServer;
        for server in self.all() {
            let addresses = match resolve(&server).await {
                Ok(addresses) => addresses,
                Err(e) => {
                    last = e;
                    continue;
                }
            };
            for address in addresses {
                match self.led(address, &mut me).await {
                    Ok(dialled) => return Ok(dialled),
                    Err(e) => last = e,
                }
            }
        }
        Err(last)
    }

    /// A connection to the leader, as this server knows it.
    async fn led(&self, address: SocketAddr, me: &mut Membership) -> Result<Dialled, NodeError> {
        let asked = who_leads(address, me, self.trust.clone()).await;
        let said = asked.map_err(NodeError::Member)?;
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            take_over(&mut known, said.servers, matches!(said.leads, Leads::Me));
        }
        let leader = match said.leads {
            Leads::Me => vec![address],
            Leads::Other(leader) => resolve(&leader).await?,
            Leads::Nobody => return Err(NodeError::NoLeader),
        };
        let mut last = NodeError::NoLeader;
        for leader in leader {
            match dial_session(leader, me, self.trust.clone()).await {
                Ok(dialled) if dialled.differs => return self.along(leader, me, dialled).await,
                Ok(dialled) => return Ok(dialled),
                Err(e) => last = NodeError::Member(e),
            }
        }
        Err(last)
    }

    /// Comes along with a change of the root: a new certificate and new roots, and a connection with them. If there are none yet, the
    /// connection that there is will do.
    async fn along(
        &self,
        leader: SocketAddr,
        me: &mut Membership,
        dialled: Dialled,
    ) -> Result<Dialled, NodeError> {
        if let Err(why) = renew(leader, me, self.trust.clone()).await {
            tracing::warn!(%why, "the root of the cluster is being changed, and this node has no new certificate yet; it is tried again");
            return Ok(dialled);
        }
        drop(dialled);
        me.save(&self.data).map_err(NodeError::Member)?;
        tracing::info!(
            "this node has a new certificate, for the root of the cluster is being changed"
        );
        let again = dial_session(leader, me, self.trust.clone()).await;
        again.map_err(NodeError::Member)
    }

    async fn renew(&self, data: &Path) -> Result<(), NodeError> {
        let mut last = NodeError::NoServer;
        for server in self.all() {
            for address in resolve(&server).await.unwrap_or_default() {
                let mut me = self.me.lock().await;
                match renew(address, &mut me, self.trust.clone()).await {
                    Ok(()) => return me.save(data).map_err(NodeError::Member),
                    Err(e) => last = NodeError::Member(e),
                }
            }
        }
        Err(last)
    }
}

/// Takes over which servers there are. The leader knows; what another says may be of long ago, before those came that are left now, so
/// nobody is forgotten for its word.
fn take_over(known: &mut Vec<String>, said: Vec<String>, by_leader: bool) {
    if said.is_empty() {
        return;
    }
    if by_leader || known.len() > SERVERS_MAX {
        *known = said;
        return;
    }
    for server in said {
        if !known.contains(&server) {
            known.push(server);
        }
    }
}

/// A little more or less, so that workers that lost their server together do not all come back together.
fn spread(wait: Duration) -> Duration {
    let mut byte = [0];
    let _zero_will_do = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty());
    wait.mul_f64(0.5 + f64::from(byte[0]) / 255.0)
}

/// Serves a session until it is over; answers why, if it was not ended here.
async fn serve(
    dialled: Dialled,
    worker: &mut Worker,
    service: Arc<dyn NodeService>,
    stop: &CancellationToken,
) -> Option<WireError> {
    let greeted = tokio::select! {
        greeted = greet_control(dialled.stream) => greeted,
        () = stop.cancelled() => return None,
    };
    let greeted = match greeted {
        Ok(greeted) => greeted,
        Err(why) => return Some(why),
    };
    let (far, mut end) = prism_link::pair();
    end.resumes = greeted.resumes();
    let carried = tokio::spawn(carry_greeted(greeted, far, service));
    worker.run(end, stop.clone()).await;
    if carried.is_finished() {
        return carried.await.ok();
    }
    carried.abort();
    None
}

async fn keep_session(member: Arc<Member>, mut worker: Worker, stop: CancellationToken) {
    let _vital = Vital("the worker's session");
    let service = worker.service();
    let (mut wait, mut told) = (SOON, String::new());
    while !stop.is_cancelled() {
        let dialled = tokio::select! {
            dialled = member.dial() => dialled,
            () = stop.cancelled() => return,
        };
        match dialled {
            Ok(dialled) => {
                told.clear();
                let began = Instant::now();
                tracing::info!(server = %dialled.peer.holder.id, "connected");
                let over = serve(dialled, &mut worker, service.clone(), &stop).await;
                if let Some(why) = over {
                    tracing::warn!(%why, "the session is over; what runs goes on");
                }
                if began.elapsed() > GOOD {
                    wait = SOON;
                }
            }
            Err(why) => {
                let why = why.to_string();
                // Once, not at every attempt.
                if why != told {
                    tracing::warn!(%why, "no session with a server; what runs goes on, and it is tried again");
                    told = why;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(spread(wait)) => {}
            () = stop.cancelled() => return,
        }
        wait = (wait * 2).min(LATER);
    }
}

async fn keep_certificate(member: Arc<Member>, data: std::path::PathBuf, stop: CancellationToken) {
    let mut jitter = [0; 4];
    let _zero_will_do = rustix::rand::getrandom(&mut jitter, rustix::rand::GetRandomFlags::empty());
    let jitter = u32::from_le_bytes(jitter);
    loop {
        let at = renew_at(member.me.lock().await.life, jitter);
        let left = u64::try_from(at.saturating_sub(unix_now())).unwrap_or_default();
        // Clocks may be set: it is looked at often.
        let wait = Duration::from_secs(left.min(60));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
        if unix_now() < at {
            continue;
        }
        let renewed = member.renew(&data).await;
        if let Err(why) = &renewed {
            tracing::warn!(%why, "this node's certificate is not renewed; it is tried again");
        }
        // One that lives for minutes only may be due again at once.
        if renewed.is_err() || renew_at(member.me.lock().await.life, jitter) <= unix_now() {
            let again = again_in(member.me.lock().await.life, unix_now());
            tokio::select! {
                () = tokio::time::sleep(spread(Duration::from_secs(again))) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn only_the_leader_makes_a_worker_forget_servers() {
        let mut known = names(&["a", "b", "c"]);
        take_over(&mut known, names(&["a", "d"]), false);
        assert_eq!(known, names(&["a", "b", "c", "d"]));
        take_over(&mut known, Vec::new(), true);
        assert_eq!(known.len(), 4);
        take_over(&mut known, names(&["b", "c"]), true);
        assert_eq!(known, names(&["b", "c"]));
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        take_over(&mut known, many, false);
        take_over(&mut known, names(&["a"]), false);
        assert_eq!(known, names(&["a"]), "not more and more of them");
    }
}
