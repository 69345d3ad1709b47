//! Commits and values larger than etcd takes at once: all or nothing, for every reader, whatever stops in the middle.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod kit;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kit::{Etcd, has_etcd, lead, within};
use prism_etcd::EtcdStore;
use prism_store::{Batch, Key, KeyRange, Revision, Store};

/// A value that shows whether it is whole.
fn value(seed: usize, size: usize) -> Bytes {
    (0..size).map(|i| (i * 7 + i / 251 + seed) as u8).collect()
}

/// More keys and bytes than any transaction takes, with a large value among them.
fn huge(round: usize) -> Batch {
    let mut batch = Batch::new().put("m/large", value(round, 3 << 20));
    for n in 0..9000 {
        batch = if (n + round).is_multiple_of(5) {
            batch.delete(format!("m/{n:05}"))
        } else {
            batch.put(format!("m/{n:05}"), value(round + n, 400))
        };
    }
    batch
}

/// What `huge` leaves, when only its last round counts.
async fn is_whole(store: &EtcdStore, round: usize) -> bool {
    let page = store
        .range(KeyRange::prefix("m/"), None, 100_000)
        .await
        .unwrap();
    let batch = huge(round);
    page.items.len() == batch.puts.len()
        && batch.puts.iter().all(|(key, value)| {
            let found = page.items.binary_search_by(|item| item.key.cmp(key));
            found.is_ok_and(|at| page.items[at].value == *value)
        })
}

fn pieces(etcd: &Etcd) -> usize {
    let keys = etcd.ctl(&["get", "/p/parts/", "--prefix", "--keys-only"]);
    keys.lines().filter(|line| !line.is_empty()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_and_large_batches_are_commits_like_any_other() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let store = etcd.open("p").await;
    let follower = etcd.open("p").await;
    let fence = store.lead().await.unwrap().fence;
    let batch = Batch::new()
        .put("large", value(1, 5 << 20))
        .put("small", "x");
    assert_eq!(store.commit(fence, batch).await, Ok(Revision(1)));
    assert_eq!(pieces(&etcd), 10);
    for round in 0..3 {
        let revision = Revision(2 + round as u64);
        assert_eq!(store.commit(fence, huge(round)).await, Ok(revision));
        assert!(is_whole(&store, round).await && is_whole(&follower, round).await);
    }
    let large = follower.get(b"large", None).await.unwrap().unwrap();
    assert_eq!(
        (large.value, large.revision),
        (value(1, 5 << 20), Revision(1))
    );
    // Commits during and after it take their turn.
    let (a, b) = tokio::join!(
        store.commit(fence, huge(3)),
        store.commit(fence, Batch::new().put("m/large", "small now"))
    );
    let mut revisions = [a.unwrap().0, b.unwrap().0];
    revisions.sort_unstable();
    assert_eq!(revisions, [5, 6]);
    store
        .commit(fence, Batch::new().delete("large").delete("m/large"))
        .await
        .unwrap();
    assert_eq!(pieces(&etcd), 0, "what nothing refers to is removed");
    let (here, there) = (
        store.range(KeyRange::all(), None, 100_000).await.unwrap(),
        follower
            .range(KeyRange::all(), None, 100_000)
            .await
            .unwrap(),
    );
    assert!(here == there);
    let again = etcd.open("p").await;
    assert!(
        again.range(KeyRange::all(), None, 100_000).await.unwrap() == here,
        "it reads back"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_anywhere_in_a_large_commit_leaves_all_of_it_or_nothing() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let store = etcd.open("p").await;
    let fence = store.lead().await.unwrap().fence;
    store.commit(fence, huge(0)).await.unwrap();
    store.close().await;
    let (mut round, mut given_up) = (0, 0);
    for stop in 0..10 {
        let store = etcd.open("p").await;
        let fence = lead(&store).await.fence;
        assert!(is_whole(&store, round).await);
        let next = round + 1;
        let writer = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(fence, huge(next)).await })
        };
        tokio::time::sleep(Duration::from_millis(stop * 90)).await;
        writer.abort();
        let _ended = writer.await;
        // Without closing it: its tasks end where they are.
        drop(store);
        etcd.ctl(&["del", "/p/leader"]);
        let other = etcd.open("p").await;
        within(async { while other.lead().await.is_err() {} }).await;
        if is_whole(&other, next).await {
            round = next;
        } else {
            given_up += 1;
            assert!(
                is_whole(&other, round).await,
                "round {next} is there in part"
            );
        }
        assert_eq!(
            pieces(&etcd),
            6,
            "only the pieces of the large value are left"
        );
        let seen = other
            .get(&Key::from("m/large"), None)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(seen.value, value(round, 3 << 20));
        other.close().await;
    }
    assert!(round + given_up == 10);
}
