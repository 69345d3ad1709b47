//! What a node is, and what it measures of itself.

use prism_types::Bytes;
use serde::{Deserialize, Serialize};

/// What a node is; told once per session.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Operating system and its version, such as `Debian GNU/Linux 12`.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine architecture, such as `x86_64`.
    pub arch: String,
    /// Logical processors.
    pub cpus: u32,
    /// Physical memory.
    pub memory: Bytes,
    /// Size of the file system that holds the data directory.
    pub disk: Bytes,
    /// Prism's version on the node.
    pub version: String,
    /// Host name.
    pub hostname: String,
    /// Whether sandboxes work, whether as root, and what is missing: one line each.
    pub sandbox: Vec<String>,
    /// Whether isolated sandboxes can run here.
    pub isolation: bool,
    /// Images loaded here, besides `host`.
    pub images: Vec<String>,
    /// Whether plain, unisolated tasks are allowed here.
    pub allow_plain: bool,
}

/// What a node measures; real readings, `None` where the host does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Readings {
    /// Busy share of all processors since the last reading, 0 to 1.
    pub cpu: Option<f64>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Memory in use (total less available), bytes.
    pub memory_used: Option<u64>,
    /// Physical memory, bytes.
    pub memory_total: Option<u64>,
    /// Bytes used on the file system of the data directory.
    pub disk_used: Option<u64>,
    /// Its size.
    pub disk_total: Option<u64>,
    /// Tasks that run now.
    pub running: u32,
    /// Tasks that wait in the node's own queue.
    pub waiting: u32,
    /// Sandboxes that live now.
    pub sandboxes: u32,
    /// Whether the pressure guard refuses new work (memory or disk above the threshold).
    pub pressure: bool,
}
