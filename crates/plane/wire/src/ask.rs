//! The asking side: a node that is at the other end of a connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes as Blob;
use prism_link::{
    BoxFuture, Chunk, ExecInfo, ExecRequest, FileEntry, LogOf, NodeError, NodeService,
    SnapshotInfo, Stream,
};
use prism_types::{Reason, Rejection, SandboxId};
use serde::de::DeserializeOwned;

use crate::calls::{Calls, gone};
use crate::frame::Kind;
use crate::read::{Heard, RoundTrip};
use crate::request::Request;
use crate::write::{Lanes, Outgoing};

/// A node that has said nothing for so long is not waited for. One that is there says something every 5 s at the least.
const QUIET: Duration = Duration::from_secs(8);

/// A node at the other end of a connection. No call waits for one that has fallen silent, however long the call itself may take. When the
/// connection is over every call is refused, and those under way are answered that it is not
/// known what became of them.
#[derive(Clone, Debug)]
pub struct RemoteNode {
    pub(crate) lanes: Lanes,
    pub(crate) calls: Arc<Calls>,
    pub(crate) round_trip: RoundTrip,
    pub(crate) version: u16,
    pub(crate) heard: Heard,
    /// For messages.
    pub(crate) name: Option<Arc<str>>,
}

impl RemoteNode {
    /// The same, which says in its refusals which node it is.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// `node w3 has said nothing for 9 s`
    fn silent(&self) -> String {
        let name = self.name.as_deref();
        let name = name.map_or_else(|| "the node".to_owned(), |name| format!("node {name}"));
        let seconds = self.heard.silence().as_secs();
        format!("{name} has said nothing for {seconds} s")
    }

    fn not_asked(&self) -> Rejection {
        let why = format!(
            "{}, so it was not asked and nothing was changed; try again when it is back, see prismctl node ls",
            self.silent()
        );
        Rejection::retryable(Reason::Lost, why)
    }

    fn not_awaited(&self) -> Rejection {
        let why = format!(
            "{}, so its answer is not waited for; it may have done what was asked: look when it is back, see prismctl node ls",
            self.silent()
        );
        Rejection::unknown(Reason::Lost, why)
    }

    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, NodeError> {
        let body = postcard::to_stdvec(&request).map_err(|e| {
            Rejection::new(Reason::Internal, format!("the call cannot be written: {e}"))
        })?;
        if self.heard.silence() >= QUIET {
            return Err(self.not_asked());
        }
        let asked = self.calls.begin()?;
        let call = Outgoing {
            kind: Kind::Call,
            number: asked.number,
            body,
        };
        let answer = async {
            self.lanes.calls.send(call).await.map_err(|_| gone())?;
            asked.answer().await
        };
        let answer = tokio::select! {
            answer = answer => answer?,
            () = self.heard.silent_for(QUIET) => return Err(self.not_awaited()),
        };
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
    fn keeps_leases(&self) -> bool {
        self.version >= crate::versions::LEASES
    }

    fn round_trip(&self) -> Option<Duration> {
        self.round_trip.get()
    }

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
