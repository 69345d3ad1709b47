//! What the control plane and a worker say to each other, and what the gateway asks of a node.
//!
//! Data and traits; nothing runs here and nothing is sent from here. On one machine the two ends are joined by a pair of
//! bounded queues ([`pair`]); the messages are made to cross a network unchanged. How two ends find out what they see differently is
//! in [`resume`], as plain functions.

#![forbid(unsafe_code)]

mod message;
mod node;
mod readings;
pub mod resume;

pub use message::{
    AssignedTask, ControlEnd, Hello, Holding, JobBundle, Resume, SandboxStatus, StopWhy,
    TaskMetric, TaskOutcome, ToControl, ToWorker, WorkerEnd, pair,
};
pub use node::{
    BoxFuture, Chunk, ExecInfo, ExecRequest, FileEntry, FileKind, LogOf, NodeError, NodeService,
    SnapshotInfo, Stream, not_found,
};
pub use readings::{NodeFacts, Readings};
