//! A run's output: from its pipe or terminal into segment files of bounded number.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use prism_faults::point;

/// Most that is read from one stream before the others get their turn.
const TURN: usize = 256 << 10;

const SMALLEST_SEGMENT: u64 = 64 << 10;
const UNLIMITED_SEGMENT: u64 = 4 << 20;

/// What came of reading a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Nothing more now.
    Dry,
    /// There may be more; it was another's turn.
    More,
    /// Every writer is gone.
    Over,
}

/// One stream of a run.
#[derive(Debug)]
pub struct Stream {
    source: File,
    segments: Segments,
}

impl Stream {
    /// `source` is the reading end, which must not block. Files are named `<name>.<offset>` in `dir`, which is made at the first
    /// byte; `keep` is how many bytes are kept (0 for all).
    pub fn new(source: OwnedFd, dir: &Path, name: &'static str, keep: u64) -> Self {
        Self {
            source: source.into(),
            segments: Segments {
                dir: dir.to_owned(),
                name,
                keep,
                file: None,
                offset: 0,
                starts: VecDeque::new(),
                trouble: None,
            },
        }
    }

    /// The reading end.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    /// Takes what is there, up to one turn's worth.
    pub fn pump(&mut self, buffer: &mut [u8]) -> Flow {
        let mut taken = 0;
        while taken < TURN {
            match self.source.read(buffer) {
                Ok(0) => return Flow::Over,
                Ok(n) => {
                    self.segments.write(&buffer[..n]);
                    taken += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Flow::Dry,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // A terminal whose last user is gone says EIO.
                Err(_) => return Flow::Over,
            }
        }
        Flow::More
    }

    /// Takes all that is there. Only for streams without living writers, or whose writers do not count any more.
    pub fn drain(&mut self, buffer: &mut [u8]) {
        // A pipe holds at most a mebibyte; a writer that goes on regardless is cut off.
        for _ in 0..16 {
            if self.pump(buffer) != Flow::More {
                return;
            }
        }
    }

    /// The stream's name.
    pub fn name(&self) -> &'static str {
        self.segments.name
    }

    /// Bytes that came and are not kept any more.
    pub fn dropped(&self) -> u64 {
        self.segments.starts.front().copied().unwrap_or(0)
    }

    /// Bytes that came so far.
    pub fn bytes(&self) -> u64 {
        self.segments.offset
    }

    /// Why output was not kept, if that happened.
    pub fn trouble(&self) -> Option<&str> {
        self.segments.trouble.as_deref()
    }
}

#[derive(Debug)]
struct Segments {
    dir: PathBuf,
    name: &'static str,
    keep: u64,
    file: Option<File>,
    offset: u64,
    starts: VecDeque<u64>,
    trouble: Option<String>,
}

impl Segments {
    fn size(&self) -> u64 {
        match self.keep {
            0 => UNLIMITED_SEGMENT,
            keep => (keep / 4).max(SMALLEST_SEGMENT),
        }
    }

    fn path(&self, start: u64) -> PathBuf {
        self.dir.join(format!("{}.{start:020}", self.name))
    }

    /// Output that the disk does not take is counted and dropped: the run goes on.
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let start = self.starts.back().copied().unwrap_or(0);
            let room = (start + self.size()).saturating_sub(self.offset);
            if self.file.is_none() || room == 0 {
                if let Err(e) = self.next_segment() {
                    self.fail(&e);
                    self.offset += bytes.len() as u64;
                    return;
                }
                continue;
            }
            let n = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(n);
            if let Some(file) = &mut self.file {
                let written = point!("sup.output.before_write")
                    .and_then(|()| file.write_all(now))
                    .and_then(|()| point!("sup.output.after_write"));
                if let Err(e) = written {
                    self.fail(&e);
                }
            }
            self.offset += n as u64;
            bytes = later;
        }
    }

    fn next_segment(&mut self) -> io::Result<()> {
        if self.starts.is_empty() {
            fs::create_dir_all(&self.dir)?;
        }
        self.file = None;
        point!("sup.output.before_create")?;
        self.file = Some(File::create(self.path(self.offset))?);
        self.starts.push_back(self.offset);
        while self.keep != 0 && self.starts.len() > 1 {
            // Room for the segment that begins now counts as used.
            let oldest = self.starts[0];
            if self.offset + self.size() - oldest <= self.keep.max(2 * SMALLEST_SEGMENT) {
                break;
            }
            point!("sup.output.before_remove")?;
            self.starts.pop_front();
            let _ = fs::remove_file(self.path(oldest));
        }
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) {
        if self.trouble.is_none() {
            let (name, dir) = (self.name, self.dir.display());
            let trouble = format!("some of {name} could not be kept in {dir}: {error}");
            super::say(&trouble);
            self.trouble = Some(trouble);
        }
    }
}

/// Bytes on their way into a run.
#[derive(Debug)]
pub struct Input {
    sink: File,
    waiting: VecDeque<u8>,
    closing: bool,
}

/// Most that waits for a run to read it.
const MAX_WAITING: usize = 1 << 20;

impl Input {
    /// `sink` is the writing end, which must not block.
    pub fn new(sink: OwnedFd) -> Self {
        Self {
            sink: sink.into(),
            waiting: VecDeque::new(),
            closing: false,
        }
    }

    /// The writing end.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.sink.as_fd()
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When too much waits already.
    pub fn add(&mut self, bytes: &[u8], eof: bool) -> Result<(), String> {
        if self.closing {
            return Err("standard input was closed already".into());
        }
        if self.waiting.len() + bytes.len() > MAX_WAITING {
            return Err(format!(
                "{} bytes of standard input wait to be read already; send the rest later",
                self.waiting.len()
            ));
        }
        self.waiting.extend(bytes);
        self.closing = eof;
        Ok(())
    }

    /// Writes what fits; `Over` when it can be dropped.
    pub fn push(&mut self) -> Flow {
        while !self.waiting.is_empty() {
            let (bytes, _) = self.waiting.as_slices();
            match self.sink.write(bytes) {
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Flow::More,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Flow::Over,
            }
        }
        if self.closing { Flow::Over } else { Flow::Dry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(dir: &Path, keep: u64) -> Segments {
        Segments {
            dir: dir.join("logs"),
            name: "stdout",
            keep,
            file: None,
            offset: 0,
            starts: VecDeque::new(),
            trouble: None,
        }
    }

    #[test]
    fn only_the_newest_segments_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = segments(dir.path(), 256 << 10);
        for n in 0..100u8 {
            s.write(&vec![n; 10_000]);
        }
        let mut kept: Vec<_> = fs::read_dir(&s.dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        kept.sort();
        assert_eq!(s.offset, 1_000_000);
        assert_eq!(kept.len(), 4, "{kept:?}");
        let total: u64 = kept
            .iter()
            .map(|n| fs::metadata(s.dir.join(n)).unwrap().len())
            .sum();
        assert!(total <= 256 << 10);
        let first: u64 = kept[0].strip_prefix("stdout.").unwrap().parse().unwrap();
        assert_eq!(first + total, 1_000_000);
    }

    #[test]
    fn nothing_is_made_for_no_output() {
        let dir = tempfile::tempdir().unwrap();
        let s = segments(dir.path(), 0);
        assert!(!s.dir.exists());
    }
}
