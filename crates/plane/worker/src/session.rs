//! The session loop: what the control plane asks, what the runtime tells, and what is reported back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prism_faults::point;
use prism_link::{
    BoxFuture, Hello, Holding, NodeService, SandboxStatus, ToControl, ToWorker, WorkerEnd,
};
use prism_runtime::{EventSink, HostFiles, RunEvent, Runtime, RuntimeError};
use prism_spec::JobSpec;
use prism_types::{JobId, RunId, TaskRef, TimeMs};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::facts::{self, Meter};
use crate::lease::{Lease, boot_now};
use crate::queue::Queue;
use crate::sandboxes::Table;
use crate::scratch::Spares;
use crate::{Config, retention, service};

mod events;
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
            let hello = self.hello();
            self.reports.open(ToControl::Hello(Box::new(hello)));
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
                        self.on_orders(orders.drain(..)).await;
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

    /// What is held, from the runtime's own account.
    fn hello(&mut self) -> Hello {
        let observed = self.shared.runtime.observe().unwrap_or_else(|e| {
            tracing::warn!(error = %e, "the runtime does not say what runs; reporting nothing");
            Vec::new()
        });
        let mut tasks: Vec<(TaskRef, Holding)> = self
            .queue
            .waiting()
            .map(|t| (t, Holding::Waiting))
            .collect();
        let mut sandboxes = Vec::new();
        for o in observed {
            if let Some(task) = o.id.as_task() {
                match o.exited {
                    Some(report) => {
                        tasks.push((task, Holding::Over));
                        self.reports.task_over(task, report, None);
                    }
                    None => {
                        tasks.push((task, Holding::Running(o.started)));
                        self.queue.adopt(task);
                        self.live().insert(task);
                    }
                }
            } else if let Some(found) = self.observed_sandbox(&o) {
                sandboxes.push(found);
            }
        }
        self.greeting(tasks, sandboxes)
    }

    /// Tells the control plane anew what this node is and can do.
    fn greet_again(&mut self) {
        let hello = self.greeting(Vec::new(), Vec::new());
        self.reports.push(ToControl::Hello(Box::new(hello)));
    }

    fn greeting(
        &mut self,
        tasks: Vec<(TaskRef, Holding)>,
        sandboxes: Vec<(prism_types::SandboxId, SandboxStatus)>,
    ) -> Hello {
        let config = &self.shared.config;
        let capabilities = self.shared.runtime.capabilities();
        self.blind = capabilities.iter().all(|c| !c.works);
        let mut facts = facts::facts(&config.data_dir, &capabilities, config.allow_plain);
        facts.images = self.shared.files.images().unwrap_or_default();
        Hello {
            node: config.node,
            name: config.name.clone(),
            labels: config.labels.clone(),
            capacity: config
                .capacity
                .unwrap_or_else(|| facts::capacity(&config.data_dir)),
            facts,
            tasks,
            sandboxes,
        }
    }

    fn observed_sandbox(
        &self,
        o: &prism_runtime::Observed,
    ) -> Option<(prism_types::SandboxId, SandboxStatus)> {
        match (crate::sandboxes::parse(&o.id)?, &o.exited) {
            (crate::sandboxes::Run::Sandbox(id), None) => {
                self.shared.table.running(id, o.started);
                Some((id, SandboxStatus::Running(o.started)))
            }
            (crate::sandboxes::Run::Sandbox(id), Some(report)) => {
                self.reports.sandbox_gone(id, report.clone());
                Some((id, SandboxStatus::Exited(report.clone())))
            }
            (crate::sandboxes::Run::Exec(id, exec), None) => {
                self.shared.table.exec_started(id, &exec, o.started);
                None
            }
            (crate::sandboxes::Run::Exec(id, exec), Some(report)) => {
                self.reports.exec_over(id, exec, report.clone());
                None
            }
        }
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
