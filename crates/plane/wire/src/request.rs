//! The calls of [`prism_link::NodeService`] as data. The answer to each is a `Result` of what the method answers, and a rejection.

use std::time::Duration;

use bytes::Bytes as Blob;
use prism_link::{ExecRequest, LogOf, Stream};
use prism_types::SandboxId;
use serde::{Deserialize, Serialize};

/// A call. Its order of variants and fields is the protocol's: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    Exec(SandboxId, ExecRequest),
    ExecInfo(SandboxId, String, Option<Duration>),
    Execs(SandboxId),
    ExecInput(SandboxId, String, Blob, bool),
    ExecSignal(SandboxId, String, i32),
    ExecResize(SandboxId, String, u16, u16),
    Output {
        of: LogOf,
        stream: Stream,
        offset: u64,
        max: u64,
        wait: Option<Duration>,
    },
    FileRead {
        sandbox: SandboxId,
        path: String,
        offset: u64,
        max: u64,
    },
    FileWrite(SandboxId, String, Blob, u32),
    FileList(SandboxId, String),
    FileStat(SandboxId, String),
    FileMkdir(SandboxId, String),
    FileRemove(SandboxId, String),
    Snapshot(SandboxId),
    Snapshots(Option<SandboxId>),
    ImageLoad(String, Option<String>),
    Images,
}
