//! What the control plane asks, and what is started because of it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use prism_link::{JobBundle, SandboxStatus, StopWhy, ToControl, ToWorker};
use prism_runtime::{BootMs, Launch, RuntimeError};
use prism_spec::SandboxSpec;
use prism_types::{JobId, Millis, RunId, RunReport, SandboxId, TaskRef};

use super::{LAUNCH_BATCH, Worker, is_single, now};
use crate::lease::boot_now;
use crate::{inputs, launch};

impl Worker {
    /// # Errors
    /// When the control plane says what makes no sense.
    pub(super) async fn on_orders(
        &mut self,
        orders: impl Iterator<Item = ToWorker>,
    ) -> Result<(), String> {
        let mut sandboxes: Vec<(SandboxId, Arc<SandboxSpec>)> = Vec::new();
        for order in orders {
            match order {
                ToWorker::Desired { tasks, sandboxes } => {
                    self.told = None;
                    self.on_desired(
                        &tasks.into_iter().collect(),
                        &sandboxes.into_iter().collect(),
                    );
                }
                ToWorker::Compare(sums) => self.on_compare(&sums)?,
                ToWorker::Unwanted { tasks, sandboxes } => self.on_unwanted(&tasks, &sandboxes)?,
                ToWorker::Job(bundle) => self.on_job(*bundle).await,
                ToWorker::Assign { job, lanes, tasks } => {
                    if is_single(&self.jobs, &job) && self.lease.at(boot_now()).is_none() {
                        self.reports.renew(boot_now());
                    }
                    self.live().extend(tasks.iter().map(|t| TaskRef {
                        job,
                        index: t.index,
                        attempt: t.attempt,
                    }));
                    self.queue.assign(job, lanes, tasks);
                }
                ToWorker::Stop { tasks, why } => self.on_stop(&tasks, why),
                ToWorker::Ack(tasks) => self.on_ack(&tasks),
                ToWorker::Recall(job) => {
                    let tasks = self.queue.recall(job);
                    self.live().retain(|t| !tasks.contains(t));
                    self.reports.push(ToControl::Returned(tasks));
                }
                ToWorker::JobOver(job) => self.on_job_over(job),
                ToWorker::Renewed { sent } => self.on_renewed(BootMs(sent)),
                ToWorker::SandboxStart(more) => sandboxes.extend(more),
                ToWorker::SandboxStop(ids) => {
                    let ids: Vec<RunId> = ids.into_iter().map(RunId::sandbox).collect();
                    self.stop_runs(&ids, Millis(0));
                }
            }
        }
        if !sandboxes.is_empty() {
            self.start_sandboxes(sandboxes).await;
        }
        Ok(())
    }

    /// A leader has answered: what may run once only has more time.
    fn on_renewed(&mut self, sent: BootMs) {
        let until = self.lease.renewed(sent, boot_now());
        let wanted = |t: &TaskRef| is_single(&self.jobs, &t.job) && !self.unwanted.contains(t);
        let running = self.queue.running().filter(wanted);
        let ids: Vec<RunId> = running.map(RunId::task).collect();
        if ids.is_empty() {
            return;
        }
        if let Err(e) = self.shared.runtime.renew(&ids, until) {
            tracing::warn!(error = %e, "could not give runs more time; they end with their lease unless the next try succeeds");
        }
    }

    /// Ends what is held but not wanted. From here on the session is open.
    pub(super) fn on_desired(
        &mut self,
        wanted: &BTreeSet<TaskRef>,
        sandboxes: &BTreeSet<SandboxId>,
    ) {
        self.reports.opened();
        let waiting: Vec<TaskRef> = self
            .queue
            .waiting()
            .filter(|t| !wanted.contains(t))
            .collect();
        for task in waiting {
            self.queue.withdraw(task);
            self.live().remove(&task);
        }
        let running = self.queue.running();
        self.unwanted = running.filter(|t| !wanted.contains(t)).collect();
        let mut stop: Vec<RunId> = self.unwanted.iter().copied().map(RunId::task).collect();
        stop.extend(
            self.shared
                .table
                .ids()
                .into_iter()
                .filter(|id| !sandboxes.contains(id))
                .map(RunId::sandbox),
        );
        self.stop_runs(&stop, Millis(0));
    }

