//! A segment file: its name, its header, making one, and its place in the order of segments.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use openraft::vote::RaftLeaderId;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::OpenError;
use crate::disk::{Disk, SEGMENT, fatal};
use crate::raft::{LeaderId, LogId};

/// Bytes before the first frame.
pub(super) const SEGMENT_HEADER: usize = 64;
const MAGIC: &[u8; 8] = b"PRISMLOG";
const VERSION: u32 = 1;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its number.
    pub(super) number: u64,
    /// The entry before its first one.
    pub(super) before: Option<LogId>,
    /// Whether the log begins here, and what is in earlier segments no longer counts.
    pub(super) reset: bool,
}

impl Header {
    /// The index of the first entry in the segment.
    pub(super) fn first(&self) -> u64 {
        self.before.map_or(0, |id| id.index + 1)
    }

    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        let flags = u32::from(self.reset) | (u32::from(self.before.is_some()) << 1);
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&flags.to_le_bytes());
        let id = self.before.unwrap_or(LogId {
            leader_id: LeaderId::new(0, 0),
            index: 0,
        });
        let numbers = [
            self.number,
            id.leader_id.term,
            id.leader_id.node_id,
            id.index,
        ];
        for (n, number) in numbers.iter().enumerate() {
            bytes[16 + n * 8..24 + n * 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self, OpenError> {
        let corrupt = |why: &str| OpenError::corrupt(path, 0, why);
        let head = bytes
            .get(..SEGMENT_HEADER)
            .ok_or_else(|| corrupt("the file ends inside its header"))?;
        let four =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let eight = |at: usize| u64::from(four(at)) | (u64::from(four(at + 4)) << 32);
        if four(60) != crc32fast::hash(&head[..60]) || head[..8] != *MAGIC {
            return Err(corrupt("the checksum of its header does not match"));
        }
        if four(8) != VERSION {
            return Err(OpenError::Newer {
                path: path.to_owned(),
                found: u64::from(four(8)),
                known: u64::from(VERSION),
            });
        }
        let id = LogId {
            leader_id: LeaderId::new(eight(24), eight(32)),
            index: eight(40),
        };
        Ok(Self {
            number: eight(16),
            before: (four(12) & 2 != 0).then_some(id),
            reset: four(12) & 1 != 0,
        })
    }
}

/// Where a segment is.
pub(super) fn path(disk: &Disk, number: u64) -> PathBuf {
    disk.log_dir().join(format!("{number:020}.seg"))
}

/// The numbers of the segments in the directory, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, OpenError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(OpenError::io("list", dir))? {
        let name = entry.map_err(OpenError::io("list", dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes a segment, durably, and opens it; a failure ends the process.
pub(super) fn create(disk: &Disk, header: &Header) -> (File, PathBuf) {
    let path = path(disk, header.number);
    disk.replace(&SEGMENT, &path, |file| {
        disk.full.wait(&path, || {
            file.write_all_at(&header.encode(), 0)?;
            set_room(disk, file, SEGMENT_HEADER as u64)
        })
    });
    (open(&path), path)
}

/// Opens a segment for reading and writing; a failure ends the process.
pub(super) fn open(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap_or_else(|error| fatal("open", path, &error))
}

/// Sets room aside behind `from`, so that most syncs need not change the size of the file. A file system that cannot
/// do so grows the file as it is written.
pub(super) fn set_room(disk: &Disk, file: &File, from: u64) -> io::Result<()> {
    let room = disk.room.saturating_sub(from);
    if room == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), from, room) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sets aside what a write needs beyond the room of its segment, waiting for a full disk: once written, nothing can wait.
pub(super) fn reserve(disk: &Disk, file: &File, path: &Path, from: u64, end: u64) {
    let from = from.max(disk.room);
    if end <= from {
        return;
    }
    let reserved = disk.full.wait(path, || {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), from, end - from) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    });
    reserved.unwrap_or_else(|error| fatal("extend", path, &error));
}

/// Makes the first segment of a new store. `format` is the file whose absence says that there is no store yet.
pub(crate) fn make_first_segment(disk: &Disk, format: &Path) -> Result<(), OpenError> {
    let dir = disk.log_dir();
    for number in list(&dir)? {
        // Left over from a start that was cut off before the format file was written; it can hold no entry.
        let old = path(disk, number);
        let bytes = fs::read(&old).map_err(OpenError::io("read", &old))?;
        let entries = bytes.iter().skip(SEGMENT_HEADER).any(|b| *b != 0);
        if number != 1 || entries {
            let why = format!("it is missing, yet {} holds entries", old.display());
            return Err(OpenError::corrupt(format, 0, why));
        }
        fs::remove_file(&old).map_err(OpenError::io("remove", &old))?;
    }
    let header = Header {
        number: 1,
        before: None,
        reset: true,
    };
    create(disk, &header);
    Ok(())
}
