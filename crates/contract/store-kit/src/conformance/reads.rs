//! Cases about what commits leave behind and what reads show, now and at a revision.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Subject, WINDOW, keys, lead, put, read, text};
use prism_store::{Batch, KeyRange, Revision, StoreError};

pub(super) async fn an_empty_store_answers(store: Subject) {
    let status = store.status();
    assert_eq!(status.revision, Revision(0));
    assert_eq!(status.keys, 0);
    assert_eq!(read(&store, "a", None).await, None);
    assert_eq!(read(&store, "a", Some(Revision(0))).await, None);
    let page = store.range(KeyRange::all(), None, 10).await;
    let page = page.expect("the range reads");
    assert!(page.items.is_empty() && !page.more);
    let ahead = store.get(b"a", Some(Revision(1))).await;
    let expected = StoreError::Ahead {
        asked: Revision(1),
        latest: Revision(0),
    };
    assert_eq!(ahead, Err(expected));
}

pub(super) async fn a_batch_is_one_revision(store: Subject) {
    let fence = lead(&store).await;
    let batch = Batch::new().put("a", "1").put("b", "2").put("c", "3");
    let first = store.commit(fence, batch).await.expect("the batch commits");
    assert_eq!(first, Revision(1));
    let batch = Batch::new().delete("a").put("b", "4").delete("none");
    let second = store.commit(fence, batch).await.expect("the batch commits");
    assert_eq!(second, Revision(2));
    let page = store.range(KeyRange::all(), None, 10).await;
    let page = page.expect("the range reads");
    let found: Vec<_> = page
        .items
        .iter()
        .map(|item| (item.key.to_string(), text(item), item.revision.0))
        .collect();
    let expected = [("b", "4", 2), ("c", "3", 1)].map(|(k, v, r)| (k.into(), v.into(), r));
    assert_eq!(found, expected);
    let empty = store.commit(fence, Batch::new()).await;
    assert_eq!(empty, Ok(Revision(3)), "an empty batch is a commit too");
}

pub(super) async fn the_last_put_of_a_key_counts(store: Subject) {
    let fence = lead(&store).await;
    let batch = Batch::new()
        .delete("a")
        .put("a", "1")
        .put("b", "1")
        .put("a", "2");
    store.commit(fence, batch).await.expect("the batch commits");
    assert_eq!(read(&store, "a", None).await.as_deref(), Some("2"));
    assert_eq!(read(&store, "a", Some(Revision(0))).await, None);
    put(&store, fence, "a", "3").await;
    assert_eq!(
        read(&store, "a", Some(Revision(1))).await.as_deref(),
        Some("2")
    );
}

pub(super) async fn a_range_is_ordered_and_paged(store: Subject) {
    let fence = lead(&store).await;
    let mut batch = Batch::new().put("m", "x").put("o", "x");
    for n in (0..100).rev() {
        batch = batch.put(format!("n/{n:03}"), n.to_string());
    }
    store.commit(fence, batch).await.expect("the batch commits");
    let mut range = KeyRange::prefix("n/");
    let mut found = Vec::new();
    loop {
        let page = store.range(range.clone(), None, 7).await;
        let page = page.expect("the range reads");
        assert!(page.items.len() <= 7);
        found.extend(page.items.iter().map(|item| item.key.to_string()));
        let Some(last) = page.items.last().filter(|_| page.more) else {
            break;
        };
        range = range.after(&last.key);
    }
    let expected: Vec<_> = (0..100).map(|n| format!("n/{n:03}")).collect();
    assert_eq!(found, expected);
    let backwards = KeyRange {
        start: "z".into(),
        end: Some("a".into()),
    };
    let page = store.range(backwards, None, 10).await;
    assert!(page.expect("an empty range reads").items.is_empty());
}

