//! Why a datagram was not taken, and the counts that metrics are made of.

use crate::protocol::key::KeyId;

/// Why a datagram changed nothing. No answer is ever sent to one that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than any of ours.
    #[error("longer than a datagram of ours may be")]
    TooLong,
    /// Shorter than any of ours.
    #[error("shorter than a datagram of ours can be")]
    TooShort,
    /// Another version of the format, or something else altogether.
    #[error("version {0} of the format is not spoken here")]
    Version(u8),
    /// Of another cluster.
    #[error("it is of another cluster")]
    Cluster,
    /// Sealed with a key that is not in the ring.
    #[error(
        "it is sealed with key {0}, which this node does not have: install that key here, or take it out of use there"
    )]
    UnknownKey(KeyId),
    /// The seal is broken: changed on the way, or not made with the key it names.
    #[error("its seal is broken: it was changed on the way, or made without the key")]
    Seal,
    /// Seen before, or older than the window of counters.
    #[error("it was received before, or is far older than what was")]
    Replayed,
    /// The seal is good, and what is in it makes no sense.
    #[error("its seal is good, but what it says is malformed")]
    Malformed,
    /// Meant for another node, or for an earlier start of this one.
    #[error("it is meant for another node, or for an earlier start of this one")]
    NotForUs,
    /// Says that it comes from this very node.
    #[error("it names this node as its sender")]
    Ourselves,
    /// Comes from a start of a node that is over, or answers nothing that was asked.
    #[error("it is of an earlier start of its sender, or answers nothing that was asked")]
    Stale,
    /// There are as many members as there may be.
    #[error("there are as many members as this node keeps")]
    Full,
    /// This node has left, and listens no more.
    #[error("this node is leaving")]
    Leaving,
}

impl Refusal {
    /// How many kinds there are.
    pub const KINDS: usize = 13;

    /// The names of all kinds, as in metrics.
    pub const NAMES: [&'static str; Self::KINDS] = [
        "too_long",
        "too_short",
        "version",
        "cluster",
        "unknown_key",
        "seal",
        "replayed",
        "malformed",
        "not_for_us",
        "ourselves",
        "stale",
        "full",
        "leaving",
    ];

    /// Its place in [`Self::NAMES`].
    pub fn index(self) -> usize {
        match self {
            Self::TooLong => 0,
            Self::TooShort => 1,
            Self::Version(_) => 2,
            Self::Cluster => 3,
            Self::UnknownKey(_) => 4,
            Self::Seal => 5,
            Self::Replayed => 6,
            Self::Malformed => 7,
            Self::NotForUs => 8,
            Self::Ourselves => 9,
            Self::Stale => 10,
            Self::Full => 11,
            Self::Leaving => 12,
        }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// What has gone in and out since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams handed to the network.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Datagrams that the network did not take.
    pub unsent: u64,
    /// Datagrams received, the refused ones too.
    pub received: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Refused ones, in the order of [`Refusal::NAMES`].
    pub refused: [u64; Refusal::KINDS],
    /// Times that this node found that it had been held up (paused, starved), and so accused nobody.
    pub held_up: u64,
    /// Times that this node was said to be down or gone, and said that it is not.
    pub refuted: u64,
}

impl Counts {
    /// How many were refused for one reason.
    pub fn refused_as(&self, why: Refusal) -> u64 {
        self.refused[why.index()]
    }

    /// How many were refused.
    pub fn refused_all(&self) -> u64 {
        self.refused.iter().sum()
    }
}
