//! Opening and closing a store, and its face to the rest of Prism.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::BasicNode;
use prism_store::{
    Batch, BoxFuture, Item, Key, KeyRange, Leadership, Page, Revision, SharedTable, SnapshotPin,
    Status, Store, StoreError, Table, Watch,
};
use prism_types::Fence;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::cluster::Heard;
use crate::command::Write;
use crate::disk::{self, DirLock, Disk};
use crate::log::{self, Log};
use crate::machine::Machine;
use crate::network::Network;
use crate::peers::{Pipe, Standing};
use crate::queue::{self, Job};
use crate::raft::{self, Membership, Raft};
use crate::snapshot::{self, Snapshots};
use crate::{Config, OpenError, cluster, serve};

/// A store on local disk. Dropping it without [`RaftStore::close`] is safe for the data, but the directory may stay
/// locked for a moment.
pub struct RaftStore {
    pub(crate) table: Arc<SharedTable>,
    jobs: mpsc::Sender<Job>,
    pub(crate) raft: Raft,
    pub(crate) server: u64,
    dir: PathBuf,
    heard: Arc<Heard>,
    log: Log,
    snapshots: Arc<Snapshots>,
    lock: Arc<DirLock>,
    standing: watch::Receiver<Standing>,
    keepers: [JoinHandle<()>; 2],
}

impl std::fmt::Debug for RaftStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftStore")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// Opens a store, making it if the directory is empty. With one server it returns when everything that was ever acknowledged can be
/// read; with several, when it can take part: what the others know comes meanwhile. Must be called on a Tokio runtime.
///
/// # Errors
/// When the directory is in use, belongs to another server or a newer version, cannot be read, or is damaged.
pub fn open(config: Config) -> BoxFuture<'static, Result<Arc<RaftStore>, OpenError>> {
    Box::pin(open_with(config, disk::sync_file))
}

/// As [`open`], making files durable as `sync` does; tests give one that fails.
pub(crate) async fn open_with(
    config: Config,
    sync: disk::Sync,
) -> Result<Arc<RaftStore>, OpenError> {
    let config = config.fitted();
    let dir = config.dir.clone();
    let failed = |why: String| OpenError::Consensus { dir, why };
    let reading = config.clone();
    let opened = match tokio::task::spawn_blocking(move || Opened::read(&reading, sync)).await {
        Ok(opened) => opened?,
        Err(error) => return Err(failed(error.to_string())),
    };
    let Opened {
        lock,
        log,
        snapshots,
        machine,
    } = opened;
    let table = Arc::clone(&machine.table);
    let raft = start(&config, log.clone(), machine).await.map_err(failed)?;
    let (jobs, inbox) = mpsc::channel(queue::WAITING);
    tokio::spawn(serve(raft.clone(), Arc::clone(&table), inbox));
    let keeper = keep_short(
        raft.clone(),
        log.clone(),
        Arc::clone(&snapshots),
        config.log_bytes,
    );
    let heard = Arc::new(Heard::new());
    let (standing, time) = cluster::keep_time(&raft, Arc::clone(&heard));
    Ok(Arc::new(RaftStore {
        table,
        jobs,
        raft,
        server: config.server,
        dir: config.dir,
        heard,
        log,
        snapshots,
        lock,
        standing,
        keepers: [tokio::spawn(keeper), tokio::spawn(time)],
    }))
}

/// What was read from disk, before consensus runs.
pub(crate) struct Opened {
    pub(crate) lock: Arc<DirLock>,
    pub(crate) log: Log,
    snapshots: Arc<Snapshots>,
    pub(crate) machine: Machine,
}

impl Opened {
    pub(crate) fn read(config: &Config, sync: disk::Sync) -> Result<Self, OpenError> {
        let disk = Disk::take(config, sync)?;
        snapshot::sweep(&disk)?;
        disk::prepare(&disk, config.server)?;
        let (snapshots, loaded) = Snapshots::open(&disk, config.window)?;
        let last = loaded.as_ref().and_then(|loaded| loaded.last);
        let log = log::recover(config, &disk, last)?;
        let (table, membership) = match loaded {
            Some(loaded) => (loaded.table, loaded.membership),
            None => (Table::new(config.window), Membership::default()),
        };
        let machine = Machine {
            table: SharedTable::new(table),
            log: log.clone(),
            snapshots: Arc::clone(&snapshots),
            window: config.window,
            applied: last,
            membership,
        };
        Ok(Self {
            lock: Arc::clone(&disk.lock),
            log,
            snapshots,
            machine,
        })
    }
}

