//! A table shared between the one task that applies and the many that read or watch. A watch keeps no queue: it holds
//! a position and reads from the table's window, so a slow watcher costs nothing and is told when it fell behind.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use prism_types::Fence;
use tokio::sync::watch;

use crate::{
    BoxFuture, Commit, Item, Key, KeyRange, Leadership, Page, Revision, Status, StoreError, Table,
    Watch, Watcher,
};

/// How many commits a watch takes from the table at once.
const TAKE: usize = 64;

/// A table that is read and watched while it is applied to.
#[derive(Debug)]
pub struct SharedTable {
    table: RwLock<Table>,
    moved: watch::Sender<u64>,
    granted: watch::Sender<u64>,
    stopped: OnceLock<String>,
}

impl SharedTable {
    /// Shares a table.
    pub fn new(table: Table) -> Arc<Self> {
        Arc::new(Self {
            moved: watch::Sender::new(table.revision().0),
            granted: watch::Sender::new(table.fence().0),
            table: RwLock::new(table),
            stopped: OnceLock::new(),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table
            .read()
            .expect("applying never panics half way, so the lock cannot be poisoned")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table
            .write()
            .expect("applying never panics half way, so the lock cannot be poisoned")
    }

    /// Changes the table, then wakes whoever waits for a change.
    pub fn update<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let (answer, revision, fence) = {
            let mut table = self.write();
            let answer = change(&mut table);
            (answer, table.revision().0, table.fence().0)
        };
        self.moved.send_if_modified(|now| {
            let modified = *now != revision;
            *now = revision;
            modified
        });
        self.granted.send_if_modified(|now| {
            let modified = *now != fence;
            *now = fence;
            modified
        });
        answer
    }

    /// Reads a key; see [`Table::get`].
    ///
    /// # Errors
    /// As [`Table::get`], or [`StoreError::Stopped`].
    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Item>, StoreError> {
        self.running()?;
        self.read().get(key, at)
    }

    /// Reads a range; see [`Table::range`].
    ///
    /// # Errors
    /// As [`Table::range`], or [`StoreError::Stopped`].
    pub fn range(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.running()?;
        self.read().range(range, at, limit)
    }

    /// Where the table stands.
    pub fn status(&self, leader: bool) -> Status {
        let table = self.read();
        Status {
            revision: table.revision(),
            oldest: table.oldest(),
            fence: table.fence(),
            leader,
            keys: table.keys(),
        }
    }

    /// Opens a watch; see [`crate::Store::watch`].
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::Ahead`] or [`StoreError::Stopped`].
    pub fn watch(self: &Arc<Self>, prefix: Key, after: Revision) -> Result<Watch, StoreError> {
        self.running()?;
        self.read().check(after)?;
        Ok(Watch::new(TableWatch {
            moved: self.moved.subscribe(),
            table: Arc::clone(self),
            prefix,
            seen: after,
            ready: VecDeque::new(),
        }))
    }

    /// The leadership of a fence that was granted.
    pub fn leadership(&self, fence: Fence) -> Leadership {
        Leadership::new(fence, self.granted.subscribe())
    }

    /// Ends all watches and leaderships: the store has stopped.
    pub fn stop(&self, why: impl Into<String>) {
        // Only the first reason counts.
        let _first = self.stopped.set(why.into());
        self.moved.send_modify(|_| {});
        self.granted.send_modify(|fence| *fence = u64::MAX);
    }

    /// Whether the store still runs.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when it does not.
    pub fn running(&self) -> Result<(), StoreError> {
        match self.stopped.get() {
            None => Ok(()),
            Some(why) => Err(StoreError::Stopped(why.clone())),
        }
    }

    /// Keeps the current revision readable until the pin is dropped.
    pub fn pin(self: &Arc<Self>) -> SnapshotPin {
        let (revision, fence) = {
            let mut table = self.write();
            (table.pin(), table.fence())
        };
        SnapshotPin {
            table: Arc::clone(self),
            revision,
            fence,
        }
    }
}

/// A revision that stays readable.
#[derive(Debug)]
pub struct SnapshotPin {
    table: Arc<SharedTable>,
    /// The revision.
    pub revision: Revision,
    /// The fence at that revision.
    pub fence: Fence,
}

impl SnapshotPin {
    /// Reads a page of the pinned revision.
    ///
    /// # Errors
    /// None that a pin does not rule out; the type is that of [`Table::range`].
    pub fn range(&self, range: &KeyRange, limit: usize) -> Result<Page, StoreError> {
        self.table.read().range(range, Some(self.revision), limit)
    }
}

impl Drop for SnapshotPin {
    fn drop(&mut self) {
        self.table.write().unpin(self.revision);
    }
}

struct TableWatch {
    table: Arc<SharedTable>,
    moved: watch::Receiver<u64>,
    prefix: Key,
    seen: Revision,
    ready: VecDeque<Commit>,
}

impl TableWatch {
    async fn wait(&mut self) -> Result<Commit, StoreError> {
        loop {
            if let Some(commit) = self.ready.pop_front() {
                return Ok(commit);
            }
            self.table.running()?;
            // Marked as seen before the read, so that a change during it wakes us again.
            let latest = *self.moved.borrow_and_update();
            let (found, seen) = self
                .table
                .read()
                .commits_after(&self.prefix, self.seen, TAKE)?;
            self.seen = seen;
            self.ready.extend(found);
            if self.ready.is_empty() && seen.0 >= latest {
                // The sender lives in the table that this watch holds, so it cannot be gone.
                let _changed = self.moved.changed().await;
            }
        }
    }
}

impl Watcher for TableWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Commit, StoreError>> {
        Box::pin(self.wait())
    }
}
