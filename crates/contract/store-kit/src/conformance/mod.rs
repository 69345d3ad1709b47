//! What every engine must do, as cases that any engine's tests can run. Each case gets a fresh, empty store that keeps
//! the window of [`WINDOW`], and panics when the store breaks the contract.

mod fences;
mod reads;
mod watches;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use prism_store::{Batch, BoxFuture, Item, KeyRange, Revision, Store, Window};

/// The window that the cases expect.
pub const WINDOW: Window = Window {
    revisions: 200,
    bytes: 1024 * 1024,
};

/// A store under test.
pub type Subject = Arc<dyn Store>;

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// What must hold.
    pub name: &'static str,
    run: fn(Subject) -> BoxFuture<'static, ()>,
}

impl Case {
    /// Runs the case on a fresh store.
    ///
    /// # Panics
    /// When the store breaks the contract.
    pub async fn run(&self, store: Subject) {
        (self.run)(store).await;
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$(Case { name: stringify!($name), run: |store| Box::pin($module::$name(store)) }),*]
    };
}

/// All cases.
pub const CASES: &[Case] = cases![
    fences::a_new_leadership_fences_the_older_one,
    fences::a_fence_that_was_never_granted_is_refused,
    fences::a_leadership_hears_that_it_was_lost,
    fences::of_racing_leaders_only_the_last_one_writes,
    fences::oversized_batches_change_nothing,
    reads::an_empty_store_answers,
    reads::a_batch_is_one_revision,
    reads::the_last_put_of_a_key_counts,
    reads::a_range_is_ordered_and_paged,
    reads::a_page_stays_at_its_revision,
    reads::old_revisions_show_what_was,
    reads::random_histories_read_back,
    reads::compacted_revisions_are_refused,
    reads::the_window_moves_by_itself,
    reads::a_pinned_revision_stays_readable,
    reads::concurrent_commits_take_one_revision_each,
    watches::a_watch_sees_every_commit_once_in_order,
    watches::a_watch_starts_in_the_past,
    watches::a_watch_sees_only_its_prefix,
    watches::a_slow_watch_is_told,
    watches::a_watch_from_the_future_is_refused,
    watches::many_watches_of_busy_writers_agree,
];

/// Runs all cases, each on a store that `fresh` makes.
///
/// # Panics
/// When the store breaks the contract.
pub async fn all<F, Fut>(mut fresh: F)
where
    F: FnMut(&'static str) -> Fut,
    Fut: Future<Output = Subject>,
{
    for case in CASES {
        case.run(fresh(case.name).await).await;
    }
}

async fn lead(store: &Subject) -> prism_types::Fence {
    store
        .lead()
        .await
        .expect("the store grants a leadership")
        .fence
}

async fn put(store: &Subject, fence: prism_types::Fence, key: &str, value: &str) -> Revision {
    let batch = Batch::new().put(key, Bytes::copy_from_slice(value.as_bytes()));
    store.commit(fence, batch).await.expect("the batch commits")
}

async fn read(store: &Subject, key: &str, at: Option<Revision>) -> Option<String> {
    let item = store.get(key.as_bytes(), at).await.expect("the key reads");
    item.map(|item| text(&item))
}

async fn keys(store: &Subject, prefix: &str, at: Option<Revision>) -> Vec<String> {
    let page = store.range(KeyRange::prefix(prefix), at, 10_000).await;
    let page = page.expect("the range reads");
    page.items.iter().map(|item| item.key.to_string()).collect()
}

fn text(item: &Item) -> String {
    String::from_utf8_lossy(&item.value).into_owned()
}
