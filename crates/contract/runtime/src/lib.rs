//! The contract between a worker and whatever runs things on its host: launch, exec, signal, stop, observe, forget.
//!
//! Data and one trait; nothing runs here. Every engine passes the same conformance suite.

#![forbid(unsafe_code)]

mod files;
pub mod sealed;

pub use files::{Entry, EntryKind, HostFiles, ImageInfo, Saved};

use std::path::PathBuf;
use std::sync::Arc;

use prism_types::{Bytes, MilliCpu, Millis, RunId, RunReport, TimeMs};
use serde::{Deserialize, Serialize};

/// What the root file system of a run is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Image {
    /// The machine's own `/usr`, read-only, under a small root of its own.
    Host,
    /// Unpacked image layers on this host, topmost first.
    Layers(Vec<PathBuf>),
}

/// Where the run's own writes go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scratch {
    /// In memory, gone with the run; counts against its memory. `bytes` bounds it.
    Memory {
        /// Upper bound in bytes.
        bytes: Bytes,
    },
    /// In a directory on disk that outlives the run until its owner removes it (the upper layer for snapshots).
    Disk {
        /// The directory; made if missing, reused if it holds an upper layer already.
        dir: PathBuf,
        /// Upper bound in bytes, and one file for each 4 KiB of it; looked at about once a second, and the run ends with cause
        /// `disk_exceeded`. 0 for none.
        bytes: Bytes,
    },
}

/// How strictly a run is kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// Everything that the host offers: namespaces, own root, seccomp, landlock, limits.
    Sandboxed,
    /// A plain child process of the host (own process group, no root of its own). Only for nodes that allow it.
    Plain,
}

/// Hard limits; 0 means "no limit of its own" unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processor time as a quota.
    pub cpu: MilliCpu,
    /// Memory, no swap.
    pub memory: Bytes,
    /// Processes and threads.
    pub pids: u32,
    /// Open files per process.
    pub nofile: u32,
    /// Block I/O bandwidth in bytes per second, each way.
    pub io_bytes_per_s: u64,
    /// Wall time; the run is killed with cause `timeout` when it passes.
    pub timeout: Option<Millis>,
    /// Bytes kept of each output stream; older output is dropped in whole segments.
    pub log_bytes: u64,
}

/// A file that is put into the run's working directory before it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Relative path beneath the working directory.
    pub path: String,
    /// Content.
    pub content: Arc<[u8]>,
    /// Permission bits (only `0o777` of them count).
    pub mode: u32,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Program and arguments; the program is looked up in the sandbox's PATH if it has no slash. Never empty.
    pub argv: Vec<String>,
    /// The whole environment (nothing is inherited); names without `=` and NUL.
    pub env: Vec<(String, String)>,
    /// Working directory inside, absolute; made if missing.
    pub cwd: String,
    /// Whether standard input is a pipe fed by [`Runtime::input`] (else `/dev/null`).
    pub stdin: bool,
    /// Rows and columns of a terminal of its own, if it wants one (stdout and stderr are then one stream, stdout).
    pub tty: Option<(u16, u16)>,
}

/// A moment by the machine's own clock since it was started, which nobody sets and which goes on while it sleeps (`CLOCK_BOOTTIME`),
/// in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootMs(pub u64);

impl BootMs {
    /// The moment that the clock tells as so many seconds and nanoseconds beyond them.
    pub fn of(seconds: i64, nanos: i64) -> Self {
        let seconds = u64::try_from(seconds).unwrap_or_default();
        let millis = u64::try_from(nanos / 1_000_000).unwrap_or_default();
        Self(seconds * 1_000 + millis)
    }
}

/// A thing to start: a task (with a program), or a sandbox (without: it lives until stopped, and programs are exec'd in it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Its name for ever.
    pub id: RunId,
    /// How strictly it is kept apart.
    pub isolation: Isolation,
    /// Root file system.
    pub image: Image,
    /// Read-only directories laid over the image, topmost first (files sent along live in `<layer>/work`).
    pub layers: Vec<PathBuf>,
    /// Where its writes go.
    pub scratch: Scratch,
    /// Its first process, or `None` for a sandbox.
    pub program: Option<Program>,
    /// Files for its working directory (`program.cwd`, or `/work`).
    pub files: Vec<InlineFile>,
    /// Limits of everything in it together.
    pub limits: Limits,
    /// Host name inside.
    pub hostname: String,
    /// Directory for its output segments (`stdout.<offset>`, `stderr.<offset>`, offset in 20 digits); made at the first byte.
    pub logs: PathBuf,
    /// Of a task: at most so many tasks of its job run at once, and more wait in the order in which they came, so that the next
    /// one begins without a round trip. 0: it begins at once. The number given last holds for the job.
    pub lanes: u32,
    /// It is not to live beyond this moment, unless [`Runtime::renew`] moves it: the runtime kills it then with cause
    /// `lease_expired`, whether or not whoever asked for it still lives. `None`: no such moment.
    pub lease: Option<BootMs>,
}

/// A program to run inside a running sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Its name for ever.
    pub id: RunId,
    /// The sandbox.
    pub inside: RunId,
    /// What to run.
    pub program: Program,
    /// Wall time; killed with cause `timeout` when it passes.
    pub timeout: Option<Millis>,
    /// As in [`Launch::logs`].
    pub logs: PathBuf,
    /// As in [`Limits::log_bytes`].
    pub log_bytes: u64,
}

