//! What the replicated log holds, and what a snapshot of it is. Payloads follow `crates/engine/raft/src/command.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use prism_store::{Batch, Item, Revision};
use prism_types::Fence;

use crate::rng::fold;

/// A server for life: a disk that was replaced makes a new one.
pub type ServerId = u32;

/// Who votes, and who only listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Those whose majority decides.
    pub voters: BTreeSet<ServerId>,
    /// Those that are sent everything and not asked.
    pub learners: BTreeSet<ServerId>,
}

impl Config {
    /// How many voters are a majority.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}

/// One batch with the fence it is written under.
#[derive(Clone, Debug)]
pub struct Write {
    /// The fence.
    pub fence: Fence,
    /// The batch.
    pub batch: Arc<Batch>,
}

/// What an entry asks for.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Nothing: a leader's first entry.
    Blank,
    /// These batches in turn, each by itself.
    Commit(Vec<Write>),
    /// The next fence.
    Grant,
    /// Other members.
    Config(Config),
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: u64,
    /// What it asks for.
    pub payload: Arc<Payload>,
    /// A digest of both.
    pub digest: u64,
}

impl Entry {
    /// An entry of a term.
    pub fn new(term: u64, payload: Payload) -> Self {
        let mut digest = fold(term, b"entry");
        match &payload {
            Payload::Blank => digest = fold(digest, b"blank"),
            Payload::Grant => digest = fold(digest, b"grant"),
            Payload::Config(c) => {
                for id in c.voters.iter().chain(&c.learners) {
                    digest = fold(digest, &id.to_le_bytes());
                }
            }
            Payload::Commit(writes) => {
                for write in writes {
                    digest = fold(digest, &write.fence.0.to_le_bytes());
                    for (key, value) in &write.batch.puts {
                        digest = fold(fold(digest, key), value);
                    }
                    for key in &write.batch.deletes {
                        digest = fold(digest, key);
                    }
                }
            }
        }
        Self {
            term,
            payload: Arc::new(payload),
            digest,
        }
    }
}

/// The state of the store at an index.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The last entry in it.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The members there.
    pub config: Config,
    /// The revision there.
    pub revision: Revision,
    /// The fence there.
    pub fence: Fence,
    /// Every key.
    pub items: Vec<Item>,
    /// The digest of the log up to it, as the state machine keeps it.
    pub digest: u64,
}
