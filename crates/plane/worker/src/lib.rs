//! The node: one session with the control plane, a queue, a runtime, logs and readings. It never decides where things run.
//!
//! Threads and tasks: the session loop ([`Worker::run`]) owns the queue; the runtime tells its events on a thread of its own
//! through a bounded channel; files are read and written on blocking threads. [`Worker::service`] answers what the gateway
//! asks about execs, output, files and snapshots, and shares only the tables of sandboxes and execs with the loop.

#![forbid(unsafe_code)]

mod config;
mod facts;
mod inputs;
mod journal;
mod launch;
mod lease;
mod logs;
mod metrics;
mod outcome;
mod queue;
mod retention;
mod sandboxes;
mod scratch;
mod service;
mod session;
mod spread;

pub use config::Config;
pub use facts::{Meter, facts};
pub use session::{Worker, WorkerError};
