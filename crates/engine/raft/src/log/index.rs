//! What is known of the log in memory: where each entry is, and the entries that are not applied yet. Shared between
//! the writer, which adds to it, and readers. Does no I/O itself.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use crate::raft::{Entry, LogId, Vote};

/// Where an entry is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// A segment that holds entries.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) file: Arc<File>,
    /// The entry before its first one.
    pub(super) before: Option<LogId>,
    /// The end of its frames, in bytes.
    pub(super) end: u64,
}

/// An entry at hand, or where to read it.
#[derive(Debug)]
pub(super) enum Found {
    Entry(Entry),
    Place(Arc<File>, Place),
}

/// The log in memory.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) segments: BTreeMap<u64, Held>,
    /// Places of the entries from `first` on, as far as they are written.
    places: VecDeque<Place>,
    first: u64,
    /// The entries from `recent_first` on: all that are not applied yet.
    recent: VecDeque<Entry>,
    recent_first: u64,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    pub(super) committed: Option<LogId>,
    pub(super) vote: Option<Vote>,
}

fn small(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Index {
    /// An index of what was found on disk.
    pub(super) fn recovered(
        segments: BTreeMap<u64, Held>,
        places: VecDeque<Place>,
        before: Option<LogId>,
        last: Option<LogId>,
    ) -> Self {
        Self {
            segments,
            places,
            first: before.map_or(0, |id| id.index + 1),
            recent_first: last.map_or(0, |id| id.index + 1),
            purged: before,
            last,
            ..Self::default()
        }
    }

    /// Adds entries that are about to be written.
    pub(super) fn push(&mut self, entries: &[Entry]) {
        for entry in entries {
            if self.last.is_none() {
                self.first = entry.log_id.index;
            }
            if self.recent.is_empty() {
                self.recent_first = entry.log_id.index;
            }
            self.recent.push_back(entry.clone());
            self.last = Some(entry.log_id);
        }
    }

    /// Adds the places of entries that were written.
    pub(super) fn written(&mut self, places: &[Place], segment: u64, end: u64) {
        self.places.extend(places);
        if let Some(held) = self.segments.get_mut(&segment) {
            held.end = end;
        }
    }

    /// Takes out entries up to `applied` that can be read from disk. To be dropped without the lock: they may be large, and the
    /// log thread waits for it.
    #[must_use]
    pub(super) fn applied(&mut self, applied: u64) -> Vec<Entry> {
        let written = self.first + self.places.len() as u64;
        let end = written.min(applied.saturating_add(1));
        let count = small(end.saturating_sub(self.recent_first)).min(self.recent.len());
        self.recent_first += count as u64;
        self.recent.drain(..count).collect()
    }

    /// What is there of a range of entries.
    pub(super) fn find(&self, range: Range<u64>) -> Vec<Found> {
        let kept = self.purged.map_or(0, |id| id.index + 1);
        let first = self.first.max(kept);
        let end = self.last.map_or(0, |id| id.index + 1);
        (range.start.max(first)..range.end.min(end))
            .map_while(|index| self.find_one(index))
            .collect()
    }

    fn find_one(&self, index: u64) -> Option<Found> {
        if let Some(at) = index.checked_sub(self.recent_first)
            && let Some(entry) = self.recent.get(small(at))
        {
            return Some(Found::Entry(entry.clone()));
        }
        let place = self.places.get(small(index.checked_sub(self.first)?))?;
        let held = self.segments.get(&u64::from(place.segment))?;
        Some(Found::Place(Arc::clone(&held.file), *place))
    }

    /// Where an entry is on disk.
    pub(super) fn place(&self, index: u64) -> Option<Place> {
        let at = index.checked_sub(self.first)?;
        self.places.get(small(at)).copied()
    }

    /// Forgets all entries from `from` on; `last` is the one before.
    pub(super) fn cut(&mut self, from: u64, last: Option<LogId>) {
        self.places.truncate(small(from.saturating_sub(self.first)));
        self.recent
            .truncate(small(from.saturating_sub(self.recent_first)));
        self.last = last;
    }

    /// Notes that entries up to `upto` are not needed, and forgets the segments that hold nothing else.
    pub(super) fn purge(&mut self, upto: LogId) -> Vec<u64> {
        self.purged = self.purged.max(Some(upto));
        let mut gone = Vec::new();
        while let Some(next) = self.segments.values().nth(1) {
            let Some(before) = next.before.filter(|id| id.index <= upto.index) else {
                break;
            };
            gone.extend(self.segments.pop_first().map(|(number, _)| number));
            while self.first <= before.index && self.places.pop_front().is_some() {
                self.first += 1;
            }
            self.first = self.first.max(before.index + 1);
        }
        gone
    }

    /// Begins anew behind `upto`, which is ahead of all entries; returns the segments that no longer count.
    pub(super) fn reset(&mut self, upto: LogId) -> Vec<u64> {
        self.places.clear();
        self.recent.clear();
        self.first = upto.index + 1;
        self.recent_first = upto.index + 1;
        self.purged = Some(upto);
        self.last = Some(upto);
        let gone = self.segments.keys().copied().collect();
        self.segments.clear();
        gone
    }

    /// Bytes in all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|held| held.end).sum()
    }
}
