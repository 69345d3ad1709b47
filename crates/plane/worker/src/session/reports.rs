//! What goes back to the control plane: an outbox, outcomes until they are acknowledged, and the blocking work behind them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prism_faults::point;
use prism_link::{Readings, TaskMetric, TaskOutcome, ToControl};
use prism_runtime::{BootMs, RuntimeError};
use prism_spec::JobSpec;
use prism_types::{RunId, RunReport, SandboxId, TaskRef, TimeMs};
use tokio::sync::mpsc;

use super::Shared;
use crate::metrics::Watcher;
use crate::{launch, outcome, retention};

/// Outcomes in one message.
const FINISHED_BATCH: usize = 4096;
/// Bytes of results and output after which a message takes no more outcomes: all of it becomes one commit.
const FINISHED_BYTES: usize = 4 << 20;
/// An outcome that is not acknowledged for so long is told again.
const REPEAT: Duration = Duration::from_secs(10);
/// While the buffer holds enough work, news of tasks are told so often: each message is a commit.
const JOIN: Duration = Duration::from_millis(10);
/// How often the logs of the node are counted.
const TRIM: Duration = Duration::from_secs(60);

/// What a blocking thread found out.
pub(super) enum Collected {
    Outcomes(Vec<TaskOutcome>),
    Metrics(Vec<TaskMetric>),
}

/// The reporting half of the loop.
pub(super) struct Reports {
    shared: Arc<Shared>,
    /// What opens the session. Nothing else is said until it is open.
    first: VecDeque<ToControl>,
    open: bool,
    outbox: VecDeque<ToControl>,
    started: BTreeMap<TaskRef, TimeMs>,
    finished: Vec<TaskOutcome>,
    /// Whether news of tasks may wait to be joined.
    join: bool,
    told: Instant,
    heartbeat: Option<(Readings, u32)>,
    /// When more time was asked for, if that is not told yet.
    renew: Option<BootMs>,
    told_target: u32,
    /// Told and not acknowledged.
    unacknowledged: BTreeMap<TaskRef, (TaskOutcome, Instant)>,
    collecting: BTreeSet<TaskRef>,
    watcher: Arc<Mutex<Watcher>>,
    watching: bool,
    trimmed: Instant,
    found: mpsc::Receiver<Collected>,
    finder: mpsc::Sender<Collected>,
}

