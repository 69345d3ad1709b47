//! What gossip is started with, and the address that others are told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use prism_types::Id;

use crate::protocol::{KeyRing, Tags, Timing, Who};

/// What gossip is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster: bound to every datagram.
    pub cluster: Id,
    /// Who this node is.
    pub who: Who,
    /// Its tags.
    pub tags: Tags,
    /// Its keys.
    pub ring: KeyRing,
    /// Where to listen. `0.0.0.0` and `::` are fine; `::` listens on IPv4 too. Port 0 takes any.
    pub bind: SocketAddr,
    /// What others are told to send to; port 0 means the one that was bound. `None`: see [`Advertised`].
    pub advertise: Option<SocketAddr>,
    /// Members to look for. They are looked for until they answer.
    pub join: Vec<SocketAddr>,
    /// Most members that are remembered. Default 1,024.
    pub max_members: usize,
    /// The failure detector's times.
    pub timing: Timing,
}

impl Config {
    /// With defaults for what has any; listens on every address, on a free port.
    pub fn new(cluster: Id, who: Who, ring: KeyRing) -> Self {
        Self {
            cluster,
            who,
            tags: Tags::default(),
            ring,
            bind: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            advertise: None,
            join: Vec::new(),
            max_members: 1024,
            timing: Timing::default(),
        }
    }
}

/// The address that others are told, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The address.
    pub address: SocketAddr,
    /// Why, in words.
    pub why: String,
}

impl Advertised {
    /// Chooses. What is given is taken; else the address that is bound; else the one that the route towards the first peer begins with;
    /// else the one that the route to the rest of the world begins with; else loopback. Nothing is sent.
    pub(crate) fn choose(
        given: Option<SocketAddr>,
        bound: SocketAddr,
        join: &[SocketAddr],
    ) -> Self {
        let port = bound.port();
        let chosen = |ip: IpAddr, why: String| Self {
            address: SocketAddr::new(ip, port),
            why,
        };
        match given {
            Some(address) if address.port() != 0 => {
                return Self {
                    address,
                    why: "it was given".to_owned(),
                };
            }
            Some(address) => {
                return chosen(
                    address.ip(),
                    "it was given; the port is the bound one".to_owned(),
                );
            }
            None => {}
        }
        if !bound.ip().is_unspecified() {
            return chosen(
                bound.ip(),
                "it is the address that gossip listens on".to_owned(),
            );
        }
        let usable = |peer: &&SocketAddr| bound.is_ipv6() || peer.is_ipv4();
        for peer in join.iter().filter(usable) {
            if let Some(ip) = route(*peer) {
                return chosen(ip, format!("the route towards {peer} begins there"));
            }
        }
        // Addresses for documentation (RFC 5737, RFC 3849): no packet is sent to them, only the route is looked up.
        let world = [
            SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)),
            SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9)),
        ];
        for far in world.iter().filter(usable) {
            if let Some(ip) = route(*far) {
                let why = "no peer was named, and the route to other networks begins there";
                return chosen(ip, why.to_owned());
            }
        }
        let loopback = if bound.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        };
        let why = "this machine has no route to anywhere: only processes on it can reach this node";
        chosen(loopback, why.to_owned())
    }
}

/// Which address of this machine packets towards another would come from.
fn route(towards: SocketAddr) -> Option<IpAddr> {
    let any = match towards {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(towards).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    let fit = crate::protocol::Peer::new(prism_types::NodeId::default(), 0, (ip, 9).into());
    fit.ok().map(|_| ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_wins_and_a_port_of_0_means_the_bound_one() {
        let bound = "0.0.0.0:7000".parse().unwrap();
        let given = Advertised::choose(Some("10.1.2.3:9".parse().unwrap()), bound, &[]);
        assert_eq!(given.address, "10.1.2.3:9".parse().unwrap());
        let given = Advertised::choose(Some("10.1.2.3:0".parse().unwrap()), bound, &[]);
        assert_eq!(given.address, "10.1.2.3:7000".parse().unwrap());
    }

    #[test]
    fn a_bound_address_is_told_and_an_open_one_is_replaced_by_the_route_to_the_first_peer() {
        let bound = Advertised::choose(None, "127.0.0.2:7000".parse().unwrap(), &[]);
        assert_eq!(bound.address, "127.0.0.2:7000".parse().unwrap());
        let peer = "127.0.0.9:1".parse().unwrap();
        for open in ["0.0.0.0:7000", "[::]:7000"] {
            let routed = Advertised::choose(None, open.parse().unwrap(), &[peer]);
            assert_eq!(routed.address, "127.0.0.1:7000".parse().unwrap(), "{open}");
            assert!(routed.why.contains("127.0.0.9:1"), "{}", routed.why);
        }
        // An IPv4 socket cannot use a route of IPv6.
        let only6 = "[::1]:1".parse().unwrap();
        let routed = Advertised::choose(None, "0.0.0.0:7000".parse().unwrap(), &[only6, peer]);
        assert_eq!(routed.address, "127.0.0.1:7000".parse().unwrap());
    }
}
