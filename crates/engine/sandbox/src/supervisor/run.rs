//! One live run, as the supervisor knows it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use prism_runtime::{Limits, Observed};
use prism_types::{RunId, StopCause, TimeMs};

use super::disk::Account;
use super::neighbours::Crowding;
use super::output::{Input, Stream};
use super::plain::Apart;
use crate::slots::Slot;

/// What kind of run it is; decides whose exit ends it and how it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program in a sandbox of its own; ends with the sandbox's first process, which tells of the program.
    Task,
    /// A sandbox that programs are started in.
    Sandbox,
    /// A program in the sandbox with this index.
    Exec(usize),
    /// A plain child of the host.
    Plain,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Being prepared; not told yet.
    Starting,
    /// Told.
    Running,
}

/// A live run. Its index is that of its record in the shared table, and part of its epoll tokens.
#[derive(Debug)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// Its kind.
    pub kind: Kind,
    /// How far it is.
    pub phase: Phase,
    /// Its first process: pid 1 of a sandbox, else the program; 0 until known.
    pub pid: u32,
    /// The short-lived process that starts a program in a running sandbox.
    pub helper: Option<u32>,
    /// Closes when a plain run's program begins (or it failed to).
    pub beginning: Option<OwnedFd>,
    /// A plain run's program before it has begun, if it was not forked.
    pub apart: Option<Apart>,
    /// Whether nobody tells that its program has begun.
    pub silent: bool,
    /// When to look then.
    pub look: Option<Instant>,
    /// Whether its streams are watched.
    pub watched: bool,
    /// When it was launched.
    pub started: TimeMs,
    /// The same, for measuring.
    pub since: Instant,
    /// Whether it has given its job's lane to the next, its program being over.
    pub lane_given: bool,
    /// What it holds of the pool.
    pub slot: Option<Slot>,
    /// Standard output (or the terminal) and standard error.
    pub streams: [Option<Stream>; 2],
    /// What the streams have brought before they were closed.
    pub stream_bytes: [u64; 2],
    /// Standard input.
    pub input: Option<Input>,
    /// Where the terminal's master comes from.
    pub terminal_socket: Option<OwnedFd>,
    /// The terminal's master, for its size.
    pub terminal: Option<OwnedFd>,
    /// Where output goes.
    pub logs: PathBuf,
    /// Output to keep.
    pub log_bytes: u64,
    /// Why it is being ended, if it is.
    pub ending: Option<StopCause>,
    /// Its limits, for programs that are started in it.
    pub limits: Limits,
    /// How many programs are live in it.
    pub inner: usize,
    /// Processor time of programs that were started in it and are over.
    pub inner_cpu_us: u64,
    /// Largest resident size of them.
    pub inner_peak: u64,
    /// What it wrote to disk, if that is limited.
    pub account: Option<Account>,
    /// Whether it keeps its neighbours from the processors.
    pub crowding: Crowding,
    /// What is to be told of output that was not kept.
    pub cut: [Option<String>; 2],
    /// Whether the output could not be kept, and why; or why it was ended.
    pub trouble: Option<String>,
    /// Out-of-memory kills of its sandbox when it began (for programs in sandboxes).
    pub kills_before: u64,
    /// Refused processes of its sandbox when it began (for programs in sandboxes).
    pub refused_before: u64,
}

impl Run {
    /// As the contract tells of it.
    pub fn observed(&self) -> Observed {
        Observed {
            id: self.id.clone(),
            started: self.started,
            pid: self.pid,
            logs: self.logs.clone(),
            exited: None,
        }
    }
}
