//! The fake passes the suite that it stands in for.

use std::sync::Arc;

use prism_store::{Batch, Revision, Store, StoreError};
use prism_store_kit::FakeStore;
use prism_store_kit::conformance::{self, WINDOW};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_passes_the_suite() {
    conformance::all(async |_| Arc::new(FakeStore::new(WINDOW)) as Arc<dyn Store>).await;
}

#[tokio::test]
async fn a_stopped_store_refuses_and_ends_its_watches() {
    let store = FakeStore::default();
    let mut leadership = store.lead().await.unwrap();
    let mut watch = store.watch("".into(), Revision(0)).await.unwrap();
    store
        .commit(leadership.fence, Batch::new().put("a", "1"))
        .await
        .unwrap();
    assert_eq!(watch.next().await.unwrap().revision, Revision(1));
    let waiting = tokio::spawn(async move { watch.next().await });
    store.stop();
    assert!(matches!(
        waiting.await.unwrap(),
        Err(StoreError::Stopped(_))
    ));
    leadership.lost().await;
    let refused = store
        .commit(leadership.fence, Batch::new())
        .await
        .unwrap_err();
    assert!(refused.retryable());
}
