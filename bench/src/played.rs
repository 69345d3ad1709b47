//! Workers that are played in this process: each has joined with a token, has a certificate and a session over mutual TLS, and sends the
//! heartbeats that a real one sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{StreamExt, TryStreamExt, iter};
use prism_api::MemberRole;
use prism_identity::{JoinToken, Key};
use prism_link::{Hello, NodeFacts, NodeService, Readings, ToControl, WorkerEnd, pair};
use prism_members::{Joining, Membership, dial_session, join};
use prism_runtime::Runtime;
use prism_runtime_kit::{NoFiles, Noop};
use prism_types::{Bytes, MilliCpu, NodeId, Resources};
use prism_wire::carry_worker;
use prism_worker::Worker;

use crate::servers::Server;

/// Joins and greetings under way at once.
pub const ABREAST: usize = 64;
/// As a real worker's.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// Most time until all are there.
const WAIT: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(50);

/// Waits until the server has a session with all of them.
///
/// # Errors
/// When they are not there in time.
pub async fn there(server: &Server, size: usize) -> Result<()> {
    let begin = Instant::now();
    loop {
        let healthy = server.client.cluster().await?.nodes.healthy as usize;
        // The server's own node is one of them.
        if healthy > size {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < WAIT,
            "{healthy} of {size} workers are there"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Workers that are played here.
pub struct Played {
    address: SocketAddr,
    token: JoinToken,
    /// The number of its first one.
    first: usize,
    /// One for each.
    pub live: Vec<tokio::task::JoinHandle<()>>,
    /// What would answer for a sandbox of theirs; nobody asks.
    service: Arc<dyn NodeService>,
    _dir: tempfile::TempDir,
}

impl Drop for Played {
    fn drop(&mut self) {
        for one in &self.live {
            one.abort();
        }
    }
}

impl Played {
    /// None yet.
    ///
    /// # Errors
    /// When the server makes no token for them.
    pub async fn new(server: &Server) -> Result<Self> {
        let token = server.join_token(10_000, MemberRole::Worker).await?;
        Self::at(&server.members, &token, 0)
    }

    /// None yet, that come to this address with this token, and are numbered from this number on.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn at(address: &str, token: &str, first: usize) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config =
            prism_worker::Config::new(NodeId::new(1, 1), "played".parse()?, dir.path().join("w"));
        let worker = Worker::open(config, Arc::new(NoFiles), |sink| {
            let runtime: Arc<dyn Runtime> = Arc::new(Noop::new(sink, 1));
            Ok(runtime)
        })?;
        Ok(Self {
            service: worker.service(),
            _dir: dir,
            first,
            address: address.parse().context("where members come to")?,
            token: token.parse().map_err(anyhow::Error::msg)?,
            live: Vec::new(),
        })
    }

    /// Lets more join until there are so many; answers how long that took.
    ///
    /// # Errors
    /// When one is not let in.
    pub async fn grow(&mut self, size: usize, abreast: usize) -> Result<Duration> {
        let begin = Instant::now();
        let more = iter(self.live.len()..size).map(|n| self.one(self.first + n));
        let more: Vec<_> = more.buffer_unordered(abreast).try_collect().await?;
        self.live.extend(more);
        Ok(begin.elapsed())
    }
}

impl Played {
    /// Joins, and has a session from then on.
    async fn one(&self, n: usize) -> Result<tokio::task::JoinHandle<()>> {
        let who = Joining {
            node: NodeId::new(1_700_000_000_000, n as u128 + 1),
            name: format!("w{n}").parse()?,
            server: None,
            on_etcd: false,
            by_vault: false,
        };
        let me = join(self.address, &self.token, &who, Key::generate()?).await?;
        let worker = self.session(&me).await?;
        let hello = Hello {
            capacity: Resources {
                cpu: MilliCpu(8_000),
                memory: Bytes(16 << 30),
                disk: Bytes(100 << 30),
            },
            facts: NodeFacts {
                isolation: true,
                cpus: 8,
                ..NodeFacts::default()
            },
            ..Hello::empty(who.node, who.name)
        };
        worker
            .to_control
            .send(ToControl::Hello(Box::new(hello)))
            .await?;
        Ok(tokio::spawn(beat(worker, n)))
    }

    async fn session(&self, me: &Membership) -> Result<WorkerEnd> {
        let dialled = dial_session(self.address, me, me.trust()?).await?;
        let (far, worker) = pair();
        tokio::spawn(carry_worker(dialled.stream, far, self.service.clone()));
        Ok(worker)
    }
}

/// Sends heartbeats until the session ends; not all in the same moment.
async fn beat(mut worker: WorkerEnd, n: usize) {
    let offset = HEARTBEAT.mul_f64((n % 100) as f64 / 100.0);
    tokio::time::sleep(offset).await;
    let mut times = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            _ = times.tick() => {}
            said = worker.from_control.recv() => match said {
                Some(_) => continue,
                None => return,
            },
        }
        let readings = Readings {
            cpu: Some(0.25),
            load: Some([1.0, 1.0, 1.0]),
            memory_used: Some(1 << 30),
            memory_total: Some(16 << 30),
            ..Readings::default()
        };
        let beat = ToControl::Heartbeat {
            readings,
            credits: 64,
        };
        if worker.to_control.send(beat).await.is_err() {
            return;
        }
    }
}
