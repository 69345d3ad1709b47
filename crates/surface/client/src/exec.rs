//! Execs in a sandbox, and their streamed output, taken up again where it stood when a connection is lost.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use prism_api::{ExecBody, ExecEvent, ExecView, ExitView, Page, SignalBody, Stream, TtySize};

use crate::sandboxes::sandbox;
use crate::stream::{ByteStream, Lines};
use crate::transport::{Call, fresh_key};
use crate::{Client, ClientError, LogsQuery, Result, Sandboxes};

/// Times that a lost stream is taken up again without anything new in between.
const RESUMES_MAX: u32 = 8;

/// What comes out of a streamed exec.
#[derive(Clone, Debug, PartialEq)]
pub enum ExecOutput {
    /// It started (or was there already); its id.
    Started(String),
    /// Output.
    Data {
        /// Of which stream.
        stream: Stream,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// It is over; nothing follows.
    Exit(ExitView),
}

/// A streamed exec.
#[derive(Debug)]
pub struct ExecStream {
    client: Client,
    sandbox: String,
    body: ExecBody,
    lines: Lines<ExecEvent>,
    /// First offset not seen yet, of standard output and standard error.
    seen: [u64; 2],
    resumes: u32,
    over: bool,
}

impl Sandboxes<'_> {
    /// Starts a program and answers with its id.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn exec(&self, id: &str, body: &ExecBody) -> Result<ExecView> {
        let body = with_id(body.clone());
        let call = Call::post(sandbox(id).push("exec")).json(&body)?;
        self.0.answer(call).await
    }

    /// Starts a program and streams its output and exit in the same answer: the fast way.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn exec_stream(&self, id: &str, body: &ExecBody) -> Result<ExecStream> {
        let body = with_id(body.clone());
        let lines = open(self.0, id, &body).await?;
        Ok(ExecStream {
            client: self.0.clone(),
            sandbox: id.to_owned(),
            body,
            lines,
            seen: [0; 2],
            resumes: 0,
            over: false,
        })
    }

    /// What was run in it, oldest first.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn execs(&self, id: &str) -> Result<Page<ExecView>> {
        self.0.answer(Call::get(sandbox(id).push("execs"))).await
    }

    /// An exec; waits up to `wait` for its end.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn exec_get(&self, id: &str, exec: &str, wait: Option<Duration>) -> Result<ExecView> {
        let target = sandbox(id)
            .push("execs")
            .push(exec)
            .maybe("wait", wait.map(|w| w.as_secs()));
        let call = Call::get(target).patient(wait.unwrap_or_default());
        self.0.answer(call).await
    }

    /// Its output; `query.task` and `query.attempt` do not apply.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn exec_output(&self, id: &str, exec: &str, query: &LogsQuery) -> Result<ByteStream> {
        let target = sandbox(id)
            .push("execs")
            .push(exec)
            .push("output")
            .maybe("stream", query.stream)
            .maybe("offset", query.offset)
            .flag("follow", query.follow);
        let response = self.0.send(Call::get(target)).await?;
        Ok(ByteStream::new(self.0.clone(), response))
    }

    /// Feeds its standard input; `eof` closes it. Never repeated by itself: the server could have taken the bytes.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn exec_input(
        &self,
        id: &str,
        exec: &str,
        data: impl Into<Bytes>,
        eof: bool,
    ) -> Result<()> {
        let target = sandbox(id)
            .push("execs")
            .push(exec)
            .push("input")
            .flag("eof", eof);
        let mut call = Call::post(target).raw(data.into(), "application/octet-stream");
        call.repeatable = false;
        self.0.done(call).await
    }

    /// Sends it a signal: `TERM`, `SIGTERM` or `15`.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn exec_signal(&self, id: &str, exec: &str, signal: &str) -> Result<()> {
        let target = sandbox(id).push("execs").push(exec).push("signal");
        let signal = signal.to_owned();
        self.0
            .done(Call::post(target).json(&SignalBody { signal })?)
            .await
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn exec_resize(&self, id: &str, exec: &str, size: TtySize) -> Result<()> {
        let target = sandbox(id).push("execs").push(exec).push("resize");
        self.0.done(Call::post(target).json(&size)?).await
    }
}

impl ExecStream {
    /// The exec's id, for input and signals.
    pub fn id(&self) -> &str {
        self.body.id.as_deref().unwrap_or_default()
    }

    /// What comes next; `None` after the exit.
    ///
    /// # Errors
    /// When the connection is lost for good, or as the server says.
    pub async fn next(&mut self) -> Result<Option<ExecOutput>> {
        while !self.over {
            match self.lines.next().await {
                Ok(Some(event)) => {
                    if let Some(output) = self.take(event)? {
                        return Ok(Some(output));
                    }
                }
                Ok(None) => self.resume("the answer ended early".to_owned()).await?,
                Err(ClientError::Lost { why, .. }) => self.resume(why).await?,
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The output that an event brings, without what was seen before.
    fn take(&mut self, event: ExecEvent) -> Result<Option<ExecOutput>> {
        if let Some(body) = event.error {
            self.over = true;
            let status = prism_api::status_of(body.reason);
            let body = Box::new(body);
            return Err(ClientError::Api { status, body });
        }
        if let Some(exit) = event.exit {
            self.over = true;
            return Ok(Some(ExecOutput::Exit(exit)));
        }
        if let Some(stream) = event.stream {
            let data = match (event.text, event.base64) {
                (Some(text), _) => Bytes::from(text),
                (None, Some(coded)) => base64::engine::general_purpose::STANDARD
                    .decode(coded)
                    .map_err(|e| {
                        self.client
                            .protocol(format!("output that is not base 64: {e}"))
                    })?
                    .into(),
                (None, None) => Bytes::new(),
            };
            return Ok(self.fresh(stream, event.offset.unwrap_or(0), data));
        }
        let first = self.seen == [0; 2] && self.resumes == 0;
        Ok(event.exec.filter(|_| first).map(ExecOutput::Started))
    }

    fn fresh(&mut self, stream: Stream, offset: u64, data: Bytes) -> Option<ExecOutput> {
        let seen = match stream {
            Stream::Stdout => &mut self.seen[0],
            Stream::Stderr => &mut self.seen[1],
        };
        let end = offset + data.len() as u64;
        if end <= *seen {
            return None;
        }
        let skip = usize::try_from(seen.saturating_sub(offset)).unwrap_or(usize::MAX);
        let data = data.slice(skip.min(data.len())..);
        let offset = offset.max(*seen);
        *seen = end;
        self.resumes = 0;
        Some(ExecOutput::Data {
            stream,
            offset,
            data,
        })
    }

    /// Asks for the same exec again: its id makes that safe.
    async fn resume(&mut self, why: String) -> Result<()> {
        self.resumes += 1;
        if self.resumes > RESUMES_MAX {
            return Err(self.client.lost(self.body.id.clone(), why));
        }
        self.lines = open(&self.client, &self.sandbox, &self.body).await?;
        Ok(())
    }
}

async fn open(client: &Client, id: &str, body: &ExecBody) -> Result<Lines<ExecEvent>> {
    let target = sandbox(id).push("exec").flag("stream", true);
    let response = client.send(Call::post(target).json(body)?).await?;
    Ok(Lines::new(ByteStream::new(client.clone(), response)))
}

/// With an id of its own, so that repeating the request never starts it twice.
fn with_id(mut body: ExecBody) -> ExecBody {
    body.id
        .get_or_insert_with(|| fresh_key().chars().take(26).collect());
    body
}
