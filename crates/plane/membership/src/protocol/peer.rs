//! What the failure detector knows a node by: small, because it is in every datagram. The rest is in the [`Profile`](super::Profile).

use std::net::{IpAddr, SocketAddr};

use prism_types::NodeId;
use serde::{Deserialize, Serialize};

/// Incarnations stay below this, so that there is always a next one.
pub(crate) const MAX_INCARNATION: u64 = 1 << 60;

/// A node at one of its starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Peer {
    /// Who: for life.
    pub id: NodeId,
    /// Renewed at each start, and when the node hears that it is thought dead: the higher one is right.
    pub incarnation: u64,
    /// Where its gossip is received.
    pub address: SocketAddr,
}

/// Why an address or an incarnation is none that a member can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nothing can be sent there.
    #[error("{0} is no address that others can send to: {1}")]
    Address(SocketAddr, &'static str),
    /// Out of range.
    #[error("the incarnation {0} is out of range")]
    Incarnation(u64),
}

impl Peer {
    /// A node at one of its starts.
    ///
    /// # Errors
    /// When nothing can be sent to the address, or the incarnation is 2⁶⁰ or more.
    pub fn new(id: NodeId, incarnation: u64, address: SocketAddr) -> Result<Self, PeerError> {
        if incarnation >= MAX_INCARNATION {
            return Err(PeerError::Incarnation(incarnation));
        }
        match unfit(address) {
            Some(why) => Err(PeerError::Address(address, why)),
            None => Ok(Self {
                id,
                incarnation,
                address,
            }),
        }
    }
}

/// Why nothing can be sent to an address, if so.
pub(crate) fn unfit(address: SocketAddr) -> Option<&'static str> {
    let ip = address.ip();
    match ip {
        _ if ip.is_unspecified() => Some("it means every address of a machine; name one"),
        _ if ip.is_multicast() => Some("it is a group, not a machine"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("it means every machine of a network"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("a link-local address means nothing without an interface")
        }
        _ if address.port() == 0 => Some("its port is 0"),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Raw {
    id: NodeId,
    incarnation: u64,
    address: SocketAddr,
}

impl TryFrom<Raw> for Peer {
    type Error = PeerError;

    fn try_from(raw: Raw) -> Result<Self, PeerError> {
        Self::new(raw.id, raw.incarnation, raw.address)
    }
}

impl foca::Identity for Peer {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Self::new(self.id, self.incarnation + 1, self.address).ok()
    }

    fn addr(&self) -> NodeId {
        self.id
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        // The address only so that all agree on one of two processes that use one node's id.
        (self.incarnation, self.address) > (other.incarnation, other.address)
    }
}
