//! Gossip among a cluster's servers: who is there, who seems to be down, what they say about themselves. Every datagram is sealed with a
//! key that can be replaced while it goes on. What is known here is a hint: the Raft configuration says who is a server, leases say who
//! works, and nothing here decides anything.
//!
//! [`protocol`] is pure: bytes and time in, bytes and events out. [`Gossip`] gives it a socket and a clock. [`mdns`] finds servers on a
//! local network, and does nothing unless it is called. The design is ADR 0011.

#![forbid(unsafe_code)]

mod config;
mod error;
mod gossip;
mod keyring;
pub mod mdns;
pub mod protocol;
mod sealed;
mod socket;
mod task;

pub use config::{Advertised, Config};
pub use error::GossipError;
pub use gossip::{Goodbye, Gossip};
pub use keyring::Keyring;
pub use protocol::{
    Counts, GossipKey, KeyError, KeyId, KeyRefusal, KeyRing, MAX_KEYS, Member, MemberState,
    NodeAnswer, Outcome, PeerError, ProfileError, Refusal, RingError, Tags, Timing, Who,
};
pub use sealed::{SealError, open_ring, seal_ring};
