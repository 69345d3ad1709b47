//! Answers that come piece by piece: bytes, JSON lines, server-sent events.

use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use prism_api::EventView;
use serde::de::DeserializeOwned;

use crate::{Client, Result};

/// Longest line that is accepted.
const LINE_MAX: usize = 8 << 20;

/// Bytes as they come.
#[derive(Debug)]
pub struct ByteStream {
    client: Client,
    body: Incoming,
    offset: Option<u64>,
}

impl ByteStream {
    pub(crate) fn new(client: Client, response: Response<Incoming>) -> Self {
        let offset = response
            .headers()
            .get("x-offset")
            .and_then(|v| v.to_str().ok()?.parse().ok());
        Self {
            client,
            body: response.into_body(),
            offset,
        }
    }

    /// Offset of the first byte in the output, if the server said: greater than asked for when older output is gone.
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|e| self.client.lost(None, e.to_string()))?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Everything that is left.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn all(mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

/// Cuts bytes into lines.
#[derive(Debug)]
struct Cutter {
    bytes: ByteStream,
    buffer: BytesMut,
    searched: usize,
    ended: bool,
}

impl Cutter {
    fn new(bytes: ByteStream) -> Self {
        Self {
            bytes,
            buffer: BytesMut::new(),
            searched: 0,
            ended: false,
        }
    }

    /// The next line without its end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(at) = self.buffer[self.searched..]
                .iter()
                .position(|b| *b == b'\n')
            {
                let mut line = self.buffer.split_to(self.searched + at + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                return Ok(Some(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.ended {
                let rest = self.buffer.split().freeze();
                self.searched = 0;
                return Ok((!rest.is_empty()).then_some(rest));
            }
            if self.buffer.len() > LINE_MAX {
                return Err(self.bytes.client.protocol("a line without end".to_owned()));
            }
            match self.bytes.next().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None => self.ended = true,
            }
        }
    }
}

/// JSON values, one per line.
#[derive(Debug)]
pub struct Lines<T> {
    cutter: Cutter,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(crate) fn new(bytes: ByteStream) -> Self {
        Self {
            cutter: Cutter::new(bytes),
            item: PhantomData,
        }
    }

    /// The next line as it came; `None` at the end.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next_raw(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.cutter.next().await? {
                Some(line) if line.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// When the connection is lost, or a line is not what was promised.
    pub async fn next(&mut self) -> Result<Option<T>> {
        let Some(line) = self.next_raw().await? else {
            return Ok(None);
        };
        serde_json::from_slice(&line).map(Some).map_err(|e| {
            self.cutter
                .bytes
                .client
                .protocol(format!("a line of its answer: {e}"))
        })
    }
}

/// Server-sent events.
#[derive(Debug)]
pub struct EventStream {
    cutter: Cutter,
}

impl EventStream {
    pub(crate) fn new(bytes: ByteStream) -> Self {
        Self {
            cutter: Cutter::new(bytes),
        }
    }

    /// The next event; `None` when the server ends the stream.
    ///
    /// # Errors
    /// When the connection is lost, or an event is not what was promised.
    pub async fn next(&mut self) -> Result<Option<EventView>> {
        let mut data = String::new();
        while let Some(line) = self.cutter.next().await? {
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            if line.is_empty() && !data.is_empty() {
                return serde_json::from_str(&data)
                    .map(Some)
                    .map_err(|e| self.cutter.bytes.client.protocol(format!("an event: {e}")));
            }
            if let Some(more) = line.strip_prefix("data:") {
                data.push_str(more.trim_start());
            }
        }
        Ok(None)
    }
}
