//! The datagram: a head in the clear, and a body sealed with AES-256-GCM.
//!
//! ```text
//!  0      1          5        9          25           33
//!  | ver  | cluster  | key id | boot     | counter    | sealed body ... | tag (16)
//! ```
//!
//! `cluster` is four bytes of a hash, so that a datagram of another cluster is told from one that was changed; the whole cluster id is
//! bound as additional data, as the head is. `boot` is drawn at random at each start of a process. The key that seals is derived from
//! the ring's key, the cluster and `boot` with HMAC-SHA-256 (the counter-free case of NIST SP 800-108), so that two processes never use
//! the same key with the same nonce, whatever they send; the nonce is the counter, which a process never uses twice.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use prism_types::Id;
use sha2::{Digest, Sha256};

use crate::protocol::key::{GossipKey, KeyId};
use crate::protocol::refusal::Refusal;
use crate::protocol::ring::KeyRing;

/// The only version of the format so far.
pub const VERSION: u8 = 1;
/// Longest datagram, in bytes: fits an Ethernet frame with room for tunnels.
pub const MAX_DATAGRAM: usize = 1400;
/// Length of the head.
pub const HEAD: usize = 33;
/// Length of the seal's tag.
pub const TAG: usize = 16;
/// Longest body.
pub const MAX_BODY: usize = MAX_DATAGRAM - HEAD - TAG;

/// Where the fields of the head begin.
const CLUSTER: usize = 1;
const KEY: usize = 5;
const BOOT: usize = 9;
const COUNTER: usize = 25;

/// Drawn at random at each start of a process; half of what tells a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub [u8; 16]);

/// Seals what this process sends.
#[derive(Debug)]
pub struct Sealer {
    cluster: Id,
    boot: Boot,
    counter: u64,
    derived: (KeyId, LessSafeKey),
}

impl Sealer {
    /// For one start of a process. `boot` must be random and new.
    pub fn new(cluster: Id, boot: Boot, ring: &KeyRing) -> Self {
        let key = ring.primary();
        Self {
            cluster,
            boot,
            counter: 0,
            derived: (key.id(), derive(key, cluster, boot)),
        }
    }

    /// Its boot id.
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// A datagram of a body of at most [`MAX_BODY`] bytes, sealed with the ring's primary.
    ///
    /// # Panics
    /// When the body is too long, or after 2⁶⁴ datagrams.
    pub fn seal(&mut self, ring: &KeyRing, body: &[u8]) -> Vec<u8> {
        assert!(body.len() <= MAX_BODY, "a body of {} bytes", body.len());
        let key = ring.primary();
        let id = key.id();
        if self.derived.0 != id {
            self.derived = (id, derive(key, self.cluster, self.boot));
        }
        self.counter += 1;
        let mut datagram = Vec::with_capacity(HEAD + body.len() + TAG);
        datagram.push(VERSION);
        datagram.extend_from_slice(&cluster_hint(self.cluster));
        datagram.extend_from_slice(&id.0);
        datagram.extend_from_slice(&self.boot.0);
        datagram.extend_from_slice(&self.counter.to_be_bytes());
        let aad = additional(&datagram, self.cluster);
        datagram.extend_from_slice(body);
        let tag = self
            .derived
            .1
            .seal_in_place_separate_tag(nonce(self.counter), Aad::from(aad), &mut datagram[HEAD..])
            .expect("a body far below the limits of AES-GCM is sealed");
        datagram.extend_from_slice(tag.as_ref());
        datagram
    }
}