/// What a runtime tells, in order. When it is opened again it first tells anew of every run it knows: `Started` for those that
/// run, `Exited` for those that are over and not forgotten ([`Runtime::forget`]); so either may come more than once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunEvent {
    /// It runs.
    Started {
        /// Which.
        id: RunId,
        /// Since when.
        at: TimeMs,
        /// Its first process, as the host numbers it (a sandboxed run's is the sandbox's own pid 1, which holds its root).
        pid: u32,
    },
    /// It is over (or never started: cause `start_failed`).
    Exited {
        /// Which.
        id: RunId,
        /// How.
        report: RunReport,
    },
    /// The runtime's own process died and was replaced; everything it ran is gone or being killed. `Exited` with cause `lost` follows for each.
    Restarted,
}

/// A run as the runtime sees it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Which.
    pub id: RunId,
    /// When it started.
    pub started: TimeMs,
    /// First process on the host; 0 when over.
    pub pid: u32,
    /// Where its output is.
    pub logs: PathBuf,
    /// The report, if it is over.
    pub exited: Option<RunReport>,
}

/// What a host can do, and what is lost for each thing it cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Short name: `user-namespaces`, `cgroup-memory`, `seccomp`, …
    pub name: String,
    /// Whether it works here (probed by doing it, not by a version number).
    pub works: bool,
    /// What was found.
    pub found: String,
    /// What is lost without it, and what to do about it; empty when it works.
    pub lost: String,
    /// Whether nothing can run in a sandbox without it.
    pub required: bool,
}

/// Usage of a live run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time so far, microseconds.
    pub cpu_us: u64,
    /// Memory now, bytes.
    pub memory: u64,
    /// Processes now.
    pub pids: u32,
}

/// Why a runtime could not do something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeError {
    /// No such run.
    NotFound(String),
    /// The request cannot be done as asked; nothing was changed.
    Invalid(String),
    /// The host lacks what it takes.
    Unsupported(String),
    /// The runtime cannot be reached or failed; what became of the request is not known.
    Unavailable(String),
}

impl std::fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound(m) | Self::Invalid(m) | Self::Unsupported(m) | Self::Unavailable(m) => {
                f.write_str(m)
            }
        }
    }
}

impl std::error::Error for RuntimeError {}

/// Takes events from a runtime, on the runtime's own thread; must not block for long. Batches keep their order.
pub type EventSink = Box<dyn Fn(Vec<RunEvent>) + Send + Sync>;

/// Something that runs things on this host. Calls are synchronous and short; what happens later is told through the [`EventSink`]
/// given at construction. Runs outlive the daemon: a runtime that is opened again over the same directory goes on with what runs.
pub trait Runtime: Send + Sync + 'static {
    /// What this host can do.
    fn capabilities(&self) -> Vec<Capability>;

    /// Starts a batch. Each is answered by `Started` or by `Exited` with cause `start_failed`. Starting an id that is known starts
    /// nothing: what was told of it last is told again.
    ///
    /// # Errors
    /// Only when the runtime cannot be reached; then nothing may be assumed of the batch until [`Runtime::observe`].
    fn launch(&self, batch: Vec<Launch>) -> Result<(), RuntimeError>;

    /// Starts a program in a running sandbox; answered like a launch.
    ///
    /// # Errors
    /// As [`Runtime::launch`].
    fn exec(&self, exec: Exec) -> Result<(), RuntimeError>;

    /// Feeds standard input; `eof` closes it afterwards. Bytes that do not fit the pipe are kept up to 1 MiB per run.
    ///
    /// # Errors
    /// `NotFound`, or `Invalid` when the run has no standard input or its buffer is full.
    fn input(&self, id: &RunId, bytes: &[u8], eof: bool) -> Result<(), RuntimeError>;

    /// Sends a signal to a run's first process.
    ///
    /// # Errors
    /// `NotFound` when it is not running, `Invalid` for a number that is no signal.
    fn signal(&self, id: &RunId, signal: i32) -> Result<(), RuntimeError>;

    /// Changes the size of a run's terminal.
    ///
    /// # Errors
    /// `NotFound` when it is not running, `Invalid` when it has no terminal.
    fn resize(&self, id: &RunId, rows: u16, columns: u16) -> Result<(), RuntimeError>;

    /// Ends runs: SIGTERM, then SIGKILL to everything in each after `grace` (at once when zero). A sandbox takes its execs with it.
    ///
    /// # Errors
    /// Only when the runtime cannot be reached.
    fn stop(&self, ids: &[RunId], grace: Millis) -> Result<(), RuntimeError>;

    /// Lets runs that have a lease live until a later moment. What has none, is being ended or is over is left as it is.
    ///
    /// # Errors
    /// Only when the runtime cannot be reached.
    fn renew(&self, ids: &[RunId], until: BootMs) -> Result<(), RuntimeError>;

    /// Lets the runtime drop what it remembers of runs that are over (the caller has made their reports durable).
    ///
    /// # Errors
    /// Only when the runtime cannot be reached.
    fn forget(&self, ids: &[RunId]) -> Result<(), RuntimeError>;

    /// Every run it knows: running, or over and not forgotten.
    ///
    /// # Errors
    /// Only when the runtime cannot be reached.
    fn observe(&self) -> Result<Vec<Observed>, RuntimeError>;

    /// Usage of a live run.
    ///
    /// # Errors
    /// `NotFound` when it is not running.
    fn usage(&self, id: &RunId) -> Result<Usage, RuntimeError>;

    /// The directory through which the files of a running sandbox can be opened on this host (`/proc/<pid>/root`).
    ///
    /// # Errors
    /// `NotFound` when it is not running.
    fn root(&self, id: &RunId) -> Result<PathBuf, RuntimeError>;

    /// Ends everything and the runtime's own processes. Afterwards every call answers `Unavailable`.
    fn shutdown(&self);
}
