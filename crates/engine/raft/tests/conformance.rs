//! The engine passes the suite of the contract, and again after every case when it is opened anew.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::sync::Arc;

use prism_raft::{Config, RaftStore, open};
use prism_store::{Batch, KeyRange, Store};
use prism_store_kit::conformance::{self, CASES, WINDOW};

async fn open_at(dir: &Path) -> Arc<RaftStore> {
    let config = Config {
        window: WINDOW,
        ..Config::new(dir)
    };
    open(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_passes_the_suite() {
    let root = tempfile::tempdir().unwrap();
    conformance::all(async |name| open_at(&root.path().join(name)).await as Arc<dyn Store>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_case_leaves_is_there_when_opened_again() {
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        let store = open_at(dir.path()).await;
        case.run(Arc::clone(&store) as Arc<dyn Store>).await;
        let status = store.status();
        let page = store.range(KeyRange::all(), None, 10_000).await.unwrap();
        store.close().await;
        drop(store);

        let again = open_at(dir.path()).await;
        let after = again.status();
        assert_eq!(
            (after.revision, after.fence),
            (status.revision, status.fence),
            "{}",
            case.name
        );
        assert_eq!(after.oldest, status.oldest, "{}", case.name);
        assert!(after.leader, "{}", case.name);
        let found = again.range(KeyRange::all(), None, 10_000).await.unwrap();
        assert_eq!(found, page, "{}", case.name);
        let fence = again.lead().await.unwrap().fence;
        assert!(fence > status.fence, "a fence grows over a restart");
        again
            .commit(fence, Batch::new().put("after", "x"))
            .await
            .unwrap();
        again.close().await;
    }
}
