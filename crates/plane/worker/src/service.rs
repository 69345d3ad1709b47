//! What the gateway asks of this node: execs, output, files, snapshots, images. Shares the tables with the session loop.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes as Blob;
use prism_faults::point;
use prism_link::{
    BoxFuture, Chunk, ExecInfo, ExecRequest, FileEntry, FileKind, LogOf, NodeError, NodeService,
    SnapshotInfo, Stream, not_found,
};
use prism_runtime::{Entry, EntryKind, Exec, Program, RuntimeError, sealed};
use prism_types::{Id, Millis, Reason, Rejection, RunId, SandboxId};

use crate::launch;
use crate::sandboxes::ExecRecord;
use crate::session::{Shared, now};

mod output;

/// How long an exec may take to be started before the answer says that it is not known.
const START_WAIT: Duration = Duration::from_secs(30);

/// Answers for one node.
pub(crate) struct Service {
    shared: Arc<Shared>,
    /// Readers that look for output often.
    readers: output::Readers,
}

/// The archive of a snapshot, if it is here.
pub(crate) fn snapshot_file(data_dir: &Path, id: &str) -> Option<PathBuf> {
    let id: Id = id.parse().ok()?;
    let path = data_dir.join("snapshots").join(format!("{id}.tar.zst"));
    path.exists().then_some(path)
}

fn rejection(e: RuntimeError) -> NodeError {
    let (reason, retryable) = match e {
        RuntimeError::NotFound(_) => (Reason::NotFound, false),
        RuntimeError::Invalid(_) => (Reason::Invalid, false),
        RuntimeError::Unsupported(_) => (Reason::Unsupported, false),
        RuntimeError::Unavailable(_) => (Reason::Internal, true),
    };
    Rejection {
        retryable,
        ..Rejection::new(reason, e.to_string())
    }
}

fn disk_error(what: &str, e: &std::io::Error) -> NodeError {
    Rejection::retryable(Reason::Internal, format!("the node cannot {what}: {e}"))
}

fn entry(e: Entry) -> FileEntry {
    let kind = match e.kind {
        EntryKind::File => FileKind::File,
        EntryKind::Dir => FileKind::Dir,
        EntryKind::Symlink => FileKind::Symlink,
        EntryKind::Other => FileKind::Other,
    };
    FileEntry {
        name: e.name,
        kind,
        size: e.size,
        mode: e.mode,
        modified: e.modified,
        target: e.target,
    }
}

impl Service {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            readers: output::Readers::default(),
        }
    }

    /// Runs blocking work on a thread that may wait.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, NodeError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, NodeError>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            tokio::task::spawn_blocking(move || work(&shared)).await.unwrap_or_else(|e| {
                Err(Rejection::unknown(Reason::Internal, format!("the node's worker thread failed: {e}; what became of the request is not known")))
            })
        })
    }

    /// Blocking work inside a sandbox that must be running.
    fn inside<T: Send + 'static>(
        &self,
        sandbox: SandboxId,
        work: impl FnOnce(&Shared, &RunId) -> Result<T, RuntimeError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, NodeError>> {
        self.blocking(move |shared| {
            running(shared, sandbox)?;
            work(shared, &RunId::sandbox(sandbox)).map_err(rejection)
        })
    }

    async fn start_exec(
        &self,
        sandbox: SandboxId,
        request: ExecRequest,
    ) -> Result<ExecInfo, NodeError> {
        check_exec(&request)?;
        let shared = self.shared.clone();
        let work = move || -> Result<_, NodeError> {
            running(&shared, sandbox)?;
            let run = RunId::exec(sandbox, &request.id)
                .map_err(|e| Rejection::new(Reason::Invalid, format!("exec id: {e}")))?;
            let added = shared.table.add_exec(sandbox, &request, now());
            let (new, receiver) = added
                .map_err(|e| disk_error("keep the record of the exec", &e))?
                .ok_or_else(|| not_found(format!("there is no sandbox {sandbox} on this node")))?;
            if !new {
                let same = receiver.borrow().request == request;
                return if same {
                    Ok(receiver)
                } else {
                    Err(Rejection::new(
                        Reason::Conflict,
                        format!(
                            "sandbox {sandbox} has another exec with the id {:?}; choose a new id",
                            request.id
                        ),
                    ))
                };
            }
            launch_exec(&shared, sandbox, run, request)?;
            Ok(receiver)
        };
        let mut receiver = tokio::task::spawn_blocking(work).await.map_err(|e| {
            Rejection::new(
                Reason::Internal,
                format!("the node's worker thread failed: {e}"),
            )
        })??;
        let up = |r: &ExecRecord| r.started.is_some() || r.report.is_some();
        match tokio::time::timeout(START_WAIT, receiver.wait_for(up)).await {
            Ok(Ok(record)) => Ok(record.info()),
            Ok(Err(_)) => Err(gone(sandbox)),
            Err(_) => Err(Rejection::retryable(
                Reason::Internal,
                "the exec was not started within 30 s; ask for it again by its id",
            )),
        }
    }
}