    /// The control plane has these for good. One whose end was told before it was known here may have been given anew meanwhile:
    /// it must not keep its lane.
    fn on_ack(&mut self, tasks: &[TaskRef]) {
        let mut given_anew = Vec::new();
        if !self.unexpected.is_empty() {
            given_anew.extend(tasks.iter().filter(|t| self.unexpected.remove(t)));
        }
        let mut runs = Vec::new();
        for task in given_anew {
            self.live().remove(task);
            if !self.queue.withdraw(*task) && self.queue.over(*task) {
                runs.push(RunId::task(*task));
            }
        }
        self.stop_runs(&runs, Millis(0));
        self.reports.acknowledged(tasks);
    }

    async fn on_job(&mut self, bundle: JobBundle) {
        let job = bundle.job;
        let spec = bundle.spec.clone();
        if let Err(e) = self.write_inputs(Arc::new(bundle)).await {
            tracing::error!(%job, error = %e, "could not write the files of a job; its tasks do not start");
            self.unwritten.insert(job, e);
        }
        let single = spec.single_instance;
        self.jobs.insert(job, spec);
        if single {
            self.reports.renew(boot_now());
        }
        let adopted: Vec<TaskRef> = self.queue.running().filter(|t| t.job == job).collect();
        for task in adopted {
            self.watch_metrics(task);
        }
    }

