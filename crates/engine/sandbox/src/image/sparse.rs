//! Sparse files in the PAX format 1.0: a map of extents before the content.
//!
//! Only snapshots use it. Never allocates by what the archive claims.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::error::Refusal;
use super::tar::BLOCK;
use super::unpack::copy;

/// A stretch of real content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// The most extents kept apart in one file; beyond it, holes are stored as zeros.
pub(crate) const EXTENTS_MAX: usize = 4096;
/// The largest size with holes that a file may pretend to (16 TiB).
const APPARENT_MAX: u64 = 16 << 40;

/// The map in its stored form, padded to whole blocks.
pub(crate) fn map(extents: &[Extent]) -> Vec<u8> {
    let mut text = format!("{}\n", extents.len());
    for extent in extents {
        text.push_str(&format!("{}\n{}\n", extent.offset, extent.size));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    bytes
}

/// Writes the content of a sparse entry of `stored` bytes into `file`, `apparent` bytes long.
pub(crate) fn unpack(
    from: &mut impl Read,
    stored: u64,
    file: &mut File,
    apparent: u64,
) -> Result<(), Refusal> {
    if apparent > APPARENT_MAX {
        return Err(Refusal::Sparse("the size is out of range"));
    }
    let mut numbers = Numbers {
        from,
        left: stored,
        block: Vec::new(),
        at: 0,
    };
    let count = numbers.next()?;
    if count > EXTENTS_MAX as u64 {
        return Err(Refusal::Sparse("too many extents"));
    }
    let mut extents = Vec::new();
    let mut end = 0;
    for _ in 0..count {
        let (offset, size) = (numbers.next()?, numbers.next()?);
        let next = offset
            .checked_add(size)
            .filter(|next| offset >= end && *next <= apparent);
        end = next.ok_or(Refusal::Sparse("the extents overlap or leave the file"))?;
        extents.push(Extent { offset, size });
    }
    if extents.iter().map(|extent| extent.size).sum::<u64>() != numbers.left {
        return Err(Refusal::Sparse("the map and the content differ in size"));
    }
    for extent in extents {
        file.seek(SeekFrom::Start(extent.offset))
            .map_err(|error| Refusal::io("cannot seek in it", error))?;
        copy(from, file, extent.size)?;
    }
    file.set_len(apparent)
        .map_err(|error| Refusal::io("cannot size it", error))
}

/// Reads the decimal lines of a map, block by block.
struct Numbers<'a, R> {
    from: &'a mut R,
    left: u64,
    block: Vec<u8>,
    at: usize,
}

impl<R: Read> Numbers<'_, R> {
    fn next(&mut self) -> Result<u64, Refusal> {
        let mut value: u64 = 0;
        let mut digits = 0;
        loop {
            match self.byte()? {
                b'\n' if digits > 0 => return Ok(value),
                digit @ b'0'..=b'9' if digits < 18 => {
                    value = value * 10 + u64::from(digit - b'0');
                    digits += 1;
                }
                _ => return Err(Refusal::Sparse("the map is malformed")),
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        if self.at == self.block.len() {
            if self.left < BLOCK {
                return Err(Refusal::Sparse("the map is cut short"));
            }
            self.block.resize(BLOCK as usize, 0);
            self.from
                .read_exact(&mut self.block)
                .map_err(Refusal::reading)?;
            self.left -= BLOCK;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}
