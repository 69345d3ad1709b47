//! A ring of keys, sealed to be kept where others read too: in the cluster's replicated state and its backups. Only who has the secret
//! that it is sealed with reads it; what is bound to it says for which cluster it is.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use prism_types::Id;

use crate::protocol::{GossipKey, KeyRing};

/// The version of the form, its first byte.
const VERSION: u8 = 1;
/// Bytes of a key.
const KEY: usize = 32;

/// Why a sealed ring is not read, or none is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gossip keys {0}")]
pub struct SealError(&'static str);

fn cipher(secret: &[u8; KEY]) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&AES_256_GCM, secret);
    Ok(LessSafeKey::new(key.map_err(|_| {
        SealError("cannot be sealed with such a secret")
    })?))
}

fn bound(cluster: Id) -> Aad<[u8; 17]> {
    let mut aad = [VERSION; 17];
    aad[1..].copy_from_slice(&cluster.0.to_be_bytes());
    Aad::from(aad)
}

/// Seals all keys of a ring, the primary first.
///
/// # Errors
/// When the system gives no random numbers.
pub fn seal_ring(ring: &KeyRing, cluster: Id, secret: &[u8; 32]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce)
        .map_err(|_| SealError("are not sealed: the system gives no random numbers"))?;
    let mut body: Vec<u8> = Vec::new();
    for key in ring.keys() {
        body.extend_from_slice(key.expose_bytes());
    }
    let tag = cipher(secret)?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            bound(cluster),
            &mut body,
        )
        .map_err(|_| SealError("are not sealed"))?;
    Ok([&[VERSION], &nonce[..], &body, tag.as_ref()].concat())
}

/// Reads a sealed ring.
///
/// # Errors
/// When it was sealed with another secret or for another cluster, was changed, or is of a form that is not known here.
pub fn open_ring(sealed: &[u8], cluster: Id, secret: &[u8; 32]) -> Result<KeyRing, SealError> {
    let damaged = SealError("were sealed with another secret, or were changed");
    let Some((&VERSION, rest)) = sealed.split_first() else {
        return Err(SealError("are of a form that is not known here"));
    };
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(damaged)?;
    let mut body = body.to_vec();
    let opened = cipher(secret)?
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            bound(cluster),
            &mut body,
        )
        .map_err(|_| damaged)?;
    let (keys, rest) = opened.as_chunks::<KEY>();
    let keys: Vec<GossipKey> = keys.iter().map(|k| GossipKey::from_bytes(*k)).collect();
    match keys.split_first() {
        Some((primary, others)) if rest.is_empty() => KeyRing::with(primary.clone(), others)
            .map_err(|_| SealError("are more than a ring has, or are there twice")),
        _ => Err(damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(n: u8) -> KeyRing {
        let others: Vec<_> = (2..=n).map(|i| GossipKey::from_bytes([i; 32])).collect();
        KeyRing::with(GossipKey::from_bytes([1; 32]), &others).unwrap()
    }

    #[test]
    fn a_ring_comes_back_in_its_order_and_for_nobody_else() {
        let secret = [7; 32];
        for n in 1..=8 {
            let sealed = seal_ring(&ring(n), Id(5), &secret).unwrap();
            assert_eq!(open_ring(&sealed, Id(5), &secret).unwrap(), ring(n));
            assert!(open_ring(&sealed, Id(6), &secret).is_err());
            assert!(open_ring(&sealed, Id(5), &[8; 32]).is_err());
            let again = seal_ring(&ring(n), Id(5), &secret).unwrap();
            assert_ne!(again, sealed, "no nonce is used twice");
        }
    }

    #[test]
    fn every_change_and_every_cut_shows() {
        let secret = [7; 32];
        let sealed = seal_ring(&ring(2), Id(5), &secret).unwrap();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(open_ring(&bad, Id(5), &secret).is_err(), "changed at {at}");
            assert!(
                open_ring(&sealed[..at], Id(5), &secret).is_err(),
                "cut at {at}"
            );
        }
        let mut longer = sealed;
        longer.push(0);
        assert!(open_ring(&longer, Id(5), &secret).is_err());
    }
}
