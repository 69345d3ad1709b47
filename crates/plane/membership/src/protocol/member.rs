//! Members as others see them.

use std::net::SocketAddr;
use std::time::Duration;

use prism_types::{Name, NodeId};

use crate::protocol::profile::Tags;

/// What gossip believes of a member. A hint: the Raft configuration says who is a server, leases say who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer, directly or through others; it has some time to say that it lives.
    Suspect,
    /// It did not say so.
    Down,
    /// It said that it goes.
    Left,
}

impl std::fmt::Display for MemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        })
    }
}

/// One member, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name; not known for the first moments.
    pub name: Option<Name>,
    /// What is believed of it.
    pub state: MemberState,
    /// Where its gossip is received.
    pub address: SocketAddr,
    /// Where else it listens.
    pub addresses: Vec<SocketAddr>,
    /// Its number in the Raft configuration, or 0.
    pub raft: u64,
    /// What it is for.
    pub roles: Vec<Name>,
    /// Its tags.
    pub tags: Tags,
    /// Its incarnation: renewed at each start, and when it heard that it was thought dead.
    pub incarnation: u64,
    /// Since when it is in this state: in the engine's time here, in Unix time from [`crate::Gossip::members`].
    pub since: Duration,
    /// Whether it is this node.
    pub me: bool,
    /// How long it takes to answer a probe, smoothed; `None` when it never has, and of this node.
    pub round_trip: Option<Duration>,
}
