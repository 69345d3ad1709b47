//! What a log entry can ask of the state machine, and its answer. Serialized into the log: a change here is a change
//! of the format on disk, see `log::frame::BODY_VERSION`.

use std::fmt;
use std::sync::Arc;

use prism_store::{Batch, Refusal, Revision};
use prism_types::Fence;
use serde::{Deserialize, Serialize};

/// One batch with the fence it is written under.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Write {
    pub(crate) fence: Fence,
    pub(crate) batch: Batch,
}

/// What an entry asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Commit these batches in turn, each by itself.
    Commit(Vec<Write>),
    /// Grant the next fence.
    Grant,
    /// Drop what is needed only before a revision.
    Compact(Revision),
}

impl Command {
    /// Roughly its bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Commit(writes) => writes.iter().map(|w| w.batch.bytes() + 64).sum(),
            Self::Grant | Self::Compact(_) => 64,
        }
    }
}

/// A command as entries carry it: cheap to clone, since an entry is held by the log and the state machine at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Proposal(pub(crate) Arc<Command>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Command::Commit(writes) => write!(f, "commit of {} batches", writes.len()),
            Command::Grant => f.write_str("grant"),
            Command::Compact(to) => write!(f, "compact to {to}"),
        }
    }
}

/// What an entry was answered with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Entries of consensus itself have none.
    None,
    /// For each batch its revision, or why it was refused.
    Commit(Vec<Result<Revision, Refusal>>),
    /// The fence.
    Grant(Fence),
    /// Whether the revision exists.
    Compact(Result<(), Refusal>),
}
