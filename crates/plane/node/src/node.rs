//! A node: started in order, stopped in the reverse order.
//!
//! Tasks: the leader loop, the worker's session and the control plane's end of it, the gateway.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prism_control::{ControlError, Seat, Seats};
use prism_faults::point;
use prism_gateway::{DiskGauge, DiskRoom, Gateway, GatewayConfig, Ground};
use prism_members::MemberError;
use prism_membership::mdns::Announcement;
use prism_raft::OpenError;
use prism_runtime::{Runtime, RuntimeError};
use prism_sandbox::ProcessRuntime;
use prism_store::BoxFuture;
use prism_types::{Bytes, Fault, NodeId, Reason, Rejection};
use prism_worker::{Worker, WorkerError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::NodeConfig;
use crate::host_files::EngineFiles;
use crate::introduction::Introduction;
use crate::keeper::{self, Keeper};
use crate::members::{self, Opening};
use crate::way::Way;
use crate::{cohort, format, gossip, identity, seat, session};

/// What to do with a server that was taken out.
pub const JOIN_ANEW: &str = "on a server of the cluster: prismctl server join-token --role server; then start this one with an empty directory and --token-file FILE";
/// How long the parts of a node may take to stop.
pub(crate) const STOP_WAIT: Duration = Duration::from_secs(10);
/// Share of the disk in use above which nothing new is started.
const PRESSURE_DISK: f64 = 0.95;
/// The exit status of a process in which a part of the node panicked.
const EXIT_PANIC: i32 = 70;
/// Free space that is kept for what was accepted, at most; less on a small disk.
const DISK_KEPT: Bytes = Bytes(256 << 20);
/// Logs kept on a node.
const LOGS_TOTAL: Bytes = Bytes(4 << 30);

/// Why a node does not start.
#[derive(Debug)]
pub enum NodeError {
    /// The directory cannot be used.
    Directory(String, io::Error),
    /// The store does not open.
    Store(prism_raft::OpenError),
    /// The leader does not start.
    Control(ControlError),
    /// The worker does not start.
    Worker(prism_worker::WorkerError),
    /// The engine's files cannot be used.
    Files(RuntimeError),
    /// The API's address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The leader refused what a node needs.
    Refused(Rejection),
    /// The address for members cannot be listened on.
    Serf(SocketAddr, io::Error),
    /// What goes wrong between members.
    Member(MemberError),
    /// The directory is another node's.
    Foreign(String),
    /// Another process has the directory open.
    InUse(String),
    /// It is no member, and has nothing to join with.
    NoToken,
    /// It was away for longer than its certificate is good.
    Expired,
    /// It is told of no server.
    NoServer,
    /// The servers have no leader now.
    NoLeader,
    /// A server's name leads nowhere.
    Unknown(String, io::Error),
    /// The directory is of one of several servers, and says no more who it is.
    NoIdentity(String),
    /// A directory that has lost its part of the cluster's state.
    StoreGone(String),
    /// It cannot be said where the others reach it.
    Advertise(String),
    /// The etcd that is to keep the state cannot be used.
    Etcd(prism_etcd::OpenError),
    /// The directory was used with the other store.
    OtherStore(String),
    /// What lies in etcd is not the state of this directory's cluster.
    ForeignState(String),
    /// Nobody gives it the lead without which it cannot start.
    NoLead {
        /// Beneath which the state lies.
        prefix: String,
        /// Why.
        why: String,
    },
    /// The certificate for the API cannot be used.
    TlsFiles(io::Error),
    /// The cluster goes on without it.
    TakenOut(String),
    /// A newer version wrote the directory.
    Newer(String),
    /// How Vault is asked cannot be as it was told.
    Vault(prism_vault::VaultError),
    /// A server that it was told of is not there, and it is to be strict about that.
    Strict(String, String),
}

impl std::fmt::Display for NodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path, e) => write!(
                f,
                "cannot use the data directory {path}: {e}; nothing was started; choose another with --data-dir"
            ),
            Self::Store(e) => write!(f, "{e}"),
            Self::Control(e) => {
                write!(f, "{e}")?;
                std::error::Error::source(e).map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::Worker(e) => write!(f, "{e}"),
            Self::Files(e) => write!(f, "{e}"),
            Self::Listen(address, e) => write!(
                f,
                "cannot listen on {address}: {e}; nothing was started; choose another address with --api"
            ),
            Self::Refused(e) => write!(f, "{e}"),
            Self::Serf(address, e) => write!(
                f,
                "cannot listen for members on {address}: {e}; nothing was started; choose another address with --serf"
            ),
            Self::Member(e) => write!(f, "{e}"),
            Self::Foreign(what) => write!(f, "{what}; nothing was started"),
            Self::InUse(data) => write!(
                f,
                "{data} is in use by another process; stop that process, or use another directory"
            ),
            Self::NoToken => f.write_str(
                "this node is no member of a cluster yet, and has no token to join with; nothing was started",
            ),
            Self::Expired => f.write_str(
                "this node was away for longer than its certificate is good; its place in the cluster is kept, and it needs a new token to come back",
            ),
            Self::NoLeader => f.write_str("no server leads the cluster now"),
            Self::NoServer => f.write_str("no server of the cluster was named or found"),
            Self::Unknown(server, e) => write!(f, "cannot find {server}: {e}"),
            Self::NoIdentity(data) => write!(
                f,
                "{data} is of one of several servers, and its identity.json is gone; nothing was started"
            ),
            Self::StoreGone(data) => write!(
                f,
                "{data} is of a server of a cluster, and its store is gone; it may have promised others what it does not know any more, so it takes no part; nothing was started"
            ),
            Self::Advertise(why) | Self::TakenOut(why) | Self::Newer(why) => f.write_str(why),
            Self::Etcd(e) => write!(f, "{e}"),
            Self::OtherStore(what) => write!(
                f,
                "{what}; nothing was started; a cluster is moved from one to the other by a backup and its restore"
            ),
            Self::ForeignState(what) => write!(f, "{what}; nothing was started"),
            Self::NoLead { prefix, why } => write!(
                f,
                "this server has to lead to begin, and does not get the lead beneath {prefix} in etcd ({why}); it begins nothing"
            ),
            Self::TlsFiles(e) => write!(
                f,
                "the certificate of the API cannot be used: {e}; nothing was started"
            ),
            Self::Vault(e) => write!(f, "{e}; nothing was started"),
            Self::Strict(server, why) => write!(
                f,
                "{server} was named to join, and with --strict-join it has to be there: {why}; nothing was started"
            ),
        }
    }
}