fn gone(sandbox: SandboxId) -> NodeError {
    Rejection::new(Reason::WrongState, format!("sandbox {sandbox} is gone"))
}

fn running(shared: &Shared, sandbox: SandboxId) -> Result<(), NodeError> {
    match shared.table.get(sandbox) {
        Some((_, Some(_))) => Ok(()),
        Some((_, None)) => Err(Rejection::retryable(
            Reason::WrongState,
            format!("sandbox {sandbox} is still being started"),
        )),
        None => Err(not_found(format!(
            "there is no sandbox {sandbox} on this node"
        ))),
    }
}

/// Refuses what cannot be meant.
fn check_exec(request: &ExecRequest) -> Result<(), NodeError> {
    let bad = |message: &str| Err(Rejection::new(Reason::Invalid, message));
    let id = &request.id;
    if !(1..=26).contains(&id.len())
        || !id
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    {
        return bad("id: expected 1 to 26 characters of a-z, 0-9 and -");
    }
    if request.argv.is_empty() || request.argv.len() > 1024 {
        return bad("argv: expected 1 to 1024 arguments");
    }
    if request.argv.iter().any(|a| a.contains('\0')) || request.argv[0].is_empty() {
        return bad("argv: the program is empty or an argument holds a NUL");
    }
    let name_ok = |k: &str| !k.is_empty() && !k.contains(['=', '\0']);
    if request.env.len() > 256
        || request
            .env
            .iter()
            .any(|(k, v)| !name_ok(k) || v.contains('\0'))
    {
        return bad("env: expected at most 256 names without = and NUL, with values without NUL");
    }
    let size: usize = request.argv.iter().map(String::len).sum::<usize>()
        + request
            .env
            .iter()
            .map(|(k, v)| k.len() + v.len())
            .sum::<usize>();
    if size > 128 << 10 {
        return bad("argv and env: together more than 128 KiB; write a file and run that");
    }
    if request
        .cwd
        .as_deref()
        .is_some_and(|c| !c.starts_with('/') || c.contains('\0') || c.len() > 4096)
    {
        return bad("cwd: expected an absolute path");
    }
    Ok(())
}

fn launch_exec(
    shared: &Shared,
    sandbox: SandboxId,
    run: RunId,
    request: ExecRequest,
) -> Result<(), NodeError> {
    let (spec, _) = shared.table.get(sandbox).ok_or_else(|| gone(sandbox))?;
    let env = launch::exec_env(&*shared.files, &spec, request.env).map_err(rejection)?;
    let exec = Exec {
        id: run,
        inside: RunId::sandbox(sandbox),
        program: Program {
            argv: request.argv,
            env,
            cwd: request.cwd.unwrap_or_else(|| "/work".to_owned()),
            stdin: request.stdin,
            tty: request.tty,
        },
        timeout: request.timeout_ms.map(Millis),
        logs: launch::exec_logs(&shared.config.data_dir, sandbox, &request.id),
        log_bytes: shared.config.log_bytes,
    };
    shared.runtime.exec(exec).map_err(rejection)
}

