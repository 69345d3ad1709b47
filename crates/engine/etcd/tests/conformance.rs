//! The engine passes the suite of the contract on a real etcd, again when it is opened anew, and so does a server that only follows.

mod kit;

use std::sync::Arc;

use kit::{Etcd, has_etcd, within};
use prism_store::{Batch, KeyRange, Revision, Store, StoreError, Watch};
use prism_store_kit::conformance::{self, CASES};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_passes_the_suite() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    conformance::all(async |name| etcd.open(name).await as Arc<dyn Store>).await;
}

/// Reads a watch to a revision; a commit after another, unless it is told that it was too slow.
async fn follow(mut watch: Watch, to: Revision) -> Result<(), StoreError> {
    let mut last = Revision(0);
    while last < to {
        let commit = watch.next().await?;
        assert!(commit.revision > last, "in order and once");
        last = commit.revision;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_case_leaves_is_there_for_others_and_when_opened_again() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    for case in CASES {
        let follower = etcd.open(case.name).await;
        let watch = follower.watch("".into(), Revision(0)).await.unwrap();
        let store = etcd.open(case.name).await;
        case.run(Arc::clone(&store) as Arc<dyn Store>).await;
        let status = store.status();
        let page = store.range(KeyRange::all(), None, 10_000).await.unwrap();
        let seen = follower.range(KeyRange::all(), None, 10_000).await.unwrap();
        assert_eq!(seen, page, "{}", case.name);
        let there = follower.status();
        assert_eq!(
            (
                there.revision,
                there.fence,
                there.keys,
                there.oldest,
                there.leader
            ),
            (
                status.revision,
                status.fence,
                status.keys,
                status.oldest,
                false
            ),
            "{}",
            case.name
        );
        let put = Batch::new().put("last", "x");
        let fence = store.lead().await.unwrap().fence;
        let last = store.commit(fence, put).await.unwrap();
        match within(follow(watch, last)).await {
            Ok(()) | Err(StoreError::Compacted { .. }) => {}
            Err(error) => panic!("{}: {error}", case.name),
        }
        let (status, page) = (
            store.status(),
            store.range(KeyRange::all(), None, 10_000).await.unwrap(),
        );
        store.close().await;
        drop(store);

        let again = etcd.open(case.name).await;
        let after = again.status();
        assert_eq!(
            (after.revision, after.fence),
            (status.revision, status.fence),
            "{}",
            case.name
        );
        assert_eq!(
            again.range(KeyRange::all(), None, 10_000).await.unwrap(),
            page,
            "{}",
            case.name
        );
        let fence = again.lead().await.unwrap().fence;
        assert!(fence > status.fence, "a fence grows over a restart");
        again
            .commit(fence, Batch::new().put("after", "x"))
            .await
            .unwrap();
        again.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_reads_every_revision_as_the_leader_does() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let follower = etcd.open("p").await;
    let leader = etcd.open("p").await;
    let fence = leader.lead().await.unwrap().fence;
    let mut writers = Vec::new();
    for writer in 0..16 {
        let leader = Arc::clone(&leader);
        writers.push(tokio::spawn(async move {
            for n in 0..10 {
                let mut batch = Batch::new().put("shared", format!("{writer}/{n}"));
                if n % 3 == 2 {
                    batch = batch.delete(format!("own/{writer}")).delete("none");
                } else {
                    batch = batch.put(format!("own/{writer}"), format!("{n}"));
                }
                leader.commit(fence, batch).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for at in 0..=160 {
        let at = Some(Revision(at));
        let here = leader.range(KeyRange::all(), at, 100).await.unwrap();
        let there = follower.range(KeyRange::all(), at, 100).await.unwrap();
        assert_eq!(here, there);
    }
    let text = etcd.ctl(&["get", "/p/keys/", "--prefix", "--keys-only"]);
    assert!(
        text.contains("/p/keys/shared"),
        "keys are where one looks for them: {text}"
    );
}