/// Starts consensus. A server that is alone waits until it leads and has applied all that is durable.
async fn start(config: &Config, log: Log, machine: Machine) -> Result<Raft, String> {
    let server = config.server;
    let network = Network {
        me: server,
        dial: config.dial.clone(),
    };
    let text = |error: &dyn ToString| error.to_string();
    let raft = Raft::new(server, raft::config(), network, log, machine)
        .await
        .map_err(|e| text(&e))?;
    if raft.is_initialized().await.map_err(|e| text(&e))? {
        if !cluster::alone(&raft, server) {
            return Ok(raft);
        }
        // There are no timers, so an election that a crash interrupted is held again here.
        if !raft.is_leader() {
            raft.trigger().elect(false).await.map_err(|e| text(&e))?;
        }
    } else if config.bootstrap {
        let voters = BTreeMap::from([(server, BasicNode::default())]);
        raft.initialize(voters).await.map_err(|e| text(&e))?;
    } else {
        return Ok(raft);
    }
    raft.wait_for_recovery(None).await.map_err(|e| text(&e))?;
    Ok(raft)
}

/// Runs the queue, and stops the store for everyone when it ends.
async fn serve(raft: Raft, table: Arc<SharedTable>, jobs: mpsc::Receiver<Job>) {
    queue::run(raft, Arc::clone(&table), jobs).await;
    table.stop("the store was closed");
}

/// Takes a snapshot whenever the log has grown long; consensus then drops the log before it.
async fn keep_short(raft: Raft, log: Log, snapshots: Arc<Snapshots>, log_bytes: u64) {
    let mut progress = raft.watch_snapshot_progress();
    loop {
        log.set_limit(log_bytes.max(snapshots.bytes().saturating_mul(2)));
        log.long().await;
        if log.bytes() <= log_bytes.max(snapshots.bytes().saturating_mul(2)) {
            continue;
        }
        log.set_limit(u64::MAX);
        let before = progress.get();
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        if progress.wait_until(|now| *now > before).await.is_err() {
            return;
        }
    }
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        // The last tasks that would keep consensus, and with it the lock, alive.
        self.keepers.iter().for_each(JoinHandle::abort);
    }
}

impl RaftStore {
    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        self.table.running()?;
        let (done, answer) = oneshot::channel();
        if self.jobs.send(job(done)).await.is_err() {
            self.table.running()?;
            return Err(StoreError::Stopped("its queue has ended".to_owned()));
        }
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Unanswered("it was stopped".to_owned())),
        }
    }

    /// Whether the disk is full: writes wait for room until there is some, and reads of what waits with them do too.
    pub fn is_disk_full(&self) -> bool {
        self.snapshots.is_disk_full()
    }

    pub(crate) fn status_now(&self) -> Status {
        let leader = self.table.running().is_ok() && self.raft.is_leader();
        self.table.status(leader)
    }

    /// Its number in the cluster.
    pub fn number(&self) -> u64 {
        self.server
    }

    /// Where the cluster stands; changes when that does.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Answers another server until the stream ends. Whoever made the stream has proven that it is one.
    ///
    /// # Errors
    /// Why it ended, if not by its other end.
    pub async fn serve(&self, stream: impl Pipe) -> io::Result<()> {
        let here = serve::Here {
            raft: &self.raft,
            me: self.server,
            dir: &self.dir,
            heard: &self.heard,
        };
        serve::serve(here, stream).await
    }

    /// Stops the store: what was acknowledged is on disk, what was not is answered with an error. Returns when
    /// another process could open the directory.
    pub fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.table.stop("the store was closed");
            // On a full disk nothing would end otherwise.
            self.snapshots.stop_waiting();
            // An error means that the queue has ended already.
            let _ended = self.jobs.send(Job::Stop).await;
            self.keepers.iter().for_each(JoinHandle::abort);
            if let Err(error) = self.raft.shutdown().await {
                tracing::warn!(%error, "consensus did not stop cleanly");
            }
            let snapshots = Arc::clone(&self.snapshots);
            // Closing waits for a snapshot that is being written; it cannot fail.
            let _closed = tokio::task::spawn_blocking(move || snapshots.close()).await;
            self.log.stop().await;
            self.lock.release();
        })
    }
}

impl Store for RaftStore {
    fn lead(&self) -> BoxFuture<'_, Result<Leadership, StoreError>> {
        Box::pin(async move {
            let granted = self.ask(Job::Lead).await?;
            Ok(cluster::watched(granted, self.standing.clone()))
        })
    }

    fn confirm(&self, fence: Fence) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(cluster::confirm(self, fence))
    }

    fn commit(&self, fence: Fence, batch: Batch) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            batch.check()?;
            let write = Write { fence, batch };
            self.ask(|done| Job::Commit(write, done)).await
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a [u8],
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        Box::pin(async move { self.table.get(key, at) })
    }

    fn range(
        &self,
        range: KeyRange,
        at: Option<Revision>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move { self.table.range(&range, at, limit) })
    }

    fn snapshot(&self) -> Result<SnapshotPin, StoreError> {
        self.table.running()?;
        Ok(self.table.pin())
    }

    fn watch(&self, prefix: Key, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        Box::pin(async move { self.table.watch(prefix, after) })
    }

    fn compact(&self, to: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.ask(move |done| Job::Compact(to, done)))
    }

    fn status(&self) -> Status {
        self.status_now()
    }
}
