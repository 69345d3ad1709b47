//! A cluster of one server with its listener on loopback, and workers that are played.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prism_control::{Control, Seats};
use prism_identity::{ClusterId, JoinSecret, JoinToken, Key, Role};
use prism_link::{Hello, NodeService, Readings, ToControl, WorkerEnd, pair};
use prism_members::{
    Dialled, House, Joining, Links, MemberError, Membership, dial_session, join, serve,
};
use prism_state::{Command, JoinTokenRecord, MemberRecord, MemberRole};
use prism_store_kit::FakeStore;
use prism_types::{Id, NodeId, TimeMs, TokenId};
use prism_wire::{WireError, carry_control, carry_worker};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

pub fn node(n: u128) -> NodeId {
    NodeId::new(1, n)
}

/// Most who may be unknown at once.
pub const UNKNOWN_HERE: usize = 32;

/// The number of the server's own node.
pub const SERVER: u128 = 1;

pub struct Cluster {
    pub control: Control,
    pub house: Arc<House>,
    pub address: SocketAddr,
    pub stop: CancellationToken,
    /// Ends the leader alone.
    lead: CancellationToken,
    pub pin: prism_identity::Pin,
    dir: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub async fn cluster() -> Cluster {
    cluster_with(UNKNOWN_HERE).await
}

/// One in which so many may be unknown at once.
pub async fn cluster_with(unknown: usize) -> Cluster {
    let me = Membership::found(ClusterId(Id::new(1, 9)), node(SERVER), now()).unwrap();
    cluster_of(me, unknown, |_| {}).await
}

/// The one that this server founds, after `change` was made to its house.
pub async fn cluster_of(me: Membership, unknown: usize, change: impl FnOnce(&House)) -> Cluster {
    let stop = CancellationToken::new();
    let store = Arc::new(FakeStore::default());
    let (control, leader) = prism_control::open(store.clone()).await.unwrap();
    let lead = stop.child_token();
    tokio::spawn(leader.run(lead.clone()));
    let member = MemberRecord {
        id: me.node,
        role: MemberRole::Server,
        name: "server".parse().unwrap(),
        key: me.key.pin().0,
        labels: Default::default(),
        token: None,
        joined: TimeMs(0),
    };
    let address = "127.0.0.1:1".to_owned();
    let found = Command::Found { member, address };
    control.propose(found, None).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    me.save(dir.path()).unwrap();
    let pin = me.root_pin().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let links = Links {
        seats: Seats::fixed(control.clone()),
        store,
        address: "127.0.0.1:1".to_owned(),
        raft: None,
        api: None,
        on_etcd: false,
    };
    let house = House::new(links, me).unwrap();
    change(&house);
    tokio::spawn(serve(listener, house.clone(), unknown, stop.clone()));
    tokio::spawn(house.clone().tend(dir.path().to_owned(), stop.clone()));
    Cluster {
        control,
        house,
        address,
        stop,
        lead,
        pin,
        dir,
    }
}

impl Cluster {
    /// A join token, after `change` was made to what is usual: one worker of any name, for an hour.
    pub async fn token(&self, change: impl FnOnce(&mut JoinTokenRecord)) -> JoinToken {
        let (ms, entropy) = self.control.mint();
        let secret = JoinSecret::generate().unwrap();
        let mut record = JoinTokenRecord {
            id: TokenId::new(ms, entropy),
            hash: secret.hash(),
            role: MemberRole::Worker,
            name: None,
            labels: Default::default(),
            from: Vec::new(),
            uses: 1,
            created: TimeMs(0),
            expires: self.control.now().after(prism_types::Millis(3_600_000)),
        };
        change(&mut record);
        let token = JoinToken {
            id: record.id,
            secret,
            pin: self.pin,
        };
        self.propose(Command::CreateJoinToken(record)).await;
        token
    }

    /// Who its server is, with all of its keys.
    pub fn server(&self) -> Membership {
        Membership::load(self.dir.path()).unwrap().unwrap()
    }

    pub async fn propose(&self, command: Command) {
        self.control.propose(command, None).await.unwrap();
    }

    /// Ends the leader; nobody is told that it decides no more.
    pub async fn lead_ends(&self) {
        self.lead.cancel();
        let refused = || async {
            let nobody = Command::Cordon {
                id: node(99),
                on: true,
            };
            let why = self.control.propose(nobody, None).await.unwrap_err();
            why.reason == prism_types::Reason::NotLeader
        };
        assert!(until(refused).await);
    }

    pub async fn join(&self, token: &JoinToken, n: u128) -> Result<Membership, MemberError> {
        let who = joining(n);
        join(self.address, token, &who, Key::generate().unwrap()).await
    }

    /// A worker that has joined.
    pub async fn member(&self, n: u128) -> Membership {
        let token = self.token(|_| {}).await;
        self.join(&token, n).await.unwrap()
    }

    pub async fn dial(&self, me: &Membership) -> Result<Dialled, MemberError> {
        dial_session(self.address, me, me.trust().unwrap()).await
    }

    /// A session of this member, which greets as `hello` says.
    pub async fn session(&self, me: &Membership, hello: Hello) -> Session {
        let dialled = self.dial(me).await.unwrap();
        assert_eq!(dialled.peer.holder.role, Role::Server);
        let (far, worker) = pair();
        let service = nobody().await;
        let carried = tokio::spawn(carry_worker(dialled.stream, far, service));
        let greeting = ToControl::Hello(Box::new(hello));
        worker.to_control.send(greeting).await.unwrap();
        Session { worker, carried }
    }

    pub async fn is_there(&self, n: u128) -> bool {
        until(|| async { self.control.node(node(n)).is_some() }).await
    }
}

/// Waits until it is so, at most 20 s; answers whether it is.
pub async fn until<F: Future<Output = bool>>(what: impl Fn() -> F) -> bool {
    for _ in 0..2_000 {
        if what().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

pub struct Session {
    pub worker: WorkerEnd,
    pub carried: JoinHandle<WireError>,
}

impl Session {
    pub async fn beat(&self) -> bool {
        let beat = ToControl::Heartbeat {
            readings: Readings::default(),
            credits: 10,
        };
        self.worker.to_control.send(beat).await.is_ok()
    }

    /// Waits for its end, at most 20 s.
    pub async fn end(self) -> WireError {
        let end = tokio::time::timeout(Duration::from_secs(20), self.carried);
        end.await.unwrap().unwrap()
    }
}

pub fn joining(n: u128) -> Joining {
    Joining {
        node: node(n),
        name: format!("w{n}").parse().unwrap(),
        server: None,
        on_etcd: false,
        by_vault: false,
    }
}

pub fn hello(n: u128) -> Hello {
    Hello::empty(node(n), joining(n).name)
}

/// A node that refuses all calls: the far end of a connection that is over.
pub async fn nobody() -> Arc<dyn NodeService> {
    let (here, mut there) = tokio::io::duplex(64);
    let (_end, far) = pair();
    there.write_all(b"PRSM\x01\0\x01\0").await.unwrap();
    let (link, _carried) = carry_control(here, far).await.unwrap();
    Arc::new(link.node)
}
