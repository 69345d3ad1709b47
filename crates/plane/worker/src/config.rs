//! What a worker is told at its start.

use std::path::PathBuf;

use prism_types::{Bytes, Labels, Millis, Name, NodeId, Resources};

/// Settings of a worker.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// Where its files are: `logs/`, `jobs/`, `scratch/`, `sandboxes/`, `snapshots/`.
    pub data_dir: PathBuf,
    /// What it offers; `None`: what the machine has.
    pub capacity: Option<Resources>,
    /// Whether plain, unisolated tasks may run here.
    pub allow_plain: bool,
    /// Memory in use, as a share of all, above which nothing new is started (0 to 1). Default 0.8.
    pub pressure_memory: f64,
    /// Disk in use, as a share of all, above which nothing new is started (0 to 1). Default 0.95: a laptop's disk is often
    /// four fifths full for good.
    pub pressure_disk: f64,
    /// Bytes kept of each output stream of a run.
    pub log_bytes: u64,
    /// Bytes of logs kept on the node in all; the oldest jobs' logs go first.
    pub logs_total: Bytes,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Millis,
    /// Time between heartbeats.
    pub heartbeat: Millis,
    /// Most sandboxes on this node.
    pub sandboxes_max: u32,
}

impl Config {
    /// Defaults for a node with this identity and directory.
    pub fn new(node: NodeId, name: Name, data_dir: PathBuf) -> Self {
        Self {
            node,
            name,
            labels: Labels::new(),
            data_dir,
            capacity: None,
            allow_plain: false,
            pressure_memory: 0.8,
            pressure_disk: 0.95,
            log_bytes: 16 << 20,
            logs_total: Bytes(4 << 30),
            grace: Millis(5_000),
            heartbeat: Millis(2_000),
            sandboxes_max: 20_000,
        }
    }
}
