//! The key ring: one key seals, any opens, so that a key can be replaced while gossip goes on.

use crate::protocol::key::{GossipKey, KeyId};

/// Most keys in a ring. Two are needed while a key is replaced.
pub const MAX_KEYS: usize = 8;

/// Why a ring was not changed. It is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// There are as many keys as there may be.
    #[error("the ring holds {MAX_KEYS} keys already: remove one first")]
    Full,
    /// There is no such key.
    #[error("no key {0} in the ring: install it first")]
    Unknown(KeyId),
    /// The key is the one that seals.
    #[error("key {0} is the primary, which seals: use another one first")]
    Primary(KeyId),
    /// Another key has the same id.
    #[error("another key with the id {0} is in the ring: generate a new one")]
    Clash(KeyId),
}

/// At least one key and at most [`MAX_KEYS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    /// The first is the primary.
    keys: Vec<GossipKey>,
}

impl KeyRing {
    /// A ring with one key, which seals.
    pub fn new(primary: GossipKey) -> Self {
        Self {
            keys: vec![primary],
        }
    }

    /// A ring as it was kept: the first key seals.
    ///
    /// # Errors
    /// When there are too many keys or two share an id.
    pub fn with(primary: GossipKey, others: &[GossipKey]) -> Result<Self, RingError> {
        let mut ring = Self::new(primary);
        for key in others {
            ring.install(key.clone())?;
        }
        Ok(ring)
    }

    /// The key that seals.
    pub fn primary(&self) -> &GossipKey {
        &self.keys[0]
    }

    /// The key with an id.
    pub fn find(&self, id: KeyId) -> Option<&GossipKey> {
        self.keys.iter().find(|k| k.id() == id)
    }

    /// All keys, the primary first: what is to be kept.
    pub fn keys(&self) -> &[GossipKey] {
        &self.keys
    }

    /// Ids of all keys, the primary's first.
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(GossipKey::id).collect()
    }

    /// Adds a key that opens but does not seal yet. Whether anything changed.
    ///
    /// # Errors
    /// When the ring is full, or another key has the same id.
    pub fn install(&mut self, key: GossipKey) -> Result<bool, RingError> {
        match self.find(key.id()) {
            Some(there) if *there == key => Ok(false),
            Some(_) => Err(RingError::Clash(key.id())),
            None if self.keys.len() >= MAX_KEYS => Err(RingError::Full),
            None => {
                self.keys.push(key);
                Ok(true)
            }
        }
    }

    /// Makes a key the one that seals. Whether anything changed.
    ///
    /// # Errors
    /// When it is not in the ring.
    pub fn use_key(&mut self, id: KeyId) -> Result<bool, RingError> {
        let at = self.keys.iter().position(|k| k.id() == id);
        let at = at.ok_or(RingError::Unknown(id))?;
        self.keys.swap(0, at);
        Ok(at != 0)
    }

    /// Takes a key out. Whether anything changed: one that is not there is as good as removed.
    ///
    /// # Errors
    /// When it is the primary.
    pub fn remove(&mut self, id: KeyId) -> Result<bool, RingError> {
        if self.primary().id() == id {
            return Err(RingError::Primary(id));
        }
        let before = self.keys.len();
        self.keys.retain(|k| k.id() != id);
        Ok(self.keys.len() != before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> GossipKey {
        GossipKey::from_bytes([n; 32])
    }

    #[test]
    fn a_key_is_installed_then_used_then_the_old_one_removed() {
        let mut ring = KeyRing::new(key(1));
        assert_eq!(ring.install(key(2)), Ok(true));
        assert_eq!(ring.install(key(2)), Ok(false));
        assert_eq!(*ring.primary(), key(1));
        assert_eq!(ring.use_key(key(2).id()), Ok(true));
        assert_eq!(ring.use_key(key(2).id()), Ok(false));
        assert_eq!(*ring.primary(), key(2));
        assert_eq!(ring.remove(key(1).id()), Ok(true));
        assert_eq!(ring.remove(key(1).id()), Ok(false));
        assert_eq!(ring.ids(), [key(2).id()]);
    }

    #[test]
    fn the_primary_stays_and_unknown_keys_are_not_used() {
        let mut ring = KeyRing::new(key(1));
        assert_eq!(
            ring.remove(key(1).id()),
            Err(RingError::Primary(key(1).id()))
        );
        assert_eq!(
            ring.use_key(key(2).id()),
            Err(RingError::Unknown(key(2).id()))
        );
        assert_eq!(ring, KeyRing::new(key(1)));
    }

    #[test]
    fn a_ring_has_a_bound() {
        let mut ring = KeyRing::new(key(0));
        for n in 1..u8::try_from(MAX_KEYS).unwrap() {
            assert_eq!(ring.install(key(n)), Ok(true));
        }
        assert_eq!(ring.install(key(200)), Err(RingError::Full));
        assert_eq!(ring.install(key(3)), Ok(false));
        assert_eq!(ring.keys().len(), MAX_KEYS);
    }
}