fn make_snapshot(shared: &Shared, sandbox: SandboxId) -> Result<SnapshotInfo, NodeError> {
    running(shared, sandbox)?;
    let mut entropy = [0u8; 16];
    let filled = rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty());
    filled.map_err(|e| disk_error("draw an id", &e.into()))?;
    let id = Id::new(now().0, u128::from_le_bytes(entropy));
    let data_dir = &shared.config.data_dir;
    let scratch = launch::scratch(data_dir, &RunId::sandbox(sandbox));
    let archive = data_dir.join("snapshots").join(format!("{id}.tar.zst"));
    let saved = shared
        .files
        .snapshot(&scratch, &archive)
        .map_err(rejection)?;
    let info = SnapshotInfo {
        id: id.to_string(),
        sandbox,
        bytes: saved.bytes,
        files: saved.entries,
        created: now(),
    };
    keep_record(&archive, &info).map_err(|e| disk_error("keep the record of the snapshot", &e))?;
    Ok(info)
}

/// Where the record of a snapshot is.
fn record_of(archive: &Path) -> PathBuf {
    archive.with_extension("").with_extension("json")
}

/// Writes the record of a snapshot, durably: without it the archive does not count and is removed at the next start.
fn keep_record(archive: &Path, info: &SnapshotInfo) -> std::io::Result<()> {
    let record = record_of(archive);
    let beside = record.with_extension("new");
    point!("worker.record.before_write")?;
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&sealed::seal(serde_json::to_vec(info)?))?;
    file.sync_all()?;
    point!("worker.record.before_rename")?;
    std::fs::rename(&beside, &record)?;
    let dir = record.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir)?.sync_all()?;
    point!("worker.record.after_rename")
}

/// Reads the record of a snapshot.
fn read_record(path: &Path) -> std::io::Result<SnapshotInfo> {
    let bytes = std::fs::read(path)?;
    serde_json::from_slice(sealed::unseal(path, &bytes)?)
        .map_err(|e| sealed::damaged(path, e.column(), &e.to_string()))
}

/// Removes what an interrupted snapshot left: archives without a record, and files that did not come to their place.
pub(crate) fn sweep_snapshots(data_dir: &Path) -> std::io::Result<u32> {
    let dir = data_dir.join("snapshots");
    let mut keep = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(&dir)? {
        let path = file?.path();
        let complete = path.extension().is_some_and(|e| e == "json");
        let archive = path.with_extension("tar.zst");
        if complete && archive.exists() {
            let both = [path.file_name(), archive.file_name()];
            keep.extend(
                both.iter()
                    .filter_map(|n| Some(n.as_ref()?.to_str()?.to_owned())),
            );
        }
    }
    crate::retention::keep_only(&dir, &keep)
}

fn list_snapshots(
    shared: &Shared,
    sandbox: Option<SandboxId>,
) -> Result<Vec<SnapshotInfo>, NodeError> {
    let dir = shared.config.data_dir.join("snapshots");
    let read = || -> std::io::Result<Vec<SnapshotInfo>> {
        let mut found = Vec::new();
        for file in std::fs::read_dir(&dir)? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "json") {
                found.push(read_record(&path)?);
            }
        }
        Ok(found)
    };
    let mut found = read().map_err(|e| disk_error("list its snapshots", &e))?;
    found.retain(|s: &SnapshotInfo| sandbox.is_none_or(|id| s.sandbox == id));
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

type Answer<'a, T> = BoxFuture<'a, Result<T, NodeError>>;

