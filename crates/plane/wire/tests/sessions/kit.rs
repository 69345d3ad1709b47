//! A node that can be asked, both ends of a session, and frames written and read by hand.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes as Blob;
use prism_link::*;
use prism_types::*;
use prism_wire::{Link, WireError, carry_control, carry_worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

/// A node whose answers tell what it was asked.
#[derive(Default)]
pub struct Echo {
    /// Calls that are being waited in.
    pub waiting: AtomicU32,
}

struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn answer<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T, NodeError>> {
    Box::pin(async { Ok(value) })
}

fn info(id: String) -> ExecInfo {
    ExecInfo {
        id,
        argv: Vec::new(),
        started: Some(TimeMs(5)),
        report: None,
    }
}

fn entry(name: String, size: u64) -> FileEntry {
    FileEntry {
        name,
        kind: FileKind::File,
        size,
        mode: 0o644,
        modified: TimeMs(1),
        target: None,
    }
}

impl NodeService for Echo {
    fn exec(&self, _: SandboxId, exec: ExecRequest) -> BoxFuture<'_, Result<ExecInfo, NodeError>> {
        answer(ExecInfo {
            argv: exec.argv,
            ..info(exec.id)
        })
    }

    /// With `wait`, never answers.
    fn exec_info(
        &self,
        _: SandboxId,
        exec: String,
        wait: Option<Duration>,
    ) -> BoxFuture<'_, Result<ExecInfo, NodeError>> {
        Box::pin(async move {
            if wait.is_some() {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let _counted = Counted(&self.waiting);
                std::future::pending::<()>().await;
            }
            Ok(info(exec))
        })
    }

    fn execs(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<Vec<ExecInfo>, NodeError>> {
        answer(vec![info(sandbox.to_string())])
    }

    fn exec_input(
        &self,
        _: SandboxId,
        _: String,
        data: Blob,
        eof: bool,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move {
            let text = format!("{} bytes, eof {eof}", data.len());
            Err(NodeError::new(Reason::WrongState, text))
        })
    }

    fn exec_signal(
        &self,
        _: SandboxId,
        _: String,
        signal: i32,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move { Err(not_found(format!("signal {signal}"))) })
    }

    fn exec_resize(
        &self,
        _: SandboxId,
        _: String,
        rows: u16,
        columns: u16,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move { Err(not_found(format!("{rows} x {columns}"))) })
    }

    fn output(
        &self,
        _: LogOf,
        _: Stream,
        offset: u64,
        max: usize,
        _: Option<Duration>,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>> {
        answer(Chunk {
            offset,
            data: vec![7; max].into(),
            end: true,
        })
    }

    fn file_read(
        &self,
        _: SandboxId,
        path: String,
        offset: u64,
        _: usize,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>> {
        answer(Chunk {
            offset,
            data: path.into(),
            end: false,
        })
    }

    fn file_write(
        &self,
        _: SandboxId,
        _: String,
        data: Blob,
        mode: u32,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move { Err(not_found(format!("{} bytes, {mode:o}", data.len()))) })
    }

    fn file_list(
        &self,
        _: SandboxId,
        path: String,
    ) -> BoxFuture<'_, Result<Vec<FileEntry>, NodeError>> {
        answer(vec![entry(path, 1), entry("b".into(), 2)])
    }

    fn file_stat(&self, _: SandboxId, path: String) -> BoxFuture<'_, Result<FileEntry, NodeError>> {
        answer(entry(path, 3))
    }

    fn file_mkdir(&self, _: SandboxId, _: String) -> BoxFuture<'_, Result<(), NodeError>> {
        answer(())
    }

    fn file_remove(&self, _: SandboxId, path: String) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(async move { Err(not_found(path)) })
    }

    fn snapshot(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<SnapshotInfo, NodeError>> {
        answer(SnapshotInfo {
            id: "s".into(),
            sandbox,
            bytes: 1,
            files: 2,
            created: TimeMs(3),
        })
    }

    fn snapshots(
        &self,
        _: Option<SandboxId>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, NodeError>> {
        answer(Vec::new())
    }

    fn image_load(
        &self,
        path: String,
        name: Option<String>,
    ) -> BoxFuture<'_, Result<String, NodeError>> {
        answer(name.unwrap_or(path))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, NodeError>> {
        answer(vec!["host".into()])
    }
}

/// Both ends of a session over a pipe.
pub struct Both {
    pub control: ControlEnd,
    pub worker: WorkerEnd,
    pub link: Link,
    pub echo: Arc<Echo>,
    pub at_worker: JoinHandle<WireError>,
    pub at_control: JoinHandle<WireError>,
}

pub async fn both(pipe: usize) -> Both {
    let (here, there) = duplex(pipe);
    let (control_far, worker) = pair();
    let (control, worker_far) = pair();
    let echo = Arc::new(Echo::default());
    let service = Arc::clone(&echo);
    let at_worker = tokio::spawn(async move { carry_worker(here, control_far, service).await });
    let (link, carried) = carry_control(there, worker_far).await.unwrap();
    Both {
        control,
        worker,
        link,
        echo,
        at_worker,
        at_control: tokio::spawn(carried),
    }
}

pub fn sandbox() -> SandboxId {
    SandboxId::new(1, 2)
}

pub fn started(n: u64) -> ToControl {
    let task = TaskRef {
        job: JobId::new(1, u128::from(n)),
        index: 0,
        attempt: 1,
    };
    ToControl::Started(vec![(task, TimeMs(n))])
}

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what)
        .await
        .unwrap()
}

/// A control plane's end whose other end is read frame by frame.
pub async fn raw_worker(pipe: usize) -> (Link, DuplexStream, JoinHandle<WireError>) {
    let (here, mut there) = duplex(pipe);
    let (control, worker_far) = pair();
    let greet = async {
        there.write_all(&greeted(&[])).await.unwrap();
        let mut greeting = [0; 8];
        there.read_exact(&mut greeting).await.unwrap();
    };
    let (begun, ()) = tokio::join!(carry_control(here, worker_far), greet);
    let (link, carried) = begun.unwrap();
    let carried = tokio::spawn(async move {
        let _stays = control;
        carried.await
    });
    (link, there, carried)
}

/// The next frame: its kind, whether it is its message's last, its number and its body.
pub async fn next_frame(from: &mut DuplexStream) -> (u8, bool, u64, Vec<u8>) {
    let mut head = [0; 16];
    soon(from.read_exact(&mut head)).await.unwrap();
    let length = u32::from_le_bytes(head[..4].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap()];
    soon(from.read_exact(&mut body)).await.unwrap();
    let number = u64::from_le_bytes(head[8..].try_into().unwrap());
    (head[4], head[5] == 1, number, body)
}

pub fn frame(kind: u8, last: u8, number: u64, body: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    out.extend([kind, last, 0, 0]);
    out.extend(number.to_le_bytes());
    out.extend(body);
    out
}

pub fn greeted(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"PRSM\x01\0\x01\0".to_vec();
    frames.iter().for_each(|frame| out.extend(frame));
    out
}
