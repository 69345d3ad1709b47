//! The file of a backup: what a cluster's state holds at one revision, as keys and values that mean nothing here.
//!
//! ```text
//! PRISMBAK  version, 4 bytes
//! blocks    kind, 1 byte; length, 4 bytes; CRC-32 of both and of the body, 4 bytes; the body
//!           1  head    what it is a backup of, JSON
//!           2  items   length of a key, length of its value, key, value; again and again; keys ascend
//!           3  end     how many items, bytes of their keys and values, SHA-256 of all of the file before this block
//! ```
//!
//! Numbers are little-endian. Nothing is compressed. [`Writer`] writes it, [`Reader`] reads and checks it; neither holds more than one
//! block, which is one item, or 256 KiB of them. [`Sealer`] and [`Opener`] put a passphrase around such a file, or any other. Used by
//! control (which takes and restores backups) and by `prismctl` (which keeps, seals and checks the files).

#![forbid(unsafe_code)]

mod error;
mod read;
mod seal;
mod write;

use serde::{Deserialize, Serialize};

pub use error::BackupError;
pub use read::Reader;
pub use seal::{Opener, PASSPHRASE_MIN, SEALED_MAGIC, Sealer};
pub use write::Writer;

/// What a backup begins with.
pub const MAGIC: [u8; 8] = *b"PRISMBAK";
/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// The longest key, in bytes: that of the store.
pub const KEY_MAX: usize = 4096;
/// The longest value, in bytes: what the store takes in one batch.
pub const VALUE_MAX: usize = 160 << 20;

/// Bytes of items after which a block is written.
const BLOCK: usize = 256 << 10;
/// Longest body of a block.
const BLOCK_MAX: usize = VALUE_MAX + KEY_MAX + ITEM_HEAD + BLOCK;
/// Bytes before a block's body.
const BLOCK_HEAD: usize = 9;
/// Bytes before an item's key.
const ITEM_HEAD: usize = 8;
/// Longest head.
const HEAD_MAX: usize = 16 << 10;
/// Bytes of the end.
const END: usize = 48;

const KIND_HEAD: u8 = 1;
const KIND_ITEMS: u8 = 2;
const KIND_END: u8 = 3;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The cluster's id.
    pub cluster: String,
    /// The revision of its store that this is.
    pub revision: u64,
    /// When it was made, Unix milliseconds.
    pub made_ms: u64,
    /// The version of Prism that made it.
    pub prism: String,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// What a whole backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What it is of.
    pub head: Head,
    /// Items.
    pub items: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file up to its last block: two backups with the same are the same.
    pub digest: [u8; 32],
}

/// A block's checksum.
fn checksum(kind: u8, length: u32, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(&length.to_le_bytes());
    crc.update(body);
    crc.finalize()
}
