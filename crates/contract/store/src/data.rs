//! The values that cross the contract: keys, revisions, batches, pages and commits. Plain data; nothing here touches
//! a disk or a clock. Used by every engine and every caller.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::{MAX_BATCH_BYTES, MAX_KEY_BYTES, StoreError};

/// What a key maps to. An engine keeps the buffer it is given: do not pass a small slice of a large one.
pub type Value = Bytes;

/// Bytes of a key that lie in the key itself: all of Prism's own keys do, so that to compare two touches no other memory.
const IN_PLACE: usize = 56;

/// A key: bytes, ordered as bytes are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(SmallVec<[u8; IN_PLACE]>);

impl Key {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::from(text.as_bytes())
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Bytewise)
    }
}

/// Reads a key where it lies, without a copy on the way.
struct Bytewise;

impl Visitor<'_> for Bytewise {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a key")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Key, E> {
        Ok(Key::from(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// Counts commits: 0 is the empty store, and every committed batch takes the next one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What one commit changes. Deletes come before puts; of several puts of a key the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Keys to set.
    pub puts: Vec<(Key, Value)>,
    /// Keys to remove; one that is absent changes nothing.
    pub deletes: Vec<Key>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key to set.
    #[must_use]
    pub fn put(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        if self.puts.capacity() == 0 {
            // Most batches have one.
            self.puts.reserve_exact(1);
        }
        self.puts.push((key.into(), value.into()));
        self
    }

    /// Adds a key to remove.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Key>) -> Self {
        self.deletes.push(key.into());
        self
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        let puts: usize = self.puts.iter().map(|(k, v)| k.len() + v.len()).sum();
        puts + self.deletes.iter().map(|k| k.len()).sum::<usize>()
    }

    /// Whether a store takes it.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when the batch or a key is over the limit.
    pub fn check(&self) -> Result<(), StoreError> {
        let too_large = |what, bytes, limit| StoreError::TooLarge { what, bytes, limit };
        let keys = self.puts.iter().map(|(key, _)| key).chain(&self.deletes);
        if let Some(key) = keys.into_iter().find(|key| key.len() > MAX_KEY_BYTES) {
            return Err(too_large("a key", key.len(), MAX_KEY_BYTES));
        }
        let bytes = self.bytes();
        if bytes > MAX_BATCH_BYTES {
            return Err(too_large("a batch", bytes, MAX_BATCH_BYTES));
        }
        Ok(())
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The revision that set it.
    pub revision: Revision,
}

/// A range of keys: from `start`, before `end`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyRange {
    /// First key, inclusive.
    pub start: Key,
    /// First key after the range; `None` is the end of the store.
    pub end: Option<Key>,
}

impl KeyRange {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        let start = prefix.into();
        let end = after_prefix(&start);
        Self { start, end }
    }

    /// The same range, from just after `key`: how a reader asks for the next page.
    #[must_use]
    pub fn after(mut self, key: &Key) -> Self {
        let mut next = key.to_vec();
        next.push(0);
        self.start = Key::from(next);
        self
    }
}

/// The first key that is greater than every key with this prefix.
fn after_prefix(prefix: &[u8]) -> Option<Key> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Key::from(end))
}

/// One answer to a range read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The items, in order of their keys.
    pub items: Vec<Item>,
    /// The revision the page shows; pass it as `at` for the next page.
    pub revision: Revision,
    /// Whether the range holds more after the last item.
    pub more: bool,
}

/// One key of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// Its new value; `None` when it was removed.
    pub value: Option<Value>,
}

/// What one revision changed, in order of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The revision.
    pub revision: Revision,
    /// The changes that the watch asked for.
    pub changes: Vec<Change>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key() {
        assert_eq!(KeyRange::prefix("a/").end, Some(Key::from("a0")));
        assert_eq!(
            KeyRange::prefix(vec![1, 0xff]).end,
            Some(Key::from(vec![2]))
        );
        assert_eq!(KeyRange::prefix(vec![0xff]).end, None);
        assert_eq!(KeyRange::prefix("").end, None);
    }
}
