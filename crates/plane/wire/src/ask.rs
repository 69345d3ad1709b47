//! The asking side: a node that is at the other end of a connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes as Blob;
use prism_link::{
    BoxFuture, Chunk, ExecInfo, ExecRequest, FileEntry, LogOf, NodeError, NodeService,
    SnapshotInfo, Stream,
};
use prism_types::{Reason, Rejection, SandboxId};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::frame::Kind;
use crate::request::Request;
use crate::write::{Lanes, Outgoing};

/// Calls that wait for their answers.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// `None` once the connection is over.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Vec<u8>>>>>,
    next: AtomicU64,
}

impl Calls {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Vec<u8>>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer has come. One that nobody waits for was given up.
    pub(crate) fn answered(&self, number: u64, body: Vec<u8>) {
        let to = self.waiting().as_mut().and_then(|all| all.remove(&number));
        if let Some(to) = to {
            let _gone = to.send(body);
        }
    }

    /// Whether a call is waited for: what else answers is not kept.
    pub(crate) fn expects(&self, number: u64) -> bool {
        self.waiting()
            .as_ref()
            .is_some_and(|all| all.contains_key(&number))
    }

    /// No answer will come any more.
    pub(crate) fn end(&self) {
        *self.waiting() = None;
    }
}

/// Takes a call back that is not waited for any more.
struct Asked<'a> {
    node: &'a RemoteNode,
    number: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let given_up = self
            .node
            .calls
            .waiting()
            .as_mut()
            .is_some_and(|all| all.remove(&self.number).is_some());
        if given_up {
            self.node.lanes.sign(Kind::Cancel, self.number);
        }
    }
}

/// A node at the other end of a connection. When that is over every call is refused, and those under way are answered that it is not
/// known what became of them.
#[derive(Clone, Debug)]
pub struct RemoteNode {
    pub(crate) lanes: Lanes,
    pub(crate) calls: Arc<Calls>,
}

fn gone() -> Rejection {
    Rejection::retryable(
        Reason::Lost,
        "the node is not connected; it dials again by itself; try again in a moment",
    )
}

fn unknown() -> Rejection {
    Rejection::unknown(
        Reason::Lost,
        "the connection to the node broke before its answer came; it may have done what was asked",
    )
}

impl RemoteNode {
    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, NodeError> {
        let body = postcard::to_stdvec(&request).map_err(|e| {
            Rejection::new(Reason::Internal, format!("the call cannot be written: {e}"))
        })?;
        let number = self.calls.next.fetch_add(1, Ordering::Relaxed);
        let (to, from) = oneshot::channel();
        match self.calls.waiting().as_mut() {
            Some(all) => all.insert(number, to),
            None => return Err(gone()),
        };
        let _asked = Asked { node: self, number };
        let call = Outgoing {
            kind: Kind::Call,
            number,
            body,
        };
        self.lanes.calls.send(call).await.map_err(|_| gone())?;
        let answer = from.await.map_err(|_| unknown())?;
        postcard::from_bytes::<Result<T, Rejection>>(&answer).unwrap_or_else(|e| {
            Err(Rejection::unknown(
                Reason::Internal,
                format!("the node's answer cannot be read: {e}"),
            ))
        })
    }
}

/// A length as it is sent.
fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl NodeService for RemoteNode {
    fn exec(
        &self,
        sandbox: SandboxId,
        exec: ExecRequest,
    ) -> BoxFuture<'_, Result<ExecInfo, NodeError>> {
        Box::pin(self.ask(Request::Exec(sandbox, exec)))
    }

    fn exec_info(
        &self,
        sandbox: SandboxId,
        exec: String,
        wait: Option<Duration>,
    ) -> BoxFuture<'_, Result<ExecInfo, NodeError>> {
        Box::pin(self.ask(Request::ExecInfo(sandbox, exec, wait)))
    }

    fn execs(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<Vec<ExecInfo>, NodeError>> {
        Box::pin(self.ask(Request::Execs(sandbox)))
    }

    fn exec_input(
        &self,
        sandbox: SandboxId,
        exec: String,
        data: Blob,
        eof: bool,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(self.ask(Request::ExecInput(sandbox, exec, data, eof)))
    }

    fn exec_signal(
        &self,
        sandbox: SandboxId,
        exec: String,
        signal: i32,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(self.ask(Request::ExecSignal(sandbox, exec, signal)))
    }

    fn exec_resize(
        &self,
        sandbox: SandboxId,
        exec: String,
        rows: u16,
        columns: u16,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(self.ask(Request::ExecResize(sandbox, exec, rows, columns)))
    }

    fn output(
        &self,
        of: LogOf,
        stream: Stream,
        offset: u64,
        max: usize,
        wait: Option<Duration>,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>> {
        Box::pin(self.ask(Request::Output {
            of,
            stream,
            offset,
            max: wide(max),
            wait,
        }))
    }

    fn file_read(
        &self,
        sandbox: SandboxId,
        path: String,
        offset: u64,
        max: usize,
    ) -> BoxFuture<'_, Result<Chunk, NodeError>> {
        Box::pin(self.ask(Request::FileRead {
            sandbox,
            path,
            offset,
            max: wide(max),
        }))
    }

    fn file_write(
        &self,
        sandbox: SandboxId,
        path: String,
        data: Blob,
        mode: u32,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(self.ask(Request::FileWrite(sandbox, path, data, mode)))
    }

    fn file_list(
        &self,
        sandbox: SandboxId,
        path: String,
    ) -> BoxFuture<'_, Result<Vec<FileEntry>, NodeError>> {
        Box::pin(self.ask(Request::FileList(sandbox, path)))
    }

    fn file_stat(
        &self,
        sandbox: SandboxId,
        path: String,
    ) -> BoxFuture<'_, Result<FileEntry, NodeError>> {
        Box::pin(self.ask(Request::FileStat(sandbox, path)))
    }

    fn file_mkdir(&self, sandbox: SandboxId, path: String) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(self.ask(Request::FileMkdir(sandbox, path)))
    }

    fn file_remove(
        &self,
        sandbox: SandboxId,
        path: String,
    ) -> BoxFuture<'_, Result<(), NodeError>> {
        Box::pin(self.ask(Request::FileRemove(sandbox, path)))
    }

    fn snapshot(&self, sandbox: SandboxId) -> BoxFuture<'_, Result<SnapshotInfo, NodeError>> {
        Box::pin(self.ask(Request::Snapshot(sandbox)))
    }

    fn snapshots(
        &self,
        sandbox: Option<SandboxId>,
    ) -> BoxFuture<'_, Result<Vec<SnapshotInfo>, NodeError>> {
        Box::pin(self.ask(Request::Snapshots(sandbox)))
    }

    fn image_load(
        &self,
        path: String,
        name: Option<String>,
    ) -> BoxFuture<'_, Result<String, NodeError>> {
        Box::pin(self.ask(Request::ImageLoad(path, name)))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<String>, NodeError>> {
        Box::pin(self.ask(Request::Images))
    }
}
