//! `failover`: three servers under load; the leader is killed without warning, again and again. How long until a write is acknowledged
//! again, and whether anything that was acknowledged is lost or recorded twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prism_client::Client;
use serde_json::{Value, json};

use crate::Scale;
use crate::servers::Server;
use crate::stats::{block_on, median, percentile_ms, round};

const SERVERS: usize = 3;
/// Who submit jobs all the time.
const WRITERS: usize = 4;
/// Between two jobs of one writer: the leader is loaded, and the results still fit.
const PACE: Duration = Duration::from_millis(50);
/// Most time until a write is acknowledged again, and until a server is back.
const WAIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// What is acknowledged: key and job.
type Acknowledged = Arc<Mutex<BTreeMap<String, String>>>;

pub fn run(scale: Scale) -> Result<Value> {
    let runs = scale.pick(100, 2);
    let dir = tempfile::tempdir()?;
    block_on(measure(dir.path(), runs, scale))
}

async fn measure(dir: &Path, runs: u32, scale: Scale) -> Result<Value> {
    let mut servers = cluster(dir).await?;
    let load = Load::start(&servers);
    let mut times = Vec::new();
    for run in 1..=runs {
        let took = one(&mut servers, run).await?;
        load.moved(&servers);
        times.push(took);
        if run % 10 == 0 || scale.quick {
            eprintln!(
                "{run} leaders killed, {} jobs acknowledged, median {:.0} ms",
                load.acknowledged(),
                median(times.clone()).as_secs_f64() * 1000.0
            );
        }
    }
    let acknowledged = load.end().await;
    let (lost, duplicated) = count(&servers[0].client, &acknowledged).await?;
    for server in &mut servers {
        server.stop()?;
    }
    Ok(json!({
        "runs": runs,
        "median_ms": round(median(times.clone()).as_secs_f64() * 1000.0),
        "p90_ms": percentile_ms(&mut times.clone(), 0.9),
        "max_ms": percentile_ms(&mut times, 1.0),
        "acknowledged": acknowledged.len(),
        "lost": lost,
        "duplicated": duplicated,
        "quick": scale.quick,
    }))
}

async fn cluster(dir: &Path) -> Result<Vec<Server>> {
    let first = Server::first(&dir.join("s1")).await?;
    let mut servers = vec![first];
    for n in 2..=SERVERS {
        let other = servers[0].other(&dir.join(format!("s{n}"))).await?;
        servers.push(other);
    }
    whole(&servers).await?;
    Ok(servers)
}

/// Waits until every server votes, and has what there is.
async fn whole(servers: &[Server]) -> Result<()> {
    let begin = Instant::now();
    loop {
        for server in servers {
            let peers = server.peers().await;
            let well =
                |p: &&Value| p["voter"] == true && p["behind"].as_u64().is_some_and(|n| n < 64);
            if peers.iter().filter(well).count() == SERVERS {
                return Ok(());
            }
        }
        ensure!(begin.elapsed() < WAIT, "not all servers came back");
        tokio::time::sleep(LOOK).await;
    }
}

/// Which of them leads.
async fn leader(servers: &[Server]) -> Result<usize> {
    let begin = Instant::now();
    loop {
        for server in servers {
            let peers = server.peers().await;
            let leads = peers.iter().find(|p| p["leader"] == true);
            let address = leads.and_then(|p| p["address"].as_str());
            if let Some(at) = servers.iter().position(|s| Some(&*s.members) == address) {
                return Ok(at);
            }
        }
        ensure!(begin.elapsed() < WAIT, "nobody leads");
        tokio::time::sleep(LOOK).await;
    }
}

