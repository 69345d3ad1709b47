//! An engine in memory, for tests of whatever stands on a store. Keeps nothing; never for a cluster.

use std::sync::Arc;

use prism_types::Fence;

use prism_store::{
    Batch, BoxFuture, Item, Key, KeyRange, Leadership, Page, Refusal, Revision, SharedTable,
    SnapshotPin, Status, Store, StoreError, Table, Watch, Window,
};

/// A store that forgets everything when it is dropped.
#[derive(Debug, Clone)]
pub struct FakeStore {
    table: Arc<SharedTable>,
}

impl FakeStore {
    /// An empty store that keeps this much of the past.
    pub fn new(window: Window) -> Self {
        let table = SharedTable::new(Table::new(window));
        Self { table }
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
            batch.check()?;
            self.table
                .update(|table| table.apply(fence, &batch))
                .map_err(|refusal| refusal.into_error(fence, Revision(0)))
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
