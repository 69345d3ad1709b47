//! Opening a log: reads every frame of every segment, cuts off a torn end, refuses damage. Runs before anything else
//! touches the log.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prism_faults::point;

use super::frame::{self, BODY_VERSION};
use super::index::{Held, Index, Place};
use super::reader::Reader;
use super::segment::{self, Header, SEGMENT_HEADER};
use super::storage::Log;
use super::writer::Active;
use crate::disk::{Disk, Tail, TailFile, fatal, read_vote};
use crate::raft::LogId;
use crate::{Config, OpenError};

/// Opens the log of a store whose snapshot holds everything up to `snapshot`.
pub(crate) fn recover(
    config: &Config,
    disk: &Disk,
    snapshot: Option<LogId>,
) -> Result<Log, OpenError> {
    let vote = read_vote(disk)?;
    let (tail_file, tail) = TailFile::open(disk)?;
    let mut scan = Scan::new(disk, tail);
    scan.all()?;
    let before = scan.before;
    let last = scan.last;
    if before > snapshot {
        let why = format!(
            "it begins after entry {}, but the snapshot ends at {}",
            shown(before),
            shown(snapshot)
        );
        return Err(OpenError::corrupt(&scan.first_path, 0, why));
    }
    // The very first entry is written before the first vote.
    if vote.is_none() && last.is_some_and(|id| id.index > 0) {
        let why = "it is missing, yet the log holds entries that were voted for";
        return Err(OpenError::corrupt(&disk.path("vote"), 0, why));
    }
    let active = scan.active()?;
    let mut index = Index::recovered(scan.segments, scan.places, before, last);
    index.vote = vote;
    index.committed = tail.committed.filter(|id| Some(*id) <= last);
    Log::start(config, disk, index, active, tail_file)
}

fn shown(id: Option<LogId>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| id.index.to_string())
}

/// A frame that is not one.
struct Bad {
    at: u64,
    /// The entry that should be there.
    next: u64,
    why: &'static str,
}

fn reader(path: &Path) -> Result<Reader, OpenError> {
    let opened = fs::File::open(path).and_then(Reader::new);
    opened.map_err(OpenError::io("open", path))
}

struct Scan<'a> {
    disk: &'a Disk,
    tail: Tail,
    segments: BTreeMap<u64, Held>,
    places: VecDeque<Place>,
    before: Option<LogId>,
    last: Option<LogId>,
    first_path: PathBuf,
    end: u64,
}

impl<'a> Scan<'a> {
    fn new(disk: &'a Disk, tail: Tail) -> Self {
        Self {
            disk,
            tail,
            segments: BTreeMap::new(),
            places: VecDeque::new(),
            before: None,
            last: None,
            first_path: disk.log_dir(),
            end: 0,
        }
    }

    fn all(&mut self) -> Result<(), OpenError> {
        let numbers = segment::list(&self.disk.log_dir())?;
        let newest = numbers.last().copied().unwrap_or(0);
        if newest < self.tail.segment {
            let path = segment::path(self.disk, self.tail.segment);
            return Err(OpenError::corrupt(&path, 0, "the file is missing"));
        }
        let numbers = self.still_counting(numbers)?;
        for (n, number) in numbers.iter().enumerate() {
            self.one(*number, n == 0, *number == newest)?;
        }
        Ok(())
    }

    /// Removes segments from before the last reset, and unfinished files.
    fn still_counting(&self, numbers: Vec<u64>) -> Result<Vec<u64>, OpenError> {
        let mut start = 0;
        for (n, number) in numbers.iter().enumerate() {
            let path = segment::path(self.disk, *number);
            let header = self.header(&path, &mut reader(&path)?)?;
            if header.number != *number {
                return Err(OpenError::corrupt(
                    &path,
                    16,
                    "it is the file of another segment",
                ));
            }
            if header.reset {
                start = n;
            }
        }
        for number in &numbers[..start] {
            let path = segment::path(self.disk, *number);
            fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
        }
        Ok(numbers[start..].to_vec())
    }

    fn header(&self, path: &Path, reader: &mut Reader) -> Result<Header, OpenError> {
        let head = reader.at(0, SEGMENT_HEADER as u64);
        Header::decode(head.map_err(OpenError::io("read", path))?, path)
    }

    fn one(&mut self, number: u64, first: bool, newest: bool) -> Result<(), OpenError> {
        let path = segment::path(self.disk, number);
        if !first && self.segments.keys().last() != Some(&(number - 1)) {
            let missing = segment::path(self.disk, number - 1);
            return Err(OpenError::corrupt(&missing, 0, "the file is missing"));
        }
        let mut reader = reader(&path)?;
        let header = self.header(&path, &mut reader)?;
        if first {
            self.before = header.before;
            self.last = header.before;
            self.first_path.clone_from(&path);
        } else if header.before != self.last {
            return Err(self.gap(&path, number, header.before));
        }
        let end = self.frames(&path, &mut reader, &header, newest)?;
        let held = Held {
            file: Arc::new(segment::open(&path)),
            before: header.before,
            end,
        };
        self.segments.insert(number, held);
        self.end = end;
        Ok(())
    }

