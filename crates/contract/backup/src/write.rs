//! Writing a backup, item by item.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

use crate::{
    BLOCK, Head, ITEM_HEAD, KEY_MAX, KIND_END, KIND_HEAD, KIND_ITEMS, MAGIC, Summary, VALUE_MAX,
    VERSION, checksum,
};

/// Writes a backup. One that is dropped before [`Writer::finish`] leaves a file that is refused as cut off.
#[derive(Debug)]
pub struct Writer<W: Write> {
    sink: W,
    head: Head,
    block: Vec<u8>,
    last: Option<Vec<u8>>,
    items: u64,
    bytes: u64,
    size: u64,
    hash: Sha256,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.to_owned())
}

impl<W: Write> Writer<W> {
    /// Begins one.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(sink: W, head: Head) -> io::Result<Self> {
        let text = serde_json::to_vec(&head)?;
        let mut writer = Self {
            sink,
            head,
            block: Vec::new(),
            last: None,
            items: 0,
            bytes: 0,
            size: 0,
            hash: Sha256::new(),
        };
        writer.raw(&MAGIC)?;
        writer.raw(&VERSION.to_le_bytes())?;
        writer.block(KIND_HEAD, &text)?;
        Ok(writer)
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn block(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(|_| invalid("a block is too long"))?;
        self.raw(&[kind])?;
        self.raw(&length.to_le_bytes())?;
        self.raw(&checksum(kind, length, body).to_le_bytes())?;
        self.raw(body)
    }

    /// Adds an item. Keys come in ascending order.
    ///
    /// # Errors
    /// The sink's, or that the key does not follow or one of both is too long.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(invalid("the keys do not ascend"));
        }
        if key.len() > KEY_MAX || value.len() > VALUE_MAX {
            return Err(invalid("a key or a value is too long"));
        }
        let length = |n: usize| u32::try_from(n).map_err(|_| invalid("too long"));
        self.block.extend(length(key.len())?.to_le_bytes());
        self.block.extend(length(value.len())?.to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.last = Some(key.to_vec());
        self.items += 1;
        self.bytes += (key.len() + value.len()) as u64;
        if self.block.len() >= BLOCK {
            self.flush_block()?;
        }
        Ok(())
    }

    fn flush_block(&mut self) -> io::Result<()> {
        let mut body = std::mem::take(&mut self.block);
        self.block(KIND_ITEMS, &body)?;
        body.clear();
        body.shrink_to(BLOCK + ITEM_HEAD + KEY_MAX);
        self.block = body;
        Ok(())
    }

    /// Ends it, and gives back the sink, which is flushed.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self) -> io::Result<(Summary, W)> {
        if !self.block.is_empty() {
            self.flush_block()?;
        }
        let digest: [u8; 32] = self.hash.clone().finalize().into();
        let mut end = Vec::with_capacity(crate::END);
        end.extend(self.items.to_le_bytes());
        end.extend(self.bytes.to_le_bytes());
        end.extend(digest);
        self.block(KIND_END, &end)?;
        self.sink.flush()?;
        let summary = Summary {
            head: self.head,
            items: self.items,
            bytes: self.bytes,
            size: self.size,
            digest,
        };
        Ok((summary, self.sink))
    }
}
