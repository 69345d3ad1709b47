//! How the members of a cluster meet: what a node keeps of who it is, how a new one is let in, and the one listener to which members
//! come. What a connection is for is said by its protocol name (ALPN); who may come for that, by certificates.
//!
//! | protocol | who comes | for |
//! |---|---|---|
//! | `prism/join/1` | a new node, with a join token | to become a member |
//! | `prism/join-etcd/1` | a new server, with a join token | the same, where an etcd keeps the state |
//! | `prism/join-vault/1` | a new server, with a join token | the same, where Vault signs |
//! | `prism/renew/1` | members | a new certificate for the key they have |
//! | `prism/session/1` | workers and servers | the session of what runs work there ([`prism_wire`]) |
//! | `prism/where/1` | members | to learn who leads; a server says where it is |
//! | `prism/raft/1` | servers | to replicate the store |
//! | `prism/api/1` | servers | requests to the API that they were asked and do not decide |
//! | `prism/root/1` | servers | the key of a root, while the root is changed |
//! | `prism/cohort/1` | servers with the common token | to found a cluster together ([`cohort`]) |
//!
//! What only the leader can answer is asked of it: whoever asks another server is told where it is.

#![forbid(unsafe_code)]

mod api;
mod authority;
pub mod cohort;
mod dial;
mod error;
mod exchange;
mod guests;
mod house;
mod listener;
mod membership;
mod rotation;
mod vault;
mod vault_root;
mod whereabouts;

pub use authority::Authority;
pub use dial::{Dialled, Joining, dial_session, join, probe, renew, who_leads};
pub use error::MemberError;
pub use exchange::{Directions, Leads, ServerToken, check_messages};
pub use guests::Counts;
pub use house::{Hook, House, Links, Stream, unix_now};
pub use listener::{UNKNOWN, serve};
pub use membership::Membership;
pub use vault::Vaulted;
pub use whereabouts::note_token;

/// Protocol names, as in TLS.
pub(crate) mod alpn {
    pub(crate) const JOIN: &[u8] = b"prism/join/1";
    pub(crate) const JOIN_ETCD: &[u8] = b"prism/join-etcd/1";
    pub(crate) const JOIN_VAULT: &[u8] = b"prism/join-vault/1";
    pub(crate) const RENEW: &[u8] = b"prism/renew/1";
    pub(crate) const SESSION: &[u8] = b"prism/session/1";
    pub(crate) const WHERE: &[u8] = b"prism/where/1";
    pub(crate) const RAFT: &[u8] = b"prism/raft/1";
    pub(crate) const API: &[u8] = b"prism/api/1";
    pub(crate) const ROOT: &[u8] = b"prism/root/1";
    pub(crate) const COHORT: &[u8] = b"prism/cohort/1";
}