impl Reports {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (finder, found) = mpsc::channel(1024);
        Self {
            shared,
            first: VecDeque::new(),
            open: false,
            outbox: VecDeque::new(),
            started: BTreeMap::new(),
            finished: Vec::new(),
            join: false,
            told: Instant::now(),
            heartbeat: None,
            renew: None,
            told_target: 0,
            unacknowledged: BTreeMap::new(),
            collecting: BTreeSet::new(),
            watcher: Arc::default(),
            watching: false,
            trimmed: Instant::now(),
            found,
            finder,
        }
    }

    /// Starts a session: what an earlier one had not told is told anew by [`Reports::repeat`] and the greeting.
    pub(super) fn open(&mut self, greeting: ToControl) {
        self.first = VecDeque::from([greeting]);
        self.open = false;
        self.outbox.clear();
        self.renew = None;
        self.started.clear();
        for (outcome, _) in std::mem::take(&mut self.unacknowledged).into_values() {
            self.finished.push(outcome);
        }
    }

    /// Answers a question that is asked before the session is open.
    pub(super) fn answer(&mut self, message: ToControl) {
        self.first.push_back(message);
    }

    /// From here on all is told.
    pub(super) fn opened(&mut self) {
        self.open = true;
    }

    pub(super) fn push(&mut self, message: ToControl) {
        self.outbox.push_back(message);
    }

    pub(super) fn heartbeat(&mut self, readings: Readings, credits: u32) {
        self.heartbeat = Some((readings, credits));
        self.told_target = credits;
    }

    /// Asks for more time for what may run once only.
    pub(super) fn renew(&mut self, now: BootMs) {
        self.renew = Some(now);
    }

    /// How many waiting tasks were asked for last.
    pub(super) fn told_target(&self) -> u32 {
        self.told_target
    }

    /// Whether news of tasks may wait a little for more of them. Nobody waits for them while there is work to do.
    pub(super) fn join(&mut self, join: bool) {
        self.join = join;
    }

    fn has_news(&self) -> bool {
        !self.started.is_empty() || !self.finished.is_empty()
    }

    fn is_due(&self) -> bool {
        !self.join || self.finished.len() >= FINISHED_BATCH || self.told.elapsed() >= JOIN
    }

    /// When news that wait are due.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.open && self.has_news() && !self.is_due()).then(|| self.told + JOIN)
    }

    pub(super) fn pending(&self) -> bool {
        let news = !self.outbox.is_empty()
            || self.heartbeat.is_some()
            || self.renew.is_some()
            || self.has_news() && self.is_due();
        !self.first.is_empty() || self.open && news
    }

    /// The next message. Only called when one is pending.
    pub(super) fn take(&mut self) -> ToControl {
        if let Some(message) = self.first.pop_front() {
            return message;
        }
        if let Some(message) = self.outbox.pop_front() {
            return message;
        }
        if let Some((readings, credits)) = self.heartbeat.take() {
            return ToControl::Heartbeat { readings, credits };
        }
        if let Some(BootMs(sent)) = self.renew.take() {
            return ToControl::Renew { sent };
        }
        if !self.started.is_empty() {
            if self.finished.is_empty() {
                self.told = Instant::now();
            }
            return ToControl::Started(std::mem::take(&mut self.started).into_iter().collect());
        }
        self.told = Instant::now();
        let rest = self.finished.split_off(self.batch_len());
        let batch = std::mem::replace(&mut self.finished, rest);
        let now = Instant::now();
        for outcome in &batch {
            self.unacknowledged
                .insert(outcome.task, (outcome.clone(), now));
        }
        ToControl::Finished(batch)
    }

    /// How many of the finished go into one message.
    fn batch_len(&self) -> usize {
        let mut bytes = 0;
        let fits = self.finished.iter().take(FINISHED_BATCH).take_while(|o| {
            let before = bytes;
            bytes += o.result.as_ref().map_or(0, String::len) + o.tail.len();
            before < FINISHED_BYTES
        });
        fits.count()
    }

    /// Whether the end of a task is known already.
    pub(super) fn knows(&self, task: TaskRef) -> bool {
        self.collecting.contains(&task)
            || self.unacknowledged.contains_key(&task)
            || self.finished.iter().any(|o| o.task == task)
    }

    /// A task's program runs. What ends before this is told is only told as ended.
    pub(super) fn task_started(&mut self, task: TaskRef, at: TimeMs) {
        self.started.insert(task, at);
    }

    /// A task is over: collects its outcome, on a blocking thread if it wrote anything or has a disk to clean.
    pub(super) fn task_over(
        &mut self,
        task: TaskRef,
        report: RunReport,
        spec: Option<Arc<JobSpec>>,
    ) {
        self.started.remove(&task);
        if !self.collecting.insert(task) {
            return;
        }
        let has_disk = spec.is_none_or(|s| s.resources.disk.0 > 0);
        let watched = self.watching;
        if report.stdout_bytes == 0 && report.stderr_bytes == 0 && !has_disk && !watched {
            let outcome = TaskOutcome {
                task,
                report,
                result: None,
                tail: String::new(),
            };
            self.on_collected(Collected::Outcomes(vec![outcome]));
            return;
        }
        let (shared, finder, watcher) = (
            self.shared.clone(),
            self.finder.clone(),
            self.watcher.clone(),
        );
        tokio::task::spawn_blocking(move || {
            if watched {
                let mut watcher = watcher.lock().expect("no holder of this lock panics");
                // The last lines count too, and before the outcome does.
                let metrics = watcher.round();
                watcher.remove(task);
                drop(watcher);
                if !metrics.is_empty() {
                    let _gone_at_shutdown = finder.blocking_send(Collected::Metrics(metrics));
                }
            }
            let data_dir = &shared.config.data_dir;
            let outcome = outcome::collect(task, report, &launch::task_logs(data_dir, task));
            if has_disk {
                remove_dir(&launch::scratch(data_dir, &RunId::task(task)));
            }
            let _gone_at_shutdown = finder.blocking_send(Collected::Outcomes(vec![outcome]));
        });
    }

    pub(super) async fn collected(&mut self) -> Option<Collected> {
        self.found.recv().await
    }

    pub(super) fn on_collected(&mut self, first: Collected) {
        let mut next = Some(first);
        while let Some(collected) = next {
            match collected {
                Collected::Outcomes(outcomes) => {
                    let mut live = self
                        .shared
                        .live
                        .lock()
                        .expect("no holder of this lock panics");
                    for outcome in &outcomes {
                        self.collecting.remove(&outcome.task);
                        live.remove(&outcome.task);
                    }
                    drop(live);
                    self.finished.extend(outcomes);
                }
                Collected::Metrics(metrics) => self.outbox.push_back(ToControl::Progress(metrics)),
            }
            next = self.found.try_recv().ok();
        }
    }

    /// The control plane has these for good.
    pub(super) fn acknowledged(&mut self, tasks: &[TaskRef]) {
        let ids: Vec<RunId> = tasks.iter().map(|t| RunId::task(*t)).collect();
        for task in tasks {
            self.unacknowledged.remove(task);
        }
        let unavailable = |e: std::io::Error| RuntimeError::Unavailable(e.to_string());
        let forgotten = point!("worker.ack.before_forget")
            .map_err(unavailable)
            .and_then(|()| self.shared.runtime.forget(&ids))
            .and_then(|()| point!("worker.ack.after_forget").map_err(unavailable));
        if let Err(e) = forgotten {
            tracing::warn!(error = %e, "the runtime does not forget runs; it is told again at the next start");
        }
    }

    /// Tells again what was told long ago and not acknowledged.
    pub(super) fn repeat(&mut self) {
        let old: Vec<TaskRef> = self
            .unacknowledged
            .iter()
            .filter(|(_, (_, told))| told.elapsed() > REPEAT)
            .map(|(task, _)| *task)
            .collect();
        for task in old {
            if let Some((outcome, _)) = self.unacknowledged.remove(&task) {
                self.finished.push(outcome);
            }
        }
    }

    pub(super) fn watch(&mut self, task: TaskRef, dir: PathBuf, metric: &str) {
        self.watching = true;
        self.watcher
            .lock()
            .expect("no holder of this lock panics")
            .add(task, dir, metric);
    }

    /// Looks at the output of the watched tasks, on a blocking thread.
    pub(super) fn watch_round(&mut self) {
        if !self.watching {
            return;
        }
        let (watcher, finder) = (self.watcher.clone(), self.finder.clone());
        if watcher
            .lock()
            .expect("no holder of this lock panics")
            .is_empty()
        {
            self.watching = false;
            return;
        }
        tokio::task::spawn_blocking(move || {
            let metrics = watcher
                .lock()
                .expect("no holder of this lock panics")
                .round();
            if !metrics.is_empty() {
                let _gone_at_shutdown = finder.blocking_send(Collected::Metrics(metrics));
            }
        });
    }

    /// An exec is over: its record goes to disk, then the runtime may forget it.
    pub(super) fn exec_over(&self, sandbox: SandboxId, exec: String, report: RunReport) {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(e) = shared.table.exec_over(sandbox, &exec, report) {
                tracing::warn!(%sandbox, exec, error = %e, "could not keep the record of an exec");
                return;
            }
            if let Ok(id) = RunId::exec(sandbox, &exec) {
                let _told_again_after_restart = shared.runtime.forget(&[id]);
            }
        });
    }

    /// A sandbox is gone: its files and records go too.
    pub(super) fn sandbox_gone(&self, sandbox: SandboxId, report: RunReport) {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            tracing::debug!(%sandbox, ?report.cause, "sandbox gone");
            let id = RunId::sandbox(sandbox);
            let scratch = launch::scratch(&shared.config.data_dir, &id);
            if let Err(e) = shared.spares.give(&*shared.files, &scratch) {
                not_removed(&scratch, &e);
            }
            if let Err(e) = shared.table.remove(sandbox) {
                tracing::warn!(%sandbox, error = %e, "could not remove the record of a sandbox; it goes at the next start");
            }
            let _told_again_after_restart = shared.runtime.forget(&[id]);
        });
    }

    /// Keeps the logs of the node within their bound.
    pub(super) fn trim_logs(&mut self) {
        if self.trimmed.elapsed() < TRIM {
            return;
        }
        self.trimmed = Instant::now();
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            let mut live: BTreeSet<String> = {
                let tasks = shared.live.lock().expect("no holder of this lock panics");
                tasks.iter().map(|t| t.job.to_string()).collect()
            };
            live.extend(shared.table.ids().iter().map(ToString::to_string));
            let logs = shared.config.data_dir.join("logs");
            match retention::trim_logs(&logs, shared.config.logs_total, &live) {
                Ok(0) => {}
                Ok(freed) => tracing::info!(freed, "removed the oldest logs"),
                Err(e) => {
                    tracing::warn!(error = %e, "could not trim the logs; trying again in a minute")
                }
            }
        });
    }
}

fn remove_dir(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => not_removed(path, &e),
        _ => {}
    }
}

fn not_removed(path: &Path, e: &std::io::Error) {
    tracing::warn!(path = %path.display(), error = %e, "could not remove the files of a run; they go at the next start");
}
