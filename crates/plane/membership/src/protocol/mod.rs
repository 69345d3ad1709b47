//! What gossip is, without a socket, a clock or randomness of its own: bytes, time and entropy come in, bytes and events come out. The
//! shell ([`crate::Gossip`]) and the tests' network in memory run the same [`Engine`].

mod ask;
mod asking;
mod engine;
mod key;
mod letters;
mod member;
mod noise;
mod peer;
mod profile;
mod refusal;
mod ring;
mod seal;
mod swim;
mod timers;
mod view;
mod window;
mod wire;

pub use ask::{KeyRefusal, NodeAnswer, Op, Outcome};
pub use engine::{Engine, Event, Setup, Timing};
pub use key::{GossipKey, KeyError, KeyId};
pub use member::{Member, MemberState};
pub use peer::{Peer, PeerError};
pub use profile::{Profile, ProfileError, Tags, Who};
pub use refusal::{Counts, Refusal};
pub use ring::{KeyRing, MAX_KEYS, RingError};
pub use seal::{Boot, HEAD, MAX_BODY, MAX_DATAGRAM, Sealer, TAG, VERSION, open};
pub use window::{WINDOW, Windows};
pub use wire::{Have, Letter, Reply, Say, To, letter_body};
