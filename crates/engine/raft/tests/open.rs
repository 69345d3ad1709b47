//! Opening: one process at a time, versions, servers, snapshots and the log they replace.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;

use prism_raft::{Config, OpenError, open};
use prism_store::{Batch, KeyRange, Revision, Store, StoreError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_opener_is_refused_by_the_name_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(Config::new(dir.path())).await.unwrap();
    let error = open(Config::new(dir.path())).await.unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let said = error.to_string();
    assert!(
        said.contains(&format!("in use by process {}", std::process::id())),
        "{said}"
    );
    first.close().await;
    open(Config::new(dir.path())).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_or_a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(Config::new(dir.path())).await.unwrap().close().await;
    let mut other = Config::new(dir.path());
    other.server = 2;
    let error = open(other).await.unwrap_err().to_string();
    assert!(
        error.contains("belongs to server 1, but this is server 2"),
        "{error}"
    );
    fs::write(dir.path().join("format"), "prism-store 7 1 00000000\n").unwrap();
    let error = open(Config::new(dir.path())).await.unwrap_err().to_string();
    assert!(
        error.contains("format 7") && error.contains("up to 1"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_cut_off_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    open(Config::new(dir.path())).await.unwrap().close().await;
    // Everything but the first segment, which holds no entry yet, comes later when a store is made.
    let fresh = tempfile::tempdir().unwrap();
    fs::create_dir(fresh.path().join("log")).unwrap();
    let segment = Path::new("log").join(format!("{:020}.seg", 1));
    let head = fs::read(dir.path().join(&segment)).unwrap()[..64].to_vec();
    fs::write(fresh.path().join(&segment), head).unwrap();
    fs::write(fresh.path().join("tail.tmp"), "half").unwrap();
    let store = open(Config::new(fresh.path())).await.unwrap();
    assert_eq!(store.status().revision, Revision(0));
    assert!(!fresh.path().join("tail.tmp").exists());
    store.close().await;
    // But a store whose format file is gone is not a fresh directory.
    fs::remove_file(dir.path().join("format")).unwrap();
    let error = open(Config::new(dir.path())).await.unwrap_err().to_string();
    assert!(
        error.contains("format is damaged") && error.contains("missing"),
        "{error}"
    );
}

fn segments(dir: &Path) -> usize {
    fs::read_dir(dir.join("log")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_is_replaced_by_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = 64 * 1024;
    config.log_bytes = 512 * 1024;
    let store = open(config.clone()).await.unwrap();
    let fence = store.lead().await.unwrap().fence;
    let mut total = 0;
    while total < 1500 || !dir.path().join("snapshot").exists() {
        let batch = Batch::new()
            .put(format!("k/{:03}", total % 100), vec![total as u8; 3000])
            .delete(format!("k/{:03}", (total + 50) % 100));
        store.commit(fence, batch).await.unwrap();
        total += 1;
        assert!(total < 20_000, "no snapshot was taken");
    }
    let status = store.status();
    let before = store
        .range(KeyRange::all(), None, usize::MAX)
        .await
        .unwrap();
    store.close().await;
    let written = total * 3000 / (64 * 1024);
    let kept = segments(dir.path());
    assert!(kept < written / 2, "{kept} segments are left of {written}");

    let again = open(config).await.unwrap();
    let after = again
        .range(KeyRange::all(), None, usize::MAX)
        .await
        .unwrap();
    assert_eq!(after, before);
    assert_eq!(again.status().fence, status.fence);
    let oldest = again.status().oldest;
    assert!(
        oldest.0 > 0,
        "what the snapshot replaced cannot be read at its revisions any more"
    );
    let watch = again.watch("".into(), Revision(oldest.0 - 1)).await;
    assert!(matches!(watch, Err(StoreError::Compacted { .. })));
    let old = again.commit(fence, Batch::new().put("x", "y")).await;
    assert!(old.is_ok(), "the fence of before is still the latest");
    again.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_refuses_and_says_that_nothing_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(Config::new(dir.path())).await.unwrap();
    let mut leadership = store.lead().await.unwrap();
    let mut watch = store.watch("".into(), Revision(0)).await.unwrap();
    store.close().await;
    leadership.lost().await;
    let refused = store
        .commit(leadership.fence, Batch::new().put("a", "b"))
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Stopped(_)), "{refused}");
    assert!(matches!(watch.next().await, Err(StoreError::Stopped(_))));
    assert!(matches!(
        store.get(b"a", None).await,
        Err(StoreError::Stopped(_))
    ));
    assert!(!store.status().leader);
}
