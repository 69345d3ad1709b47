//! What can be run: the specs of jobs, sweeps and sandboxes, how their files are read and checked, and what each task of them is.
//!
//! Pure: it is given texts and contents, and never opens a file itself. Callers: the CLI (files people write), the gateway
//! (request bodies), the core and the worker (checked specs only).

#![forbid(unsafe_code)]

mod job;
mod sandbox;
mod sweep;

pub use job::{Backoff, FileSpec, ImageRef, IsolationSpec, JobSpec, TaskSpec, Work};
pub use sandbox::SandboxSpec;
pub use sweep::{
    Aggregate, Dimension, Direction, EarlyStop, Halving, Objective, Runner, Search, SweepWork,
};
