//! One entry as bytes: length, checksum, entry id, where its write began, then the body. Pure.

use openraft::vote::RaftLeaderId;

use crate::raft::{Entry, LeaderId, LogId, Payload};

/// Bytes of a frame before its body.
pub(super) const FRAME_HEADER: usize = 40;
/// The first byte of a body; a newer version is refused by number.
pub(super) const BODY_VERSION: u8 = 1;
/// Frames begin at multiples of this.
const ALIGN: usize = 8;

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The entry.
    pub(super) id: LogId,
    /// Offset in the segment at which the write that this frame is part of began. Everything before that offset was
    /// durable when the frame was written.
    pub(super) write: u64,
    /// Bytes of the body.
    pub(super) len: usize,
}

impl Frame {
    /// Bytes from this frame to the next.
    pub(super) fn stride(&self) -> usize {
        (FRAME_HEADER + self.len).next_multiple_of(ALIGN)
    }
}

/// Adds an entry to a buffer that will be written at offset `write`.
pub(super) fn encode(entry: &Entry, write: u64, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.resize(start + FRAME_HEADER, 0);
    buffer.push(BODY_VERSION);
    *buffer = postcard::to_extend(&entry.payload, std::mem::take(buffer))
        .expect("serializing plain data into memory cannot fail");
    let body = buffer.len() - start - FRAME_HEADER;
    let len = u32::try_from(body).expect("a group of batches is far below 4 GiB");
    let leader = entry.log_id.leader_id;
    let fields = [entry.log_id.index, leader.term, leader.node_id, write];
    buffer[start..start + 4].copy_from_slice(&len.to_le_bytes());
    for (n, field) in fields.iter().enumerate() {
        let at = start + 8 + n * 8;
        buffer[at..at + 8].copy_from_slice(&field.to_le_bytes());
    }
    let crc = checksum(len, &buffer[start + 8..]);
    buffer[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(start + (FRAME_HEADER + body).next_multiple_of(ALIGN), 0);
}

fn checksum(len: u32, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let chunk = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(chunk.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let chunk = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(chunk.try_into().ok()?))
}

/// The header of the frame at the start of `bytes`, unchecked.
pub(super) fn peek(bytes: &[u8]) -> Option<Frame> {
    let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let leader = LeaderId::new(u64_at(bytes, 16)?, u64_at(bytes, 24)?);
    Some(Frame {
        id: LogId {
            leader_id: leader,
            index: u64_at(bytes, 8)?,
        },
        write: u64_at(bytes, 32)?,
        len,
    })
}

/// The frame at the start of `bytes` and its body.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<(Frame, &[u8]), &'static str> {
    let frame = peek(bytes).ok_or("the file ends inside the head of an entry")?;
    if frame.len == 0 {
        return Err("there is no entry");
    }
    let end = FRAME_HEADER + frame.len;
    let rest = bytes.get(8..end).ok_or("the file ends inside an entry")?;
    let len = u32::try_from(frame.len).map_err(|_| "the entry is too long")?;
    if u32_at(bytes, 4) != Some(checksum(len, rest)) {
        return Err("the checksum of an entry does not match");
    }
    Ok((frame, &bytes[FRAME_HEADER..end]))
}

/// The entry of a checked frame.
///
/// # Errors
/// Says what is wrong with its body.
pub(super) fn entry(frame: &Frame, body: &[u8]) -> Result<Entry, String> {
    let payload: Payload = match body.split_first() {
        Some((&BODY_VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|e| format!("an entry does not decode ({e})"))?
        }
        Some((version, _)) => return Err(format!("an entry has the unknown version {version}")),
        None => return Err("an entry is empty".to_owned()),
    };
    Ok(Entry {
        log_id: frame.id,
        payload,
    })
}

/// Looks behind a bad frame for one that proves it was durable once: a good frame of a later write, which is only begun
/// after the earlier one was synced. `rest` is the file from the bad frame's offset `bad` on.
pub(super) fn proves_durable(rest: &[u8], bad: u64, next_index: u64) -> Option<u64> {
    /// How far ahead of the bad frame's entry a later one may be; more would not fit in a segment.
    const AHEAD: u64 = 1 << 24;
    let mut at = ALIGN;
    while at + FRAME_HEADER < rest.len() {
        let here = bad + at as u64;
        let plausible = peek(&rest[at..]).is_some_and(|frame| {
            let ahead = frame.id.index.wrapping_sub(next_index);
            let later = frame.write > bad && frame.write <= here;
            frame.len > 0 && later && ahead <= AHEAD
        });
        if plausible && decode(&rest[at..]).is_ok() {
            return Some(here);
        }
        at += ALIGN;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prism_store::{Batch, Revision};
    use prism_types::Fence;

    use super::*;
    use crate::command::{Command, Proposal, Write};

    fn entry_at(index: u64, command: Command) -> Entry {
        Entry {
            log_id: LogId {
                leader_id: LeaderId::new(3, 1),
                index,
            },
            payload: Payload::Normal(Proposal(Arc::new(command))),
        }
    }

    #[test]
    fn entries_survive_the_way_to_bytes_and_back() {
        let write = Write {
            fence: Fence(9),
            batch: Batch::new().put("a", vec![7; 1000]).delete("b"),
        };
        let entries = [
            entry_at(4, Command::Commit(vec![write])),
            entry_at(5, Command::Grant),
            entry_at(6, Command::Compact(Revision(8))),
        ];
        let mut bytes = Vec::new();
        for e in &entries {
            encode(e, 64, &mut bytes);
        }
        let mut at = 0;
        for e in &entries {
            let (frame, body) = decode(&bytes[at..]).unwrap();
            assert_eq!((frame.id, frame.write), (e.log_id, 64));
            let back = entry(&frame, body).unwrap();
            assert_eq!(format!("{back:?}"), format!("{e:?}"));
            at += frame.stride();
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn every_flipped_bit_of_a_frame_shows() {
        let mut bytes = Vec::new();
        encode(&entry_at(1, Command::Compact(Revision(77))), 64, &mut bytes);
        let (frame, _) = decode(&bytes).unwrap();
        for bit in 0..(FRAME_HEADER + frame.len) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn only_a_later_write_proves_an_earlier_one() {
        let mut bytes = vec![0; 64];
        encode(&entry_at(1, Command::Grant), 64, &mut bytes);
        let second = bytes.len();
        encode(&entry_at(2, Command::Grant), 64, &mut bytes);
        let none = proves_durable(&bytes[64..], 64, 1);
        assert_eq!(none, None, "the same write proves nothing");
        let third = bytes.len();
        encode(&entry_at(3, Command::Grant), third as u64, &mut bytes);
        for (bad, next) in [(64, 1), (second, 2)] {
            let proof = proves_durable(&bytes[bad..], bad as u64, next);
            assert_eq!(proof, Some(third as u64));
        }
        assert_eq!(proves_durable(&bytes[third..], third as u64, 3), None);
    }
}
