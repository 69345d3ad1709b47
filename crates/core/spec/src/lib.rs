//! What can be run: the specs of jobs, sweeps and sandboxes, how their files are read and checked, and what each task of them is.
//!
//! Pure: it is given texts and contents, and never opens a file itself. Callers: the CLI (files people write), the gateway
//! (request bodies), the core and the worker (checked specs only).

#![forbid(unsafe_code)]

mod contents;
mod cursor;
mod decode;
mod document;
mod draft;
mod error;
mod expand;
mod first;
mod job;
pub mod limits;
mod lines;
mod output;
mod paths;
mod placeholder;
mod points;
mod random;
mod results;
mod sandbox;
mod sweep;
mod tree;
mod wire;

pub use document::{Document, parse_file};
pub use draft::{Draft, Submission, Wanted};
pub use error::{Place, SpecError};
pub use expand::{InlineFile, TASK_DIR, TASK_PATH, TaskCommand, point_json};
pub use first::FirstSpec;
pub use job::{Backoff, FileSpec, ImageRef, IsolationSpec, JobSpec, TaskSpec, Work};
pub use lines::Lines;
pub use output::{MetricPoint, MetricScanner, last_json_line};
pub use points::Point;
pub use results::{BeamRow, Table, row_json, table};
pub use sandbox::SandboxSpec;
pub use sweep::{
    Aggregate, Dimension, Direction, EarlyStop, Halving, Objective, Runner, Search, SweepWork,
};
pub use wire::{WireKind, parse_sandbox_wire, parse_wire, sandbox_to_wire};
