//! How many commits a second a fresh etcd on this machine takes, by callers: `cargo run --release -p prism-etcd --example commits`.
#![allow(clippy::unwrap_used, reason = "a measurement ends when it fails")]

#[path = "../tests/kit/mod.rs"]
mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kit::Etcd;
use prism_etcd::{Config, open};
use prism_store::{Batch, Store};

const TIME: Duration = Duration::from_secs(5);
const VALUE: usize = 256;

#[tokio::main]
async fn main() {
    let etcd = Etcd::start(&[]);
    for callers in [1, 64, 1024] {
        let mut config = Config::new([&etcd.url]);
        config.prefix = format!("/figures-{callers}/");
        let store = open(config).await.unwrap();
        let fence = store.lead().await.unwrap().fence;
        let count = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let mut all = Vec::new();
        for caller in 0..callers {
            let (store, count) = (Arc::clone(&store), Arc::clone(&count));
            all.push(tokio::spawn(async move {
                let mut n = 0_u64;
                while begun.elapsed() < TIME {
                    let batch = Batch::new().put(format!("k/{caller}/{}", n % 16), vec![7; VALUE]);
                    store.commit(fence, batch).await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                    n += 1;
                }
            }));
        }
        for caller in all {
            caller.await.unwrap();
        }
        let per_s = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        println!("{callers} callers: {per_s:.0} commits/s");
        store.close().await;
    }
}
