//! Several servers in one process, with pipes between them that can be cut.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod net;

use std::sync::Arc;
use std::time::Duration;

use net::Net;
use prism_raft::{Config, RaftStore, open};
use prism_store::{Batch, Leadership, Store, StoreError};
use prism_types::Fence;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(30);

struct Servers {
    net: Arc<Net>,
    dir: tempfile::TempDir,
    log_bytes: u64,
}

impl Servers {
    fn new() -> Self {
        Self {
            net: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            log_bytes: 64 << 20,
        }
    }

    async fn start(&self, server: u64) -> Arc<RaftStore> {
        let mut config = Config::new(self.dir.path().join(server.to_string()));
        config.server = server;
        config.bootstrap = server == 1;
        config.log_bytes = self.log_bytes;
        config.segment_bytes = self.log_bytes / 4;
        config.dial = Some(self.net.dial(server));
        let store = open(config).await.unwrap();
        self.net.begins(server, &store);
        store
    }

    async fn stop(&self, server: u64) {
        let store = self.net.stores.lock().unwrap().remove(&server).unwrap();
        store.close().await;
    }

    async fn join(&self, leader: &RaftStore, server: u64) -> Arc<RaftStore> {
        let store = self.start(server).await;
        leader.add(server, &format!("at-{server}")).await.unwrap();
        let status = leader.status();
        until("it to learn", || store.status().revision >= status.revision).await;
        leader.promote(server).await.unwrap();
        store
    }

    async fn three(&self) -> (Vec<Arc<RaftStore>>, Leadership) {
        let one = self.start(1).await;
        one.readdress(1, "at-1").await.unwrap();
        let leadership = one.lead().await.unwrap();
        put(&one, leadership.fence, "first").await.unwrap();
        let two = self.join(&one, 2).await;
        let three = self.join(&one, 3).await;
        (vec![one, two, three], leadership)
    }
}

async fn put(store: &RaftStore, fence: Fence, key: &str) -> Result<(), StoreError> {
    store
        .commit(fence, Batch::new().put(key.to_owned(), "x"))
        .await
        .map(drop)
}