impl std::error::Error for NodeError {}

impl NodeError {
    /// The code of the page about it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Directory(_, e) if e.kind() == io::ErrorKind::InvalidData => Fault::DataDamaged,
            Self::Directory(..) | Self::Worker(WorkerError::Directory(..)) => Fault::DataDir,
            Self::Store(e) => match e {
                OpenError::Io { .. } => Fault::DataDir,
                OpenError::Corrupt { .. } => Fault::DataDamaged,
                OpenError::Newer { .. } | OpenError::WrongServer { .. } => Fault::DataForeign,
                OpenError::Locked { .. } => Fault::DataInUse,
                _ => return Reason::Internal.as_code(),
            },
            Self::Control(ControlError::Corrupt(_)) | Self::Worker(WorkerError::Damaged(_)) => {
                Fault::DataDamaged
            }
            Self::Control(ControlError::TakenOut(_)) | Self::TakenOut(_) => Fault::DataForeign,
            Self::Control(_) => Fault::DiskFailed,
            Self::Vault(prism_vault::VaultError::File { .. }) => Fault::File,
            Self::Vault(_) => Fault::Usage,
            Self::Listen(..) | Self::Serf(..) => Fault::Listen,
            Self::Member(e) => return Self::member_code(e),
            Self::Foreign(_) | Self::Newer(_) => Fault::DataForeign,
            Self::InUse(_) => Fault::DataInUse,
            Self::NoToken | Self::NoServer => Fault::Usage,
            Self::Expired => return Reason::Unauthenticated.as_code(),
            Self::Unknown(..) | Self::NoLeader | Self::Strict(..) => Fault::Unreachable,
            Self::NoIdentity(_) | Self::StoreGone(_) => Fault::DataDamaged,
            Self::Advertise(_) => Fault::Usage,
            Self::Etcd(e) => match e {
                prism_etcd::OpenError::Config { .. } | prism_etcd::OpenError::Tls { .. } => {
                    Fault::Usage
                }
                prism_etcd::OpenError::Newer { .. } | prism_etcd::OpenError::Foreign { .. } => {
                    Fault::DataForeign
                }
                _ => Fault::Etcd,
            },
            Self::OtherStore(_) | Self::ForeignState(_) => Fault::DataForeign,
            Self::NoLead { .. } => Fault::Etcd,
            Self::TlsFiles(_) => Fault::File,
            Self::Worker(WorkerError::Runtime(e)) | Self::Files(e) => {
                return match e {
                    RuntimeError::Unsupported(_) => Reason::Unsupported.as_code(),
                    _ => Reason::Internal.as_code(),
                };
            }
            Self::Refused(e) => return e.reason.as_code(),
        }
        .as_code()
    }

    /// The command to run next.
    pub fn next(&self) -> &'static str {
        match self {
            Self::Directory(..) | Self::Worker(WorkerError::Directory(..)) => {
                "name a directory that this user may write: --data-dir DIR"
            }
            Self::Newer(_) | Self::Store(OpenError::Newer { .. }) => {
                "start the version of prismd that wrote it, or a newer one"
            }
            Self::Store(OpenError::Locked { .. }) => {
                "prismctl info, or another directory: --data-dir DIR"
            }
            Self::TakenOut(_) | Self::Control(ControlError::TakenOut(_)) => JOIN_ANEW,
            Self::Store(_) | Self::Control(_) | Self::Worker(WorkerError::Damaged(_)) => {
                "restore the directory, or start empty: --data-dir DIR"
            }
            Self::Listen(..) => "take a free port: --api 127.0.0.1:0",
            Self::Worker(WorkerError::Runtime(_)) | Self::Files(_) => "prismctl doctor",
            Self::Refused(_) => "start it again",
            Self::Serf(..) => "take a free port: --serf 0.0.0.0:0",
            Self::NoIdentity(_) => "restore identity.json from its copy",
            Self::StoreGone(_) => {
                "on another server: prismctl peer rm NAME; then let this one join with an empty directory"
            }
            Self::Etcd(prism_etcd::OpenError::Newer { .. }) => {
                "start the version of prismd that wrote it"
            }
            Self::Etcd(prism_etcd::OpenError::Foreign { .. }) | Self::ForeignState(_) => {
                "use the directory and the prefix of one cluster: --data-dir DIR --etcd-prefix /PREFIX/"
            }
            Self::Etcd(_) | Self::NoLead { .. } => {
                "see that etcd answers: etcdctl endpoint health; then start prismd again"
            }
            Self::OtherStore(_) => {
                "start it with the store it had, or use another directory: --data-dir DIR"
            }
            Self::TlsFiles(_) => "see --tls-cert and --tls-key: PEM, and of one another",
            Self::Vault(_) => "see --vault-address and its neighbours: prismd --help",
            Self::Member(MemberError::Refused(why)) if why.reason == Reason::Issuer => {
                "see Vault, its role and this server's token for it, then start prismd again"
            }
            Self::Strict(..) => "start that server first, or this one without --strict-join",
            Self::Advertise(_) => "say where the others reach this server: --advertise ADDRESS",
            Self::Member(MemberError::Kept(_)) | Self::Foreign(_) | Self::InUse(_) => {
                "use another directory: --data-dir DIR"
            }
            Self::Member(MemberError::Unreachable { .. })
            | Self::NoServer
            | Self::NoLeader
            | Self::Unknown(..) => {
                "see that a server is there, started with --serf: --join HOST:PORT"
            }
            Self::Member(_) | Self::NoToken | Self::Expired => {
                "on a server: prismctl server join-token; then start this with --token-file FILE"
            }
        }
    }
}

