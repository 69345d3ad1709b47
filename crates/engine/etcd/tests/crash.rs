//! etcd killed and started again under load: nothing acknowledged is gone, nothing is torn, no commit is done twice.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kit::{Etcd, has_etcd, lead, until, within};
use prism_etcd::{EtcdStore, open};
use prism_store::{Batch, KeyRange, Revision, Store, StoreError};
use prism_types::Fence;

const WRITERS: u64 = 24;
const ROUNDS: u64 = 5;

/// Writes numbered pairs until it is told to stop or does not lead any more; says up to which number it was told that they are
/// durable, and up to which they may be.
async fn write(
    store: Arc<EtcdStore>,
    fence: Fence,
    writer: u64,
    from: u64,
    stop: Arc<AtomicBool>,
) -> (u64, u64) {
    let mut next = from;
    while !stop.load(Ordering::SeqCst) {
        let batch = Batch::new()
            .put(format!("a/{writer:02}"), next.to_string())
            .put(format!("w/{writer:02}/{next:06}"), next.to_string())
            .put(format!("b/{writer:02}"), next.to_string());
        match store.commit(fence, batch).await {
            Ok(_) => next += 1,
            Err(StoreError::Unanswered(_)) => return (next, next + 1),
            Err(_) => break,
        }
    }
    (next, next)
}

/// How many pairs of each writer there are; checks that each is whole.
async fn check(store: &EtcdStore) -> Vec<u64> {
    let mut counts = Vec::new();
    for writer in 0..WRITERS {
        let range = KeyRange::prefix(format!("w/{writer:02}/"));
        let page = store.range(range, None, 1_000_000).await.unwrap();
        for (n, item) in page.items.iter().enumerate() {
            assert_eq!(item.value, n.to_string(), "a write is missing");
        }
        let count = page.items.len() as u64;
        for side in ["a", "b"] {
            let item = store
                .get(format!("{side}/{writer:02}").as_bytes(), None)
                .await
                .unwrap();
            let last = item.map(|item| String::from_utf8(item.value.to_vec()).unwrap());
            assert_eq!(
                last,
                count.checked_sub(1).map(|n| n.to_string()),
                "a batch is there in part"
            );
        }
        counts.push(count);
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_killed_under_load_loses_nothing_acknowledged() {
    if !has_etcd() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let store = open(etcd.short("p")).await.unwrap();
    let follower = etcd.open("p").await;
    let mut seen = follower.watch("w/".into(), Revision(0)).await.unwrap();
    let watched = tokio::spawn(async move {
        let mut last = Revision(0);
        // Ends with its store.
        while let Ok(commit) = seen.next().await {
            assert!(
                commit.revision > last && commit.changes.len() == 1,
                "in order, once"
            );
            last = commit.revision;
        }
    });
    let mut from = vec![0; WRITERS as usize];
    for round in 0..ROUNDS {
        let fence = lead(&store).await.fence;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for (writer, from) in (0..).zip(&from) {
            let written = write(Arc::clone(&store), fence, writer, *from, Arc::clone(&stop));
            writers.push(tokio::spawn(written));
        }
        let before = store.status().revision;
        until("there is load", async || {
            store.status().revision.0 > before.0 + 100
        })
        .await;
        etcd.kill();
        tokio::time::sleep(Duration::from_millis(round * 150)).await;
        etcd.run();
        let before = store.status();
        until("it goes on, or the lease has ended", async || {
            let now = store.status();
            now.revision.0 > before.revision.0 + 100 || !now.leader
        })
        .await;
        stop.store(true, Ordering::SeqCst);
        let mut told = Vec::new();
        for writer in writers {
            told.push(within(writer).await.unwrap());
        }
        let found = check(&store).await;
        for (told, found) in told.iter().zip(&found) {
            assert!(
                told.0 <= *found && *found <= told.1,
                "told {told:?}, found {found}"
            );
        }
        assert_eq!(check(&follower).await, found, "the follower has the same");
        from = found;
    }
    let again = etcd.open("p").await;
    assert_eq!(check(&again).await, from);
    assert_eq!(
        again.status().revision.0,
        from.iter().sum::<u64>(),
        "nothing was done twice"
    );
    follower.close().await;
    within(watched).await.unwrap();
}
