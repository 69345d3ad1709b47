//! The session loop: what the control plane asks, what the runtime tells, and what is reported back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prism_faults::point;
use prism_link::resume::Told;
use prism_link::{BoxFuture, NodeService, ToWorker, WorkerEnd};
use prism_runtime::{EventSink, HostFiles, RunEvent, Runtime, RuntimeError};
use prism_spec::JobSpec;
use prism_types::{JobId, RunId, TaskRef, TimeMs};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::facts::Meter;
use crate::lease::{Lease, boot_now};
use crate::queue::Queue;
use crate::sandboxes::Table;
use crate::scratch::Spares;
use crate::spread::each_apart;
use crate::{Config, retention, service};

mod events;
mod greeting;
mod orders;
mod reports;

use reports::Reports;

/// Batches of events that the runtime may be ahead of the loop.
const EVENT_QUEUE: usize = 256;
/// Tasks launched in one batch.
const LAUNCH_BATCH: usize = 512;
/// How often a busy node measures its rate and looks at the output of its beams.
const PACE: Duration = Duration::from_millis(100);

/// Whether a job's tasks may run once only, as far as is known of it here.
fn is_single(jobs: &BTreeMap<JobId, Arc<JobSpec>>, job: &JobId) -> bool {
    jobs.get(job).is_some_and(|spec| spec.single_instance)
}

/// Why a worker could not be opened.
#[derive(Debug)]
pub enum WorkerError {
    /// A directory cannot be made or read.
    Directory(String, io::Error),
    /// What an earlier daemon wrote down is damaged.
    Damaged(io::Error),
    /// The runtime does not start.
    Runtime(RuntimeError),
}

impl std::fmt::Display for WorkerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path, e) => write!(
                f,
                "cannot use the worker's directory {path}: {e}; nothing was started; make it writable or choose another with --data-dir"
            ),
            Self::Damaged(e) => write!(f, "{e}"),
            Self::Runtime(e) => write!(f, "the runtime does not start: {e}"),
        }
    }
}

impl std::error::Error for WorkerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(_, e) => Some(e),
            Self::Damaged(_) | Self::Runtime(_) => None,
        }
    }
}

/// What the loop and the node service share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) files: Arc<dyn HostFiles>,
    pub(crate) table: Table,
    pub(crate) spares: Spares,
    /// Told when an image was loaded.
    pub(crate) images_changed: tokio::sync::Notify,
    /// Tasks that wait or run here: their output is not at its end.
    pub(crate) live: std::sync::Mutex<BTreeSet<TaskRef>>,
}

/// A node's worker.
pub struct Worker {
    shared: Arc<Shared>,
    events: mpsc::Receiver<Vec<RunEvent>>,
    queue: Queue,
    jobs: BTreeMap<JobId, Arc<JobSpec>>,
    /// Jobs whose files could not be written, and why.
    unwritten: BTreeMap<JobId, String>,
    /// Tasks whose end was told without their being known here, until that is recorded.
    unexpected: BTreeSet<TaskRef>,
    reports: Reports,
    lease: Lease,
    /// What was to be stopped because the control plane did not want it: it gets no more time, even where stopping failed.
    unwanted: BTreeSet<TaskRef>,
    meter: Meter,
    pressure: bool,
    /// The last greeting was made without the runtime, and says that this node can do nothing.
    blind: bool,
    /// What was held as the session began, until the control plane has said what of it is not wanted.
    told: Option<Told>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("node", &self.shared.config.node)
            .finish_non_exhaustive()
    }
}

/// The time now, for records.
pub(crate) fn now() -> TimeMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    TimeMs(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}

/// Waits until then; for nothing if there is no such moment.
async fn until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment.into()).await;
    }
}

