//! What is sealed in a datagram: one byte of kind, then either a packet of the failure detector or one of our own letters, in postcard.

use prism_types::NodeId;
use serde::{Deserialize, Deserializer, Serialize};

use crate::protocol::ask::Op;
use crate::protocol::key::KeyId;
use crate::protocol::peer::Peer;
use crate::protocol::profile::{Profile, few};
use crate::protocol::refusal::Refusal;
use crate::protocol::ring::MAX_KEYS;
use crate::protocol::seal::MAX_BODY;

/// Kinds of body.
pub(crate) const SWIM: u8 = 0;
pub(crate) const LETTER: u8 = 1;

/// Most entries of a digest: they fit a datagram at their longest.
pub(crate) const MAX_HAVES: usize = 30;
/// Most profiles in one letter.
pub(crate) const MAX_PROFILES: usize = 16;

/// Whom a letter is for: bound to a start of that node, so that it says nothing to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct To {
    /// The node.
    pub id: NodeId,
    /// Its incarnation.
    pub incarnation: u64,
}

/// A message of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Who says it.
    pub from: Peer,
    /// Whom it is for; only a [`Say::Hello`] is for whoever is there.
    pub to: Option<To>,
    /// What.
    pub say: Say,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Say {
    /// "I am here; who is at this address?"
    Hello {
        /// To be sent back.
        echo: u64,
    },
    /// The answer to a hello.
    Welcome {
        /// As in the hello.
        echo: u64,
        /// The highest incarnation of the asker that is known here, or 0.
        known: u64,
        /// Whether that one is down or has left.
        over: bool,
    },
    /// "This is how you are known here, and that one is down, or newer than you say."
    Known(Peer),
    /// "I have these profiles; tell me newer ones, and ask for those that you lack."
    Digest(#[serde(deserialize_with = "haves")] Vec<Have>),
    /// Profiles.
    Profiles(#[serde(deserialize_with = "profiles")] Vec<Profile>),
    /// Something to be done and answered.
    Ask {
        /// Grows with each question of an asker.
        request: u64,
        /// What.
        op: Op,
    },
    /// The answer.
    Answer {
        /// As in the question.
        request: u64,
        /// What came of it.
        reply: Reply,
    },
}

/// How new the profile is that a node has of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Of whom.
    pub id: NodeId,
    /// See [`Profile::age`].
    pub age: (u64, u64),
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done, or it was so already.
    Done,
    /// These keys are in the ring, the primary first.
    Keys(#[serde(deserialize_with = "keys")] Vec<KeyId>),
    /// No such key there.
    Unknown,
    /// The key is the primary there.
    Primary,
    /// No room for another key.
    Full,
    /// Another key with the same id is there.
    Clash,
}

fn haves<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Have>, D::Error> {
    few::<_, _, MAX_HAVES>(d)
}

fn profiles<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Profile>, D::Error> {
    few::<_, _, MAX_PROFILES>(d)
}

fn keys<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<KeyId>, D::Error> {
    few::<_, _, MAX_KEYS>(d)
}

/// The body of a letter, to be sealed.
///
/// # Panics
/// When the letter is longer than a datagram: the bounds of what a letter holds keep it shorter.
pub fn letter_body(letter: &Letter) -> Vec<u8> {
    let body = postcard::to_extend(letter, vec![LETTER]).expect("plain data is encoded");
    assert!(body.len() <= MAX_BODY, "a letter of {} bytes", body.len());
    body
}

/// What a body is.
pub(crate) enum Body<'b> {
    Swim(&'b [u8]),
    Letter(Box<Letter>),
}

/// Reads a body; nothing may be left over.
pub(crate) fn read(body: &[u8]) -> Result<Body<'_>, Refusal> {
    match body.split_first() {
        Some((&SWIM, packet)) => Ok(Body::Swim(packet)),
        Some((&LETTER, text)) => {
            let (letter, rest) =
                postcard::take_from_bytes::<Letter>(text).map_err(|_| Refusal::Malformed)?;
            if !rest.is_empty() {
                return Err(Refusal::Malformed);
            }
            check(&letter)?;
            Ok(Body::Letter(Box::new(letter)))
        }
        _ => Err(Refusal::Malformed),
    }
}

/// What the types do not say.
fn check(letter: &Letter) -> Result<(), Refusal> {
    let ok = match &letter.say {
        Say::Profiles(list) => list.iter().all(|p| p.check().is_ok()),
        // Nobody speaks for others when it leaves.
        Say::Ask {
            op: Op::Left(profile),
            ..
        } => {
            profile.check().is_ok()
                && profile.left
                && profile.who.id == letter.from.id
                && profile.incarnation == letter.from.incarnation
        }
        Say::Known(known) => letter.to.is_some_and(|to| to.id == known.id),
        _ => true,
    };
    let hello = matches!(letter.say, Say::Hello { .. });
    if ok && hello == letter.to.is_none() {
        Ok(())
    } else {
        Err(Refusal::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use prism_types::Id;

    use super::*;
    use crate::protocol::profile::{Tags, Who};

    /// The longest profile that there can be.
    fn longest() -> Profile {
        let tags: BTreeMap<String, String> = (0..Tags::MAX_ENTRIES)
            .map(|n| (format!("{n:04}"), "v".repeat(4)))
            .collect();
        let far: SocketAddr = "[fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
            .parse()
            .unwrap();
        Profile {
            who: Who {
                id: NodeId(Id(u128::MAX)),
                name: "n".repeat(63).parse().unwrap(),
                addresses: vec![far; Who::MAX_ADDRESSES],
                raft: u64::MAX,
                roles: vec!["r".repeat(Who::MAX_ROLE).parse().unwrap(); Who::MAX_ROLES],
            },
            incarnation: (1 << 60) - 1,
            version: (1 << 60) - 1,
            left: true,
            tags: Tags::new(tags).unwrap(),
        }
    }

    #[test]
    fn the_longest_letters_fit_a_datagram() {
        let profile = longest();
        profile.check().unwrap();
        let from = Peer::new(
            profile.who.id,
            profile.incarnation,
            profile.who.addresses[0],
        )
        .unwrap();
        let have = Have {
            id: profile.who.id,
            age: (u64::MAX, u64::MAX),
        };
        for say in [
            Say::Profiles(vec![profile.clone()]),
            Say::Digest(vec![have; MAX_HAVES]),
            Say::Ask {
                request: u64::MAX,
                op: Op::Left(Box::new(profile)),
            },
            Say::Answer {
                request: u64::MAX,
                reply: Reply::Keys(vec![KeyId([255; 4]); MAX_KEYS]),
            },
        ] {
            let to = Some(To {
                id: from.id,
                incarnation: u64::MAX,
            });
            let letter = Letter { from, to, say };
            let body = letter_body(&letter);
            match read(&body) {
                Ok(Body::Letter(read)) => assert_eq!(*read, letter),
                _ => panic!("{letter:?}"),
            }
        }
    }
}
