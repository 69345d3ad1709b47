//! Who leads: one at a time, fenced, deposed before its lease can have ended, and honest about what became of a write.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod kit;

use std::sync::Arc;

use kit::proxy::{CALLED_FULL, HELD, NO_ANSWERS, ONE_LOST, OPEN, SHUT};
use kit::{Etcd, has_etcd, lead, until, within};
use prism_etcd::{EtcdStore, open};
use prism_store::{Batch, KeyRange, Revision, Store, StoreError};
use prism_types::{Fence, Outcome};

fn put(key: &str) -> Batch {
    Batch::new().put(key, "x")
}

async fn keys(store: &EtcdStore) -> Vec<String> {
    let page = store.range(KeyRange::all(), None, 10_000).await.unwrap();
    page.items.iter().map(|item| item.key.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_one_leads_and_the_other_says_who() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let first = etcd.open_named("p", "server one").await;
    let second = etcd.open_named("p", "server two").await;
    let mut leadership = first.lead().await.unwrap();
    first.commit(leadership.fence, put("a")).await.unwrap();
    let refused = second.lead().await.unwrap_err();
    assert!(refused.to_string().contains("server one does"), "{refused}");
    until("the second has heard of the fence", async || {
        second.status().fence == leadership.fence
    })
    .await;
    let refused = second.commit(leadership.fence, put("b")).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLeader { .. }), "{refused}");
    let refused = second.compact(Revision(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLeader { .. }), "{refused}");
    assert_eq!(keys(&second).await, ["a"]);
    assert!(first.status().leader && !second.status().leader);

    first.close().await;
    within(leadership.lost()).await;
    let after = lead(&second).await;
    assert!(after.fence > leadership.fence);
    second.commit(after.fence, put("c")).await.unwrap();
    let refused = first.commit(leadership.fence, put("d")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Stopped(_)), "{refused}");
    assert_eq!(keys(&second).await, ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_deposes_itself_before_its_lease_ends_and_is_fenced_after() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let (way, first) = etcd.shortly_behind().await;
    let second = etcd.open("p").await;
    let mut leadership = first.lead().await.unwrap();
    first.commit(leadership.fence, put("a")).await.unwrap();
    way.set(SHUT);
    let late = {
        let (first, fence) = (Arc::clone(&first), leadership.fence);
        tokio::spawn(async move { first.commit(fence, put("late")).await })
    };
    within(leadership.lost()).await;
    assert!(!first.status().leader);
    let seat = etcd.ctl(&["get", "/p/leader", "--keys-only"]);
    assert!(
        seat.contains("/p/leader"),
        "etcd still holds the lease when its leader has given up"
    );
    let refused = first.commit(leadership.fence, put("b")).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLeader { .. }), "{refused}");
    assert!(refused.to_string().contains("not reached"), "{refused}");

    let after = lead(&second).await;
    second.commit(after.fence, put("c")).await.unwrap();
    way.set(OPEN);
    let outcome = within(late).await.unwrap().expect_err("it was never done");
    assert!(!matches!(outcome, StoreError::TooLarge { .. }), "{outcome}");
    until("the first hears of the other fence", async || {
        first.status().fence == after.fence
    })
    .await;
    let expected = StoreError::Fenced {
        given: leadership.fence,
        latest: after.fence,
    };
    assert_eq!(
        first.commit(leadership.fence, put("d")).await,
        Err(expected)
    );
    assert_eq!(keys(&first).await, ["a", "c"]);
    assert_eq!(keys(&second).await, ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leadership_ends_when_its_key_is_taken_away() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let store = etcd.open("p").await;
    let mut leadership = store.lead().await.unwrap();
    store.commit(leadership.fence, put("a")).await.unwrap();
    etcd.ctl(&["del", "/p/leader"]);
    within(leadership.lost()).await;
    let refused = store.commit(leadership.fence, put("b")).await.unwrap_err();
    assert_eq!(refused.outcome(), Outcome::NotApplied);
    let again = store.lead().await.unwrap();
    assert!(again.fence > leadership.fence);
    assert_eq!(store.commit(again.fence, put("c")).await, Ok(Revision(2)));
    assert_eq!(keys(&store).await, ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_only_dropped_is_followed_when_its_lease_ends() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let first = open(etcd.short("p")).await.unwrap();
    let mut leadership = first.lead().await.unwrap();
    first.commit(leadership.fence, put("a")).await.unwrap();
    let mut watch = first.watch("".into(), Revision(1)).await.unwrap();
    drop(first);
    within(leadership.lost()).await;
    assert!(matches!(
        within(watch.next()).await,
        Err(StoreError::Stopped(_))
    ));
    let second = etcd.open("p").await;
    let after = lead(&second).await;
    assert!(after.fence > leadership.fence);
    assert_eq!(second.commit(after.fence, put("b")).await, Ok(Revision(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_found_out_and_nothing_is_done_twice() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let (way, store) = etcd.behind().await;
    let fence = store.lead().await.unwrap().fence;
    let mut lost = 0;
    for n in 0..60 {
        if n % 2 == 0 {
            way.set(ONE_LOST);
        }
        let done = store.commit(fence, put(&format!("{n:03}"))).await;
        assert_eq!(done, Ok(Revision(n + 1)));
        lost += u64::from(n % 2 == 0 && way.mode() == OPEN);
    }
    assert!(lost > 20, "answers got lost: {lost}");
    let page = store.range(KeyRange::all(), None, 100).await.unwrap();
    let found: Vec<u64> = page.items.iter().map(|item| item.revision.0).collect();
    assert_eq!(found, (1..=60).collect::<Vec<_>>());
    let head = etcd.ctl(&["get", "/p/head", "--write-out=json"]);
    assert!(
        head.contains("\"version\":61,"),
        "one leadership and sixty commits: {head}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_etcd_did_and_refused_is_found_out() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let (way, store) = etcd.behind().await;
    let fence = store.lead().await.unwrap().fence;
    for n in 0..20 {
        way.set(CALLED_FULL);
        let done = store.commit(fence, put(&format!("{n:03}"))).await;
        assert_eq!(
            done,
            Ok(Revision(n + 1)),
            "an etcd at its quota may do what it refuses"
        );
    }
    assert_eq!(keys(&store).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_never_shows_less_than_what_others_have_seen() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let (way, store) = etcd.behind().await;
    let follower = etcd.open("p").await;
    let fence = store.lead().await.unwrap().fence;
    for n in 0..3 {
        let key = format!("k{n}");
        way.set(HELD);
        let write = {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move { store.commit(fence, put(&key)).await })
        };
        until("another server shows it", async || {
            follower.get(key.as_bytes(), None).await.unwrap().is_some()
        })
        .await;
        let read = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.get(key.as_bytes(), None).await })
        };
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        way.set(OPEN);
        assert!(
            within(read).await.unwrap().unwrap().is_some(),
            "so the leader must not deny it"
        );
        within(write).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_known_is_called_unknown() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let (way, store) = etcd.shortly_behind().await;
    let fence = store.lead().await.unwrap().fence;
    store.commit(fence, put("a")).await.unwrap();
    way.set(NO_ANSWERS);
    let error = within(store.commit(fence, put("b"))).await.unwrap_err();
    assert!(matches!(error, StoreError::Unanswered(_)), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    let seen = etcd.ctl(&["get", "/p/keys/b", "--keys-only"]);
    assert!(seen.contains("/p/keys/b"), "here it was done");
    way.set(OPEN);
    let again = lead(&store).await;
    assert_eq!(
        keys(&store).await,
        ["a", "b"],
        "and shows once etcd answers"
    );
    assert_eq!(store.commit(again.fence, put("c")).await, Ok(Revision(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_servers_that_race_each_fence_goes_to_one() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let mut racing = Vec::new();
    for n in 0..6 {
        let store = etcd.open_named("p", &format!("server {n}")).await;
        racing.push(tokio::spawn(async move {
            let mut fences = Vec::new();
            for turn in 0..3 {
                let leadership = lead(&store).await;
                let Fence(fence) = leadership.fence;
                for part in 0..5 {
                    let key = format!("{fence:04}/{n}/{turn}/{part}");
                    store.commit(leadership.fence, put(&key)).await.unwrap();
                }
                fences.push(fence);
                store.resign().await;
            }
            store.close().await;
            fences
        }));
    }
    let mut fences = Vec::new();
    for one in racing {
        fences.extend(within(one).await.unwrap());
    }
    fences.sort_unstable();
    let count = fences.len();
    fences.dedup();
    assert_eq!((fences.len(), count), (18, 18), "no fence is granted twice");
    let store = etcd.open("p").await;
    let mut items = store
        .range(KeyRange::all(), None, 1000)
        .await
        .unwrap()
        .items;
    assert_eq!(items.len(), 90);
    items.sort_by_key(|item| item.revision);
    assert!(items.is_sorted_by_key(|item| item.key[..4].to_vec()));
}
