//! Cases about watches: order, no gap, no repeat, and being told when too slow.

use std::collections::BTreeMap;

use super::{Subject, WINDOW, lead, put};
use prism_store::{Batch, Commit, KeyRange, Revision, StoreError, Watch};

async fn take(watch: &mut Watch, count: usize) -> Vec<Commit> {
    let mut commits = Vec::new();
    while commits.len() < count {
        commits.push(watch.next().await.expect("the watch goes on"));
    }
    commits
}

fn revisions(commits: &[Commit]) -> Vec<u64> {
    commits.iter().map(|c| c.revision.0).collect()
}

pub(super) async fn a_watch_sees_every_commit_once_in_order(store: Subject) {
    let fence = lead(&store).await;
    let mut watch = store
        .watch("".into(), Revision(0))
        .await
        .expect("the watch opens");
    let reader = tokio::spawn(async move { take(&mut watch, 150).await });
    for n in 0..150 {
        put(&store, fence, &format!("k{}", n % 7), &n.to_string()).await;
    }
    let commits = reader.await.expect("the watch does not panic");
    assert_eq!(revisions(&commits), (1..=150).collect::<Vec<_>>());
    for (n, commit) in commits.iter().enumerate() {
        assert_eq!(commit.changes.len(), 1);
        let value = commit.changes[0].value.clone();
        assert_eq!(value, Some(n.to_string().into()));
    }
}

pub(super) async fn a_watch_starts_in_the_past(store: Subject) {
    let fence = lead(&store).await;
    put(&store, fence, "a", "1").await;
    put(&store, fence, "b", "2").await;
    store
        .commit(fence, Batch::new().delete("a").put("c", "3"))
        .await
        .expect("the batch commits");
    let mut watch = store
        .watch("".into(), Revision(1))
        .await
        .expect("the watch opens");
    let commits = take(&mut watch, 2).await;
    assert_eq!(revisions(&commits), [2, 3]);
    let changes: Vec<_> = commits[1]
        .changes
        .iter()
        .map(|c| (c.key.to_string(), c.value.clone()))
        .collect();
    assert_eq!(
        changes,
        [("a".into(), None), ("c".into(), Some("3".into()))]
    );
    let mut latest = store
        .watch("".into(), Revision(3))
        .await
        .expect("the watch opens");
    put(&store, fence, "d", "4").await;
    assert_eq!(revisions(&take(&mut latest, 1).await), [4]);
}

pub(super) async fn a_watch_sees_only_its_prefix(store: Subject) {
    let fence = lead(&store).await;
    let mut watch = store
        .watch("b/".into(), Revision(0))
        .await
        .expect("the watch opens");
    put(&store, fence, "a/1", "x").await;
    let batch = Batch::new()
        .put("a/2", "x")
        .put("b/2", "x")
        .put("b/1", "x")
        .put("c", "x");
    store.commit(fence, batch).await.expect("the batch commits");
    put(&store, fence, "b", "x").await;
    store
        .commit(fence, Batch::new().delete("b/none").put("a", "x"))
        .await
        .expect("it commits");
    store
        .commit(fence, Batch::new().delete("b/1"))
        .await
        .expect("the batch commits");
    let commits = take(&mut watch, 2).await;
    assert_eq!(revisions(&commits), [2, 5]);
    let keys: Vec<_> = commits[0]
        .changes
        .iter()
        .map(|c| c.key.to_string())
        .collect();
    assert_eq!(keys, ["b/1", "b/2"]);
    assert_eq!(commits[1].changes[0].value, None);
}

pub(super) async fn a_slow_watch_is_told(store: Subject) {
    let fence = lead(&store).await;
    let mut watch = store
        .watch("".into(), Revision(0))
        .await
        .expect("the watch opens");
    put(&store, fence, "a", "first").await;
    assert_eq!(revisions(&take(&mut watch, 1).await), [1]);
    let count = WINDOW.revisions as u64 * 2;
    for n in 0..count {
        put(&store, fence, "a", &n.to_string()).await;
    }
    let mut last = 1;
    let error = loop {
        match watch.next().await {
            Ok(commit) => {
                assert_eq!(commit.revision.0, last + 1, "no gap before the error");
                last += 1;
            }
            Err(error) => break error,
        }
    };
    let StoreError::Compacted { oldest, .. } = error else {
        panic!("expected to be told of the compaction, got {error}");
    };
    assert!(oldest.0 > last);
    let page = store.range(KeyRange::all(), None, 10).await;
    let page = page.expect("the range reads");
    let mut watch = store
        .watch("".into(), page.revision)
        .await
        .expect("the watch resumes");
    put(&store, fence, "b", "last").await;
    assert_eq!(revisions(&take(&mut watch, 1).await), [page.revision.0 + 1]);
}

pub(super) async fn a_watch_from_the_future_is_refused(store: Subject) {
    let fence = lead(&store).await;
    put(&store, fence, "a", "1").await;
    let watch = store.watch("".into(), Revision(2)).await;
    let expected = StoreError::Ahead {
        asked: Revision(2),
        latest: Revision(1),
    };
    assert_eq!(watch.err(), Some(expected));
}

pub(super) async fn many_watches_of_busy_writers_agree(store: Subject) {
    let fence = lead(&store).await;
    let mut readers = Vec::new();
    for _ in 0..6 {
        let mut watch = store
            .watch("k".into(), Revision(0))
            .await
            .expect("the watch opens");
        readers.push(tokio::spawn(async move { take(&mut watch, 160).await }));
    }
    let mut writers = Vec::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            for n in 0..20 {
                put(&store, fence, &format!("k{writer}"), &n.to_string()).await;
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer does not panic");
    }
    let mut state = BTreeMap::new();
    for reader in readers {
        let commits = reader.await.expect("a watch does not panic");
        assert_eq!(revisions(&commits), (1..=160).collect::<Vec<_>>());
        state.clear();
        for change in commits.into_iter().flat_map(|c| c.changes) {
            state.insert(change.key, change.value);
        }
    }
    let page = store.range(KeyRange::all(), None, 100).await;
    for item in page.expect("the range reads").items {
        assert_eq!(state.get(&item.key), Some(&Some(item.value)));
    }
}
