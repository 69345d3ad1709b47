//! A server's disk: writes wait until a sync, which takes all that wait at once. A crash keeps some first part of what was
//! being written, the last of it torn.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bugs::Bug;
use crate::log::{Config, Entry, ServerId, Snapshot};
use crate::raft;
use crate::rng::Rng;

/// A write.
#[derive(Clone, Debug)]
pub enum Op {
    /// Nothing: for what must come after what is being written.
    None,
    /// Term and vote.
    Vote(u64, Option<ServerId>),
    /// Entries from an index on; what was there and after it goes.
    Append(u64, Vec<Entry>),
    /// A snapshot; what it holds goes from the log.
    Snapshot(Arc<Snapshot>),
    /// Only a planted fault writes this: how far the log is applied.
    Applied(u64),
}

/// A write that is not durable yet.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The write.
    pub op: Op,
    /// What to send when it is.
    pub after: Vec<(ServerId, raft::Msg)>,
    /// Term and index of the last entry that is durable then.
    pub durable: Option<(u64, u64)>,
}

/// What is durable.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Term and vote.
    pub vote: (u64, Option<ServerId>),
    /// The snapshot.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The entries after it.
    pub log: Vec<Entry>,
    /// See [`Op::Applied`].
    pub applied: u64,
}

impl Image {
    fn base(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |s| s.index)
    }

    fn apply(&mut self, op: &Op, bug: Option<Bug>) {
        match op {
            Op::None => {}
            Op::Vote(term, vote) => {
                // A term comes with the entries too.
                if bug != Some(Bug::VoteNotPersisted) {
                    self.vote = (*term, *vote);
                }
            }
            Op::Append(from, entries) => {
                let keep = usize::try_from(from.saturating_sub(self.base() + 1)).unwrap_or(0);
                self.log.truncate(keep);
                self.log.extend(entries.iter().cloned());
            }
            Op::Snapshot(snapshot) => {
                let base = self.base();
                if snapshot.index <= base {
                    return;
                }
                let upto = usize::try_from(snapshot.index - base).unwrap_or(usize::MAX);
                let known = self
                    .log
                    .get(upto - 1)
                    .is_some_and(|e| e.term == snapshot.term);
                match known {
                    true => drop(self.log.drain(..upto)),
                    false => self.log.clear(),
                }
                self.snapshot = Some(Arc::clone(snapshot));
                self.applied = self.applied.max(snapshot.index);
            }
            Op::Applied(index) => self.applied = *index,
        }
    }
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// What is durable.
    pub image: Image,
    queue: VecDeque<Pending>,
    flying: usize,
    /// How many times slower than usual.
    pub slow: u64,
    /// The next sync fails.
    pub fails: bool,
    /// There is no room.
    pub full: bool,
}

/// What a crash did to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crashed {
    /// Writes that were lost.
    pub lost: usize,
    /// Whether an append was cut in the middle.
    pub torn: bool,
}

impl Disk {
    /// A disk of a server that was there when the cluster began.
    pub fn founding(config: Config) -> Self {
        let mut disk = Self::default();
        disk.image.vote = (1, None);
        disk.image.log = vec![Entry::new(1, crate::log::Payload::Config(config))];
        disk
    }

    /// Queues a write; gives it back at once if it counts as durable already.
    pub fn push(&mut self, write: Pending, bug: Option<Bug>) -> Option<Pending> {
        let idle = self.queue.is_empty() && matches!(write.op, Op::None);
        if idle {
            return Some(write);
        }
        if bug == Some(Bug::SkipFsync) {
            let op = write.op.clone();
            self.queue.push_back(Pending {
                op,
                after: Vec::new(),
                durable: None,
            });
            return Some(write);
        }
        self.queue.push_back(write);
        None
    }

    /// Begins a sync of all that waits, if none is under way; how long it takes.
    pub fn begin(&mut self, rng: &mut Rng) -> Option<u64> {
        if self.flying > 0 || self.queue.is_empty() || self.full {
            return None;
        }
        self.flying = self.queue.len();
        let slow = self.slow.max(1);
        Some(rng.within(1, 4) * slow)
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Ends the sync: what is durable now.
    pub fn end(&mut self, bug: Option<Bug>) -> Vec<Pending> {
        let done: Vec<Pending> = self.queue.drain(..self.flying).collect();
        self.flying = 0;
        for write in &done {
            self.image.apply(&write.op, bug);
        }
        done
    }

    /// The sync failed and its writes count as done all the same: what a second sync says after the first one failed.
    pub fn end_falsely(&mut self) -> Vec<Pending> {
        let done: Vec<Pending> = self.queue.drain(..self.flying).collect();
        self.flying = 0;
        done
    }

    /// Power fails, or the process is killed: some first part of what waits is durable.
    pub fn crash(&mut self, rng: &mut Rng, bug: Option<Bug>) -> Crashed {
        let kept = rng.index(self.queue.len() + 1);
        let mut crashed = Crashed {
            lost: self.queue.len() - kept,
            torn: false,
        };
        for write in self.queue.drain(..kept) {
            self.image.apply(&write.op, bug);
        }
        if let Some(Pending {
            op: Op::Append(from, entries),
            ..
        }) = self.queue.front()
        {
            // Whole entries before the torn one are found by their checksums; the torn one is dropped.
            let whole = rng.index(entries.len());
            let part = Op::Append(*from, entries[..whole].to_vec());
            self.image.apply(&part, bug);
            crashed.torn = true;
        }
        self.queue.clear();
        self.flying = 0;
        crashed
    }
}
