//! The control plane and real workers in this process, over a real store on disk, with a runtime that runs nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prism_control::Control;
use prism_raft::RaftStore;
use prism_runtime::Runtime;
use prism_runtime_kit::{NoFiles, Noop};
use prism_spec::WireKind;
use prism_state::{Command, Reply, Submission};
use prism_store::Store;
use prism_types::{Bytes, JobId, JobState, MilliCpu, NodeId, Resources, TaskState};
use prism_worker::Worker;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Most time that a job may take before the bench gives up.
const JOB_WAIT: Duration = Duration::from_secs(1200);

/// What runs.
pub struct Plane {
    control: Control,
    store: Arc<RaftStore>,
    stop: CancellationToken,
    parts: Vec<JoinHandle<()>>,
}

impl Plane {
    /// Starts it in an empty directory: so many workers, with so many lanes each.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(dir: &Path, workers: u32, lanes: u32) -> Result<Self> {
        let store = prism_raft::open(prism_raft::Config::new(dir.join("store"))).await?;
        let object: Arc<dyn Store> = store.clone();
        let (control, leader) = prism_control::open(object).await?;
        let stop = CancellationToken::new();
        let mut plane = Self {
            control,
            store,
            stop: stop.clone(),
            parts: Vec::new(),
        };
        plane.parts.push(tokio::spawn(async move {
            if let Err(e) = leader.run(stop).await {
                eprintln!("the leader stopped: {e}");
            }
        }));
        for number in 0..workers {
            plane.add_worker(dir, number, lanes).await?;
        }
        Ok(plane)
    }

    async fn add_worker(&mut self, dir: &Path, number: u32, lanes: u32) -> Result<()> {
        let (ms, entropy) = self.control.mint();
        let id = NodeId::new(ms, entropy);
        let name = format!("bench-{number}").parse()?;
        let mut config = prism_worker::Config::new(id, name, dir.join(format!("worker-{number}")));
        config.capacity = Some(Resources {
            cpu: MilliCpu(lanes * 1000),
            memory: Bytes(1 << 50),
            disk: Bytes(0),
        });
        // What else this machine does must not stop the bench.
        (config.pressure_memory, config.pressure_disk) = (1.0, 1.0);
        let worker = Worker::open(config, Arc::new(NoFiles), |sink| {
            let runtime: Arc<dyn Runtime> = Arc::new(Noop::new(sink, lanes));
            Ok(runtime)
        })?;
        let (control, stop) = (self.control.clone(), self.stop.clone());
        self.parts
            .push(tokio::spawn(sessions(control, worker, stop)));
        let mut changed = self.control.changed();
        while self.control.node(id).is_none() {
            let look_again = Duration::from_millis(5);
            let _changed_or_not = tokio::time::timeout(look_again, changed.changed()).await;
        }
        Ok(())
    }

    /// Runs a job of `count` no-op tasks; answers how long it took from before the submission until its end was durable.
    ///
    /// # Errors
    /// When it does not complete.
    pub async fn run_job(&self, count: u32) -> Result<Duration> {
        let body = serde_json::json!({
            "job": "noop", "command": ["/bin/true"], "array": count,
            "resources": {"cpu": "1", "memory": "1Mi"},
        });
        let parsed = prism_spec::parse_wire(WireKind::Job, body.to_string().as_bytes())?;
        let (ms, entropy) = self.control.mint();
        let submission = Submission {
            id: JobId::new(ms, entropy),
            spec: Arc::new(parsed.spec),
            blobs: Vec::new(),
            seed: 1,
        };
        let start = Instant::now();
        let reply = self
            .control
            .propose(Command::SubmitJob(submission), None)
            .await?;
        let Reply::JobCreated { id } = reply else {
            bail!("the control plane answered {reply:?} to a job");
        };
        let over = tokio::time::timeout(JOB_WAIT, self.over(id)).await;
        let state = over.context("the job took too long")??;
        let took = start.elapsed();
        ensure!(state == JobState::Completed, "the job ended as {state}");
        let done = self
            .control
            .read(|s| s.job(id).map(|j| j.counts().of(TaskState::Completed)));
        ensure!(done.await == Some(count), "not every task completed");
        Ok(took)
    }

    async fn over(&self, id: JobId) -> Result<JobState> {
        let mut changed = self.control.changed();
        loop {
            changed.mark_unchanged();
            let state = self
                .control
                .read(|s| s.job(id).map(|j| j.record().state))
                .await;
            match state {
                Some(state) if state.is_final() => return Ok(state),
                Some(_) => changed.changed().await?,
                None => bail!("the job is gone"),
            }
        }
    }

    /// What the leader has done so far, for people.
    pub fn say_numbers(&self) {
        let n = self.control.numbers();
        let commit_ms = n.commit_us / 1000;
        eprintln!(
            "  {} commits, {} commands, {} KiB, {commit_ms} ms in commits",
            n.rounds,
            n.commands,
            n.bytes >> 10
        );
    }

    /// Ends it in order.
    pub async fn stop(self) {
        self.stop.cancel();
        for part in self.parts {
            let _ended_or_panicked = part.await;
        }
        drop(self.control);
        self.store.close().await;
    }
}

/// Joins worker and leader until the end, as a node does.
async fn sessions(control: Control, mut worker: Worker, stop: CancellationToken) {
    let service = worker.service();
    while !stop.is_cancelled() {
        let (control_end, worker_end) = prism_link::pair();
        let (control, service) = (control.clone(), service.clone());
        let other = tokio::spawn(async move {
            if let Err(e) = control.serve_worker(control_end, service).await {
                eprintln!("a worker's session was refused: {e}");
            }
        });
        worker.run(worker_end, stop.clone()).await;
        let _ended_or_panicked = other.await;
    }
}