async fn has(store: &RaftStore, key: &str) -> bool {
    store.get(key.as_bytes(), None).await.unwrap().is_some()
}

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let what = what.to_owned();
    async move {
        let end = tokio::time::Instant::now() + LIMIT;
        while !is() {
            assert!(tokio::time::Instant::now() < end, "waited for {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The one of these that leads, and its leadership.
async fn leads(stores: &[Arc<RaftStore>]) -> (Arc<RaftStore>, Leadership) {
    let end = tokio::time::Instant::now() + LIMIT;
    let mut why = None;
    loop {
        for store in stores {
            if store.standing().borrow().leading {
                match store.lead().await {
                    Ok(leadership) => return (store.clone(), leadership),
                    Err(e) => why = Some(e),
                }
            }
        }
        let standings: Vec<_> = stores
            .iter()
            .map(|s| s.standing().borrow().clone())
            .collect();
        assert!(
            tokio::time::Instant::now() < end,
            "nobody leads: {standings:?} {why:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn equal(stores: &[Arc<RaftStore>]) {
    let state = |s: &Arc<RaftStore>| (s.status().revision, s.status().fence, s.status().keys);
    let first = state(&stores[0]);
    until("all to be equal", || {
        stores.iter().all(|s| state(s) == first)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_the_leader_and_its_fence_is_dead() {
    let servers = Servers::new();
    let (stores, first) = servers.three().await;
    for n in 0..100 {
        put(&stores[0], first.fence, &format!("k{n}"))
            .await
            .unwrap();
    }
    equal(&stores).await;
    assert!(matches!(
        put(&stores[1], first.fence, "no").await,
        Err(StoreError::NotLeader { .. })
    ));
    servers.stop(1).await;
    let (leader, second) = leads(&stores[1..]).await;
    assert!(second.fence > first.fence);
    for n in 0..100 {
        assert!(has(&leader, &format!("k{n}")).await);
    }
    assert!(matches!(
        put(&leader, first.fence, "late").await,
        Err(StoreError::Fenced { .. })
    ));
    put(&leader, second.fence, "new").await.unwrap();
    leader.confirm(second.fence).await.unwrap();
    assert!(leader.confirm(first.fence).await.is_err());
    // The one that was away comes back as one of the others.
    let one = servers.start(1).await;
    until("it to catch up", || {
        one.status().revision == leader.status().revision
    })
    .await;
    assert!(has(&one, "new").await && !has(&one, "late").await);
    for server in 1..=3 {
        servers.stop(server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_loses_its_leadership_and_nothing_of_it_counts() {
    let servers = Servers::new();
    let (stores, mut first) = servers.three().await;
    servers.net.cut_off(1);
    // Handed over to consensus, it is answered by nobody.
    let (store, fence) = (stores[0].clone(), first.fence);
    let lonely: JoinHandle<_> = tokio::spawn(async move { put(&store, fence, "lonely").await });
    let (leader, second) = leads(&stores[1..]).await;
    put(&leader, second.fence, "new").await.unwrap();
    assert!(stores[0].confirm(first.fence).await.is_err());
    assert!(!lonely.is_finished() || lonely.await.unwrap().is_err());
    servers.net.heal();
    tokio::time::timeout(LIMIT, first.lost()).await.unwrap();
    until("it to catch up", || {
        stores[0].status().revision == leader.status().revision
    })
    .await;
    assert!(!has(&stores[0], "lonely").await && has(&stores[0], "new").await);
    equal(&stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_acknowledged_and_with_it_work_goes_on() {
    let servers = Servers::new();
    let (stores, first) = servers.three().await;
    servers.stop(2).await;
    servers.stop(3).await;
    let alone = tokio::time::timeout(
        Duration::from_secs(2),
        put(&stores[0], first.fence, "alone"),
    );
    assert!(!matches!(alone.await, Ok(Ok(()))));
    assert!(stores[0].confirm(first.fence).await.is_err());
    let two = servers.start(2).await;
    let (leader, second) = leads(&[stores[0].clone(), two]).await;
    put(&leader, second.fence, "together").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_late_gets_a_snapshot_and_all_can_be_restarted() {
    let mut servers = Servers::new();
    servers.log_bytes = 64 << 10;
    let (stores, first) = servers.three().await;
    let value = "v".repeat(8 << 10);
    for n in 0..64 {
        let batch = Batch::new().put(format!("k{n}"), value.clone());
        stores[0].commit(first.fence, batch).await.unwrap();
    }
    let four = servers.join(&stores[0], 4).await;
    for n in 0..64 {
        assert!(has(&four, &format!("k{n}")).await);
    }
    put(&stores[0], first.fence, "after").await.unwrap();
    let revision = stores[0].status().revision;
    until("it to follow", || four.status().revision == revision).await;
    drop((stores, four));
    for server in 1..=4 {
        servers.stop(server).await;
    }
    let mut again = Vec::new();
    for server in 1..=4 {
        again.push(servers.start(server).await);
    }
    let (leader, second) = leads(&again).await;
    assert!(has(&leader, "after").await && has(&leader, "k63").await);
    put(&leader, second.fence, "again").await.unwrap();
    equal(&again).await;
}

/// Two voters and one that learns: were the leader to go while only its own log makes the third a voter, the others would need it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_first_finishes_the_change_that_is_under_way() {
    let servers = Servers::new();
    let one = servers.start(1).await;
    one.readdress(1, "at-1").await.unwrap();
    let leadership = one.lead().await.unwrap();
    let two = servers.join(&one, 2).await;
    let three = servers.start(3).await;
    one.add(3, "at-3").await.unwrap();
    put(&one, leadership.fence, "before").await.unwrap();
    until("it to learn", || {
        three.status().revision >= one.status().revision
    })
    .await;
    servers.net.cut_off(1);
    let promoting = tokio::spawn({
        let one = one.clone();
        async move { one.promote(3).await }
    });
    let standing = one.standing();
    until("it to be under way", || !standing.borrow().settled).await;
    let leaving = tokio::spawn(async move { one.hand_over().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!leaving.is_finished(), "it waits for the others");
    servers.net.heal();
    leaving.await.unwrap();
    promoting.await.unwrap().unwrap();
    servers.stop(1).await;
    let (leader, second) = leads(&[two, three]).await;
    put(&leader, second.fence, "after").await.unwrap();
    assert!(leader.standing().borrow().servers.iter().all(|s| s.voter));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_a_server_is_taken_out() {
    let servers = Servers::new();
    let (stores, mut first) = servers.three().await;
    stores[0].hand_over().await;
    tokio::time::timeout(LIMIT, first.lost()).await.unwrap();
    let (leader, second) = leads(&stores[1..]).await;
    put(&leader, second.fence, "handed").await.unwrap();
    leader.remove(1).await.unwrap();
    leader.remove(1).await.unwrap();
    let standing = leader.standing().borrow().clone();
    let numbers: Vec<u64> = standing.servers.iter().map(|s| s.number).collect();
    assert_eq!(numbers, [2, 3]);
    assert!(standing.leading && standing.servers.iter().all(|s| s.voter));
    servers.stop(1).await;
    put(&leader, second.fence, "two of two").await.unwrap();
    assert_eq!(leader.progress().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_meant_for_another_server_is_refused() {
    let servers = Servers::new();
    let one = servers.start(1).await;
    let (near, far) = tokio::io::duplex(1 << 16);
    let store = one.clone();
    let served = tokio::spawn(async move { store.serve(far).await });
    // A greeting for server 7, then a question: version 1, from 2, to 7.
    let mut near = near;
    let hello = [3u8, 0, 0, 0, 1, 2, 7];
    tokio::io::AsyncWriteExt::write_all(&mut near, &hello)
        .await
        .unwrap();
    let junk = [4u8, 0, 0, 0, 255, 255, 255, 255];
    tokio::io::AsyncWriteExt::write_all(&mut near, &junk)
        .await
        .unwrap();
    assert!(served.await.unwrap().is_err());
    // One of another version is told so: version 9, from 2, to 1; then a question that nobody here can read.
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let store = one.clone();
    let served = tokio::spawn(async move { store.serve(far).await });
    let newer = [3u8, 0, 0, 0, 9, 2, 1, 4, 0, 0, 0, 255, 255, 255, 255];
    tokio::io::AsyncWriteExt::write_all(&mut near, &newer)
        .await
        .unwrap();
    let why = served.await.unwrap().unwrap_err().to_string();
    assert!(
        why.contains("server 2 speaks v9, cluster needs v1"),
        "{why}"
    );
    // Lengths that are too great, and the end within a message.
    for bytes in [&[255u8, 255, 255, 255][..], &[9, 0, 0, 0, 1], &[]] {
        let (mut near, far) = tokio::io::duplex(1 << 16);
        tokio::io::AsyncWriteExt::write_all(&mut near, bytes)
            .await
            .unwrap();
        drop(near);
        assert!(one.serve(far).await.is_err());
    }
    assert!(one.standing().borrow().leading);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_that_is_left_becomes_the_only_one_with_all_it_has() {
    for log_bytes in [64 << 20, 64 << 10] {
        let mut servers = Servers::new();
        servers.log_bytes = log_bytes;
        let (stores, first) = servers.three().await;
        let value = "v".repeat(4 << 10);
        for n in 0..40 {
            let batch = Batch::new().put(format!("k{n}"), value.clone());
            stores[0].commit(first.fence, batch).await.unwrap();
        }
        equal(&stores).await;
        let before = stores[2].status();
        drop(stores);
        for server in 1..=3 {
            servers.stop(server).await;
        }
        let dir = servers.dir.path().join("3");
        let left = prism_raft::remains(&dir, 3).await.unwrap();
        let numbers: Vec<u64> = left.servers().iter().map(|s| s.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert!(left.committed() <= left.last() && left.last() >= 40);
        assert!(left.written().is_some());
        assert_eq!(left.items("k").unwrap().len(), 40);
        let term = left.term();
        // Looked at only, it is as it was; a running one is not looked at.
        assert!(prism_raft::remains(&dir, 3).await.is_err());
        left.close().await;
        let left = prism_raft::remains(&dir, 3).await.unwrap();
        assert_eq!(left.term(), term);
        let batch = Batch::new().put("recovered", "yes").delete("k0");
        left.recover(batch).await.unwrap();
        // Twice is once.
        let again = prism_raft::remains(&dir, 3).await.unwrap();
        assert_eq!(again.servers().len(), 1);
        again.recover(Batch::new()).await.unwrap();
        let three = servers.start(3).await;
        let standing = three.standing().borrow().clone();
        assert!(standing.leading && standing.servers.len() == 1);
        assert!(standing.term > term);
        let second = three.lead().await.unwrap();
        assert!(second.fence > first.fence);
        assert_eq!(three.status().revision.0, before.revision.0 + 1);
        assert!(has(&three, "k39").await && has(&three, "recovered").await);
        assert!(!has(&three, "k0").await);
        put(&three, second.fence, "after").await.unwrap();
        // Others join it as they would any.
        std::fs::remove_dir_all(servers.dir.path().join("1")).unwrap();
        let four = servers.join(&three, 4).await;
        until("it to follow", || {
            four.status().revision == three.status().revision
        })
        .await;
        servers.stop(3).await;
        servers.stop(4).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_store_of_this_server_is_not_recovered() {
    let servers = Servers::new();
    let one = servers.start(1).await;
    drop(one);
    servers.stop(1).await;
    let dir = servers.dir.path();
    let why = prism_raft::remains(&dir.join("1"), 2).await.unwrap_err();
    assert!(why.to_string().contains("belongs to server 1"), "{why}");
    let nothing = dir.join("nothing");
    let why = prism_raft::remains(&nothing, 1).await.unwrap_err();
    assert!(why.to_string().contains("nothing/format"), "{why}");
    assert!(!nothing.exists(), "nothing is made");
}
