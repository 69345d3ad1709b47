//! An engine in memory, for tests of whatever stands on a store. Keeps nothing; never for a cluster.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prism_types::Fence;

use prism_store::{
    Batch, BoxFuture, Item, Key, KeyRange, Leadership, Page, Refusal, Revision, SharedTable,
    SnapshotPin, Status, Store, StoreError, Table, Watch, Window,
};

/// A store that forgets everything when it is dropped, and refuses what it is told to refuse.
#[derive(Debug, Clone)]
pub struct FakeStore {
    table: Arc<SharedTable>,
    faults: Arc<Mutex<Faults>>,
}

/// What is refused although the table would take it.
#[derive(Debug, Default)]
struct Faults {
    /// Commits that are still taken, and why those after them are not.
    commits: Option<(u64, StoreError)>,
    doubts: bool,
}

impl FakeStore {
    /// An empty store that keeps this much of the past.
    pub fn new(window: Window) -> Self {
        let table = SharedTable::new(Table::new(window));
        let faults = Arc::default();
        Self { table, faults }
    }

    /// The same store without what this one was told to refuse, as another server has it.
    pub fn beside(&self) -> Self {
        let (table, faults) = (self.table.clone(), Arc::default());
        Self { table, faults }
    }

    /// Takes so many commits and then none, for this reason; whoever leads is not told of another leader.
    pub fn refuse_commits(&self, after: u64, why: StoreError) {
        self.faults().commits = Some((after, why));
    }

    /// Takes commits again.
    pub fn take_commits(&self) {
        self.faults().commits = None;
    }

    /// From now on it confirms nobody's lead, or does again; commits are taken meanwhile.
    pub fn doubt(&self, doubts: bool) {
        self.faults().doubts = doubts;
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the next commit is refused, if it is.
    fn refusal(&self) -> Option<StoreError> {
        let mut faults = self.faults();
        let (left, why) = faults.commits.as_mut()?;
        match left.checked_sub(1) {
            None => Some(why.clone()),
            Some(less) => {
                *left = less;
                None
            }
        }
    }

    /// Stops it, as a crash would: everything is refused from then on.
    pub fn stop(&self) {
        self.table.stop("stopped by its test");
    }
}

impl Default for FakeStore {
    fn default() -> Self {
        Self::new(Window::default())
    }
}

impl Store for FakeStore {
    fn lead(&self) -> BoxFuture<'_, Result<Leadership, StoreError>> {
        Box::pin(async {
            self.table.running()?;
            let fence = self.table.update(Table::grant);
            Ok(self.table.leadership(fence))
        })
    }

    fn commit(&self, fence: Fence, batch: Batch) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            self.table.running()?;
            if let Some(why) = self.refusal() {
                return Err(why);
            }
            batch.check()?;
            self.table
                .update(|table| table.apply(fence, &batch))
                .map_err(|refusal| refusal.into_error(fence, Revision(0)))
        })
    }

    fn confirm(&self, fence: Fence) -> BoxFuture<'_, Result<(), StoreError>> {
        let leads = self.status();
        let known = leads.leader && leads.fence == fence && !self.faults().doubts;
        Box::pin(async move {
            match known {
                true => Ok(()),
                false => Err(StoreError::NotLeader {
                    leader: "another leadership may have been granted".to_owned(),
                }),
            }
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a [u8],
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        Box::pin(async move { self.table.get(key, at) })
    }

    fn range(
        &self,
        range: KeyRange,
        at: Option<Revision>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move { self.table.range(&range, at, limit) })
    }

    fn snapshot(&self) -> Result<SnapshotPin, StoreError> {
        self.table.running()?;
        Ok(self.table.pin())
    }

    fn watch(&self, prefix: Key, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        Box::pin(async move { self.table.watch(prefix, after) })
    }

    fn compact(&self, to: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.table.running()?;
            self.table
                .update(|table| table.compact(to))
                .map_err(|refusal: Refusal| refusal.into_error(Fence(0), to))
        })
    }

    fn status(&self) -> Status {
        self.table.status(self.table.running().is_ok())
    }
}
