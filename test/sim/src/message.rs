//! What servers say to each other about the log.

use std::sync::Arc;

use crate::log::{Entry, Snapshot};

/// What servers say to each other.
#[derive(Clone, Debug)]
pub enum Msg {
    /// Asks for a vote.
    Vote {
        /// The term it is for.
        term: u64,
        /// Only asks whether one would be given.
        pre: bool,
        /// The leader itself asked for this election.
        wanted: bool,
        /// Index and term of the candidate's last entry.
        last: (u64, u64),
    },
    /// Answers it.
    Voted {
        /// The term it is for; of the answerer when refused.
        term: u64,
        /// As asked.
        pre: bool,
        /// Whether.
        granted: bool,
    },
    /// Entries, or a heartbeat.
    Append {
        /// The leader's term.
        term: u64,
        /// Index and term of the entry before.
        prev: (u64, u64),
        /// The entries.
        entries: Vec<Entry>,
        /// How far is committed.
        commit: u64,
        /// Number of the heartbeat.
        probe: u64,
    },
    /// Answers it, and [`Msg::Install`].
    Appended {
        /// The answerer's term.
        term: u64,
        /// Whether the entry before was there.
        ok: bool,
        /// How far the log matches; if not, where to try.
        upto: u64,
        /// As asked.
        probe: u64,
    },
    /// A snapshot for one that is far behind.
    Install {
        /// The leader's term.
        term: u64,
        /// The snapshot.
        snapshot: Arc<Snapshot>,
        /// Number of the heartbeat.
        probe: u64,
    },
    /// Stand for election now.
    Stand {
        /// The leader's term.
        term: u64,
    },
}
