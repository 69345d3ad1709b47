//! Who is who in a cluster: the authority and what it signs, the names in certificates, the one string that a node joins with, and
//! who is let in on a connection.
//!
//! A cluster has a root, whose certificate every node trusts. Each server has an issuer of its own beneath it, whose key stays on
//! that server; it signs the certificates of nodes, which live for a day. What a certificate says is made by the issuer: of a
//! request only the public key is taken. Nothing here listens, and nothing reads a clock: the time is given.

mod api;
mod authority;
mod common;
mod error;
mod handshake;
mod holder;
mod issued;
mod join;
mod key;
mod lifetime;
mod peek;
mod peers;
mod pinned;
mod signatures;
mod trust;

pub use api::{
    Anchor, Client, Shown, WrongKey, accept_api, accept_api_files, certificates_in, connect_api,
    key_in, pem_of, pins_in, request_in,
};
pub use authority::{Issued, Issuer, Root, life_of, requested};
pub use common::CommonToken;
pub use error::IdentityError;
pub use handshake::{handshake_kind, is_judged, verdict};
pub use holder::{ClusterId, Holder, Role};
pub use issued::{NotAsAsked, Wanted, check_authority};
pub use join::{JoinSecret, JoinToken, Pin};
pub use key::Key;
pub use lifetime::{Lifetime, again_in, renew_at};
pub use peek::connect_unjudged;
pub use peers::{Peer, Refused, accept, connect};
pub use pinned::{accept_strangers, connect_pinned};
pub use trust::{Denied, Fingerprint, NotTrusted, Trust};
