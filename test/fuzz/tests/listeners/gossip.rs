//! Gossip's port: datagrams of those who have no key, or another.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use prism_fuzz::{Dice, mutated};
use prism_membership::protocol::{Boot, MAX_BODY, Sealer};
use prism_membership::{GossipKey, KeyRing};
use prism_types::Id;

use crate::net::Tally;
use crate::site::Site;

/// Changed datagrams of a round.
const DATAGRAMS: usize = 600;
/// Where a datagram has the name of its key.
const KEY: std::ops::Range<usize> = 5..9;
/// Of how many datagrams the socket's buffer has room in any case.
const BURST: usize = 64;

fn sealed(cluster: Id, n: u8, body: &[u8]) -> Vec<u8> {
    let ring = KeyRing::new(GossipKey::from_bytes([n; 32]));
    Sealer::new(cluster, Boot([n; 16]), &ring).seal(&ring, body)
}

/// One of each kind that an outsider can make.
fn seeds(site: &Site) -> Vec<Vec<u8>> {
    let strange = sealed(site.cluster, 3, b"\x01something that nobody reads");
    // The right name on the wrong key.
    let mut broken = strange.clone();
    broken[KEY].copy_from_slice(&site.key);
    vec![
        sealed(Id(7), 3, b"of another cluster"),
        sealed(site.cluster, 4, &[0; MAX_BODY]),
        strange,
        broken,
        b"\x02another version of it, which is long enough to be one of ours".to_vec(),
        vec![1],
        vec![1; 4_000],
        Vec::new(),
    ]
}

fn answered(socket: &UdpSocket) -> bool {
    let mut bytes = [0; 2_048];
    socket.recv_from(&mut bytes).is_ok()
}

pub fn datagrams(site: &Site, round: u64) -> Tally {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let pause = Some(Duration::from_millis(2));
    socket.set_read_timeout(pause).expect("a socket's time");
    let to: SocketAddr = site.members;
    let mut dice = Dice::new(300 + round);
    let seeds = seeds(site);
    let changed = (0..DATAGRAMS).map(|_| mutated(&mut dice, &seeds));
    let all: Vec<Vec<u8>> = seeds.iter().cloned().chain(changed).collect();
    let mut tally = Tally::default();
    for (n, datagram) in all.iter().enumerate() {
        // Longer ones the system does not take.
        let datagram = &datagram[..datagram.len().min(60_000)];
        if socket.send_to(datagram, to).is_ok() {
            tally.cases += 1;
        }
        if n % BURST == 0 && answered(&socket) {
            tally
                .wrong
                .push("gossip has answered an outsider".to_owned());
        }
    }
    tally
}
