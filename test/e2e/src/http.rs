//! Just enough HTTP/1.1 to send any bytes to a server, well formed or not, and to read what comes back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(60);

/// A server's API with the token to show it.
#[derive(Clone, Debug)]
pub struct Api {
    /// Host and port.
    pub address: String,
    /// Bearer token, if any.
    pub token: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// The lines of an answer that goes on, as they come.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<TcpStream>,
    chunked: bool,
    chunk: usize,
    line: Vec<u8>,
}

impl Api {
    /// The same without a token, or with another.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self {
            address: self.address.clone(),
            token: token.map(str::to_owned),
        }
    }

    /// `GET`.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// `POST` with JSON.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send("POST", path, &headers, body.to_string().as_bytes())
    }

    /// `DELETE`.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"")
    }

    /// Any request.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e:#}"))
    }

    /// Any request.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        self.raw(
            &[
                self.head(method, path, headers, body.len()).as_bytes(),
                body,
            ]
            .concat(),
        )
    }

    /// Sends bytes as they are and reads an answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn raw(&self, bytes: &[u8]) -> Result<Answer> {
        let mut stream = self.connect()?;
        // A server may refuse before it has read everything; then its answer is there all the same.
        let sent = stream.write_all(bytes);
        let mut reader = BufReader::new(stream);
        let head = head(&mut reader).with_context(|| format!("no answer (sent: {sent:?})"))?;
        let mut lines = Lines::new(reader, &head.1);
        let mut body = Vec::new();
        match header(&head.1, "content-length").and_then(|l| l.parse::<u64>().ok()) {
            Some(length) => {
                lines.reader.take(length).read_to_end(&mut body)?;
            }
            None => while lines.fill(&mut body)? {},
        }
        Ok(Answer {
            status: head.0,
            headers: head.1,
            body,
        })
    }

    /// `GET` of an answer that goes on.
    ///
    /// # Errors
    /// When there is no answer, or not status 200.
    pub fn follow(&self, path: &str, headers: &[(&str, &str)]) -> Result<Lines> {
        let mut stream = self.connect()?;
        stream.write_all(self.head("GET", path, headers, 0).as_bytes())?;
        let mut reader = BufReader::new(stream);
        let (status, headers) = head(&mut reader)?;
        if status != 200 {
            bail!("GET {path}: status {status}");
        }
        Ok(Lines::new(reader, &headers))
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)
            .with_context(|| format!("connecting to {}", self.address))?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(stream)
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> String {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {length}\r\n",
            self.address
        );
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head
    }
}

impl Answer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The same, when it has this status.
    ///
    /// # Panics
    /// When it has not; the body is in the message.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("status {}, no JSON ({e}): {}", self.status, self.text()))
    }
}

impl Lines {
    fn new(reader: BufReader<TcpStream>, headers: &[(String, String)]) -> Self {
        Self {
            reader,
            chunked: header(headers, "transfer-encoding") == Some("chunked"),
            chunk: 0,
            line: Vec::new(),
        }
    }

    /// Adds what comes next to `into`; `false` at the end.
    fn fill(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        if self.chunked && self.chunk == 0 {
            let mut size = String::new();
            self.reader.read_line(&mut size)?;
            if size.trim().is_empty() {
                size.clear();
                self.reader.read_line(&mut size)?;
            }
            self.chunk = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            if self.chunk == 0 {
                return Ok(false);
            }
        }
        let some = self.reader.fill_buf()?;
        let taken = if self.chunked {
            some.len().min(self.chunk)
        } else {
            some.len()
        };
        into.extend_from_slice(&some[..taken]);
        self.reader.consume(taken);
        if self.chunked {
            self.chunk -= taken;
        }
        Ok(taken > 0)
    }
}

impl Iterator for Lines {
    type Item = String;

    /// The next line; `None` at the end, or after a long silence.
    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.line.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.line.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let mut more = Vec::new();
            if !self.fill(&mut more).unwrap_or(false) {
                return None;
            }
            self.line.extend(more);
        }
    }
}

fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, v)| v.as_str())
}

/// Status and headers.
fn head(reader: &mut impl BufRead) -> Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .with_context(|| format!("not a status line: {line:?}"))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
            None => return Ok((status, headers)),
        }
    }
}
