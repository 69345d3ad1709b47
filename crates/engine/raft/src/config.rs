//! How to open a store. Plain values; made by the node from its own configuration.

use std::path::PathBuf;
use std::sync::Arc;

use prism_store::Window;

use crate::Dial;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it lives; made if it is missing. One process at a time.
    pub dir: PathBuf,
    /// The number of this server in its cluster; a store keeps the one it was made with.
    pub server: u64,
    /// Whether an empty directory begins a cluster of its own. Otherwise the store waits until a cluster takes it in, and is empty
    /// until then. A directory that was in use goes on as it was.
    pub bootstrap: bool,
    /// The way to other servers; without it the store is alone.
    pub dial: Option<Arc<dyn Dial>>,
    /// How much of the past can be read and watched from.
    pub window: Window,
    /// A snapshot is taken, and the log before it dropped, when the log is larger than this and than twice the last
    /// snapshot. In bytes.
    pub log_bytes: u64,
    /// A new log file is begun when the current one is larger than this. In bytes.
    pub segment_bytes: u64,
}

impl Config {
    /// The defaults, for a store in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            server: 1,
            bootstrap: true,
            dial: None,
            window: Window::default(),
            log_bytes: 64 * 1024 * 1024,
            segment_bytes: 16 * 1024 * 1024,
        }
    }

    /// The same on a small disk: files take no more than their share of it.
    pub(crate) fn fitted(mut self) -> Self {
        let there = self.dir.ancestors().find(|dir| dir.exists());
        let Some(disk) = there.and_then(|dir| rustix::fs::statvfs(dir).ok()) else {
            return self;
        };
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        self.segment_bytes = self.segment_bytes.min(total / 16);
        self.log_bytes = self.log_bytes.min(total / 4);
        self
    }
}
