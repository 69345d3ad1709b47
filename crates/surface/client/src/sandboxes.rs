//! Sandboxes and their files.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use prism_api::{
    FileList, Page, SandboxCreate, SandboxView, SignalBody, SnapshotView, TimeoutBody, Written,
};

use crate::stream::ByteStream;
use crate::transport::Call;
use crate::url::Target;
use crate::{Client, ListQuery, LogsQuery, Result};

pub(crate) const SANDBOXES: &str = "/api/v1/sandboxes";
/// How long the server may take to start a sandbox, on top of the client's timeout.
const START_MAX: Duration = Duration::from_secs(60);

/// Calls about sandboxes.
#[derive(Clone, Copy, Debug)]
pub struct Sandboxes<'a>(pub(crate) &'a Client);

/// Calls about the files of one sandbox. Paths are in the sandbox; relative ones are beneath its working directory.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    client: &'a Client,
    sandbox: &'a str,
}

impl Client {
    /// Calls about sandboxes.
    pub fn sandboxes(&self) -> Sandboxes<'_> {
        Sandboxes(self)
    }
}

pub(crate) fn sandbox(id: &str) -> Target {
    Target::new(SANDBOXES).push(id)
}

impl<'a> Sandboxes<'a> {
    /// Makes a sandbox. With `wait`, answers when it runs or has failed.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn create(&self, body: &SandboxCreate, wait: bool) -> Result<SandboxView> {
        let mut body = serde_json::to_value(body).map_err(|e| {
            self.0
                .protocol(format!("the request cannot be written: {e}"))
        })?;
        if let Some(fields) = body.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let target = Target::new(SANDBOXES).query("wait", wait);
        let call = Call::post(target).json(&body)?.patient(START_MAX);
        self.0.answer(call).await
    }

    /// One page of sandboxes, newest first; with `all`, those that are over as well.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn list(&self, query: &ListQuery, all: bool) -> Result<Page<SandboxView>> {
        self.0
            .answer(Call::get(query.on(SANDBOXES).flag("all", all)))
            .await
    }

    /// Every sandbox that is not over; with `all`, the others as well.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn all(&self, query: ListQuery, all: bool) -> Result<Vec<SandboxView>> {
        self.0.every(query, async |q| self.list(q, all).await).await
    }

    /// A sandbox, by id or name.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn get(&self, id: &str) -> Result<SandboxView> {
        self.0.answer(Call::get(sandbox(id))).await
    }

    /// Ends it and removes its files.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn delete(&self, id: &str) -> Result<SandboxView> {
        self.0
            .answer(Call::change(Method::DELETE, sandbox(id)))
            .await
    }

    /// Gives it a new lease of life from now, such as `30m`; `None`: for ever.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn set_timeout(&self, id: &str, timeout: Option<String>) -> Result<SandboxView> {
        let call = Call::post(sandbox(id).push("timeout")).json(&TimeoutBody { timeout })?;
        self.0.answer(call).await
    }

    /// Sends a signal to every exec that runs in it.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn signal(&self, id: &str, signal: &str) -> Result<()> {
        let signal = signal.to_owned();
        let call = Call::post(sandbox(id).push("signal")).json(&SignalBody { signal })?;
        self.0.done(call).await
    }

    /// The output of its last exec, or of `exec`; `query.task` and `query.attempt` do not apply.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn logs(
        &self,
        id: &str,
        exec: Option<&str>,
        query: &LogsQuery,
    ) -> Result<ByteStream> {
        let target = sandbox(id)
            .push("logs")
            .maybe("exec", exec)
            .maybe("stream", query.stream)
            .maybe("offset", query.offset)
            .flag("follow", query.follow);
        let response = self.0.send(Call::get(target)).await?;
        Ok(ByteStream::new(self.0.clone(), response))
    }

    /// Its files.
    pub fn files(&self, id: &'a str) -> Files<'a> {
        Files {
            client: self.0,
            sandbox: id,
        }
    }

    /// Saves its file system.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn snapshot(&self, id: &str) -> Result<SnapshotView> {
        let call = Call::post(sandbox(id).push("snapshots")).patient(START_MAX);
        self.0.answer(call).await
    }

    /// Saved file systems of it.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn snapshots(&self, id: &str) -> Result<Page<SnapshotView>> {
        self.0
            .answer(Call::get(sandbox(id).push("snapshots")))
            .await
    }
}

impl Files<'_> {
    fn at(&self, path: &str) -> Target {
        sandbox(self.sandbox).push("files").query("path", path)
    }

    /// A file, piece by piece.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn read(&self, path: &str) -> Result<ByteStream> {
        let response = self.client.send(Call::get(self.at(path))).await?;
        Ok(ByteStream::new(self.client.clone(), response))
    }

    /// Replaces a file whole; `mode` are permission bits.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn write(&self, path: &str, data: impl Into<Bytes>, mode: u32) -> Result<Written> {
        let target = self.at(path).query("mode", format!("{mode:o}"));
        let call = Call::change(Method::PUT, target)
            .raw(data.into(), "application/octet-stream")
            .patient(START_MAX);
        self.client.answer(call).await
    }

    /// Makes a directory and its parents.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn mkdir(&self, path: &str) -> Result<Written> {
        let target = self.at(path).flag("mkdir", true);
        self.client.answer(Call::change(Method::PUT, target)).await
    }

    /// Entries of a directory.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn list(&self, path: &str) -> Result<FileList> {
        self.client
            .answer(Call::get(self.at(path).flag("list", true)))
            .await
    }

    /// What a path is, as a listing of one.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn stat(&self, path: &str) -> Result<FileList> {
        self.client
            .answer(Call::get(self.at(path).flag("stat", true)))
            .await
    }

    /// Removes a file, or a directory with all in it.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.client
            .done(Call::change(Method::DELETE, self.at(path)))
            .await
    }
}
