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

use prism_control::{Control, ControlError};
use prism_faults::point;
use prism_gateway::{DiskGauge, DiskRoom, GatewayConfig};
use prism_raft::{OpenError, RaftStore};
use prism_runtime::{Runtime, RuntimeError};
use prism_sandbox::ProcessRuntime;
use prism_state::{Command, Role};
use prism_store::Store;
use prism_types::{Bytes, Fault, NodeId, Reason, Rejection, TokenId};
use prism_worker::{Worker, WorkerError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::NodeConfig;
use crate::host_files::EngineFiles;
use crate::identity;

/// How long the parts of a node may take to stop.
const STOP_WAIT: Duration = Duration::from_secs(10);
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
            Self::Listen(..) => Fault::Listen,
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
        }
    }
}

/// Held by a part without which the node only seems to live. When that part panics, the process ends as it does when the disk
/// fails: the next start reads back what is true.
struct Vital(&'static str);

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
    /// An administrator's token.
    pub token: String,
    /// Its id.
    pub id: NodeId,
    control: Control,
    store: Arc<RaftStore>,
    runtime: Arc<ProcessRuntime>,
    runs_end: bool,
    stop_serving: CancellationToken,
    stop_leading: CancellationToken,
    serving: Vec<JoinHandle<()>>,
    leading: JoinHandle<Result<(), ControlError>>,
}

/// Starts a node and waits until it takes work.
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
    // Its lock keeps a second node out of the directory before anything else is touched.
    let store = prism_raft::open(prism_raft::Config::new(data.join("store")))
        .await
        .map_err(NodeError::Store)?;
    match start_on(&config, store.clone()).await {
        Ok(node) => Ok(node),
        Err(e) => {
            store.close().await;
            Err(e)
        }
    }
}

async fn start_on(config: &NodeConfig, store: Arc<RaftStore>) -> Result<Node, NodeError> {
    let data = &config.data_dir;
    let listener = TcpListener::bind(config.api)
        .await
        .map_err(|e| NodeError::Listen(config.api, e))?;
    let api = listener
        .local_addr()
        .map_err(|e| NodeError::Listen(config.api, e))?;
    let object: Arc<dyn Store> = store.clone();
    let (control, leader) = prism_control::open(object)
        .await
        .map_err(NodeError::Control)?;
    let (ms, entropy) = control.mint();
    let identity = identity::load(data, config.name.as_ref(), NodeId::new(ms, entropy))
        .map_err(|e| NodeError::Directory(data.display().to_string(), e))?;
    // On a thread that may block: a supervisor that went away tells so while the runtime opens.
    let (settings, own) = (config.clone(), identity.clone());
    let opening = tokio::task::spawn_blocking(move || open_worker(&settings, &own));
    let (worker, runtime) = opening.await.expect("opening a worker does not panic")?;
    let stop_leading = CancellationToken::new();
    let stop = stop_leading.clone();
    let leading = tokio::spawn(async move {
        let _vital = Vital("the leader");
        leader.run(stop).await
    });
    let stop_serving = CancellationToken::new();
    let token = make_token(&control, &config.token_name)
        .await
        .map_err(NodeError::Refused)?;
    let mut gateway = GatewayConfig::new(identity.name.to_string(), env!("CARGO_PKG_VERSION"));
    gateway.token_hint =
        "restart this server: it makes an administrator's token at every start".to_owned();
    gateway.disk = Some(disk_gauge(data, &store, &identity.name.to_string()));
    let (serving_control, stop) = (control.clone(), stop_serving.clone());
    let serve = tokio::spawn(async move {
        let _vital = Vital("the API");
        if let Err(e) = prism_gateway::serve(listener, serving_control, gateway, stop).await {
            tracing::error!(error = %e, "the API stopped");
        }
    });
    let session = tokio::spawn(keep_session(control.clone(), worker, stop_serving.clone()));
    Ok(Node {
        api,
        token,
        id: identity.id,
        control,
        store,
        runtime,
        runs_end: config.runs_end_with_node,
        stop_serving,
        stop_leading,
        serving: vec![serve, session],
        leading,
    })
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

fn open_worker(
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

/// Joins worker and leader, again and again until the node stops: a session may end because one end did not keep up.
async fn keep_session(control: Control, mut worker: Worker, stop: CancellationToken) {
    let _vital = Vital("the worker's session");
    let service = worker.service();
    while !stop.is_cancelled() {
        let (control_end, worker_end) = prism_link::pair();
        let (control, service) = (control.clone(), service.clone());
        let other = tokio::spawn(async move {
            if let Err(e) = control.serve_worker(control_end, service).await {
                tracing::error!(error = %e, "the worker's session was refused");
            }
        });
        worker.run(worker_end, stop.clone()).await;
        let _ended_or_panicked = other.await;
        // A refused greeting must not spin.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Makes an administrator's token, in place of the one of the same name before.
async fn make_token(control: &Control, name: &str) -> Result<String, Rejection> {
    let old: Vec<TokenId> = control
        .read(|s| {
            s.tokens()
                .filter(|t| t.name == name)
                .map(|t| t.id)
                .collect()
        })
        .await;
    for id in old {
        control.propose(Command::RevokeToken { id }, None).await?;
    }
    let (ms, entropy) = control.mint();
    let id = TokenId::new(ms, entropy);
    let mut secret = [0u8; 32];
    let (_, a) = control.mint();
    let (_, b) = control.mint();
    secret[..16].copy_from_slice(&a.to_le_bytes());
    secret[16..].copy_from_slice(&b.to_le_bytes());
    let token = prism_gateway::new_token(id, secret);
    let create = Command::CreateToken {
        id,
        name: name.to_owned(),
        role: Role::Admin,
        hash: token.hash,
        expires: None,
    };
    control.propose(create, None).await?;
    Ok(token.text)
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
        let mut changed = self.control.changed();
        while self.control.node(self.id).is_none() {
            let _look_again =
                tokio::time::timeout(Duration::from_millis(20), changed.changed()).await;
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
        self.stop_leading.cancel();
        if !self.leading.is_finished() {
            let _ended = tokio::time::timeout(STOP_WAIT, self.leading).await;
        }
        drop(self.control);
        self.store.close().await;
    }
}