pub(super) async fn a_page_stays_at_its_revision(store: Subject) {
    let fence = lead(&store).await;
    for n in 0..10 {
        put(&store, fence, &format!("k{n}"), "old").await;
    }
    let first = store.range(KeyRange::all(), None, 4).await;
    let first = first.expect("the range reads");
    assert!(first.more);
    let mut batch = Batch::new().put("k4a", "new").put("k5", "new");
    batch = batch.delete("k6").delete("k9");
    store.commit(fence, batch).await.expect("the batch commits");
    let rest = KeyRange::all().after(&first.items[3].key);
    let rest = store.range(rest, Some(first.revision), 100).await;
    let rest = rest.expect("the range reads");
    let found: Vec<_> = rest.items.iter().map(|item| item.key.to_string()).collect();
    assert_eq!(found, ["k4", "k5", "k6", "k7", "k8", "k9"]);
    assert!(rest.items.iter().all(|item| text(item) == "old"));
    assert!(!rest.more);
}

pub(super) async fn old_revisions_show_what_was(store: Subject) {
    let fence = lead(&store).await;
    put(&store, fence, "a", "1").await;
    put(&store, fence, "b", "2").await;
    put(&store, fence, "a", "3").await;
    store
        .commit(fence, Batch::new().delete("a"))
        .await
        .expect("the batch commits");
    put(&store, fence, "a", "5").await;
    let mut seen = Vec::new();
    for at in 0..=5 {
        seen.push(read(&store, "a", Some(Revision(at))).await);
    }
    let expected = [None, Some("1"), Some("1"), Some("3"), None, Some("5")];
    assert_eq!(seen, expected.map(|v| v.map(str::to_owned)));
    assert_eq!(keys(&store, "", Some(Revision(4))).await, ["b"]);
    assert_eq!(keys(&store, "", Some(Revision(1))).await, ["a"]);
}

/// A small generator, so that the suite needs no crate for it and repeats itself.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

pub(super) async fn random_histories_read_back(store: Subject) {
    let fence = lead(&store).await;
    let mut dice = Dice(0x5eed_cafe);
    let mut model: Vec<BTreeMap<String, String>> = vec![BTreeMap::new()];
    for n in 1..=300_u64 {
        let mut now = model[model.len() - 1].clone();
        let mut batch = Batch::new();
        for _ in 0..dice.roll(4) {
            let key = format!("k{}", dice.roll(12));
            now.remove(&key);
            batch = batch.delete(key);
        }
        for _ in 0..dice.roll(4) {
            let key = format!("k{}", dice.roll(12));
            now.insert(key.clone(), n.to_string());
            batch = batch.put(key, n.to_string());
        }
        store.commit(fence, batch).await.expect("the batch commits");
        model.push(now);
        if n % 50 == 0 {
            let to = Revision(n - dice.roll(30));
            store.compact(to).await.expect("the store compacts");
        }
    }
    let oldest = store.status().oldest.0;
    assert!(
        oldest >= 270,
        "compaction raised the oldest revision, it is {oldest}"
    );
    for at in oldest..=300 {
        let page = store.range(KeyRange::all(), Some(Revision(at)), 100).await;
        let page = page.expect("the range reads");
        let found: BTreeMap<_, _> = page
            .items
            .iter()
            .map(|item| (item.key.to_string(), text(item)))
            .collect();
        let expected = &model[usize::try_from(at).expect("small")];
        assert_eq!(&found, expected, "at revision {at}");
        for n in 0..12 {
            let key = format!("k{n}");
            let found = read(&store, &key, Some(Revision(at))).await;
            assert_eq!(found.as_ref(), expected.get(&key), "{key} at revision {at}");
        }
    }
}

