//! The embedded runtime: processes and sandboxes on this host, with nothing installed.
//!
//! A [`ProcessRuntime`] in the daemon talks to a supervisor, a small process of its own that outlives the daemon and owns every
//! run: it prepares namespaces and cgroups in pools, forks, carries output, reaps, and tells. What a child does between fork and
//! exec is in `child`; the reasons are in `docs/adr/0004-sandbox-and-supervisor.md`.
//!
//! Beside it, on their own: images as layers (`image`), files of a running sandbox (`files`), its writes as an archive
//! (`snapshot`).

#![deny(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "they panic where nobody can write, such as on a full disk"
)]

mod cgroup;
mod child;
mod client;
mod maker;
mod probe;
mod procfs;
mod scratch;
mod seccomp;
mod slots;
mod supervisor;
mod template;
mod wire;

pub mod files;
pub mod image;
pub mod snapshot;

pub use client::{Config, ProcessRuntime};
pub use probe::probe;
pub use scratch::{fresh, recycle};
pub use supervisor::{maybe_supervise, supervisor_main};
