//! What goes wrong with gossip.

use std::net::SocketAddr;

use crate::protocol::{NodeAnswer, PeerError, ProfileError, RingError};

/// Why gossip did not start, or something was not done.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The times do not fit each other.
    #[error(
        "gossip's times do not fit each other: a probe may take half a period, a suspect has at least a period; nothing was started"
    )]
    Timing,
    /// What the node says about itself cannot be carried.
    #[error("gossip cannot carry this: {0}; nothing was changed")]
    Profile(#[from] ProfileError),
    /// The address that others should send to is none.
    #[error(
        "gossip cannot advertise this: {0}; nothing was started. Give --advertise an address of this machine"
    )]
    Advertise(#[from] PeerError),
    /// The socket could not be had.
    #[error(
        "gossip cannot listen on {address}: {why}; nothing was started. Free the address or give another one to --bind"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: std::io::Error,
    },
    /// The system gives no random numbers.
    #[error(
        "the system gives no random numbers, and nothing can be sealed without; nothing was started"
    )]
    Random,
    /// Gossip has ended here.
    #[error(
        "gossip has stopped on this node: nothing was changed here; what others did is not known"
    )]
    Stopped,
    /// Too many things are asked for at once.
    #[error("gossip is busy with other requests: nothing was changed; try again in a moment")]
    Busy,
    /// This node's ring does not allow it.
    #[error("{0}; no ring was changed")]
    Ring(#[from] RingError),
    /// Not all alive members are ready for it.
    #[error("{}", not_ready(.0))]
    NotReady(Vec<NodeAnswer>),
}

fn not_ready(answers: &[NodeAnswer]) -> String {
    use crate::protocol::Outcome;
    let mut text = String::from("not every node that is alive is ready:");
    for answer in answers {
        let who = match &answer.name {
            Some(name) => name.to_string(),
            None => answer.id.to_string(),
        };
        match &answer.outcome {
            Outcome::Refused(why) => text.push_str(&format!(" {who}: {why};")),
            Outcome::NoAnswer => text.push_str(&format!(" {who}: no answer;")),
            Outcome::Done | Outcome::Keys(_) | Outcome::Away => {}
        }
    }
    text.push_str(" no ring was changed; try again when they answer");
    text
}