/// Held by a part without which the node only seems to live. When that part panics, the process ends as it does when the disk
/// fails: the next start reads back what is true.
pub(crate) struct Vital(pub(crate) &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A closed stderr must not keep the process alive.
            let _said = writeln!(
                io::stderr(),
                "error: {} has panicked, which is a defect; the node ends, because it would do no more work; what was \
                 acknowledged is on disk and what runs goes on\n  next: start it again\n  more: prismctl explain PRISM-I001",
                self.0
            );
            std::process::exit(EXIT_PANIC)
        }
    }
}

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    /// Where its API is.
    pub api: SocketAddr,
    /// Whether that is with TLS.
    pub tls: bool,
    /// What those who use it pin then.
    pub pin: Option<prism_identity::Pin>,
    /// Where members come to, if they may.
    pub serf: Option<String>,
    /// An administrator's token.
    pub token: String,
    /// Its id.
    pub id: NodeId,
    seats: Seats,
    store: Keeper,
    runtime: Arc<ProcessRuntime>,
    runs_end: bool,
    stop_serving: CancellationToken,
    stop_leading: CancellationToken,
    serving: Vec<JoinHandle<()>>,
    leading: JoinHandle<Result<(), ControlError>>,
    _lock: Option<fs::File>,
    _announced: Option<Announcement>,
}