/// Opens a datagram in place: its sender's boot, its counter and its body. Whether it was seen before is not judged here. The cheap
/// checks come first; nothing is allocated for one whose head is wrong.
///
/// # Errors
/// Why it is refused.
pub fn open<'d>(
    cluster: Id,
    ring: &KeyRing,
    datagram: &'d mut [u8],
) -> Result<(Boot, u64, &'d [u8]), Refusal> {
    if datagram.len() > MAX_DATAGRAM {
        return Err(Refusal::TooLong);
    }
    let version = *datagram.first().ok_or(Refusal::TooShort)?;
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    // The shortest body has one byte.
    if datagram.len() <= HEAD + TAG {
        return Err(Refusal::TooShort);
    }
    if field::<4>(datagram, CLUSTER) != cluster_hint(cluster) {
        return Err(Refusal::Cluster);
    }
    let id = KeyId(field(datagram, KEY));
    let key = ring.find(id).ok_or(Refusal::UnknownKey(id))?;
    let boot = Boot(field(datagram, BOOT));
    let counter = u64::from_be_bytes(field(datagram, COUNTER));
    let (head, sealed) = datagram.split_at_mut(HEAD);
    let aad = additional(head, cluster);
    let body = derive(key, cluster, boot)
        .open_in_place(nonce(counter), Aad::from(aad), sealed)
        .map_err(|_| Refusal::Seal)?;
    Ok((boot, counter, body))
}

fn field<const N: usize>(datagram: &[u8], at: usize) -> [u8; N] {
    datagram[at..at + N]
        .try_into()
        .expect("the length was checked")
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// The head and the whole cluster id.
fn additional(head: &[u8], cluster: Id) -> [u8; HEAD + 16] {
    let mut aad = [0; HEAD + 16];
    aad[..HEAD].copy_from_slice(head);
    aad[HEAD..].copy_from_slice(&cluster.0.to_be_bytes());
    aad
}

fn cluster_hint(cluster: Id) -> [u8; 4] {
    let mut digest = Sha256::new();
    digest.update(b"prism gossip cluster 1");
    digest.update(cluster.0.to_be_bytes());
    let digest = digest.finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// One sender's own key.
fn derive(key: &GossipKey, cluster: Id, boot: Boot) -> LessSafeKey {
    let mac = hmac::Key::new(hmac::HMAC_SHA256, key.expose_bytes());
    let mut context = hmac::Context::with_key(&mac);
    context.update(b"prism gossip seal 1");
    context.update(&cluster.0.to_be_bytes());
    context.update(&boot.0);
    let derived = context.sign();
    let key = UnboundKey::new(&AES_256_GCM, derived.as_ref()).expect("a hash of 32 bytes");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> KeyRing {
        KeyRing::new(GossipKey::from_bytes([9; 32]))
    }

    #[test]
    fn what_is_sealed_is_opened_by_those_of_the_same_cluster_and_key() {
        let mut sealer = Sealer::new(Id(5), Boot([1; 16]), &ring());
        for body in [&b"x"[..], &[7; MAX_BODY]] {
            let mut datagram = sealer.seal(&ring(), body);
            assert!(datagram.len() <= MAX_DATAGRAM);
            let (boot, counter, opened) = open(Id(5), &ring(), &mut datagram).unwrap();
            assert_eq!(
                (boot, counter, opened),
                (sealer.boot(), sealer.counter, body)
            );
        }
    }

    #[test]
    fn two_processes_and_two_datagrams_never_share_key_and_nonce() {
        let mut one = Sealer::new(Id(5), Boot([1; 16]), &ring());
        let mut two = Sealer::new(Id(5), Boot([2; 16]), &ring());
        let (a, b, c) = (
            one.seal(&ring(), &[0; 64]),
            one.seal(&ring(), &[0; 64]),
            two.seal(&ring(), &[0; 64]),
        );
        assert_ne!(a[HEAD..], b[HEAD..]);
        assert_ne!(a[HEAD..], c[HEAD..]);
        assert_ne!(b[HEAD..], c[HEAD..]);
    }

    #[test]
    fn the_whole_cluster_id_is_bound() {
        // Same head, same key: only the bound id differs.
        let mut datagram = Sealer::new(Id(5), Boot([1; 16]), &ring()).seal(&ring(), b"x");
        datagram[CLUSTER..CLUSTER + 4].copy_from_slice(&cluster_hint(Id(6)));
        assert_eq!(
            open(Id(6), &ring(), &mut datagram).unwrap_err(),
            Refusal::Seal
        );
    }
}
