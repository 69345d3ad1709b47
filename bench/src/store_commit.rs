//! `store-commit`: durable commits per second with few and many callers on the real store, with its log on disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use prism_store::{Batch, Store};
use prism_types::Fence;
use serde_json::{Map, Value, json};

use crate::Scale;
use crate::stats::{block_on, per_s, round};

/// Bytes of each value.
const VALUE: usize = 256;
/// Keys that each caller writes in turn, so that the store does not grow without end.
const KEYS: u64 = 64;

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
    metrics.insert("quick".to_owned(), json!(scale.quick));
    Ok(Value::Object(metrics))
}

async fn measure(callers: u32, time: Duration) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let store = prism_raft::open(prism_raft::Config::new(dir.path())).await?;
    let fence = store.lead().await?.fence;
    let start = Instant::now();
    let end = start + time;
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let store: Arc<dyn Store> = store.clone();
        tasks.push(tokio::spawn(commit_until(store, fence, caller, end)));
    }
    let mut commits = 0;
    for task in tasks {
        commits += task.await??;
    }
    let took = start.elapsed();
    store.close().await;
    Ok(per_s(commits, took))
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
