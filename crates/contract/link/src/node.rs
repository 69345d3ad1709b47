//! What the gateway asks of the node that runs a thing: execs, output, files, snapshots.
//!
//! Offsets and chunks rather than endless streams, so that a broken connection is resumed where it stood.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes as Blob;
use prism_types::{Reason, Rejection, RunReport, SandboxId, TaskRef, TimeMs};
use serde::{Deserialize, Serialize};

/// A boxed future, so that the trait can be an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A program to run in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Its id, chosen by the client: 1 to 26 of `[a-z0-9-]`. Starting it again is answered with what is there.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment on top of the sandbox's.
    pub env: Vec<(String, String)>,
    /// Working directory; `/work` unless said.
    pub cwd: Option<String>,
    /// Whether standard input stays open for [`NodeService::exec_input`].
    pub stdin: bool,
    /// Rows and columns, if it wants a terminal.
    pub tty: Option<(u16, u16)>,
    /// Wall time in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// What is known of an exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecInfo {
    /// Its id.
    pub id: String,
    /// What runs.
    pub argv: Vec<String>,
    /// Since when; `None` while it is being started.
    pub started: Option<TimeMs>,
    /// The report, when it is over.
    pub report: Option<RunReport>,
}

/// Which output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Whose output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogOf {
    /// An attempt of a task.
    Task(TaskRef),
    /// An exec in a sandbox.
    Exec(SandboxId, String),
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chunk {
    /// Offset of the first byte of `data`; greater than asked for when older output has been dropped.
    pub offset: u64,
    /// The bytes.
    pub data: Blob,
    /// Whether nothing will follow.
    pub end: bool,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name (bytes that are not UTF-8 are replaced).
    pub name: String,
    /// Kind.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last change of its content, Unix milliseconds.
    pub modified: TimeMs,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

/// A saved file system of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its id, to start sandboxes from.
    pub id: String,
    /// The sandbox it was made of.
    pub sandbox: SandboxId,
    /// Size of the archive in bytes.
    pub bytes: u64,
    /// Number of entries.
    pub files: u64,
    /// When.
    pub created: TimeMs,
}

/// Why a node said no.
pub type NodeError = Rejection;

/// A node, as the gateway reaches it. Every error is a [`Rejection`] with a reason: `not_found`, `invalid`, `wrong_state`, `unsupported`, `internal`.
pub trait NodeService: Send + Sync + 'static {
    /// Starts an exec (or finds the one with this id) and answers as soon as it runs or has failed to.
    fn exec(
        &self,
        sandbox: SandboxId,
        exec: ExecRequest,
    ) -> BoxFuture<'_, Result<ExecInfo, NodeError>>;
    /// What is known of an exec; with `wait`, answers when it is over or the time has passed.
    fn exec_info(
        &self,
        sandbox: SandboxId,
        exec: String,
        wait: Option<Duration>,
    ) -> BoxFuture<'_, Result<ExecInfo, NodeError>>;
    /// All execs of a sandbox, oldest first.
    fn execs(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<Vec<ExecInfo>, NodeError>>;
    /// Feeds standard input; `eof` closes it.
    fn exec_input(
        &self,
        sandbox: SandboxId,
        exec: String,
        data: Blob,
        eof: bool,
    ) -> BoxFuture<'_, Result<(), NodeError>>;
    /// Sends a signal.
    fn exec_signal(
        &self,
        sandbox: SandboxId,
        exec: String,
        signal: i32,
    ) -> BoxFuture<'_, Result<(), NodeError>>;
    /// Changes the size of the terminal.
    fn exec_resize(
        &self,
        sandbox: SandboxId,
        exec: String,
        rows: u16,
        columns: u16,
    ) -> BoxFuture<'_, Result<(), NodeError>>;
    /// Output from `offset`, at most `max` bytes. With `wait`, an empty answer is held back until there is output, the end, or the time has passed.
    fn output(
        &self,
        of: LogOf,
        stream: Stream,
        offset: u64,
        max: usize,
        wait: Option<Duration>,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>>;
    /// A part of a file.
    fn file_read(
        &self,
        sandbox: SandboxId,
        path: String,
        offset: u64,
        max: usize,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>>;
    /// Replaces a file whole.
    fn file_write(
        &self,
        sandbox: SandboxId,
        path: String,
        data: Blob,
        mode: u32,
    ) -> BoxFuture<'_, Result<(), NodeError>>;
    /// Entries of a directory, by name; or the one entry of a file.
    fn file_list(
        &self,
        sandbox: SandboxId,
        path: String,
    ) -> BoxFuture<'_, Result<Vec<FileEntry>, NodeError>>;
    /// What a path is.
    fn file_stat(
        &self,
        sandbox: SandboxId,
        path: String,
    ) -> BoxFuture<'_, Result<FileEntry, NodeError>>;
    /// Makes a directory and its parents.
    fn file_mkdir(&self, sandbox: SandboxId, path: String) -> BoxFuture<'_, Result<(), NodeError>>;
    /// Removes a file, or a directory with all in it.
    fn file_remove(&self, sandbox: SandboxId, path: String)
    -> BoxFuture<'_, Result<(), NodeError>>;
    /// Saves the file system of a sandbox.
    fn snapshot(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<SnapshotInfo, NodeError>>;
    /// Saved file systems made of a sandbox, or all.
    fn snapshots(
        &self,
        sandbox: Option<SandboxId>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, NodeError>>;
    /// Loads an image archive or layout directory of the node's host under a name; answers its name.
    fn image_load(
        &self,
        path: String,
        name: Option<String>,
    ) -> BoxFuture<'_, Result<String, NodeError>>;
    /// Names of loaded images.
    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, NodeError>>;
    /// Whether its worker speaks of leases; one of an earlier version does not.
    fn keeps_leases(&self) -> bool {
        true
    }
    /// The last measured time there and back; `None` for a node of this process, and until it was measured.
    fn round_trip(&self) -> Option<Duration> {
        None
    }
}

/// A [`NodeError`] for something that is not there.
pub fn not_found(what: impl Into<String>) -> NodeError {
    Rejection::new(Reason::NotFound, what)
}
