//! The trait itself. Implemented by engines, called by the control plane; object safe, so a node picks an engine when
//! it starts.

use std::future::Future;
use std::pin::Pin;

use prism_types::Fence;
use tokio::sync::watch;

use crate::{Batch, Commit, Item, Key, KeyRange, Page, Revision, SnapshotPin, StoreError};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Ordered keys with revisions, committed in batches under a fence.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Takes the leadership: a fence that is greater than every one granted before, durably. Older fences are dead
    /// from that moment.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`] when this server cannot lead, [`StoreError::Stopped`] and
    /// [`StoreError::Unanswered`] when the store goes away.
    fn lead(&self) -> BoxFuture<'_, Result<Leadership, StoreError>>;

    /// Commits a batch, all of it or nothing, as one revision. An answer means it is durable. Commits that are
    /// under way at the same time share one write to disk. Dropping the future does not take the batch back.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], [`StoreError::TooLarge`], or that the store does not lead or goes away; the error
    /// says what became of the batch.
    fn commit(&self, fence: Fence, batch: Batch) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Whether the leadership of a fence held at a moment after this was called: whoever leads answers a question with what it has in
    /// memory only when it does. Cheap: the lease that the other servers give is enough.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`], or that the store has stopped.
    fn confirm(&self, fence: Fence) -> BoxFuture<'_, Result<(), StoreError>> {
        let status = self.status();
        let answer = if status.leader && status.fence == fence {
            Ok(())
        } else {
            Err(StoreError::NotLeader {
                leader: "another leadership was granted".to_owned(),
            })
        };
        Box::pin(std::future::ready(answer))
    }

    /// Reads a key, now or as it was at a revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::Ahead`], or that the store has stopped.
    fn get<'a>(
        &'a self,
        key: &'a [u8],
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Option<Item>, StoreError>>;

    /// Reads at most `limit` items of a range in order, now or as it was at a revision.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn range(
        &self,
        range: KeyRange,
        at: Option<Revision>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Keeps the revision that is the latest here readable until the answer is dropped, however many commits follow: for a copy of
    /// everything. What those replace stays in memory meanwhile, so it is to be read without waiting for anybody.
    ///
    /// # Errors
    /// That the store has stopped.
    fn snapshot(&self) -> Result<SnapshotPin, StoreError>;

    /// Watches the keys with a prefix: every commit after revision `after` that touches one, in order, each once,
    /// none left out.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when revisions after `after` are no longer kept, [`StoreError::Ahead`] when `after`
    /// does not exist yet.
    fn watch(&self, prefix: Key, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>>;

    /// Drops what is needed only to read or watch before `to`. The current state stays whole.
    ///
    /// # Errors
    /// [`StoreError::Ahead`] when `to` does not exist yet, or that the store does not lead or goes away.
    fn compact(&self, to: Revision) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Where the store stands.
    fn status(&self) -> Status;
}

/// Where a store stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The latest revision.
    pub revision: Revision,
    /// The oldest revision that can be read, or watched from.
    pub oldest: Revision,
    /// The latest fence granted.
    pub fence: Fence,
    /// Whether this server leads the store.
    pub leader: bool,
    /// Keys held.
    pub keys: usize,
}

/// A leadership that was granted.
#[derive(Debug)]
pub struct Leadership {
    /// What every write of this leader carries.
    pub fence: Fence,
    latest: watch::Receiver<u64>,
}

impl Leadership {
    /// For engines: a leadership that is lost once `latest` shows a greater fence.
    pub fn new(fence: Fence, latest: watch::Receiver<u64>) -> Self {
        Self { fence, latest }
    }

    /// Waits until another leadership was granted, or the store stopped.
    pub async fn lost(&mut self) {
        let fence = self.fence.0;
        // An error means that the sender, and with it the store, is gone: lost as well.
        let _gone = self.latest.wait_for(|latest| *latest > fence).await;
    }
}

/// What an engine puts behind a [`Watch`].
pub trait Watcher: Send {
    /// The next commit.
    fn next(&mut self) -> BoxFuture<'_, Result<Commit, StoreError>>;
}

/// An open watch. Dropping it ends it.
pub struct Watch(Box<dyn Watcher>);

impl Watch {
    /// For engines.
    pub fn new(watcher: impl Watcher + 'static) -> Self {
        Self(Box::new(watcher))
    }

    /// Waits for the next commit that touches the prefix. Safe to cancel: a commit is never lost by it.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the watcher was so slow that revisions it has not seen are gone: read the
    /// current state and watch again from its revision. [`StoreError::Stopped`] when the store has stopped.
    pub async fn next(&mut self) -> Result<Commit, StoreError> {
        self.0.next().await
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}
