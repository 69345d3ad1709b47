//! Why a store says no. Every error says what became of the write and whether asking again can help.

use prism_types::{Fence, Outcome};

use crate::Revision;

/// Why a store said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another leadership was granted since, or this one never was.
    #[error(
        "the write carries fence {} but the latest granted is {}; nothing was changed, stop acting as the leader",
        given.0, latest.0
    )]
    Fenced {
        /// The fence of the write.
        given: Fence,
        /// The latest one granted.
        latest: Fence,
    },
    /// This server does not lead the store.
    #[error("this server does not lead the store ({leader}); nothing was changed, ask the leader")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: String,
    },
    /// The revision is older than what is kept.
    #[error(
        "revision {asked} was compacted, the oldest kept is {oldest}; read the current state and go on from there"
    )]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision that can be read or watched from.
        oldest: Revision,
    },
    /// The revision does not exist yet.
    #[error("revision {asked} is ahead of the store, which is at {latest}")]
    Ahead {
        /// What was asked for.
        asked: Revision,
        /// The latest one.
        latest: Revision,
    },
    /// The batch or a key is larger than the store takes.
    #[error(
        "{what} of {bytes} bytes is over the limit of {limit}; nothing was changed, send less at once"
    )]
    TooLarge {
        /// The batch, or the key.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// What keeps the store refused, or does not answer. Known not to have been done.
    #[error("the store cannot do this now ({why}); nothing was changed, {advice}")]
    Unavailable {
        /// What is wrong.
        why: String,
        /// What to do about it.
        advice: String,
    },
    /// What keeps the store has no room for more. Known not to have been done; reads go on.
    #[error("the store has no room left ({why}); nothing was changed, {advice}")]
    Full {
        /// What is wrong.
        why: String,
        /// What to do about it.
        advice: String,
    },
    /// The store stopped before the write was handed over.
    #[error("the store has stopped ({0}); nothing was changed, start it again")]
    Stopped(String),
    /// The store stopped, or lost its quorum, after the write was handed over.
    #[error(
        "the store stopped before it answered ({0}); the write may or may not have been applied, read it back"
    )]
    Unanswered(String),
}

impl StoreError {
    /// What became of the write.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unanswered(_) => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }

    /// Whether the same request may succeed later without any change to it.
    pub fn retryable(&self) -> bool {
        match self {
            Self::NotLeader { .. }
            | Self::Unavailable { .. }
            | Self::Full { .. }
            | Self::Stopped(_)
            | Self::Unanswered(_)
            | Self::Ahead { .. } => true,
            Self::Fenced { .. } | Self::Compacted { .. } | Self::TooLarge { .. } => false,
        }
    }
}
