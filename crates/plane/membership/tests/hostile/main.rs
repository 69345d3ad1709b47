//! Datagrams of all the wrong kinds against one member of three: each is refused, counted under its reason, answered by nothing, and
//! leaves everything as it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

#[path = "../kit/mod.rs"]
mod kit;

mod liars;
mod malformed;
mod outsiders;
mod random;
mod strangers;

use std::net::SocketAddr;

use foca::{Codec, Message, PostcardCodec, State};
use kit::stage::{Stage, case, ring, sealer};
use kit::{CLUSTER, Dice, World, address, id, key, who};
use prism_membership::protocol::{
    HEAD, Have, Letter, MAX_BODY, MAX_DATAGRAM, Op, Peer, Profile, Reply, Say, TAG, To, WINDOW,
    letter_body,
};
use prism_membership::{GossipKey, KeyId, KeyRing, Refusal, Tags};
use prism_types::Id;
use proptest::prelude::*;

fn ask(op: Op) -> Say {
    Say::Ask { request: 1, op }
}

const NO_KEY: Refusal = Refusal::UnknownKey(KeyId([0; 4]));

/// A last profile of a member, as it would write it itself.
fn leaving(stage: &mut Stage, n: usize) -> Profile {
    Profile {
        who: who(n),
        incarnation: stage.peer(n).incarnation,
        version: 1 << 40,
        left: true,
        tags: Tags::default(),
    }
}