pub(super) async fn compacted_revisions_are_refused(store: Subject) {
    let fence = lead(&store).await;
    for n in 0..10 {
        put(&store, fence, "a", &n.to_string()).await;
    }
    store
        .compact(Revision(6))
        .await
        .expect("the store compacts");
    let expected = StoreError::Compacted {
        asked: Revision(5),
        oldest: Revision(6),
    };
    assert_eq!(
        store.get(b"a", Some(Revision(5))).await,
        Err(expected.clone())
    );
    let page = store.range(KeyRange::all(), Some(Revision(5)), 1).await;
    assert_eq!(page, Err(expected.clone()));
    let watch = store.watch("".into(), Revision(5)).await;
    assert_eq!(watch.err(), Some(expected));
    assert_eq!(
        read(&store, "a", Some(Revision(6))).await.as_deref(),
        Some("5")
    );
    assert_eq!(read(&store, "a", None).await.as_deref(), Some("9"));
    store
        .compact(Revision(3))
        .await
        .expect("compacting again is no error");
    assert_eq!(store.status().oldest, Revision(6));
    let ahead = store.compact(Revision(11)).await;
    assert!(
        matches!(ahead, Err(StoreError::Ahead { .. })),
        "got {ahead:?}"
    );
}

pub(super) async fn the_window_moves_by_itself(store: Subject) {
    let fence = lead(&store).await;
    let revisions = WINDOW.revisions as u64;
    for n in 0..revisions + 50 {
        put(&store, fence, "a", &n.to_string()).await;
    }
    let status = store.status();
    assert_eq!(
        status.oldest,
        Revision(50),
        "the window holds its number of revisions"
    );
    for _ in 0..8 {
        let batch = Batch::new().put("big", vec![7; WINDOW.bytes / 4]);
        store.commit(fence, batch).await.expect("the batch commits");
    }
    let status = store.status();
    let kept = status.revision.0 - status.oldest.0;
    assert!(
        (1..=4).contains(&kept),
        "the window holds its number of bytes, it kept {kept}"
    );
    assert_eq!(status.keys, 2);
}

pub(super) async fn concurrent_commits_take_one_revision_each(store: Subject) {
    let fence = lead(&store).await;
    let mut writers = Vec::new();
    for writer in 0..32 {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..10 {
                let value = Bytes::from(format!("{writer}/{n}"));
                let batch = Batch::new()
                    .put(format!("a/{writer}"), value.clone())
                    .put(format!("b/{writer}"), value);
                revisions.push(store.commit(fence, batch).await.expect("the batch commits"));
                let key = format!("a/{writer}");
                let own = read(&store, &key, None).await;
                assert_eq!(
                    own,
                    Some(format!("{writer}/{n}")),
                    "a writer reads its own write"
                );
            }
            assert!(revisions.is_sorted());
            revisions
        }));
    }
    let mut all = Vec::new();
    for writer in writers {
        all.extend(writer.await.expect("a writer does not panic"));
    }
    all.sort();
    let expected: Vec<_> = (1..=320).map(Revision).collect();
    assert_eq!(all, expected);
    assert_eq!(store.status().keys, 64);
}

pub(super) async fn a_pinned_revision_stays_readable(store: Subject) {
    let fence = lead(&store).await;
    for key in ["a", "b", "c"] {
        put(&store, fence, key, "before").await;
    }
    let pin = store.snapshot().expect("a store that runs");
    assert_eq!(pin.revision, Revision(3));
    let batch = Batch::new().delete("a").put("d", "after");
    store.commit(fence, batch).await.expect("the batch commits");
    for n in 0..2 * WINDOW.revisions {
        put(&store, fence, "b", &n.to_string()).await;
    }
    let page = pin.range(&KeyRange::all(), 10);
    let page = page.expect("a pinned revision reads");
    let found: Vec<_> = page
        .items
        .iter()
        .map(|item| (item.key.to_string(), text(item)))
        .collect();
    let expected = ["a", "b", "c"].map(|key| (key.to_owned(), "before".to_owned()));
    assert_eq!(found, expected);
    drop(pin);
    put(&store, fence, "b", "last").await;
    let compacted = store.get(b"a", Some(Revision(3))).await;
    assert!(matches!(compacted, Err(StoreError::Compacted { .. })));
}