/// Starts a node and waits until it takes work. A server that has joined others waits until one of them leads, for a moment.
///
/// # Errors
/// When a part of it does not start; nothing is left running.
pub fn start(config: NodeConfig) -> BoxFuture<'static, Result<Node, NodeError>> {
    Box::pin(async move {
        let data = &config.data_dir;
        let directory = |e| NodeError::Directory(data.display().to_string(), e);
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        point!("node.dir.before_make")
            .and_then(|()| private.create(data))
            .and_then(|()| point!("node.dir.after_make"))
            .map_err(directory)?;
        format::check(data)?;
        keeper::fits(data, &config)?;
        let kept = members::kept(data)?;
        let mut opening = members::prepare(&config, kept).await?;
        let way = Way::default();
        let store = Keeper::open(&config, &mut opening, &way).await?;
        match start_on(&config, store.clone(), way, opening).await {
            Ok(node) => Ok(node),
            Err(e) => {
                store.close().await;
                Err(e)
            }
        }
    })
}

/// What a node consists of while it is put together.
struct Parts {
    seats: Seats,
    stop_serving: CancellationToken,
    stop_leading: CancellationToken,
    leading: JoinHandle<Result<(), ControlError>>,
    serving: Vec<JoinHandle<()>>,
}

async fn start_on(
    config: &NodeConfig,
    store: Keeper,
    way: Way,
    mut opening: Opening,
) -> Result<Node, NodeError> {
    let data = &config.data_dir;
    let (listener, api) = listen(config.api).await?;
    if opening.me.is_none() && store.has_others() {
        return Err(NodeError::NoIdentity(data.display().to_string()));
    }
    let identity = opening.identity(data, config.name.as_ref())?;
    let mut parts = lead(&store, way.clone()).await?;
    let (worker, runtime) = open_apart(config, &identity).await?;
    opening.found(data, &parts.seats, &identity).await?;
    cohort::admit(data, config.expect, &parts.seats).await?;
    let desk = crate::api::Desk::new(data);
    let gateway = gateway_config(config, &store, &identity, &mut parts, (&opening, &desk))?;
    let ground = Ground {
        seats: parts.seats.clone(),
        store: store.store(),
        reach: Some(way.reach()),
    };
    let gateway = Gateway::new(api, ground, gateway, parts.stop_serving.clone());
    let announced = opening.announce(config, &identity);
    let serf = opening.advertised.clone().filter(|_| opening.me.is_some());
    let (seats, stop) = (&parts.seats, &parts.stop_serving);
    let opened = opening.open(&mut parts.serving, seats, &store, &gateway, data, stop);
    let known = opened.await?;
    if let Some(house) = &known {
        way.open(house.clone());
        if let Some(token) = config.expect.and_then(|e| e.token) {
            house.answer_cohort(&token).map_err(NodeError::Member)?;
        }
    }
    let introduction = Introduction {
        seats: parts.seats.clone(),
        store: store.clone(),
        house: known.clone(),
        peers: opening.peers.clone(),
        name: config.token_name.clone(),
    };
    let (token, later) = introduction.make(parts.stop_serving.clone()).await?;
    parts.serving.extend(later);
    store.began(data, &parts.seats).await?;
    let served = crate::api::serve(
        config,
        (api, &parts.seats, &store),
        (&mut opening, known, &desk),
        (&mut parts.serving, &parts.stop_serving),
    )
    .await?;
    let serve = tokio::spawn(serve_api(listener, gateway, served.face));
    let (seats, stop) = (parts.seats.clone(), parts.stop_serving.clone());
    let session = tokio::spawn(session::keep(seats, way, worker, stop));
    parts.serving.extend([serve, session]);
    Ok(Node {
        api,
        tls: config.api_tls,
        pin: served.pin,
        serf,
        token,
        id: identity.id,
        seats: parts.seats,
        store,
        runtime,
        runs_end: config.runs_end_with_node,
        stop_serving: parts.stop_serving,
        stop_leading: parts.stop_leading,
        serving: parts.serving,
        leading: parts.leading,
        _lock: opening.lock,
        _announced: announced,
    })
}

