//! The key that gossip is sealed with, and its text form `pk1.KEY.CHECK`.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What every text form begins with; scanners for leaked secrets know it by that.
const PREFIX: &str = "pk1";

/// Hex digits of the check.
const CHECK: usize = 8;

/// A key's public name: the first four bytes of a hash of it. Every datagram names its key by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let hex = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        u32::from_str_radix(text, 16)
            .ok()
            .filter(|_| hex)
            .map(|n| Self(n.to_be_bytes()))
            .ok_or(KeyError("a key's id is 8 hex digits"))
    }
}

/// Why a text is no key, or none could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no gossip key: {0}")]
pub struct KeyError(&'static str);

/// A secret of 32 bytes that the servers of one cluster share. Who has it can read and write their gossip; it opens nothing else.
#[derive(Clone)]
pub struct GossipKey([u8; 32]);

impl GossipKey {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| KeyError("the system gives no random numbers"))?;
        Ok(Self(key))
    }

    /// One that was kept or derived. The 32 bytes must be random.
    pub fn from_bytes(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The bytes, to be kept where only this node can read them.
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text form, `pk1.KEY.CHECK`. Whoever has it can read and write the cluster's gossip.
    pub fn expose_text(&self) -> String {
        let body = format!("{PREFIX}.{}", BASE64.encode(self.0));
        let check = check(&body);
        format!("{body}.{check}")
    }

    /// Its public name.
    pub fn id(&self) -> KeyId {
        let mut digest = Sha256::new();
        digest.update(b"prism gossip key id 1");
        digest.update(self.0);
        let digest = digest.finalize();
        KeyId([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl PartialEq for GossipKey {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for GossipKey {}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GossipKey({}, ..)", self.id())
    }
}

/// Tells a text that was cut or mistyped from a wrong key.
fn check(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest
        .iter()
        .take(CHECK / 2)
        .map(|b| format!("{b:02x}"))
        .collect()
}

impl FromStr for GossipKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (body, sum) = text
            .rsplit_once('.')
            .ok_or(KeyError("expected pk1.KEY.CHECK"))?;
        let key = body
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('.'))
            .ok_or(KeyError("expected pk1.KEY.CHECK"))?;
        if check(body) != sum {
            return Err(KeyError(
                "its check does not fit: the text was cut or changed; copy all of it",
            ));
        }
        let bytes = BASE64
            .decode(key)
            .map_err(|_| KeyError("its middle is not base64"))?;
        let bytes = bytes
            .try_into()
            .map_err(|_| KeyError("it is not 32 bytes long"))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_form() {
        let key = GossipKey::generate().unwrap();
        let text = key.expose_text();
        assert!(text.starts_with("pk1."));
        assert_eq!(text.parse::<GossipKey>().unwrap(), key);
        assert_eq!(key.id().to_string().parse::<KeyId>().unwrap(), key.id());
    }

    #[test]
    fn a_text_that_was_cut_or_changed_is_refused() {
        let text = GossipKey::from_bytes([7; 32]).expose_text();
        for at in 0..text.len() {
            assert!(text[..at].parse::<GossipKey>().is_err(), "cut at {at}");
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed.parse::<GossipKey>().is_err(), "changed at {at}");
        }
        for text in ["", ".", "..", "pk1..", "pk2.AA.00000000", "pk1.AA.00"] {
            assert!(text.parse::<GossipKey>().is_err(), "{text}");
        }
        for text in ["", "1234567", "+1234567", "123456789", "1234567g"] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_for_debugging_hides_the_key() {
        let key = GossipKey::from_bytes([0xab; 32]);
        let shown = format!("{key:?}");
        assert!(!shown.contains(&key.expose_text()[4..20]));
        assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
    }
}
