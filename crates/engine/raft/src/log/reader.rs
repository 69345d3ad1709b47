//! Reads a segment from front to back through a small window, so that opening a store costs no memory. Used only while
//! a log is opened.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::frame::{self, FRAME_HEADER};

/// Bytes that are read at once, unless a single entry is larger.
const WINDOW: u64 = 256 * 1024;

/// An open segment with the part of it that is in memory.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    size: u64,
    window: Vec<u8>,
    start: u64,
}

impl Reader {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self {
            file,
            size,
            window: Vec::new(),
            start: 0,
        })
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The file from `at` on: at least `want` bytes, or all there are.
    pub(super) fn at(&mut self, at: u64, want: u64) -> io::Result<&[u8]> {
        let want = want.min(self.size.saturating_sub(at));
        let end = self.start + self.window.len() as u64;
        if at < self.start || at + want > end {
            self.window = self.read(at, want.max(WINDOW))?;
            self.start = at;
        }
        let skip = usize::try_from(at - self.start).map_err(io::Error::other)?;
        Ok(&self.window[skip.min(self.window.len())..])
    }

    /// The file from `at` on: the whole frame that begins there, or as much of it as there is.
    pub(super) fn frame(&mut self, at: u64) -> io::Result<&[u8]> {
        let head = self.at(at, FRAME_HEADER as u64)?;
        let body = frame::peek(head).map_or(0, |frame| frame.len as u64);
        self.at(at, FRAME_HEADER as u64 + body)
    }

    /// Everything from `at` on, or `None` when that is nothing but zeros, as room set aside is.
    pub(super) fn rest(&mut self, at: u64) -> io::Result<Option<Vec<u8>>> {
        let mut next = at;
        while next < self.size {
            let bytes = self.at(next, 1)?;
            if bytes.iter().any(|b| *b != 0) {
                return self.read(at, self.size - at).map(Some);
            }
            next += bytes.len() as u64;
        }
        Ok(None)
    }

    fn read(&self, at: u64, want: u64) -> io::Result<Vec<u8>> {
        let len = want.min(self.size.saturating_sub(at));
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}
