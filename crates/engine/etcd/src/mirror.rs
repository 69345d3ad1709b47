//! The state in memory, as far as it is known here: what etcd holds, in the versioned map that all engines share. Entries are applied
//! in their order, each once, whether this server wrote them or saw them in a watch. No I/O.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prism_store::{Batch, Key, Revision, SharedTable, Table, Window};
use prism_types::Fence;
use tokio::sync::watch;

use crate::layout::{Head, Parts, Stamp, What};

/// Entries of which it is remembered who wrote them.
const RECENT: usize = 256;

/// How far the mirror is, and what else of the state has no place in the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    /// Entries applied: the version of `head`.
    pub(crate) version: i64,
    /// The revision of etcd up to which nothing is missing.
    pub(crate) etcd: i64,
    /// The last entry.
    pub(crate) head: Head,
    /// Keys whose value lies in pieces.
    pub(crate) parted: BTreeMap<Key, Parts>,
}

/// One entry, ready to be applied.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its place: the version that `head` has with it.
    pub(crate) version: i64,
    pub(crate) head: Head,
    /// Its commits, in order.
    pub(crate) batches: Vec<Batch>,
    /// Which of their keys lie in pieces.
    pub(crate) parted: Vec<(Key, Parts)>,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It is in the table now, or was.
    Yes,
    /// Entries before it are missing.
    Gap,
}

/// The mirror.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) table: Arc<SharedTable>,
    position: Mutex<Position>,
    recent: Mutex<VecDeque<(i64, Stamp)>>,
    /// Entries applied, for who waits for one.
    applied: watch::Sender<i64>,
    /// What a leadership compares its fence with: greater means lost.
    fences: watch::Sender<u64>,
    window: Window,
}

impl Mirror {
    pub(crate) fn new(window: Window, table: Table, position: Position) -> Self {
        Self {
            applied: watch::Sender::new(position.version),
            fences: watch::Sender::new(table.fence().0),
            table: SharedTable::new(table),
            position: Mutex::new(position),
            recent: Mutex::default(),
            window,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is.
    pub(crate) fn version(&self) -> i64 {
        self.lock().version
    }

    pub(crate) fn etcd(&self) -> i64 {
        self.lock().etcd
    }

    pub(crate) fn head(&self) -> (i64, Head) {
        let at = self.lock();
        (at.version, at.head.clone())
    }

    /// Looks at what lies in pieces.
    pub(crate) fn parted<T>(&self, look: impl FnOnce(&BTreeMap<Key, Parts>) -> T) -> T {
        look(&self.lock().parted)
    }

    pub(crate) fn window(&self) -> Window {
        self.window
    }

    pub(crate) fn fences(&self) -> watch::Receiver<u64> {
        self.fences.subscribe()
    }

    /// Says that a fence is dead, or that a greater one was granted.
    pub(crate) fn outdate(&self, below: u64) {
        self.fences.send_if_modified(|now| {
            let grows = *now < below;
            *now = below.max(*now);
            grows
        });
    }

    /// Applies an entry that etcd holds since its revision `etcd`.
    pub(crate) fn apply(&self, etcd: i64, entry: &Entry) -> Applied {
        let mut at = self.lock();
        if entry.version <= at.version {
            return Applied::Yes;
        }
        if entry.version != at.version + 1 {
            return Applied::Gap;
        }
        for batch in &entry.batches {
            let keys = batch.puts.iter().map(|(key, _)| key).chain(&batch.deletes);
            for key in keys {
                at.parted.remove(key);
            }
        }
        at.parted.extend(entry.parted.iter().cloned());
        at.version = entry.version;
        at.etcd = at.etcd.max(etcd);
        at.head = entry.head.clone();
        self.table.update(|table| {
            for batch in &entry.batches {
                let applied = table.apply(table.fence(), batch);
                debug_assert!(applied.is_ok(), "its own fence is the latest");
            }
            if entry.head.what == What::Granted {
                table.grant();
            }
            let floor = Revision(entry.head.floor);
            if floor > table.oldest() {
                let compacted = table.compact(floor);
                debug_assert!(compacted.is_ok(), "a floor is never ahead");
            }
        });
        self.remember(entry);
        drop(at);
        self.outdate(entry.head.fence);
        self.applied.send_replace(entry.version);
        Applied::Yes
    }

    fn remember(&self, entry: &Entry) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back((entry.version, entry.head.stamp));
    }

    /// Who wrote an entry, if that is still known.
    pub(crate) fn author(&self, version: i64) -> Option<Stamp> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let found = recent.iter().find(|(v, _)| *v == version);
        found.map(|(_, stamp)| *stamp)
    }

