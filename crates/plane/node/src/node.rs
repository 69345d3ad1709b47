//! A node: started in order, stopped in the reverse order.
//!
//! Tasks: the leader loop, the worker's session and the control plane's end of it, the gateway.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prism_control::{ControlError, Seat, Seats};
use prism_faults::point;
use prism_gateway::{DiskGauge, DiskRoom, Gateway, GatewayConfig, Ground, Peer, Peers};
use prism_members::{House, MemberError, ServerToken};
use prism_membership::mdns::Announcement;
use prism_raft::{OpenError, RaftStore};
use prism_runtime::{Runtime, RuntimeError};
use prism_sandbox::ProcessRuntime;
use prism_store::Store;
use prism_types::{Bytes, Fault, NodeId, Reason, Rejection};
use prism_worker::{Worker, WorkerError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::NodeConfig;
use crate::host_files::EngineFiles;
use crate::members::{self, Opening};
use crate::way::{self, Way};
use crate::{cohort, gossip, identity, seat, servers, session};

/// How long a start waits for a leader when there are several servers, and how often it looks.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);
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
            Self::Advertise(why) => f.write_str(why),
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
            Self::Control(_) => Fault::DiskFailed,
            Self::Listen(..) | Self::Serf(..) => Fault::Listen,
            Self::Member(e) => return Self::member_code(e),
            Self::Foreign(_) => Fault::DataForeign,
            Self::InUse(_) => Fault::DataInUse,
            Self::NoToken | Self::NoServer => Fault::Usage,
            Self::Expired => return Reason::Unauthenticated.as_code(),
            Self::Unknown(..) | Self::NoLeader | Self::Strict(..) => Fault::Unreachable,
            Self::NoIdentity(_) | Self::StoreGone(_) => Fault::DataDamaged,
            Self::Advertise(_) => Fault::Usage,
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
            Self::Store(OpenError::Locked { .. }) => {
                "prismctl info, or another directory: --data-dir DIR"
            }
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
    /// Where members come to, if they may.
    pub serf: Option<String>,
    /// An administrator's token.
    pub token: String,
    /// Its id.
    pub id: NodeId,
    seats: Seats,
    store: Arc<RaftStore>,
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
pub async fn start(config: NodeConfig) -> Result<Node, NodeError> {
    let data = &config.data_dir;
    let directory = |e| NodeError::Directory(data.display().to_string(), e);
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    point!("node.dir.before_make")
        .and_then(|()| private.create(data))
        .and_then(|()| point!("node.dir.after_make"))
        .map_err(directory)?;
    let kept = members::kept(data)?;
    let opening = members::prepare(&config, kept).await?;
    let way = Way::default();
    let mut settings = prism_raft::Config::new(data.join("store"));
    settings.server = opening.number();
    settings.bootstrap = opening.founds;
    settings.dial = Some(Arc::new(way.clone()));
    // Its lock keeps a second node out of the directory before anything else is touched.
    let store = prism_raft::open(settings).await.map_err(NodeError::Store)?;
    way.follow(store.standing());
    match start_on(&config, store.clone(), way, opening).await {
        Ok(node) => Ok(node),
        Err(e) => {
            store.close().await;
            Err(e)
        }
    }
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
    store: Arc<RaftStore>,
    way: Way,
    mut opening: Opening,
) -> Result<Node, NodeError> {
    let data = &config.data_dir;
    let listener = TcpListener::bind(config.api)
        .await
        .map_err(|e| NodeError::Listen(config.api, e))?;
    let api = listener
        .local_addr()
        .map_err(|e| NodeError::Listen(config.api, e))?;
    if opening.me.is_none() && store.standing().borrow().servers.len() > 1 {
        return Err(NodeError::NoIdentity(data.display().to_string()));
    }
    let identity = opening.identity(data, config.name.as_ref())?;
    let mut parts = lead(&store, way.clone()).await?;
    // On a thread that may block: a supervisor that went away tells so while the runtime opens.
    let (settings, own) = (config.clone(), identity.clone());
    let opened = tokio::task::spawn_blocking(move || open_worker(&settings, &own));
    let (worker, runtime) = opened.await.expect("opening a worker does not panic")?;
    opening.found(data, &parts.seats, &identity).await?;
    cohort::admit(data, config.expect, &parts.seats).await?;
    let gateway = surface(config, &store, &opening, &identity, &mut parts)?;
    let ground = Ground {
        seats: parts.seats.clone(),
        store: store.clone(),
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
    let token = introduce(config, &parts.seats, &store, known.as_ref(), &opening).await?;
    let serve = tokio::spawn(async move {
        let _vital = Vital("the API");
        if let Err(e) = prism_gateway::serve(listener, gateway).await {
            tracing::error!(error = %e, "the API stopped");
        }
    });
    let (seats, stop) = (parts.seats.clone(), parts.stop_serving.clone());
    let session = tokio::spawn(session::keep(seats, way, worker, stop));
    parts.serving.extend([serve, session]);
    Ok(Node {
        api,
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

/// What the gateway is told; begins the gossip that it tells of, if this server has any.
fn surface(
    config: &NodeConfig,
    store: &Arc<RaftStore>,
    opening: &Opening,
    identity: &identity::Identity,
    parts: &mut Parts,
) -> Result<GatewayConfig, NodeError> {
    let name = identity.name.to_string();
    let mut gateway = GatewayConfig::new(name.clone(), env!("CARGO_PKG_VERSION"));
    gateway.token_hint =
        "restart this server: it makes an administrator's token at every start".to_owned();
    gateway.disk = Some(disk_gauge(&config.data_dir, store, &name));
    gateway.joining = opening.joining()?;
    gateway.peers = Some(peers(store));
    if let Some(rumours) = opening.gossip(config, identity) {
        gateway.gossip = Some(rumours.clone());
        let (seats, stop) = (parts.seats.clone(), parts.stop_serving.clone());
        let keep = gossip::keep(rumours, store.clone(), seats, stop);
        parts.serving.push(tokio::spawn(keep));
    }
    Ok(gateway)
}

/// Tells the gateway of the servers.
fn peers(store: &Arc<RaftStore>) -> Peers {
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

/// Begins to lead when it is this server's turn; at once when it is alone.
async fn lead(store: &Arc<RaftStore>, way: Way) -> Result<Parts, NodeError> {
    let standing = store.standing().borrow().clone();
    let mut first = None;
    if standing.servers.len() == 1 && standing.leading {
        let object: Arc<dyn Store> = store.clone();
        let opened = prism_control::open(object).await;
        first = Some(opened.map_err(NodeError::Control)?);
    }
    let (seat, seats) = Seats::new();
    if let Some((control, _)) = &first {
        seat.send_replace(Seat::Here(control.clone()));
    }
    let stop_leading = CancellationToken::new();
    let stop_serving = CancellationToken::new();
    let (store, stop) = (store.clone(), stop_leading.clone());
    let number = store.number();
    let tend = servers::tend(
        store.clone(),
        (seats.clone(), way),
        number,
        stop_serving.clone(),
    );
    let leading = tokio::spawn(async move {
        let _vital = Vital("the leader");
        seat::lead(store, first, seat, stop).await
    });
    Ok(Parts {
        seats,
        stop_serving,
        stop_leading,
        leading,
        serving: vec![tokio::spawn(tend)],
    })
}

/// Makes an administrator's token, in place of the one of the same name before: here, or at the leader, to which this server says where
/// it is.
async fn introduce(
    config: &NodeConfig,
    seats: &Seats,
    store: &RaftStore,
    house: Option<&Arc<House>>,
    opening: &Opening,
) -> Result<String, NodeError> {
    let (id, secret) = members::token_parts();
    let token = prism_gateway::new_token(id, secret);
    let made = ServerToken {
        id,
        name: config.token_name.clone(),
        hash: token.hash,
    };
    let end = Instant::now() + SETTLE;
    let mut seats = seats.clone();
    loop {
        let told = match (seats.look(), house) {
            (Seat::Here(control), _) => {
                match prism_members::note_token(&control, made.clone()).await {
                    // Another leads by now.
                    Err(why) if why.reason == Reason::NotLeader && house.is_some() => false,
                    noted => noted.map(|()| true).map_err(NodeError::Refused)?,
                }
            }
            (Seat::There(leader), Some(house)) => {
                way::introduce(house, [leader], Some(&made)).await
            }
            // Whoever has just joined, or has moved, hears of the leader when that calls; the others may know.
            (Seat::Nowhere, Some(house)) => {
                let known = servers::others(store, opening.peers.iter());
                way::introduce(house, known, Some(&made)).await
            }
            _ => false,
        };
        if told {
            return Ok(token.text);
        }
        if Instant::now() > end {
            tracing::warn!("no server leads yet; this one takes part, and answers when one does");
            return Ok(token.text);
        }
        let _changed = tokio::time::timeout(LOOK, seats.changed()).await;
    }
}

/// Tells the gateway how much room there is: a last part of the disk is kept for the results of what was accepted.
fn disk_gauge(data: &Path, store: &Arc<RaftStore>, node: &str) -> DiskGauge {
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
    pub async fn failed(&mut self) -> Result<(), ControlError> {
        match (&mut self.leading).await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Waits until the node's own worker has a session, so that work is placed.
    pub async fn ready(&self) {
        let mut seats = self.seats.clone();
        loop {
            match seats.look() {
                Seat::Here(control) => {
                    let mut changed = control.changed();
                    if control.node(self.id).is_some() {
                        return;
                    }
                    let _look_again =
                        tokio::time::timeout(Duration::from_millis(20), changed.changed()).await;
                }
                // Its session is with another server, which knows.
                Seat::There(_) => return,
                // Too few servers are there to decide, or it is no server of the cluster yet: it answers, and says so.
                Seat::Nowhere if self.store.standing().borrow().servers.len() != 1 => return,
                Seat::Nowhere => seats.changed().await,
            }
        }
    }

    /// Stops in order: no new requests, no reports, then what runs (if it ends with the node), the leader, the store.
    pub async fn stop(self) {
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
    }
}
