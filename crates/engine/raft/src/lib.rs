//! The embedded store engine: consensus from the openraft library, state in memory, log and snapshots on local disk.
//!
//! One server is a cluster of one voter; nothing else is special about it. Others are told to it by [`RaftStore::add`] and the like
//! (`cluster`), reached through the [`Dial`] it was given (`network`), and answered by [`RaftStore::serve`] (`serve`). What happens to
//! a commit:
//!
//! 1. [`RaftStore`] puts it in a bounded queue. One task takes everything that waits there and proposes it as *one*
//!    log entry (`queue`), so that any number of callers share a write and a sync.
//! 2. The Raft core hands the entry to the log thread (`log`), which writes and syncs it, then reports back.
//! 3. The state machine (`machine`) applies it to the shared table of `prism-store`, batch by batch, each under its
//!    own fence, and answers every caller.
//!
//! What is on disk is described in `disk` (small files) and `log` (segments) and `snapshot`. A failed write or sync
//! ends the process: see `disk::fatal`. No openraft type leaves this crate.

mod cluster;
mod command;
mod config;
mod disk;
mod error;
mod exchange;
mod log;
mod machine;
mod network;
mod peers;
mod queue;
mod raft;
mod remains;
mod serve;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::OpenError;
pub use exchange::check_messages;
pub use peers::{Dial, Pipe, Progress, Server, Standing};
pub use remains::{Remains, remains};
pub use store::{RaftStore, open};
