//! `slow-members`: how long questions about all nodes take while some nodes have fallen silent, and when those are named.
//!
//! The server is a `prismd` of its own, the workers are played here over mutual TLS. Those that fall silent are not stopped: their
//! connections stay open, and nothing that comes on them is read or answered any more, as with a machine that hangs or a network that
//! swallows everything.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prism_api::{MemberRole, Op};
use prism_client::{Ask, ListQuery};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::Scale;
use crate::played::{ABREAST, Played, there};
use crate::servers::Server;
use crate::stats::{block_on, percentile_ms, round};

/// Workers, and how many of them fall silent.
const WORKERS: usize = 50;
const SILENT: usize = 5;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// Every so many questions the other two are asked as well.
const OTHERS: usize = 5;
/// Most time until those that are silent are named.
const WAIT: Duration = Duration::from_secs(60);

pub fn run(scale: Scale) -> Result<Value> {
    block_on(measure(scale))
}

async fn measure(scale: Scale) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    let mut server = Server::first(&dir.path().join("server")).await?;
    let mut well = Played::new(&server).await?;
    well.grow(WORKERS - SILENT, ABREAST).await?;
    let token = server.join_token(10, MemberRole::Worker).await?;
    let silent = Silent::start(server.members.clone(), token)?;
    there(&server, WORKERS).await?;

    let mut before = Times::default();
    let begin = Instant::now();
    while begin.elapsed() < scale.pick(Duration::from_secs(10), Duration::from_secs(1)) {
        let named = before.ask(&server).await?;
        ensure!(named.is_empty(), "{named:?} are missing before any is");
    }

    let stopped = silent.swallow()?;
    let (begin, mut during, mut named_s) = (Instant::now(), Times::default(), None);
    // Until they are named; and beyond the moment at which their connections are given up, after 15 s of silence.
    let until = scale.pick(Duration::from_secs(30), Duration::from_secs(3));
    while named_s.is_none_or(|at| begin.elapsed() < at + until) {
        let named = during.ask(&server).await?;
        ensure!(
            named.iter().all(|name| is_silent(name)),
            "{named:?} are missing"
        );
        if named.len() == SILENT && named_s.is_none() {
            named_s = Some(begin.elapsed());
        }
        ensure!(
            named_s.is_some() || begin.elapsed() < WAIT,
            "only {named:?} are missing"
        );
    }
    let missing = during.ask(&server).await?;
    let metrics = json!({
        "workers": WORKERS,
        "silent": SILENT,
        "missing": missing.len(),
        "named_s": named_s.map(|at| round(at.as_secs_f64())),
        "asked": during.resources.len(),
        "p99_ms": percentile_ms(&mut during.resources, 0.99),
        "max_ms": percentile_ms(&mut during.resources, 1.0),
        "before_p99_ms": percentile_ms(&mut before.resources, 0.99),
        "node_ls_p99_ms": percentile_ms(&mut during.nodes, 0.99),
        "image_ls_p99_ms": percentile_ms(&mut during.images, 0.99),
        "quick": scale.quick,
    });
    stopped.end()?;
    drop(well);
    server.stop()?;
    Ok(metrics)
}

fn is_silent(name: &str) -> bool {
    let number = name.strip_prefix('w').and_then(|n| n.parse().ok());
    number.is_some_and(|n: usize| n >= WORKERS)
}

/// How long answers took.
#[derive(Default)]
struct Times {
    /// `GET /cluster/resources`, which tells of all nodes without asking any.
    resources: Vec<Duration>,
    /// `GET /nodes`, the same.
    nodes: Vec<Duration>,
    /// `GET /images`, for which every node is asked.
    images: Vec<Duration>,
}

impl Times {
    /// Asks once; answers who is said to be missing.
    async fn ask(&mut self, server: &Server) -> Result<Vec<String>> {
        tokio::time::sleep(PAUSE).await;
        let begin = Instant::now();
        let said = server.client.resources().await?;
        self.resources.push(begin.elapsed());
        ensure!(
            said.nodes.len() == WORKERS + 1,
            "{} nodes",
            said.nodes.len()
        );
        if self.resources.len() % OTHERS == 1 {
            let begin = Instant::now();
            server.client.nodes().list(&ListQuery::default()).await?;
            self.nodes.push(begin.elapsed());
            let begin = Instant::now();
            server.client.ask(Ask::new(Op::ImageList)).await?;
            self.images.push(begin.elapsed());
        }
        Ok(said.missing.into_iter().map(|n| n.name).collect())
    }
}

/// Workers with a thread of their own, so that all of them can fall silent at once.
struct Silent {
    swallow: oneshot::Sender<()>,
    end: mpsc::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

/// They have.
struct Swallowed {
    end: mpsc::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Silent {
    fn start(address: String, token: String) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (swallow, from_now) = oneshot::channel();
        let (end, over) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let played = runtime.block_on(async {
                let mut played = Played::at(&address, &token, WORKERS)?;
                played.grow(SILENT, ABREAST).await?;
                let _asked_or_gone = from_now.await;
                anyhow::Ok(played)
            })?;
            // Nobody drives this thread's connections any more; they stay open.
            let _asked_or_gone = over.recv();
            drop(played);
            Ok(())
        });
        Ok(Self {
            swallow,
            end,
            thread,
        })
    }

    /// From now on nothing is read or answered.
    fn swallow(self) -> Result<Swallowed> {
        let swallowed = Swallowed {
            end: self.end,
            thread: self.thread,
        };
        match self.swallow.send(()) {
            Ok(()) => Ok(swallowed),
            Err(()) => swallowed
                .end()
                .and(Err(anyhow::anyhow!("they were gone before"))),
        }
    }
}

impl Swallowed {
    fn end(self) -> Result<()> {
        drop(self.end);
        let ended = self.thread.join();
        ended.ok().context("a played worker panicked")?
    }
}