    /// Takes a state that was read anew in place of what is here. An older one is refused: etcd was set back.
    pub(crate) fn replace(&self, fresh: Table, position: Position) -> Result<(), String> {
        let mut at = self.lock();
        let (now, new) = (at.head.revision, position.head.revision);
        if position.version < at.version || new < now || position.head.fence < at.head.fence {
            return Err(format!(
                "etcd holds revision {new} now and held {now} before: it was restored from an older backup, or somebody \
                 removed Prism's keys; what was written since is gone from it, start again to go on from what it holds"
            ));
        }
        if position.version == at.version {
            at.etcd = at.etcd.max(position.etcd);
            return Ok(());
        }
        let (version, fence) = (position.version, position.head.fence);
        *at = position;
        self.table.update(|table| *table = fresh);
        drop(at);
        self.outdate(fence);
        self.applied.send_replace(version);
        Ok(())
    }

    /// Notes that nothing was missing at this revision of etcd, which had `version` entries.
    pub(crate) fn current(&self, version: i64, etcd: i64) {
        let mut at = self.lock();
        if at.version == version {
            at.etcd = at.etcd.max(etcd);
        }
    }

    /// Waits until an entry is applied; the caller sets the deadline.
    pub(crate) async fn reached(&self, version: i64) {
        let mut applied = self.applied.subscribe();
        // The sender is here, so it cannot be gone.
        let _applied = applied.wait_for(|now| *now >= version).await;
    }

    /// The latest fence granted, as far as is known.
    pub(crate) fn fence(&self) -> Fence {
        Fence(self.lock().head.fence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: i64, revision: u64, what: What) -> Entry {
        let batches = match what {
            What::Commits(..) => vec![Batch::new().put("k", version.to_string())],
            _ => Vec::new(),
        };
        Entry {
            version,
            head: Head {
                revision,
                fence: 1,
                what,
                ..Head::default()
            },
            batches,
            parted: Vec::new(),
        }
    }

    #[test]
    fn entries_are_applied_in_order_and_once_and_a_gap_is_seen() {
        let window = Window::default();
        let mirror = Mirror::new(window, Table::new(window), Position::default());
        assert_eq!(mirror.apply(5, &entry(1, 0, What::Granted)), Applied::Yes);
        let commits = || What::Commits(1, Vec::new());
        assert_eq!(mirror.apply(7, &entry(2, 1, commits())), Applied::Yes);
        assert_eq!(mirror.apply(7, &entry(2, 1, commits())), Applied::Yes);
        assert_eq!(
            mirror.table.status(true).revision,
            Revision(1),
            "applied once"
        );
        assert_eq!(mirror.apply(9, &entry(4, 3, commits())), Applied::Gap);
        assert_eq!((mirror.version(), mirror.etcd()), (2, 7));
        mirror.current(3, 20);
        assert_eq!(mirror.etcd(), 7, "it is not current with what it has not");
        mirror.current(2, 20);
        assert_eq!(mirror.etcd(), 20);
    }

    #[test]
    fn an_etcd_that_was_set_back_is_noticed() {
        let window = Window::default();
        let at = |version, revision| Position {
            version,
            head: Head {
                revision,
                ..Head::default()
            },
            ..Position::default()
        };
        let mirror = Mirror::new(window, Table::new(window), at(9, 8));
        let older = mirror.replace(Table::new(window), at(7, 6)).unwrap_err();
        assert!(older.contains("older backup"), "{older}");
        assert!(
            mirror
                .replace(Table::new(window), Position::default())
                .is_err()
        );
        assert!(mirror.replace(Table::new(window), at(11, 10)).is_ok());
        assert_eq!(mirror.version(), 11);
    }
}