    /// Writes the files of a job; a second time if that fails, because it may have been a moment's trouble.
    async fn write_inputs(&self, bundle: Arc<JobBundle>) -> Result<(), String> {
        let mut last = Ok(());
        for _ in 0..2 {
            let (bundle, data_dir) = (bundle.clone(), self.shared.config.data_dir.clone());
            let work = move || inputs::write(&data_dir, &bundle);
            last = match tokio::task::spawn_blocking(work).await {
                Ok(written) => written.map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            match &last {
                Ok(()) => break,
                Err(e) => tracing::warn!(error = %e, "could not write the files of a job at once"),
            }
        }
        last
    }

    fn on_job_over(&mut self, job: JobId) {
        if self.queue.holds(job) {
            return;
        }
        self.jobs.remove(&job);
        self.unwritten.remove(&job);
        let data_dir = self.shared.config.data_dir.clone();
        tokio::task::spawn_blocking(move || inputs::remove(&data_dir, job));
    }

    fn on_stop(&mut self, tasks: &[TaskRef], why: StopWhy) {
        let mut running = Vec::new();
        for task in tasks {
            if self.queue.withdraw(*task) {
                self.live().remove(task);
                let cause = prism_types::StopCause::Requested;
                let report = RunReport {
                    cause,
                    ..RunReport::not_started(now(), "stopped before it started")
                };
                self.reports.task_over(*task, report, None);
            } else if self.queue.is_running(*task) {
                running.push(RunId::task(*task));
            }
        }
        let grace = match why {
            StopWhy::Cancelled => self.shared.config.grace,
            StopWhy::EarlyStopped => Millis(0),
        };
        self.stop_runs(&running, grace);
    }

    fn stop_runs(&self, ids: &[RunId], grace: Millis) {
        if ids.is_empty() {
            return;
        }
        if let Err(e) = self.shared.runtime.stop(ids, grace) {
            tracing::warn!(error = %e, "could not ask the runtime to stop runs; the next session stops them");
        }
    }

    /// Starts what the lanes and the pressure guard allow.
    pub(super) fn start_tasks(&mut self) {
        if self.pressure {
            return;
        }
        let lease = self.lease.at(boot_now());
        let jobs = &self.jobs;
        let may = |job: &JobId| lease.is_some() || !is_single(jobs, job);
        let starts = self.queue.starts(LAUNCH_BATCH, may);
        if starts.is_empty() {
            return;
        }
        let mut batch: Vec<Launch> = Vec::with_capacity(starts.len());
        for (job, task, lanes) in starts {
            let reference = TaskRef {
                job,
                index: task.index,
                attempt: task.attempt,
            };
            let unwritten = self.unwritten.get(&job);
            let built = match self.jobs.get(&job).filter(|_| unwritten.is_none()) {
                Some(spec) => launch::task(
                    &self.shared.config,
                    &*self.shared.files,
                    job,
                    spec,
                    &task,
                    (lanes, lease.filter(|_| spec.single_instance)),
                ),
                None => Err(RuntimeError::Invalid(unwritten.map_or_else(
                    || "its job's spec never arrived".to_owned(),
                    |why| format!("its files could not be written on this node: {why}"),
                ))),
            };
            match built {
                Ok(launch) => batch.push(launch),
                Err(e) => self.not_started(reference, &e),
            }
        }
        let tasks: Vec<TaskRef> = batch.iter().filter_map(|l| l.id.as_task()).collect();
        if let Err(e) = self.shared.runtime.launch(batch) {
            for task in tasks {
                self.not_started(task, &e);
            }
        }
    }

    fn not_started(&mut self, task: TaskRef, error: &RuntimeError) {
        self.queue.over(task);
        self.live().remove(&task);
        let mut report = RunReport::not_started(now(), error.to_string());
        if matches!(error, RuntimeError::Unavailable(_)) {
            // It may run after all: an attempt is used up, but not one of its own tries.
            report.cause = prism_types::StopCause::Lost;
        }
        self.reports.task_over(task, report, None);
    }

    async fn start_sandboxes(&mut self, wanted: Vec<(SandboxId, Arc<SandboxSpec>)>) {
        let shared = self.shared.clone();
        let fresh = wanted.iter().map(|(id, _)| *id);
        let fresh: Vec<SandboxId> = fresh.filter(|id| !shared.table.holds(*id)).collect();
        let prepare = move || -> Vec<(SandboxId, Result<Launch, String>)> {
            wanted
                .into_iter()
                .filter(|(id, _)| !shared.table.holds(*id))
                .map(|(id, spec)| {
                    let launch = prepare_sandbox(&shared, id, &spec);
                    (id, launch)
                })
                .collect()
        };
        let prepared = match tokio::task::spawn_blocking(prepare).await {
            Ok(prepared) => prepared,
            Err(e) => {
                tracing::error!(error = %e, "preparing sandboxes panicked; they do not start");
                let why = "preparing it panicked, which is a defect";
                fresh
                    .into_iter()
                    .map(|id| (id, Err(why.to_owned())))
                    .collect()
            }
        };
        let mut batch = Vec::new();
        for (id, launch) in prepared {
            match launch {
                Ok(launch) => batch.push(launch),
                Err(detail) => {
                    let report = RunReport::not_started(now(), detail);
                    let status = SandboxStatus::Exited(report.clone());
                    self.reports.push(ToControl::Sandbox { id, status });
                    self.reports.sandbox_gone(id, report);
                }
            }
        }
        if let Err(e) = self.shared.runtime.launch(batch) {
            tracing::error!(error = %e, "the runtime takes no sandboxes; they are reported when it is back");
        }
    }
}

/// Writes down a sandbox, fills its disk from a snapshot if it has one, and says what to launch.
fn prepare_sandbox(
    shared: &super::Shared,
    id: SandboxId,
    spec: &SandboxSpec,
) -> Result<Launch, String> {
    let config = &shared.config;
    if shared.table.len() >= config.sandboxes_max {
        return Err(format!(
            "this node holds {} sandboxes, as many as it may; delete some",
            config.sandboxes_max
        ));
    }
    let launch = launch::sandbox(config, &*shared.files, id, spec).map_err(|e| e.to_string())?;
    if spec.snapshot.is_none() {
        let scratch = launch::scratch(&config.data_dir, &launch.id);
        shared.spares.take(&scratch);
    }
    if let Some(snapshot) = &spec.snapshot {
        let archive = crate::service::snapshot_file(&config.data_dir, snapshot)
            .ok_or_else(|| format!("there is no snapshot {snapshot:?} on this node"))?;
        let scratch = launch::scratch(&config.data_dir, &launch.id);
        shared
            .files
            .restore(&archive, &scratch)
            .map_err(|e| e.to_string())?;
    }
    shared
        .table
        .add(id, spec.clone())
        .map_err(|e: io::Error| format!("its record cannot be written: {e}"))?;
    Ok(launch)
}