impl Worker {
    /// Opens a worker over its directory: finds what runs, removes what a crash left over.
    ///
    /// # Errors
    /// When a directory cannot be made, or the runtime does not start.
    pub fn open(
        config: Config,
        files: Arc<dyn HostFiles>,
        runtime: impl FnOnce(EventSink) -> Result<Arc<dyn Runtime>, RuntimeError>,
    ) -> Result<Self, WorkerError> {
        let directory = |path: &Path, e| WorkerError::Directory(path.display().to_string(), e);
        for name in ["logs", "jobs", "scratch", "sandboxes", "snapshots"] {
            let path = config.data_dir.join(name);
            point!("worker.dirs.before_make")
                .and_then(|()| fs::create_dir_all(&path))
                .and_then(|()| each_apart(&path))
                .and_then(|()| point!("worker.dirs.after_make"))
                .map_err(|e| directory(&path, e))?;
        }
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let sink: EventSink = Box::new(move |batch| {
            // Full: the runtime waits, and what runs waits with it only when its pipes are full too.
            let _gone_at_shutdown = sender.blocking_send(batch);
        });
        let runtime = runtime(sink).map_err(WorkerError::Runtime)?;
        let table = config.data_dir.join("sandboxes");
        let table = Table::load(&table).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => WorkerError::Damaged(e),
            _ => directory(&table, e),
        })?;
        let spares = config.data_dir.join("spares");
        let spares = Spares::open(spares.clone()).map_err(|e| directory(&spares, e))?;
        let meter = Meter::new(
            &config.data_dir,
            config.pressure_memory,
            config.pressure_disk,
        );
        let shared = Arc::new(Shared {
            config,
            runtime,
            files,
            table,
            spares,
            images_changed: tokio::sync::Notify::new(),
            live: std::sync::Mutex::default(),
        });
        let reports = Reports::new(shared.clone());
        let worker = Self {
            shared,
            events,
            queue: Queue::default(),
            jobs: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            unexpected: BTreeSet::new(),
            blind: false,
            told: None,
            reports,
            lease: Lease::default(),
            unwanted: BTreeSet::new(),
            meter,
            pressure: false,
        };
        worker
            .remove_leftovers()
            .map_err(|e| directory(&worker.shared.config.data_dir, e))?;
        Ok(worker)
    }

    /// What answers the gateway about this node.
    pub fn service(&self) -> Arc<dyn NodeService> {
        Arc::new(service::Service::new(self.shared.clone()))
    }

    /// Removes scratch directories, sandbox records and half-written inputs that belong to nothing that lives.
    fn remove_leftovers(&self) -> io::Result<()> {
        let observed = self.shared.runtime.observe().unwrap_or_default();
        let live: BTreeSet<String> = observed
            .iter()
            .filter(|o| o.exited.is_none())
            .map(|o| o.id.as_str().to_owned())
            .collect();
        let data = &self.shared.config.data_dir;
        let mut removed = retention::keep_only(&data.join("scratch"), &live)?;
        let jobs = live
            .iter()
            .filter_map(|id| RunId::new(id.clone()).ok()?.as_task());
        removed += retention::keep_only(
            &data.join("jobs"),
            &jobs.map(|t| t.job.to_string()).collect(),
        )?;
        removed += service::sweep_snapshots(data)?;
        for id in self.shared.table.ids() {
            if !live.contains(RunId::sandbox(id).as_str()) {
                self.shared.table.remove(id)?;
                removed += 1;
            }
        }
        if removed > 0 {
            tracing::info!(removed, "removed what an earlier run left over");
        }
        Ok(())
    }

    /// Serves one session until the control plane goes away or `shutdown` is asked for. What runs goes on running.
    pub fn run(&mut self, mut end: WorkerEnd, shutdown: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let shared = self.shared.clone();
            let ahead = shared.clone();
            tokio::task::spawn_blocking(move || ahead.spares.fill(&*ahead.files));
            let greeting = self.opening(end.resumes);
            self.reports.open(greeting);
            let mut orders: Vec<ToWorker> = Vec::new();
            let mut heartbeat =
                tokio::time::interval(Duration::from_millis(self.shared.config.heartbeat.0));
            heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut pace = tokio::time::interval(PACE);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut measured = Instant::now();
            loop {
                let busy = self.queue.counts() != (0, 0);
                self.reports.join(self.queue.is_full());
                let due = self.reports.due();
                tokio::select! {
                    n = end.from_control.recv_many(&mut orders, 64) => {
                        if n == 0 { break; }
                        if let Err(why) = self.on_orders(orders.drain(..)).await {
                            tracing::warn!(why, "the session ends: what the control plane says cannot be");
                            break;
                        }
                    }
                    Some(batch) = self.events.recv() => self.on_events(batch),
                    Some(done) = self.reports.collected() => self.reports.on_collected(done),
                    permit = end.to_control.reserve(), if self.reports.pending() => {
                        let Ok(permit) = permit else { break };
                        permit.send(self.reports.take());
                    }
                    () = until(due), if due.is_some() => {}
                    _ = heartbeat.tick() => self.on_heartbeat(),
                    () = shared.images_changed.notified() => {
                        self.greet_again();
                    }
                    _ = pace.tick(), if busy => {
                        self.queue.measure(measured.elapsed().as_secs_f64());
                        measured = Instant::now();
                        if self.queue.target().abs_diff(self.reports.told_target()) > self.queue.target() / 4 {
                            self.tell_credits();
                        }
                        self.reports.watch_round();
                    }
                    () = shutdown.cancelled() => break,
                }
                self.start_tasks();
            }
        })
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeSet<TaskRef>> {
        self.shared
            .live
            .lock()
            .expect("no holder of this lock panics")
    }

    fn on_heartbeat(&mut self) {
        if self.blind {
            self.greet_again();
        }
        self.pressure = self.meter.read().pressure;
        self.tell_credits();
        self.ask_for_time();
        self.reports.repeat();
        self.reports.trim_logs();
    }

    /// Asks for more time for what may run once only, if any of that is here.
    fn ask_for_time(&mut self) {
        if self.queue.any(|job| is_single(&self.jobs, job)) {
            self.reports.renew(boot_now());
        }
    }

    /// Says that this node is there, and how many tasks the buffer wants.
    fn tell_credits(&mut self) {
        let (running, waiting) = self.queue.counts();
        let mut readings = self.meter.last();
        readings.running = running;
        readings.waiting = waiting;
        readings.sandboxes = self.shared.table.len();
        let credits = if readings.pressure {
            0
        } else {
            self.queue.target()
        };
        self.reports.heartbeat(readings, credits);
    }
}
