//! A whole node in this process, reached over HTTP as anyone would.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prism_api::{JobView, SandboxCreate};
use prism_client::Client;
use prism_node::{Node, NodeConfig};
use prism_types::{Bytes, JobState, MilliCpu, Resources};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// Most time that a job may take before the bench gives up.
const JOB_WAIT: Duration = Duration::from_secs(1200);
/// How often it is asked whether a job is over.
const LOOK: Duration = Duration::from_millis(5);

/// A node and a client of it.
pub struct Bed {
    /// Its API.
    pub client: Client,
    node: Node,
    dir: TempDir,
}

impl Bed {
    /// Starts a node in a directory of its own. `capacity`: what it offers, or `None` for what the machine has.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(capacity: Option<Resources>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut config = NodeConfig::new(dir.path().join("node"));
        config.name = Some("bench".parse()?);
        config.allow_plain = true;
        config.capacity = capacity;
        // What else this machine does must not stop the bench.
        config.pressure_threshold = 0.97;
        let node = prism_node::start(config).await?;
        node.ready().await;
        let client = Client::new(
            &format!("http://{}", node.api),
            Some(&node.token),
            ANSWER_WAIT,
        )?;
        Ok(Self { client, node, dir })
    }

    /// The node's directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    /// Runs a job; answers how long it took from before the submission until its end was seen.
    ///
    /// # Errors
    /// When not every task completes.
    pub async fn run_job(&self, body: &Value) -> Result<Duration> {
        let start = Instant::now();
        let job = self.client.jobs().submit(body.to_string(), None).await?;
        let mut view: JobView = job;
        while !view.status.is_final() {
            ensure!(
                start.elapsed() < JOB_WAIT,
                "the job took too long: {:?}",
                view.counts
            );
            tokio::time::sleep(LOOK).await;
            view = self.client.jobs().get(&view.id.to_string()).await?;
        }
        let took = start.elapsed();
        ensure!(
            view.status == JobState::Completed && view.counts.completed == view.counts.total,
            "the job ended as {} with {:?}: {}",
            view.status,
            view.counts,
            view.message.unwrap_or_default()
        );
        Ok(took)
    }

    /// Ends the node and all it runs; answers its directory, so that what is left of it can be counted.
    pub async fn stop(self) -> TempDir {
        drop(self.client);
        self.node.stop().await;
        self.dir
    }
}

/// Far more than any machine has, for benches that fill a node with small sandboxes.
pub fn plenty() -> Resources {
    Resources {
        cpu: MilliCpu(100_000_000),
        memory: Bytes(1 << 50),
        disk: Bytes(1 << 50),
    }
}

/// A sandbox of the `host` image with the least memory.
pub fn small() -> SandboxCreate {
    SandboxCreate {
        resources: Some(Resources {
            cpu: MilliCpu(1000),
            memory: Bytes::mib(16),
            disk: Bytes(0),
        }),
        pids: Some(64),
        timeout: Some("0".to_owned()),
        ..SandboxCreate::empty()
    }
}

/// Entries of a directory; 0 when it is not there.
pub fn entries(dir: &Path) -> u64 {
    std::fs::read_dir(dir).map_or(0, |entries| entries.flatten().count() as u64)
}
