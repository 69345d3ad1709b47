//! What etcd refuses, forgets or does not answer, and what others do to it: in Prism's words, and without harm.

mod kit;

use std::time::Duration;

use kit::proxy::{OPEN, SHUT};
use kit::{Etcd, has_etcd, lead, until, within};
use prism_etcd::{Config, OpenError, open};
use prism_store::{Batch, KeyRange, Revision, Store, StoreError};
use prism_store_kit::etcd::free_ports;
use prism_types::Outcome;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_refuses_in_words_and_takes_writes_again_when_there_is_room() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&["--quota-backend-bytes", "16777216"]);
    let store = etcd.open("p").await;
    let fence = store.lead().await.unwrap().fence;
    let mut done = 0;
    let error = loop {
        let batch = Batch::new().put("big", vec![7; 400 << 10]);
        match store.commit(fence, batch).await {
            Ok(_) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 200, "its quota is used up some time");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(
        (error.outcome(), error.retryable()),
        (Outcome::NotApplied, true)
    );
    let said = error.to_string();
    assert!(
        said.contains("quota") && said.contains("alarm disarm"),
        "{said}"
    );
    assert_eq!(
        store.status().revision,
        Revision(done),
        "a refused commit takes no revision"
    );
    let large = store
        .commit(fence, Batch::new().put("big", vec![7; 2 << 20]))
        .await;
    assert!(matches!(large, Err(StoreError::Full { .. })), "{large:?}");
    assert!(
        store.get(b"big", None).await.unwrap().is_some(),
        "reads go on"
    );
    assert!(store.status().leader, "and the leadership too");
    let fresh = etcd.open("p").await;
    until("the alarm is among the warnings", async || {
        fresh
            .health()
            .warnings
            .iter()
            .any(|w| w.contains("NOSPACE"))
    })
    .await;

    etcd.make_room("/p/head");
    let after = store.commit(fence, Batch::new().put("small", "x")).await;
    assert_eq!(after, Ok(Revision(done + 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_limit_of_requests_is_named() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&["--max-request-bytes", "100000"]);
    let store = etcd.open("p").await;
    let fence = store.lead().await.unwrap().fence;
    let error = store
        .commit(fence, Batch::new().put("a", vec![7; 300_000]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--max-request-bytes"), "{error}");
    store.close().await;
    let mut config = etcd.config("p");
    config.request_bytes = 64 * 1024;
    let store = open(config).await.unwrap();
    let fence = store.lead().await.unwrap().fence;
    store
        .commit(fence, Batch::new().put("a", vec![7; 300_000]))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_others_dropped_costs_a_follower_its_past_and_nothing_else() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let (way, follower) = etcd.behind().await;
    let store = etcd.open("p").await;
    let fence = store.lead().await.unwrap().fence;
    store
        .commit(fence, Batch::new().put("gone", "x"))
        .await
        .unwrap();
    let mut watch = follower.watch("".into(), Revision(0)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, Revision(1));
    let mut kept = follower.watch("".into(), Revision(1)).await.unwrap();
    way.set(SHUT);
    store
        .commit(fence, Batch::new().delete("gone").put("a", "1"))
        .await
        .unwrap();
    for n in 0..50 {
        store
            .commit(fence, Batch::new().put("k", n.to_string()))
            .await
            .unwrap();
    }
    etcd.ctl(&["compact", &etcd.revision("/p/head")]);
    // The watch that was open may still be sent what was dropped; a new one is not.
    let mut fresh = etcd.config("p");
    fresh.endpoints = vec![way.url.clone()];
    way.set(OPEN);
    let (here, there) = (
        store.range(KeyRange::all(), None, 100).await.unwrap(),
        within(async {
            loop {
                if let Ok(page) = follower.range(KeyRange::all(), None, 100).await {
                    break page;
                }
            }
        })
        .await,
    );
    assert_eq!(here, there);
    let mut last = 1;
    while last < 52 {
        match within(kept.next()).await {
            Ok(commit) => {
                assert_eq!(commit.revision.0, last + 1, "no gap");
                last += 1;
            }
            Err(StoreError::Compacted { oldest, .. }) => {
                assert!(oldest.0 > last);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let again = open(fresh).await.unwrap();
    assert_eq!(again.range(KeyRange::all(), None, 100).await.unwrap(), here);
    store
        .commit(fence, Batch::new().put("b", "1"))
        .await
        .unwrap();
    let seen = follower.get(b"b", None).await.unwrap().unwrap();
    assert_eq!(seen.revision, Revision(53));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_drops_old_history_of_etcd() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    let mut config = etcd.config("p");
    config.compact_every = Some(Duration::from_millis(100));
    let store = open(config).await.unwrap();
    let fence = store.lead().await.unwrap().fence;
    until("the first revisions are gone", async || {
        store
            .commit(fence, Batch::new().put("a", "1"))
            .await
            .unwrap();
        let asked = std::process::Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args([
                &format!("--endpoints={}", etcd.url),
                "get",
                "/p/head",
                "--rev=2",
            ])
            .output()
            .unwrap();
        String::from_utf8_lossy(&asked.stderr).contains("compacted")
    })
    .await;
    let page = etcd
        .open("p")
        .await
        .range(KeyRange::all(), None, 10)
        .await
        .unwrap();
    assert_eq!(page.revision, store.status().revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_are_gone_are_passed_over() {
    if !has_etcd() {
        return;
    }
    let mut members = Etcd::three();
    let [dead] = free_ports();
    let mut config = members[0].config("p");
    config.endpoints = std::iter::once(format!("http://127.0.0.1:{dead}"))
        .chain(members.iter().map(|m| m.url.clone()))
        .collect();
    let store = open(config.clone()).await.unwrap();
    let follower = open(config).await.unwrap();
    let fence = lead(&store).await.fence;
    let mut watch = follower.watch("".into(), Revision(0)).await.unwrap();
    let mut next = 0;
    for member in &mut members {
        for _ in 0..20 {
            next += 1;
            let done =
                within(store.commit(fence, Batch::new().put(format!("{next:03}"), "x"))).await;
            assert_eq!(done, Ok(Revision(next)));
        }
        member.kill();
        for _ in 0..20 {
            next += 1;
            let done =
                within(store.commit(fence, Batch::new().put(format!("{next:03}"), "x"))).await;
            assert_eq!(done, Ok(Revision(next)), "two of three go on");
        }
        member.run();
        member.wait_healthy();
    }
    for n in 1..=next {
        assert_eq!(within(watch.next()).await.unwrap().revision, Revision(n));
    }
    let page = within(follower.range(KeyRange::all(), None, 1000))
        .await
        .unwrap();
    assert_eq!(page.items.len() as u64, next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_not_there_is_named_and_so_is_every_odd_setting() {
    let [port] = free_ports();
    let address = format!("http://127.0.0.1:{port}");
    let mut config = Config::new([&address]);
    config.timeout = Duration::from_millis(300);
    let error = open(config.clone()).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    let wrong = |change: fn(&mut Config)| {
        let mut config = config.clone();
        change(&mut config);
        config
    };
    for config in [
        wrong(|c| c.endpoints.clear()),
        wrong(|c| c.endpoints = vec!["127.0.0.1:2379".to_owned()]),
        wrong(|c| c.endpoints.push("https://127.0.0.1:1".to_owned())),
        wrong(|c| c.prefix.clear()),
        wrong(|c| c.prefix = "/prism".to_owned()),
        wrong(|c| c.lease = Duration::from_secs(1)),
        wrong(|c| c.request_bytes = 1000),
    ] {
        let error = open(config).await.unwrap_err();
        assert!(matches!(error, OpenError::Config { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_not_served_and_a_state_that_vanishes_stops_the_store() {
    if !has_etcd() {
        return;
    }
    let etcd = Etcd::start(&[]);
    etcd.ctl(&["put", "/p/keys/a", "plain text"]);
    let error = open(etcd.config("p")).await.unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("/p/keys/a"), "{error}");
    etcd.ctl(&["put", "/q/head", "\u{7}newer"]);
    let error = open(etcd.config("q")).await.unwrap_err();
    assert!(
        matches!(error, OpenError::Newer { found: 7, .. }),
        "{error}"
    );

    let store = etcd.open("r").await;
    let follower = etcd.open("r").await;
    let mut leadership = store.lead().await.unwrap();
    store
        .commit(leadership.fence, Batch::new().put("a", "1"))
        .await
        .unwrap();
    assert!(follower.get(b"a", None).await.unwrap().is_some());
    etcd.ctl(&["del", "/r/", "--prefix"]);
    within(leadership.lost()).await;
    let said = async |store: &prism_etcd::EtcdStore| loop {
        match store.get(b"a", None).await {
            Err(StoreError::Stopped(why)) => break why,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    for store in [&store, &follower] {
        let why = within(said(store)).await;
        assert!(why.contains("removed") && why.contains("backup"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_is_known_and_judged() {
    if !has_etcd() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let store = etcd.open("p").await;
    until("it has been looked at", async || store.health().reachable).await;
    let health = store.health();
    assert!(!health.version.is_empty());
    let affected = ["3.4.2", "3.4.3"]
        .iter()
        .any(|v| health.version.starts_with(v));
    if affected {
        assert!(
            health.warnings.iter().any(|w| w.contains("20418")),
            "{health:?}"
        );
    }
    etcd.kill();
    until("it is said that etcd does not answer", async || {
        !store.health().reachable
    })
    .await;
    assert!(
        store
            .health()
            .warnings
            .iter()
            .any(|w| w.contains("does not answer"))
    );
    assert!(
        store.get(b"a", None).await.is_err(),
        "the latest cannot be known"
    );
    let here = store.get(b"a", Some(store.status().revision)).await;
    assert_eq!(here, Ok(None), "what is known can be read at its revision");
    etcd.run();
    until("it answers again", async || store.health().reachable).await;
}
