//! Labels of a node do not drift: they are part of the state that the servers keep together, said by the node itself, and an older word
//! never takes the place of a newer one. Three servers in one process, with pipes between them that can be cut, and a node whose labels
//! change all the time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

#[path = "../../../engine/raft/tests/net/mod.rs"]
mod net;

use std::sync::Arc;
use std::time::{Duration, Instant};

use net::Net;
use prism_control::Control;
use prism_link::{Hello, NodeService, Readings, ToControl, WorkerEnd, pair};
use prism_raft::{Config, RaftStore, open};
use prism_store::Store;
use prism_types::{Labels, NodeId};
use prism_wire::carry_control;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);
/// How soon all agree once they reach each other.
const CONVERGED: Duration = Duration::from_secs(5);
/// How often the labels change.
const FLIPS: u32 = 1_000;
/// After so many the leader of that moment is cut off, or let back.
const TURN: u32 = 100;

fn me() -> NodeId {
    NodeId::new(1, 7)
}

fn labels(flip: u32) -> Labels {
    let side = if flip.is_multiple_of(2) {
        "left"
    } else {
        "right"
    };
    let pairs = [("flip", flip.to_string()), ("side", side.to_owned())];
    pairs.map(|(k, v)| (k.to_owned(), v)).into()
}

/// A server: its store, and its leader while it leads.
struct Server {
    number: u64,
    store: Arc<RaftStore>,
    leads: watch::Receiver<Option<Control>>,
}

/// Leads whenever it is this server's turn.
async fn lead(store: Arc<RaftStore>, seat: watch::Sender<Option<Control>>) {
    let mut standing = store.standing();
    loop {
        if standing.borrow_and_update().leading
            && let Ok((control, leader)) = prism_control::open(store.clone()).await
        {
            seat.send_replace(Some(control));
            let _deposed = leader.run(CancellationToken::new()).await;
            seat.send_replace(None);
        }
        let _again = tokio::time::timeout(Duration::from_millis(20), standing.changed()).await;
    }
}

async fn start(net: &Arc<Net>, dir: &std::path::Path, number: u64) -> Server {
    let mut config = Config::new(dir.join(number.to_string()));
    config.server = number;
    config.bootstrap = number == 1;
    config.dial = Some(net.dial(number));
    let store = open(config).await.unwrap();
    net.begins(number, &store);
    let (seat, leads) = watch::channel(None);
    tokio::spawn(lead(store.clone(), seat));
    Server {
        number,
        store,
        leads,
    }
}

async fn three(net: &Arc<Net>, dir: &std::path::Path) -> Vec<Server> {
    let first = start(net, dir, 1).await;
    first.store.readdress(1, "at-1").await.unwrap();
    let mut servers = vec![first];
    for number in [2, 3] {
        let server = start(net, dir, number).await;
        let founder = &servers[0].store;
        founder.add(number, &format!("at-{number}")).await.unwrap();
        let revision = founder.status().revision;
        until("it to learn", || server.store.status().revision >= revision).await;
        founder.promote(number).await.unwrap();
        servers.push(server);
    }
    servers
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is() {
        assert!(Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A node that refuses all calls: the far end of a connection that is over.
async fn nobody() -> Arc<dyn NodeService> {
    let (here, mut there) = tokio::io::duplex(64);
    let (_end, far) = pair();
    there.write_all(b"PRSM\x01\0\x01\0").await.unwrap();
    let (link, _carried) = carry_control(here, far).await.unwrap();
    Arc::new(link.node)
}

/// The node: it has a session with whom it takes for the leader, and says its labels there.
struct Node<'s> {
    servers: &'s [Server],
    with: Option<(u64, WorkerEnd)>,
    service: Arc<dyn NodeService>,
    /// Labels that a server has taken at the session's begin, where one cannot be said to have them yet.
    greetings: u32,
}

impl Node<'_> {
    fn hello(labels: Labels) -> ToControl {
        ToControl::Hello(Box::new(Hello {
            labels,
            ..Hello::empty(me(), "w1".parse().unwrap())
        }))
    }

    /// Says its labels: in the session that it has, or as a node that comes to a server which believes that it leads.
    async fn say(&mut self, labels: Labels) {
        if let Some((_, worker)) = &self.with
            && worker
                .to_control
                .send(Self::hello(labels.clone()))
                .await
                .is_ok()
        {
            let (readings, credits) = (Readings::default(), 0);
            let beat = ToControl::Heartbeat { readings, credits };
            let _over = worker.to_control.send(beat).await;
            return;
        }
        self.with = None;
        let leader = self.servers.iter().find_map(|s| {
            let control = s.leads.borrow().clone()?;
            Some((s.number, control))
        });
        // Nobody leads for the moment: it comes when somebody does, with what its labels are then.
        let Some((number, control)) = leader else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            return;
        };
        let (end, worker) = pair();
        let service = self.service.clone();
        tokio::spawn(async move { control.serve_worker(end, service).await });
        worker.to_control.send(Self::hello(labels)).await.unwrap();
        self.greetings += 1;
        self.with = Some((number, worker));
    }

    /// As a node whose server does not answer it any more.
    fn leave(&mut self) {
        self.with = None;
    }
}

