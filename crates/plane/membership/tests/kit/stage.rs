//! One member of three, before whom hostile datagrams are played.

use foca::{Codec, Header, Message, PostcardCodec};
use prism_membership::protocol::{Boot, Letter, Peer, Say, Sealer, To, letter_body};
use prism_membership::{KeyRing, Refusal};
use prism_types::Id;

use super::{CLUSTER, World, key};

/// A victim among members, and one who can seal what it likes.
pub struct Stage {
    pub world: World,
    pub sealer: Sealer,
    pub boots: u64,
}

/// A datagram that is refused: what it is, its bytes, why it is refused.
pub type Case = (String, Vec<u8>, Refusal);

pub fn ring() -> KeyRing {
    KeyRing::new(key(1))
}

pub fn sealer(n: u64, cluster: Id, ring: &KeyRing) -> Sealer {
    let mut boot = [0xee; 16];
    boot[..8].copy_from_slice(&n.to_be_bytes());
    Sealer::new(cluster, Boot(boot), ring)
}

impl Stage {
    pub fn new() -> Self {
        let mut world = World::joined(3, 1);
        world.until("all see all", 60, World::whole);
        let sealer = sealer(0, CLUSTER, &ring());
        Self {
            world,
            sealer,
            boots: 0,
        }
    }

    pub fn peer(&mut self, n: usize) -> Peer {
        self.world.engine(n).me()
    }

    pub fn me(&mut self) -> To {
        let me = self.peer(0);
        To {
            id: me.id,
            incarnation: me.incarnation,
        }
    }

    /// Sealed well, whatever it is.
    pub fn sealed(&mut self, body: &[u8]) -> Vec<u8> {
        self.sealer.seal(&ring(), body)
    }

    pub fn letter(&mut self, from: Peer, to: Option<To>, say: Say) -> Vec<u8> {
        let body = letter_body(&Letter { from, to, say });
        self.sealed(&body)
    }

    /// A letter of a member to the victim.
    pub fn letter_of(&mut self, member: usize, say: Say) -> Vec<u8> {
        let (from, to) = (self.peer(member), self.me());
        self.letter(from, Some(to), say)
    }

    /// A packet of the failure detector, with bytes after its header.
    pub fn packet(&mut self, src: Peer, dst: Peer, message: Message<Peer>, rest: &[u8]) -> Vec<u8> {
        let header = Header {
            src,
            src_incarnation: 0,
            dst,
            message,
        };
        let mut body = vec![0];
        PostcardCodec.encode_header(&header, &mut body).unwrap();
        body.extend_from_slice(rest);
        self.sealed(&body)
    }

    /// Hands a datagram to the victim; it must be refused so, and change nothing.
    pub fn refused(&mut self, (what, datagram, why): &Case) {
        let now = self.world.now;
        let engine = self.world.engine(0);
        engine.take_out();
        engine.take_events();
        let (members, counts) = (engine.members(), engine.counts());
        let (kept, keys) = (engine.kept(), engine.ring().ids());
        let me = engine.me();
        let mut datagram = datagram.clone();
        let got = engine.receive(now, &mut datagram);
        assert_eq!(got.map_err(Refusal::name), Err(why.name()), "{what}");
        let after = engine.counts();
        assert_eq!(
            after.refused_as(*why),
            counts.refused_as(*why) + 1,
            "{what}"
        );
        assert_eq!(after.refused_all(), counts.refused_all() + 1, "{what}");
        assert_eq!(engine.take_out(), [], "{what}: an answer");
        assert_eq!(engine.take_events(), [], "{what}");
        assert_eq!(engine.members(), members, "{what}");
        assert_eq!(engine.ring().ids(), keys, "{what}");
        assert_eq!(engine.me(), me, "{what}");
        // The window of a sender whose seal is good.
        assert!(engine.kept() <= kept + 1, "{what}");
    }

    pub fn all_refused(&mut self, cases: Vec<Case>) -> usize {
        for case in &cases {
            self.refused(case);
        }
        println!("{} datagrams refused", cases.len());
        cases.len()
    }
}

pub fn case(what: impl Into<String>, datagram: Vec<u8>, why: Refusal) -> Case {
    (what.into(), datagram, why)
}
