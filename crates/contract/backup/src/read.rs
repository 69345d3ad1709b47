//! Reading a backup, whoever wrote it: nothing in it is believed before it is checked, and nothing takes more memory than there are bytes
//! of it.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::{
    BLOCK_HEAD, BLOCK_MAX, BackupError, END, HEAD_MAX, Head, ITEM_HEAD, Item, KEY_MAX, KIND_END,
    KIND_HEAD, KIND_ITEMS, MAGIC, SEALED_MAGIC, Summary, VALUE_MAX, VERSION, checksum,
};

/// Read at once: what says that it is long must first come.
const STEP: usize = 64 << 10;

/// Reads a backup. What was read is certain only when [`Reader::next`] has answered `None`.
#[derive(Debug)]
pub struct Reader<R: Read> {
    source: R,
    head: Head,
    /// The block that is read from, and how far that is.
    block: Vec<u8>,
    used: usize,
    /// Where the block begins.
    begin: u64,
    at: u64,
    last: Option<Vec<u8>>,
    items: u64,
    bytes: u64,
    hash: Sha256,
    end: Option<[u8; 32]>,
}

fn four(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, b| (n << 8) | u32::from(*b))
}

fn eight(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b))
}

fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl<R: Read> Reader<R> {
    /// Begins, and reads what it is a backup of.
    ///
    /// # Errors
    /// When it is none, is sealed, or of a newer version.
    pub fn open(source: R) -> Result<Self, BackupError> {
        let head = Head {
            cluster: String::new(),
            revision: 0,
            made_ms: 0,
            prism: String::new(),
        };
        let mut reader = Self {
            source,
            head,
            block: Vec::new(),
            used: 0,
            begin: 0,
            at: 0,
            last: None,
            items: 0,
            bytes: 0,
            hash: Sha256::new(),
            end: None,
        };
        let magic = reader.exactly(MAGIC.len());
        match magic {
            Ok(magic) if magic == MAGIC => {}
            Ok(magic) if magic == SEALED_MAGIC => return Err(BackupError::Sealed),
            Ok(_) | Err(BackupError::Cut { .. }) => return Err(BackupError::Foreign),
            Err(other) => return Err(other),
        }
        let version = four(&reader.exactly(4)?);
        if version > VERSION {
            return Err(BackupError::Newer {
                found: version,
                known: VERSION,
            });
        }
        if version == 0 {
            return Err(reader.damaged("it has no version"));
        }
        reader.begin = reader.at;
        let (kind, body) = reader.next_block()?;
        if kind != KIND_HEAD || body.len() > HEAD_MAX {
            return Err(reader.damaged("its first block does not say what it is of"));
        }
        let head = serde_json::from_slice(&body);
        reader.head = head.map_err(|_| reader.damaged("what it says of itself is not readable"))?;
        Ok(reader)
    }

    /// What it is a backup of.
    pub fn head(&self) -> &Head {
        &self.head
    }

    fn damaged(&self, why: &'static str) -> BackupError {
        let offset = self.begin;
        BackupError::Damaged { offset, why }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::with_capacity(length.min(STEP));
        while bytes.len() < length {
            let before = bytes.len();
            bytes.resize(length.min(before + STEP), 0);
            let read = loop {
                match self.source.read(&mut bytes[before..]) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    read => break read.map_err(BackupError::of)?,
                }
            };
            bytes.truncate(before + read);
            if read == 0 {
                let size = self.at + before as u64;
                return Err(BackupError::Cut { size });
            }
        }
        self.at += length as u64;
        Ok(bytes)
    }

    /// The next block, checked. What is before the end goes into the digest.
    fn next_block(&mut self) -> Result<(u8, Vec<u8>), BackupError> {
        self.begin = self.at;
        if self.begin == (MAGIC.len() + 4) as u64 {
            self.hash.update(MAGIC);
            self.hash.update(VERSION.to_le_bytes());
        }
        let head = self.exactly(BLOCK_HEAD)?;
        let (kind, length) = (head[0], four(&head[1..5]));
        if size(length) > BLOCK_MAX {
            return Err(self.damaged("a block says that it is longer than any is"));
        }
        let body = self.exactly(size(length))?;
        if checksum(kind, length, &body) != four(&head[5..9]) {
            return Err(self.damaged("the checksum of a block does not match"));
        }
        if kind != KIND_END {
            self.hash.update(&head);
            self.hash.update(&body);
        }
        Ok((kind, body))
    }

    /// The next item; `None` after the last one, when the whole file is as it was written.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or cut off.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator's items would have to be results"
    )]
    pub fn next(&mut self) -> Result<Option<Item>, BackupError> {
        if self.end.is_some() {
            return Ok(None);
        }
        while self.used == self.block.len() {
            let (kind, body) = self.next_block()?;
            match kind {
                KIND_ITEMS if !body.is_empty() => {
                    self.block = body;
                    self.used = 0;
                }
                KIND_END => {
                    self.finish(&body)?;
                    return Ok(None);
                }
                _ => return Err(self.damaged("a block is of a kind that does not belong there")),
            }
        }
        let item = self.item()?;
        if self.last.as_ref().is_some_and(|last| *last >= item.key) {
            return Err(self.damaged("the keys in it do not ascend"));
        }
        self.last = Some(item.key.clone());
        self.items += 1;
        self.bytes += (item.key.len() + item.value.len()) as u64;
        Ok(Some(item))
    }

    fn item(&mut self) -> Result<Item, BackupError> {
        let short = "an item is longer than its block";
        let rest = &self.block[self.used..];
        let Some((lengths, rest)) = rest.split_at_checked(ITEM_HEAD) else {
            return Err(self.damaged(short));
        };
        let (key, value) = (size(four(&lengths[..4])), size(four(&lengths[4..])));
        if key > KEY_MAX || value > VALUE_MAX {
            return Err(self.damaged("a key or a value is longer than any is"));
        }
        let Some((bytes, _)) = rest.split_at_checked(key + value) else {
            return Err(self.damaged(short));
        };
        let (key, value) = bytes.split_at(key);
        let item = Item {
            key: key.to_vec(),
            value: value.to_vec(),
        };
        self.used += ITEM_HEAD + bytes.len();
        Ok(item)
    }

    fn finish(&mut self, end: &[u8]) -> Result<(), BackupError> {
        if end.len() != END {
            return Err(self.damaged("its end is not as long as it should be"));
        }
        let (items, bytes) = (eight(&end[..8]), eight(&end[8..16]));
        if (items, bytes) != (self.items, self.bytes) {
            return Err(self.damaged("it holds more or less than its end says"));
        }
        let digest: [u8; 32] = self.hash.clone().finalize().into();
        if digest != end[16..] {
            return Err(self.damaged("the checksum of the whole does not match"));
        }
        self.begin = self.at;
        let mut more = [0];
        loop {
            match self.source.read(&mut more) {
                Ok(0) => break,
                Ok(_) => return Err(self.damaged("something follows its end")),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(BackupError::of(e)),
            }
        }
        self.end = Some(digest);
        Ok(())
    }

    /// Reads to the end, and says what there was.
    ///
    /// # Errors
    /// As of [`Reader::next`].
    pub fn check(mut self) -> Result<Summary, BackupError> {
        while self.next()?.is_some() {}
        let digest = self.end.unwrap_or_default();
        Ok(Summary {
            head: self.head,
            items: self.items,
            bytes: self.bytes,
            size: self.at,
            digest,
        })
    }
}