/// What a server has of the node's labels, whoever leads.
async fn known(server: &Server) -> Option<Labels> {
    let control = prism_control::frozen(server.store.clone()).await.unwrap();
    let labels = control.read(|s| s.node(me()).map(|n| n.record().labels.clone()));
    labels.await
}

/// How long it takes until every server has these labels.
async fn agreed(servers: &[Server], wanted: &Labels) -> Duration {
    let begin = Instant::now();
    loop {
        let mut all = true;
        for server in servers {
            all &= known(server).await.as_ref() == Some(wanted);
        }
        if all {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < LIMIT, "the servers do not agree");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn leader(servers: &[Server]) -> Option<u64> {
    let leads = |s: &&Server| s.leads.borrow().is_some();
    servers.iter().find(leads).map(|s| s.number)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_that_change_a_thousand_times_under_partitions_are_the_same_everywhere_within_5_s() {
    let dir = tempfile::tempdir().unwrap();
    let net = Arc::new(Net::default());
    let servers = three(&net, dir.path()).await;
    let mut node = Node {
        servers: &servers,
        with: None,
        service: nobody().await,
        greetings: 0,
    };
    let (mut cuts, mut slowest) = (0, Duration::ZERO);
    for flip in 1..=FLIPS {
        node.say(labels(flip)).await;
        let whole = net.cut.lock().unwrap().is_empty();
        match (flip % TURN, whole) {
            (50, true) => {
                until("somebody to lead", || leader(&servers).is_some()).await;
                // Half of what follows is said to one that is alone and does not know it yet.
                let alone = leader(&servers).unwrap();
                net.cut_off(alone);
                cuts += 1;
                for more in 0..20 {
                    node.say(labels(FLIPS + flip + more)).await;
                }
                until("another to lead", || {
                    let other = |s: &Server| s.number != alone && s.leads.borrow().is_some();
                    servers.iter().any(other)
                })
                .await;
                node.leave();
            }
            (0, false) => {
                net.heal();
                let begin = Instant::now();
                // Its session may have ended with a leader that was cut off: it says the same again until somebody hears it.
                until("somebody to lead", || leader(&servers).is_some()).await;
                while known(&servers[0]).await.as_ref() != Some(&labels(flip)) {
                    assert!(begin.elapsed() < LIMIT, "its labels are not taken");
                    node.say(labels(flip)).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                agreed(&servers, &labels(flip)).await;
                slowest = slowest.max(begin.elapsed());
            }
            _ => {}
        }
    }
    let last = agreed(&servers, &labels(FLIPS)).await;
    println!(
        "{FLIPS} flips, {cuts} partitions, {} sessions; agreed after {slowest:?} at most, {last:?} in the end",
        node.greetings
    );
    assert_eq!(cuts, FLIPS / TURN);
    assert!(
        slowest < CONVERGED && last < CONVERGED,
        "{slowest:?} {last:?}"
    );
    // Nothing that was said to the one that was alone came up again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for server in &servers {
        assert_eq!(known(server).await, Some(labels(FLIPS)));
    }
}
