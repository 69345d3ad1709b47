//! The answering side: calls that come in are carried out, some at once, each until it is done or given up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prism_link::NodeService;
use prism_types::{Reason, Rejection};
use serde::Serialize;
use tokio::task::AbortHandle;

use crate::WireError;
use crate::frame::Kind;
use crate::request::Request;
use crate::write::{Lanes, Outgoing};

/// Calls that are carried out at once. The asking side keeps to less; one that was given up counts there no more when its cancel is
/// still on its way.
const AT_ONCE: usize = 2 * crate::calls::AT_ONCE;

/// Most bytes that are answered to one call for output or a file.
const CHUNK_MAX: u64 = 4 << 20;

/// What is being carried out.
pub(crate) struct Answers {
    service: Arc<dyn NodeService>,
    lanes: Lanes,
    running: Arc<Running>,
}

#[derive(Default)]
struct Running(Mutex<HashMap<u64, AbortHandle>>);

impl Running {
    fn all(&self) -> MutexGuard<'_, HashMap<u64, AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    pub(crate) fn new(service: Arc<dyn NodeService>, lanes: Lanes) -> Self {
        Self {
            service,
            lanes,
            running: Arc::default(),
        }
    }

    /// Begins to carry a call out.
    ///
    /// # Errors
    /// When it cannot be read, its number is taken, or there are too many.
    pub(crate) fn call(&self, number: u64, body: &[u8]) -> Result<(), WireError> {
        let request: Request = postcard::from_bytes(body)
            .map_err(|_| WireError::Protocol("a call that cannot be read"))?;
        let mut all = self.running.all();
        if all.contains_key(&number) {
            return Err(WireError::Protocol("two calls of one number"));
        }
        let (lanes, running) = (self.lanes.clone(), Arc::clone(&self.running));
        if all.len() >= AT_ONCE {
            return Err(WireError::Protocol("too many calls at once"));
        }
        let service = Arc::clone(&self.service);
        let task = tokio::spawn(async move {
            let body = carry_out(&*service, request).await;
            running.all().remove(&number);
            send(lanes, number, body).await;
        });
        // The lock is held, so its end cannot have come before this.
        all.insert(number, task.abort_handle());
        Ok(())
    }

    /// Nobody waits for a call any more. What it has begun in a sandbox goes on.
    pub(crate) fn cancel(&self, number: u64) {
        if let Some(task) = self.running.all().remove(&number) {
            task.abort();
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for (_, task) in self.running.all().drain() {
            task.abort();
        }
    }
}

async fn send(lanes: Lanes, number: u64, body: Vec<u8>) {
    let answer = Outgoing {
        kind: Kind::Answer,
        number,
        body,
    };
    let _over = lanes.calls.send(answer).await;
}

fn encode<T: Serialize>(answer: &Result<T, Rejection>) -> Vec<u8> {
    postcard::to_stdvec(answer).unwrap_or_else(|e| {
        let why = format!("the answer cannot be written: {e}");
        let failed: Result<(), Rejection> = Err(Rejection::new(Reason::Internal, why));
        postcard::to_stdvec(&failed).unwrap_or_default()
    })
}

/// A length that was asked for, as far as one answer goes.
fn bounded(max: u64) -> usize {
    usize::try_from(max.min(CHUNK_MAX)).unwrap_or(usize::MAX)
}

async fn carry_out(node: &dyn NodeService, request: Request) -> Vec<u8> {
    match request {
        Request::Exec(sandbox, exec) => encode(&node.exec(sandbox, exec).await),
        Request::ExecInfo(sandbox, exec, wait) => {
            encode(&node.exec_info(sandbox, exec, wait).await)
        }
        Request::Execs(sandbox) => encode(&node.execs(sandbox).await),
        Request::ExecInput(sandbox, exec, data, eof) => {
            encode(&node.exec_input(sandbox, exec, data, eof).await)
        }
        Request::ExecSignal(sandbox, exec, signal) => {
            encode(&node.exec_signal(sandbox, exec, signal).await)
        }
        Request::ExecResize(sandbox, exec, rows, columns) => {
            encode(&node.exec_resize(sandbox, exec, rows, columns).await)
        }
        Request::Output {
            of,
            stream,
            offset,
            max,
            wait,
        } => encode(&node.output(of, stream, offset, bounded(max), wait).await),
        Request::FileRead {
            sandbox,
            path,
            offset,
            max,
        } => encode(&node.file_read(sandbox, path, offset, bounded(max)).await),
        Request::FileWrite(sandbox, path, data, mode) => {
            encode(&node.file_write(sandbox, path, data, mode).await)
        }
        Request::FileList(sandbox, path) => encode(&node.file_list(sandbox, path).await),
        Request::FileStat(sandbox, path) => encode(&node.file_stat(sandbox, path).await),
        Request::FileMkdir(sandbox, path) => encode(&node.file_mkdir(sandbox, path).await),
        Request::FileRemove(sandbox, path) => encode(&node.file_remove(sandbox, path).await),
        Request::Snapshot(sandbox) => encode(&node.snapshot(sandbox).await),
        Request::Snapshots(sandbox) => encode(&node.snapshots(sandbox).await),
        Request::ImageLoad(path, name) => encode(&node.image_load(path, name).await),
        Request::Images => encode(&node.images().await),
    }
}