/// Kills the leader, and answers how long it took until another server acknowledged a write; then all are there again.
async fn one(servers: &mut [Server], run: u32) -> Result<Duration> {
    let led = leader(servers).await?;
    servers[led].kill()?;
    let begin = Instant::now();
    let others = servers.iter().enumerate().filter(|(at, _)| *at != led);
    let mut others: Vec<Client> = others.map(|(_, s)| s.client.clone()).collect();
    let key = format!("failover-{run}");
    loop {
        if submit(&others[0], &key).await.is_ok() {
            break;
        }
        ensure!(begin.elapsed() < WAIT, "nobody takes a write");
        others.rotate_left(1);
    }
    let took = begin.elapsed();
    servers[led].again().await?;
    whole(servers).await?;
    Ok(took)
}

/// A job of one task, by a key that makes it one however often it is asked for.
async fn submit(client: &Client, key: &str) -> Result<String> {
    let body = json!({
        "job": "failover", "command": ["/bin/true"], "isolation": "none", "retries": 10,
        "resources": {"cpu": "10m", "memory": "4Mi"},
    });
    let jobs = client.jobs();
    let job = jobs.submit(body.to_string(), Some(key.to_owned())).await?;
    Ok(job.id.to_string())
}

/// Writers that go on whoever leads.
struct Load {
    clients: Arc<Mutex<Vec<Client>>>,
    over: Arc<AtomicBool>,
    acknowledged: Acknowledged,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(servers: &[Server]) -> Self {
        let mut load = Self {
            clients: Arc::default(),
            over: Arc::default(),
            acknowledged: Arc::default(),
            writers: Vec::new(),
        };
        load.moved(servers);
        let numbers = Arc::new(AtomicU64::new(0));
        for _ in 0..WRITERS {
            let (clients, over) = (load.clients.clone(), load.over.clone());
            let (acknowledged, numbers) = (load.acknowledged.clone(), numbers.clone());
            let writer = async move {
                while !over.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let key = format!("load-{number}");
                    if let Some(job) = write(&clients, &over, number, &key).await {
                        held(&acknowledged).insert(key, job);
                    }
                    tokio::time::sleep(PACE).await;
                }
            };
            load.writers.push(tokio::spawn(writer));
        }
        load
    }

    /// Servers that were started again have their API elsewhere.
    fn moved(&self, servers: &[Server]) {
        *held(&self.clients) = servers.iter().map(|s| s.client.clone()).collect();
    }

    fn acknowledged(&self) -> usize {
        held(&self.acknowledged).len()
    }

    async fn end(self) -> BTreeMap<String, String> {
        self.over.store(true, Ordering::Relaxed);
        for writer in self.writers {
            let _ended_or_panicked = writer.await;
        }
        std::mem::take(&mut *held(&self.acknowledged))
    }
}

fn held<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Submits until some server acknowledges it; `None` when all is over before.
async fn write(
    clients: &Mutex<Vec<Client>>,
    over: &AtomicBool,
    number: u64,
    key: &str,
) -> Option<String> {
    let mut at = usize::try_from(number).unwrap_or_default();
    loop {
        let client = {
            let all = held(clients);
            all[at % all.len()].clone()
        };
        match submit(&client, key).await {
            Ok(job) => return Some(job),
            Err(_) if over.load(Ordering::Relaxed) => return None,
            Err(_) => at += 1,
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How many acknowledged jobs are not there, and how many results were recorded more than once.
async fn count(client: &Client, acknowledged: &BTreeMap<String, String>) -> Result<(u64, u64)> {
    let (mut lost, mut duplicated) = (0, 0);
    let begin = Instant::now();
    for job in acknowledged.values() {
        loop {
            let view = match client.jobs().get(job).await {
                Ok(view) => view,
                Err(_) if begin.elapsed() > WAIT * 4 => {
                    lost += 1;
                    break;
                }
                Err(_) => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            if view.status.is_final() {
                let mut lines = client.jobs().results(job, None, false).await?;
                let mut results = 0u64;
                while lines.next().await.context("results end early")?.is_some() {
                    results += 1;
                }
                lost += u64::from(results == 0);
                duplicated += results.saturating_sub(1);
                break;
            }
            ensure!(
                begin.elapsed() < WAIT * 4,
                "job {job} does not end: {view:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok((lost, duplicated))
}