impl NodeService for Service {
    fn exec(&self, sandbox: SandboxId, exec: ExecRequest) -> Answer<'_, ExecInfo> {
        Box::pin(self.start_exec(sandbox, exec))
    }

    fn exec_info(
        &self,
        sandbox: SandboxId,
        exec: String,
        wait: Option<Duration>,
    ) -> Answer<'_, ExecInfo> {
        Box::pin(async move {
            let mut receiver = self
                .shared
                .table
                .exec(sandbox, &exec)
                .ok_or_else(|| not_found(format!("sandbox {sandbox} has no exec {exec:?}")))?;
            if let Some(wait) = wait {
                let over = receiver.wait_for(|r| r.report.is_some());
                if let Ok(Err(_)) = tokio::time::timeout(wait, over).await {
                    return Err(gone(sandbox));
                }
            }
            let info = receiver.borrow().info();
            Ok(info)
        })
    }

    fn execs(&self, sandbox: SandboxId) -> Answer<'_, Vec<ExecInfo>> {
        let found = self.shared.table.execs(sandbox);
        let found =
            found.ok_or_else(|| not_found(format!("there is no sandbox {sandbox} on this node")));
        Box::pin(async move { Ok(found?.iter().map(ExecRecord::info).collect()) })
    }

    fn exec_input(
        &self,
        sandbox: SandboxId,
        exec: String,
        data: Blob,
        eof: bool,
    ) -> Answer<'_, ()> {
        self.blocking(move |s| {
            s.runtime
                .input(&exec_run(sandbox, &exec)?, &data, eof)
                .map_err(rejection)
        })
    }

    fn exec_signal(&self, sandbox: SandboxId, exec: String, signal: i32) -> Answer<'_, ()> {
        self.blocking(move |s| {
            s.runtime
                .signal(&exec_run(sandbox, &exec)?, signal)
                .map_err(rejection)
        })
    }

    fn exec_resize(
        &self,
        sandbox: SandboxId,
        exec: String,
        rows: u16,
        columns: u16,
    ) -> Answer<'_, ()> {
        self.blocking(move |s| {
            s.runtime
                .resize(&exec_run(sandbox, &exec)?, rows, columns)
                .map_err(rejection)
        })
    }

    fn output(
        &self,
        of: LogOf,
        stream: Stream,
        offset: u64,
        max: usize,
        wait: Option<Duration>,
    ) -> Answer<'_, Chunk> {
        Box::pin(self.read_output(of, stream, offset, max, wait))
    }

    fn file_read(
        &self,
        sandbox: SandboxId,
        path: String,
        offset: u64,
        max: usize,
    ) -> Answer<'_, Chunk> {
        self.inside(sandbox, move |s, id| {
            let (data, end) = s.files.read(id, &path, offset, max)?;
            Ok(Chunk {
                offset,
                data: Blob::from(data),
                end,
            })
        })
    }

    fn file_write(
        &self,
        sandbox: SandboxId,
        path: String,
        data: Blob,
        mode: u32,
    ) -> Answer<'_, ()> {
        self.inside(sandbox, move |s, id| s.files.write(id, &path, &data, mode))
    }

    fn file_list(&self, sandbox: SandboxId, path: String) -> Answer<'_, Vec<FileEntry>> {
        self.inside(sandbox, move |s, id| {
            Ok(s.files.list(id, &path)?.into_iter().map(entry).collect())
        })
    }

    fn file_stat(&self, sandbox: SandboxId, path: String) -> Answer<'_, FileEntry> {
        self.inside(sandbox, move |s, id| s.files.stat(id, &path).map(entry))
    }

    fn file_mkdir(&self, sandbox: SandboxId, path: String) -> Answer<'_, ()> {
        self.inside(sandbox, move |s, id| s.files.mkdir(id, &path))
    }

    fn file_remove(&self, sandbox: SandboxId, path: String) -> Answer<'_, ()> {
        self.inside(sandbox, move |s, id| s.files.remove(id, &path))
    }

    fn snapshot(&self, sandbox: SandboxId) -> Answer<'_, SnapshotInfo> {
        self.blocking(move |s| make_snapshot(s, sandbox))
    }

    fn snapshots(&self, sandbox: Option<SandboxId>) -> Answer<'_, Vec<SnapshotInfo>> {
        self.blocking(move |s| list_snapshots(s, sandbox))
    }

    fn image_load(&self, path: String, name: Option<String>) -> Answer<'_, String> {
        self.blocking(move |s| {
            let loaded = s
                .files
                .image_load(Path::new(&path), name.as_deref())
                .map_err(rejection)?;
            s.images_changed.notify_one();
            Ok(loaded)
        })
    }

    fn images(&self) -> Answer<'_, Vec<String>> {
        self.blocking(move |s| s.files.images().map_err(rejection))
    }
}

fn exec_run(sandbox: SandboxId, exec: &str) -> Result<RunId, NodeError> {
    RunId::exec(sandbox, exec).map_err(|e| Rejection::new(Reason::Invalid, e.to_string()))
}