async fn listen(api: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let failed = |e| NodeError::Listen(api, e);
    let listener = TcpListener::bind(api).await.map_err(failed)?;
    let listens = listener.local_addr().map_err(failed)?;
    Ok((listener, listens))
}

/// What the gateway is told of this server; begins the gossip that it tells of, if this server has any.
fn gateway_config(
    config: &NodeConfig,
    store: &Keeper,
    identity: &identity::Identity,
    parts: &mut Parts,
    (opening, desk): (&Opening, &Arc<crate::api::Desk>),
) -> Result<GatewayConfig, NodeError> {
    let name = identity.name.to_string();
    let mut gateway = GatewayConfig::new(name.clone(), env!("CARGO_PKG_VERSION"));
    gateway.token_hint =
        "restart this server: it makes an administrator's token at every start".to_owned();
    gateway.disk = Some(disk_gauge(&config.data_dir, store, &name));
    gateway.joining = opening.joining()?;
    gateway.peers = Some(store.peers(&parts.seats));
    gateway.store = store.gauge();
    gateway.spool = config.data_dir.clone();
    gateway.tls = config.api_tls;
    gateway.authority = Some(desk.clone());
    // Beneath an etcd servers need not know each other.
    if let Keeper::Raft(raft) = store
        && let Some(rumours) = opening.gossip(config, identity, desk)
    {
        gateway.gossip = Some(rumours.clone());
        let (seats, stop) = (parts.seats.clone(), parts.stop_serving.clone());
        let keep = gossip::keep(rumours, raft.clone(), seats, stop);
        parts.serving.push(tokio::spawn(keep));
    }
    Ok(gateway)
}

/// Serves the API until its end.
async fn serve_api(listener: TcpListener, gateway: Gateway, face: Option<prism_gateway::Face>) {
    let _vital = Vital("the API");
    match face {
        Some(face) => prism_gateway::serve_tls(listener, gateway, face).await,
        None => {
            if let Err(e) = prism_gateway::serve(listener, gateway).await {
                tracing::error!(error = %e, "the API stopped");
            }
        }
    }
}

/// Begins to lead when it is this server's turn; at once when it is alone.
async fn lead(store: &Keeper, way: Way) -> Result<Parts, NodeError> {
    let first = store.first().await?;
    let (seat, seats) = Seats::new();
    if let Some((control, _)) = &first {
        seat.send_replace(Seat::Here(control.clone()));
    }
    let stop_leading = CancellationToken::new();
    let stop_serving = CancellationToken::new();
    let tend = store.tend(seats.clone(), way.clone(), stop_serving.clone());
    let (store, stop) = (store.clone(), stop_leading.clone());
    let outcast = store.outcast(seats.clone(), way, stop.clone());
    let leading = tokio::spawn(async move {
        let _vital = Vital("the leader");
        tokio::select! {
            ended = seat::lead(store, first, seat, stop) => ended,
            taken_out = outcast => Err(taken_out),
        }
    });
    Ok(Parts {
        seats,
        stop_serving,
        stop_leading,
        leading,
        serving: vec![tend],
    })
}

