//! The contract of the store: ordered keys with revisions, batches committed atomically under a fence, reads at a
//! revision, watches from a revision, and who leads.
//!
//! The store knows nothing of jobs. The control plane commits through [`Store`]; an engine implements it, and passes
//! the suite in `prism-store-kit`. [`SharedTable`] is the part that all engines which keep their state in memory share:
//! the versioned map, the window of recent revisions, and watches that read from it.

mod data;
mod error;
mod store;
mod table;
mod view;
mod watch;

pub use data::{Batch, Change, Commit, Item, Key, KeyRange, Page, Revision, Value};
pub use error::StoreError;
pub use store::{BoxFuture, Leadership, Status, Store, Watch, Watcher};
pub use table::{Refusal, Table, Window};
pub use watch::{SharedTable, SnapshotPin};

/// The largest batch an engine accepts, in bytes of keys and values: room for the largest request (64 MiB, its files as
/// text) with all that one round of the leader may add to it.
pub const MAX_BATCH_BYTES: usize = 160 * 1024 * 1024;
/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 4096;
