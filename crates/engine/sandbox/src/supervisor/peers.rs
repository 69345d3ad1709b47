//! The daemons that are connected (one, as a rule): reading their frames, and writing to them without ever waiting.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use serde::Serialize;

use crate::wire::{self, Request};

/// What waits for a daemon that does not read; past it the daemon is cut off, and is told everything when it comes back.
const MAX_WAITING: usize = 128 << 20;

/// Most bytes that are read in one turn.
const TURN: usize = 4 << 20;

/// One daemon.
#[derive(Debug)]
pub struct Peer {
    socket: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    greeted: bool,
    /// Whether epoll tells when it can be written to again.
    pub waits: bool,
}

impl Peer {
    /// Greets it.
    ///
    /// # Errors
    /// The socket's.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            incoming: Vec::new(),
            outgoing: wire::greeting().to_vec(),
            sent: 0,
            greeted: false,
            waits: false,
        })
    }

    /// Its socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether it has said that it speaks our version.
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Reads what is there and takes whole requests out of it.
    ///
    /// # Errors
    /// When it went away or speaks another language.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Vec<Request>> {
        let mut taken = 0;
        while taken < TURN {
            match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.incoming.extend_from_slice(&buffer[..n]);
                    taken += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.requests()
    }

    fn requests(&mut self) -> io::Result<Vec<Request>> {
        let mut at = 0;
        let mut out = Vec::new();
        if !self.greeted {
            let Some(greeting) = self.incoming.first_chunk::<8>() else {
                return Ok(out);
            };
            wire::check_greeting(*greeting).map_err(io::Error::other)?;
            self.greeted = true;
            at = 8;
        }
        while let Some(head) = self.incoming[at..].first_chunk::<4>() {
            let length = wire::length(*head)?;
            let Some(body) = self.incoming.get(at + 4..at + 4 + length) else {
                break;
            };
            out.push(postcard::from_bytes(body).map_err(io::Error::other)?);
            at += 4 + length;
        }
        self.incoming.drain(..at);
        if self.incoming.is_empty() {
            // A large batch must not keep its memory for ever.
            self.incoming = Vec::new();
        }
        Ok(out)
    }

    /// Puts a frame in its queue.
    ///
    /// # Errors
    /// When too much waits already.
    pub fn send<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        if self.outgoing.len() - self.sent > MAX_WAITING {
            return Err(io::Error::other("it does not read"));
        }
        self.outgoing = wire::frame(value, std::mem::take(&mut self.outgoing))?;
        Ok(())
    }

    /// Writes what fits; true when something still waits.
    ///
    /// # Errors
    /// When it went away.
    pub fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.outgoing.len() {
            match self.socket.write(&self.outgoing[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.outgoing = Vec::new();
        self.sent = 0;
        Ok(false)
    }
}