/// Tells the gateway how much room there is: a last part of the disk is kept for the results of what was accepted.
fn disk_gauge(data: &Path, store: &Keeper, node: &str) -> DiskGauge {
    let (data, store, node) = (data.to_owned(), store.clone(), node.to_owned());
    DiskGauge::new(move || {
        if store.is_disk_full() {
            return DiskRoom::Full(format!("the data disk of {node} is full"));
        }
        let Ok(disk) = rustix::fs::statvfs(&data) else {
            return DiskRoom::Enough;
        };
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= (total / 20).min(DISK_KEPT.0) {
            return DiskRoom::Enough;
        }
        let (free, total) = (free >> 20, total >> 20);
        DiskRoom::Low(format!(
            "the data disk of {node} has {free} of {total} MiB left, which is kept for work that was accepted"
        ))
    })
}

/// On a thread that may block: a supervisor that went away tells so while the runtime opens.
async fn open_apart(
    config: &NodeConfig,
    identity: &identity::Identity,
) -> Result<(Worker, Arc<ProcessRuntime>), NodeError> {
    let (settings, own) = (config.clone(), identity.clone());
    let opened = tokio::task::spawn_blocking(move || open_worker(&settings, &own));
    opened.await.expect("opening a worker does not panic")
}

pub(crate) fn open_worker(
    config: &NodeConfig,
    identity: &identity::Identity,
) -> Result<(Worker, Arc<ProcessRuntime>), NodeError> {
    let data = &config.data_dir;
    let files = EngineFiles::open(&data.join("images")).map_err(NodeError::Files)?;
    let files = Arc::new(files);
    let mut settings =
        prism_worker::Config::new(identity.id, identity.name.clone(), data.join("worker"));
    settings.labels = config.labels.clone();
    settings.capacity = config.capacity;
    settings.allow_plain = config.allow_plain;
    settings.pressure_memory = config.pressure_threshold;
    settings.pressure_disk = PRESSURE_DISK;
    settings.logs_total = LOGS_TOTAL;
    let mut opened = None;
    let worker = Worker::open(settings, files.clone(), |sink| {
        let settings = prism_sandbox::Config::new(data.join("supervisor"), sink);
        let runtime = ProcessRuntime::open(settings)?;
        opened = Some(runtime.clone());
        let runtime: Arc<dyn Runtime> = runtime;
        files.attach(runtime.clone());
        Ok(runtime)
    });
    let worker = worker.map_err(NodeError::Worker)?;
    let runtime = opened.expect("a worker that opened has its runtime");
    Ok((worker, runtime))
}

impl Node {
    /// Waits until the leader had to stop by itself.
    ///
    /// # Errors
    /// Why it stopped.
    pub fn failed(&mut self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            match (&mut self.leading).await {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        })
    }

    /// Waits until the node's own worker has a session, so that work is placed.
    pub fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut seats = self.seats.clone();
            loop {
                match seats.look() {
                    Seat::Here(control) => {
                        let mut changed = control.changed();
                        if control.node(self.id).is_some() {
                            return;
                        }
                        let _look_again =
                            tokio::time::timeout(Duration::from_millis(20), changed.changed())
                                .await;
                    }
                    // Its session is with another server, which knows.
                    Seat::There(_) => return,
                    // Too few servers are there to decide, or it is no server of the cluster yet: it answers, and says so.
                    Seat::Nowhere if !self.store.is_alone() => return,
                    Seat::Nowhere => seats.changed().await,
                }
            }
        })
    }

    /// Stops in order: no new requests, no reports, then what runs (if it ends with the node), the leader, the store.
    pub fn stop(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.stop_serving.cancel();
            for part in self.serving {
                if tokio::time::timeout(STOP_WAIT, part).await.is_err() {
                    tracing::warn!("a part of the node does not stop; going on without it");
                }
            }
            let (runtime, runs_end) = (self.runtime, self.runs_end);
            let ended = tokio::task::spawn_blocking(move || {
                if runs_end {
                    runtime.shutdown();
                }
            });
            let _ended_or_panicked = ended.await;
            // Whoever takes over need not wait until this server is missed.
            self.store.hand_over().await;
            self.stop_leading.cancel();
            if !self.leading.is_finished() {
                let _ended = tokio::time::timeout(STOP_WAIT, self.leading).await;
            }
            drop(self.seats);
            self.store.close().await;
        })
    }
}
