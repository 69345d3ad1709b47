//! `store-commit`: durable commits per second with few and many callers on the real store, with its log on disk; on three servers
//! of this machine; and on an etcd of this machine.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prism_raft::{Dial, Pipe, RaftStore};
use prism_store::{Batch, BoxFuture, Store};
use prism_types::Fence;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::Scale;
use crate::stats::{block_on, per_s, round};

/// Bytes of each value.
const VALUE: usize = 256;
/// Keys that each caller writes in turn, so that the store does not grow without end.
const KEYS: u64 = 64;
/// Most time until other servers, or etcd, are there.
const WAIT: Duration = Duration::from_secs(30);

pub fn run(scale: Scale) -> Result<Value> {
    let time = scale.pick(Duration::from_secs(5), Duration::from_millis(200));
    let mut metrics = Map::new();
    let mut rates = Vec::new();
    for callers in [1u32, 64, 1024] {
        let rate = block_on(measure(callers, time))?;
        eprintln!("{callers} callers: {rate:.0} commits/s");
        metrics.insert(format!("per_s_{callers}"), json!(rate));
        rates.push(rate);
    }
    metrics.insert("ratio".to_owned(), json!(round(rates[2] / rates[0])));
    let three = block_on(three_servers(time))?;
    eprintln!("1024 callers, 3 servers: {three:.0} commits/s");
    metrics.insert("per_s_1024_3_servers".to_owned(), json!(three));
    let share = round(three / rates[2].max(1e-9));
    metrics.insert("share_of_3_servers".to_owned(), json!(share));
    let etcd = block_on(on_etcd(time))?;
    match etcd {
        Some(rate) => eprintln!("1024 callers, etcd: {rate:.0} commits/s"),
        None => eprintln!("etcd: not measured, there is no etcd in PATH"),
    }
    metrics.insert("etcd_per_s_1024".to_owned(), json!(etcd));
    metrics.insert("quick".to_owned(), json!(scale.quick));
    Ok(Value::Object(metrics))
}

async fn measure(callers: u32, time: Duration) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let store = prism_raft::open(prism_raft::Config::new(dir.path())).await?;
    let fence = store.lead().await?.fence;
    let rate = rate(store.clone(), fence, callers, time).await?;
    store.close().await;
    Ok(rate)
}

/// Commits with so many callers for a while; answers how many were durable per second.
async fn rate(store: Arc<dyn Store>, fence: Fence, callers: u32, time: Duration) -> Result<f64> {
    let start = Instant::now();
    let end = start + time;
    let mut tasks = Vec::new();
    for caller in 0..callers {
        tasks.push(tokio::spawn(commit_until(
            store.clone(),
            fence,
            caller,
            end,
        )));
    }
    let mut commits = 0;
    for task in tasks {
        commits += task.await??;
    }
    Ok(per_s(commits, start.elapsed()))
}

/// Commits one value after the other until the time is over; answers how many are durable.
async fn commit_until(
    store: Arc<dyn Store>,
    fence: Fence,
    caller: u32,
    end: Instant,
) -> Result<u64> {
    let mut done = 0u64;
    while Instant::now() < end {
        let key = format!("bench/{caller}/{}", done % KEYS).into_bytes();
        let batch = Batch::new().put(key, vec![0x5a; VALUE]);
        store.commit(fence, batch).await?;
        done += 1;
    }
    Ok(done)
}

/// Three servers of this machine, each with a log of its own on its disk, that speak over TCP on loopback.
#[derive(Debug)]
struct Tcp;

impl Dial for Tcp {
    fn dial(&self, _: u64, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Pipe>>> {
        let address = address.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Pipe>)
        })
    }
}

async fn server(dir: &Path, number: u64) -> Result<(Arc<RaftStore>, String)> {
    let mut config = prism_raft::Config::new(dir.join(number.to_string()));
    config.server = number;
    config.bootstrap = number == 1;
    config.dial = Some(Arc::new(Tcp));
    let store = prism_raft::open(config).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let serving = store.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _best_effort = stream.set_nodelay(true);
            let store = serving.clone();
            tokio::spawn(async move { store.serve(stream).await });
        }
    });
    Ok((store, address))
}

async fn three_servers(time: Duration) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let (first, at) = server(dir.path(), 1).await?;
    first.readdress(1, &at).await?;
    let fence = first.lead().await?.fence;
    first
        .commit(fence, Batch::new().put("bench", "begins"))
        .await?;
    let mut all = vec![first.clone()];
    for number in 2..=3 {
        let (store, at) = server(dir.path(), number).await?;
        first.add(number, &at).await?;
        let revision = first.status().revision;
        let begin = Instant::now();
        while store.status().revision < revision {
            ensure!(begin.elapsed() < WAIT, "server {number} does not learn");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        first.promote(number).await?;
        all.push(store);
    }
    let rate = rate(first, fence, 1024, time).await?;
    for store in all.iter().rev() {
        store.close().await;
    }
    Ok(rate)
}

/// The same on an etcd of this machine, as its package starts it; `None` where there is none.
async fn on_etcd(time: Duration) -> Result<Option<f64>> {
    let dir = tempfile::tempdir()?;
    let Some(mut etcd) = Etcd::start(dir.path())? else {
        return Ok(None);
    };
    let begin = Instant::now();
    let store = loop {
        let config = prism_etcd::Config::new([etcd.client.clone()]);
        match prism_etcd::open(config).await {
            Ok(store) => break store,
            Err(why) => ensure!(begin.elapsed() < WAIT, "etcd does not answer: {why}"),
        }
        ensure!(etcd.child.try_wait()?.is_none(), "etcd has ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let fence = store.lead().await?.fence;
    let rate = rate(store.clone(), fence, 1024, time).await?;
    store.close().await;
    Ok(Some(rate))
}

/// An etcd of its own, ended with this value.
struct Etcd {
    child: Child,
    client: String,
}

impl Etcd {
    fn start(dir: &Path) -> Result<Option<Self>> {
        let free = || -> Result<u16> {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            Ok(listener.local_addr()?.port())
        };
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = (url(free()?), url(free()?));
        let child = Command::new("etcd")
            .args(["--name=bench", "--logger=zap", "--log-level=error"])
            .arg(format!("--data-dir={}", dir.join("etcd").display()))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Ok(Some(Self { child, client })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}
