//! Two small files with checksums: the vote, replaced as a whole, and the tail, overwritten in place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use openraft::vote::RaftLeaderId;
use prism_faults::point;

use super::{Disk, TAIL, VOTE, fatal};
use crate::OpenError;
use crate::raft::{LeaderId, LogId, Vote};

/// Numbers with a checksum behind them.
fn seal(numbers: &[u64]) -> Vec<u8> {
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// The numbers, if the checksum and the length are right.
fn unseal<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if body.len() != N * 8 || crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut numbers = [0; N];
    for (number, chunk) in numbers.iter_mut().zip(body.chunks_exact(8)) {
        *number = u64::from_le_bytes(chunk.try_into().ok()?);
    }
    Some(numbers)
}

/// Makes the vote durable, or ends the process.
pub(crate) fn write_vote(disk: &Disk, vote: &Vote) {
    let leader = vote.leader_id;
    let numbers = [leader.term, leader.node_id, u64::from(vote.committed)];
    disk.replace_with(&VOTE, &disk.path("vote"), &seal(&numbers));
}

/// The vote, if one was ever written.
pub(crate) fn read_vote(disk: &Disk) -> Result<Option<Vote>, OpenError> {
    let path = disk.path("vote");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("read", &path)(error)),
    };
    let [term, node, committed] = unseal(&bytes)
        .ok_or_else(|| OpenError::corrupt(&path, 0, "its checksum does not match"))?;
    Ok(Some(Vote {
        leader_id: LeaderId::new(term, node),
        committed: committed != 0,
    }))
}

/// How far the log is known to be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The segment that is written to.
    pub(crate) segment: u64,
    /// The end of what is durable in it.
    pub(crate) offset: u64,
    /// The latest entry known to be committed.
    pub(crate) committed: Option<LogId>,
}

/// The open file of the tail.
#[derive(Debug)]
pub(crate) struct TailFile {
    file: File,
    path: PathBuf,
}

impl TailFile {
    fn numbers(tail: &Tail) -> [u64; 6] {
        let (some, id) = match tail.committed {
            Some(id) => (1, id),
            None => (
                0,
                LogId {
                    leader_id: LeaderId::new(0, 0),
                    index: 0,
                },
            ),
        };
        let leader = id.leader_id;
        [
            tail.segment,
            tail.offset,
            some,
            leader.term,
            leader.node_id,
            id.index,
        ]
    }

    /// Makes the file of a new store.
    pub(crate) fn make(disk: &Disk) {
        let tail = Tail {
            segment: 1,
            ..Tail::default()
        };
        disk.replace_with(&TAIL, &disk.path("tail"), &seal(&Self::numbers(&tail)));
    }

    /// Opens it and reads what it says.
    pub(crate) fn open(disk: &Disk) -> Result<(Self, Tail), OpenError> {
        let path = disk.path("tail");
        let bytes = fs::read(&path).map_err(OpenError::io("read", &path))?;
        let [segment, offset, some, term, node, index] = unseal(&bytes)
            .ok_or_else(|| OpenError::corrupt(&path, 0, "its checksum does not match"))?;
        let file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        let id = LogId {
            leader_id: LeaderId::new(term, node),
            index,
        };
        let tail = Tail {
            segment,
            offset,
            committed: (some != 0).then_some(id),
        };
        Ok((Self { file, path }, tail))
    }

    /// Notes a new tail. Not synced: after a kill the kernel still has it, and after a power loss an older tail is
    /// true as well, only less sharp.
    pub(crate) fn note(&self, tail: &Tail) {
        point!("raft.tail.before_note")
            .and_then(|()| self.file.write_all_at(&seal(&Self::numbers(tail)), 0))
            .and_then(|()| point!("raft.tail.after_note"))
            .unwrap_or_else(|error| fatal("write", &self.path, &error));
    }

    /// Notes a tail that is nearer than the last one, durably: the log is about to be cut there.
    pub(crate) fn retreat(&self, disk: &Disk, tail: &Tail) {
        self.note(tail);
        disk.sync(&self.file, &self.path);
    }
}
