//! Snapshots: the upper layer of a sandbox as one archive, and back.
//!
//! A zstd-compressed tar with OCI whiteouts, so other tools can read it. Owners are stored
//! relative to the sandbox's id range, so it can be restored into another range or on another
//! node. Taking one does not stop the sandbox: what changes meanwhile is counted, not hidden.
//! An archive to restore is as hostile as any other. Blocking; called by the worker.

mod capture;
mod error;
mod examine;
mod format;
mod restore;

pub use capture::{Snapshot, snapshot};
pub use error::SnapshotError;
pub use restore::{Restored, restore};

/// Ids that one sandbox owns, starting at its base.
const ID_RANGE: u32 = 65_536;
/// Stored for an owner outside the range: what the sandbox itself saw (`nobody`).
const ID_OVERFLOW: u32 = 65_534;
