//! Cases about who may write.

use prism_types::{Fence, Outcome};

use super::{Subject, keys, lead, put, read};
use prism_store::{Batch, MAX_BATCH_BYTES, MAX_KEY_BYTES, Revision, StoreError};

pub(super) async fn a_new_leadership_fences_the_older_one(store: Subject) {
    let first = lead(&store).await;
    put(&store, first, "a", "1").await;
    let second = lead(&store).await;
    assert!(second > first, "a fence grows with every leadership");
    let error = store.commit(first, Batch::new().put("a", "2")).await;
    let error = error.expect_err("the older fence is refused");
    let expected = StoreError::Fenced {
        given: first,
        latest: second,
    };
    assert_eq!(error, expected);
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(!error.retryable());
    assert_eq!(read(&store, "a", None).await.as_deref(), Some("1"));
    assert_eq!(
        store.status().revision,
        Revision(1),
        "a refused batch takes no revision"
    );
    put(&store, second, "a", "3").await;
    assert_eq!(store.status().fence, second);
}

pub(super) async fn a_fence_that_was_never_granted_is_refused(store: Subject) {
    let error = store.commit(Fence(0), Batch::new().put("a", "1")).await;
    assert!(
        matches!(error, Err(StoreError::Fenced { .. })),
        "got {error:?}"
    );
    let fence = lead(&store).await;
    let ahead = Fence(fence.0 + 1);
    let error = store.commit(ahead, Batch::new().put("b", "1")).await;
    assert!(
        matches!(error, Err(StoreError::Fenced { .. })),
        "got {error:?}"
    );
    assert_eq!(read(&store, "b", None).await, None);
}

pub(super) async fn a_leadership_hears_that_it_was_lost(store: Subject) {
    let mut first = store.lead().await.expect("the store grants a leadership");
    let waiting = tokio::spawn(async move { first.lost().await });
    let mut second = store.lead().await.expect("the store grants another");
    waiting.await.expect("the first leader hears of the second");
    let still = std::time::Duration::from_millis(1);
    let lost = tokio::time::timeout(still, second.lost()).await;
    assert!(lost.is_err(), "the latest leadership is not lost");
}

pub(super) async fn of_racing_leaders_only_the_last_one_writes(store: Subject) {
    let mut leaders = Vec::new();
    for _ in 0..8 {
        let store = store.clone();
        leaders.push(tokio::spawn(async move {
            let fence = lead(&store).await;
            for n in 0..20 {
                let key = format!("{:04}/{n}", fence.0);
                if store
                    .commit(fence, Batch::new().put(key, "x"))
                    .await
                    .is_err()
                {
                    break;
                }
            }
            fence
        }));
    }
    let mut fences = Vec::new();
    for leader in leaders {
        fences.push(leader.await.expect("a leader does not panic"));
    }
    fences.sort();
    fences.dedup();
    assert_eq!(fences.len(), 8, "no fence is granted twice");
    let last = fences[7];
    assert_eq!(
        keys(&store, &format!("{:04}/", last.0), None).await.len(),
        20
    );
    let mut items = store
        .range(prism_store::KeyRange::all(), None, 1000)
        .await
        .expect("the range reads")
        .items;
    items.sort_by_key(|item| item.revision);
    assert!(
        items.is_sorted_by_key(|item| item.key[..4].to_vec()),
        "a later revision never carries an older fence"
    );
}

pub(super) async fn oversized_batches_change_nothing(store: Subject) {
    let fence = lead(&store).await;
    let key = vec![b'k'; MAX_KEY_BYTES + 1];
    let error = store.commit(fence, Batch::new().put(key, "x")).await;
    assert!(
        matches!(error, Err(StoreError::TooLarge { .. })),
        "got {error:?}"
    );
    let batch = Batch::new()
        .put("a", "1")
        .put("b", vec![0; MAX_BATCH_BYTES]);
    let error = store.commit(fence, batch).await;
    assert!(
        matches!(error, Err(StoreError::TooLarge { .. })),
        "got {error:?}"
    );
    assert!(keys(&store, "", None).await.is_empty());
    assert_eq!(store.status().revision, Revision(0));
}
