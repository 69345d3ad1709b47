//! `worker-scale`: what workers cost a server that only keeps them, how fast many join at once, and how the rate of no-op tasks changes
//! with the number of workers that share it.
//!
//! The server is a `prismd` of its own. The workers are played in this process: each has joined with a token, has a certificate and a
//! session over mutual TLS, and sends the heartbeats that a real one sends.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prism_client::ListQuery;
use serde_json::{Map, Value, json};

use crate::Scale;
use crate::plane::Plane;
use crate::played::{ABREAST, HEARTBEAT, Played, there};
use crate::procs;
use crate::servers::Server;
use crate::stats::{block_on, median, per_s, round};

/// Lanes of all workers together, so that only their number changes.
const LANES: u32 = 2048;
/// Workers that join with one token at the same moment.
const AT_ONCE: usize = 100;
/// How often the list is asked for.
const LISTS: usize = 20;

pub fn run(scale: Scale) -> Result<Value> {
    let mut metrics = Map::new();
    tasks(scale, &mut metrics)?;
    let sizes = scale.pick(vec![100, 1_000, 2_500, 5_000], vec![10, 20, 30]);
    block_on(sessions(scale, sizes, &mut metrics))?;
    metrics.insert("quick".to_owned(), json!(scale.quick));
    Ok(Value::Object(metrics))
}

/// The rate of tasks with few and many workers.
fn tasks(scale: Scale, metrics: &mut Map<String, Value>) -> Result<()> {
    let tasks = scale.pick(100_000, 1_000);
    for workers in [1, 8, 64] {
        let rate = block_on(measure(workers, tasks))?;
        eprintln!("{workers} workers: {rate:.0} tasks/s");
        metrics.insert(format!("tasks_per_s_{workers}"), json!(rate));
    }
    Ok(())
}

async fn measure(workers: u32, tasks: u32) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let plane = Plane::start(dir.path(), workers, LANES / workers).await?;
    let took = plane.run_job(tasks).await?;
    plane.say_numbers();
    plane.stop().await;
    Ok(per_s(u64::from(tasks), took))
}

/// Live sessions, more and more of them.
async fn sessions(scale: Scale, sizes: Vec<usize>, metrics: &mut Map<String, Value>) -> Result<()> {
    raise_files()?;
    let dir = tempfile::tempdir()?;
    let mut server = Server::first(&dir.path().join("server")).await?;
    let rss = procs::rss_kib(server.pid);
    let mut played = Played::new(&server).await?;
    let mut curve = Vec::new();
    let quiet = scale.pick(Duration::from_secs(20), Duration::from_secs(2));
    for size in sizes {
        if played.live.is_empty() {
            let (begin, many) = (Instant::now(), size.min(AT_ONCE));
            let took = played.grow(many, AT_ONCE).await?;
            there(&server, many).await?;
            let all = begin.elapsed();
            metrics.insert("joined_at_once".to_owned(), json!(many));
            metrics.insert("join_s".to_owned(), json!(round(took.as_secs_f64())));
            // Until the server says that all of them are well, too.
            metrics.insert("join_100_s".to_owned(), json!(round(all.as_secs_f64())));
        }
        played.grow(size, ABREAST).await?;
        there(&server, size).await?;
        let point = keep(&server, size, rss, quiet).await?;
        eprintln!("{point}");
        curve.push(point);
    }
    let last = curve.last().cloned().unwrap_or_default();
    for key in [
        "workers",
        "heartbeat_cpu_percent",
        "node_ls_ms",
        "node_ls_all_ms",
        "kib_per_worker",
    ] {
        metrics.insert(key.to_owned(), last[key].clone());
    }
    metrics.insert("curve".to_owned(), json!(curve));
    drop(played);
    server.stop()
}

/// Files that are open at once at most, here and in the server, which inherits the limit.
const FILES: u64 = 65_536;

/// Many sockets are open at once; as many as the host lets.
fn raise_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let to = |most: Option<u64>| Rlimit {
        current: most,
        maximum: most,
    };
    // Only root may have more than it was given.
    let more = limit.maximum.map(|given| given.max(FILES));
    let raised = setrlimit(Resource::Nofile, to(more));
    Ok(raised.or_else(|_| setrlimit(Resource::Nofile, to(limit.maximum)))?)
}

/// Processor time of a process over a while, in percent of one processor.
struct Meter {
    pid: u32,
    begin: Instant,
    ticks: u64,
}

impl Meter {
    fn start(pid: u32) -> Self {
        Self {
            pid,
            begin: Instant::now(),
            ticks: procs::ticks(pid),
        }
    }

    fn percent(&self) -> f64 {
        let ticks = procs::ticks(self.pid).saturating_sub(self.ticks) as f64;
        let used = ticks / rustix::param::clock_ticks_per_second() as f64;
        round(100.0 * used / self.begin.elapsed().as_secs_f64())
    }
}

/// What it takes to keep them.
async fn keep(server: &Server, size: usize, rss: u64, quiet: Duration) -> Result<Value> {
    // What joining left behind is not the cost of keeping.
    tokio::time::sleep(HEARTBEAT * 2).await;
    let meters = [server.pid, std::process::id()].map(Meter::start);
    tokio::time::sleep(quiet).await;
    let [cpu, own] = meters.map(|meter| meter.percent());
    let grown = procs::rss_kib(server.pid).saturating_sub(rss);
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for _ in 0..LISTS {
        let begin = Instant::now();
        // As `prismctl node ls` asks.
        server.client.nodes().list(&ListQuery::default()).await?;
        first.push(begin.elapsed());
        let begin = Instant::now();
        let nodes = server.client.nodes().all(ListQuery::default()).await?;
        all.push(begin.elapsed());
        ensure!(
            nodes.len() > size,
            "{} of {size} workers are listed",
            nodes.len()
        );
    }
    let ms = |times| round(median(times).as_secs_f64() * 1000.0);
    Ok(json!({
        "workers": size,
        "heartbeat_cpu_percent": cpu,
        // Of the played workers all together: none of it is the server's.
        "played_cpu_percent": own,
        "node_ls_ms": ms(first),
        "node_ls_all_ms": ms(all),
        "kib_per_worker": round(grown as f64 / size as f64),
    }))
}