    /// Entries are missing between a segment and the one before it, which is most likely the shorter for it.
    fn gap(&self, path: &Path, number: u64, before: Option<LogId>) -> OpenError {
        let (after, ends) = (shown(before), shown(self.last));
        if before > self.last {
            let why =
                format!("it ends with entry {ends}, but the file after it continues after {after}");
            let short = segment::path(self.disk, number - 1);
            return OpenError::corrupt(&short, self.end, why);
        }
        let why =
            format!("it continues after entry {after}, but the file before it ends with {ends}");
        OpenError::corrupt(path, 32, why)
    }

    /// Reads all frames of a segment, and returns where they end.
    fn frames(
        &mut self,
        path: &Path,
        reader: &mut Reader,
        header: &Header,
        newest: bool,
    ) -> Result<u64, OpenError> {
        let known = self.known(header.number);
        let mut next = header.first();
        let mut at = SEGMENT_HEADER as u64;
        while at < reader.size() {
            let left = reader.size() - at;
            let bytes = reader.frame(at).map_err(OpenError::io("read", path))?;
            let (frame, body) = match frame::decode(bytes) {
                Ok((frame, body)) if frame.stride() as u64 <= left => (frame, body),
                bad => {
                    let why = bad.err().unwrap_or("the file ends inside an entry");
                    let bad = Bad { at, next, why };
                    self.torn_or_damaged(path, reader, &bad, newest, known)?;
                    break;
                }
            };
            if frame.id.index != next || Some(frame.id) <= self.last {
                let why = format!("entry {next} should be here, but it is {}", frame.id.index);
                return Err(OpenError::corrupt(path, at, why));
            }
            if let Some(version) = body.first().filter(|v| **v != BODY_VERSION) {
                return Err(OpenError::Newer {
                    path: path.to_owned(),
                    found: u64::from(*version),
                    known: u64::from(BODY_VERSION),
                });
            }
            self.places.push_back(place(header.number, at));
            self.last = Some(frame.id);
            next += 1;
            at += frame.stride() as u64;
        }
        if at < known {
            let why = format!("the file ends here, but it was written up to {known}");
            return Err(OpenError::corrupt(path, at, why));
        }
        Ok(at)
    }

    /// How far a segment is known to have been durable.
    fn known(&self, number: u64) -> u64 {
        if number == self.tail.segment {
            self.tail.offset
        } else {
            0
        }
    }

    /// Decides what a bad frame means; comes back only when it is a torn end, which is then cut off.
    fn torn_or_damaged(
        &self,
        path: &Path,
        reader: &mut Reader,
        bad: &Bad,
        newest: bool,
        known: u64,
    ) -> Result<(), OpenError> {
        let Bad { at, next, why } = bad;
        let corrupt = |more: String| Err(OpenError::corrupt(path, *at, format!("{why}{more}")));
        if *at < known {
            return corrupt(format!(", although the file was durable up to {known}"));
        }
        if !newest {
            return corrupt(", although another file follows".to_owned());
        }
        let rest = reader.rest(*at).map_err(OpenError::io("read", path))?;
        let Some(rest) = rest else {
            return Ok(());
        };
        if let Some(proof) = frame::proves_durable(&rest, *at, *next) {
            return corrupt(format!(
                ", although the entry at {proof} was written after it"
            ));
        }
        tracing::warn!(
            file = %path.display(),
            offset = at,
            "cut off an unfinished write of at most {} bytes that was never acknowledged",
            rest.len()
        );
        let file = segment::open(path);
        point!("raft.recover.before_truncate")
            .and_then(|()| file.set_len(*at))
            .unwrap_or_else(|error| fatal("truncate", path, &error));
        self.disk
            .sync_after(point!("raft.recover.before_sync"), &file, path);
        point!("raft.recover.after_sync").unwrap_or_else(|error| fatal("sync", path, &error));
        Ok(())
    }

    /// Opens the newest segment for writing at its end.
    fn active(&self) -> Result<Active, OpenError> {
        let Some((number, held)) = self.segments.last_key_value() else {
            let dir = self.disk.log_dir();
            return Err(OpenError::corrupt(&dir, 0, "it holds no segment"));
        };
        let path = segment::path(self.disk, *number);
        segment::set_room(self.disk, &held.file, self.end)
            .map_err(OpenError::io("extend", &path))?;
        self.disk
            .sync_after(point!("raft.open.before_sync"), &held.file, &path);
        point!("raft.open.after_sync").unwrap_or_else(|error| fatal("sync", &path, &error));
        Ok(Active {
            number: *number,
            file: Arc::clone(&held.file),
            path,
            offset: self.end,
        })
    }
}

pub(super) fn place(segment: u64, offset: u64) -> Place {
    Place {
        segment: u32::try_from(segment)
            .expect("four billion segments are more than any disk holds"),
        offset: u32::try_from(offset).expect("a segment is far below 4 GiB"),
    }
}
