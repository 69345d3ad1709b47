//! Questions to all members that are alive, each answered by each within a deadline: how keys are spread and how a node says goodbye.
//! They travel in the same sealed datagrams, are repeated until answered, and do no harm when done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prism_types::{Name, NodeId};
use serde::{Deserialize, Serialize};

use crate::protocol::key::{GossipKey, KeyId};
use crate::protocol::profile::Profile;
use crate::protocol::wire::Reply;

/// Most questions under way at once.
pub(crate) const MOST: usize = 16;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Which keys are there?
    Report,
    /// Take this key; it seals nothing yet.
    Install(#[serde(with = "key")] GossipKey),
    /// Seal with this key.
    Use(KeyId),
    /// Forget this key.
    Remove(KeyId),
    /// The asker leaves; its last profile.
    Left(Box<Profile>),
}

mod key {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::protocol::key::GossipKey;

    pub(super) fn serialize<S: Serializer>(key: &GossipKey, s: S) -> Result<S::Ok, S::Error> {
        key.expose_bytes().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<GossipKey, D::Error> {
        <[u8; 32]>::deserialize(d).map(GossipKey::from_bytes)
    }
}

/// Why a node did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// It lacks the key.
    #[error("it does not have the key")]
    Unknown,
    /// The key is its primary.
    #[error("it seals with that key")]
    Primary,
    /// Its ring is full.
    #[error("its ring is full")]
    Full,
    /// It has another key with the same id.
    #[error("it has another key with the same id")]
    Clash,
}

/// What one node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or it was so already.
    Done,
    /// The keys it has, its primary first.
    Keys(Vec<KeyId>),
    /// It did not do it.
    Refused(KeyRefusal),
    /// Nothing came within the deadline: it may have done it or not.
    NoAnswer,
    /// It is down and was not asked.
    Away,
}

/// One node's part in a question to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAnswer {
    /// The node.
    pub id: NodeId,
    /// Its name, if known.
    pub name: Option<Name>,
    /// What it answered.
    pub outcome: Outcome,
}

/// A question under way.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) op: Op,
    pub(crate) waiting: BTreeSet<NodeId>,
    pub(crate) answers: BTreeMap<NodeId, Outcome>,
    pub(crate) again: Duration,
    pub(crate) deadline: Duration,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Done => Self::Done,
            Reply::Keys(keys) => Self::Keys(keys),
            Reply::Unknown => Self::Refused(KeyRefusal::Unknown),
            Reply::Primary => Self::Refused(KeyRefusal::Primary),
            Reply::Full => Self::Refused(KeyRefusal::Full),
            Reply::Clash => Self::Refused(KeyRefusal::Clash),
        }
    }
}
