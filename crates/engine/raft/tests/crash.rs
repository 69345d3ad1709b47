//! Kills a process that writes with many callers, twenty times, and checks after each that nothing acknowledged is
//! gone, nothing is torn, and every batch is there as a whole or not at all.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use prism_raft::{Config, RaftStore, open};
use prism_store::{Batch, KeyRange, Store};

const DIR: &str = "PRISM_RAFT_CRASH_DIR";
const WRITERS: usize = 48;
const ROUNDS: usize = 20;

/// Small files, so that segments end, snapshots are taken and logs are dropped all the time.
fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir);
    config.segment_bytes = 256 * 1024;
    config.log_bytes = 1024 * 1024;
    config
}

/// A value that shows whether it is whole: its number, a length that depends on it, and bytes that follow from it.
fn value(n: u64) -> Vec<u8> {
    let len = usize::try_from(n * 37 % 3000).unwrap();
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.extend((0..len).map(|i| (n as usize * 31 + i * 7) as u8));
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == value(n), "the value of write {n} is torn");
    n
}

/// The last write of each writer; checks everything on the way.
async fn check(store: &RaftStore) -> Vec<Option<u64>> {
    let mut last = Vec::new();
    for writer in 0..WRITERS {
        let range = KeyRange::prefix(format!("w/{writer:02}/"));
        let page = store.range(range, None, usize::MAX).await.unwrap();
        for (n, item) in page.items.iter().enumerate() {
            assert_eq!(
                item.key.to_string(),
                format!("w/{writer:02}/{n:08}"),
                "a write is missing"
            );
            assert_eq!(&item.value[..], &(n as u64).to_le_bytes());
        }
        let mut pair = Vec::new();
        for side in ["a", "b"] {
            let key = format!("{side}/{writer:02}");
            let item = store.get(key.as_bytes(), None).await.unwrap();
            pair.push(item.map(|item| (number(&item.value), item.revision)));
        }
        assert_eq!(pair[0], pair[1], "a batch was applied in part");
        let count = page.items.len() as u64;
        assert_eq!(
            pair[0].map(|(n, _)| n),
            count.checked_sub(1),
            "a batch was applied in part"
        );
        last.push(count.checked_sub(1));
    }
    last
}

async fn write_on(store: Arc<RaftStore>, writer: usize, fence: prism_types::Fence, from: u64) {
    for n in from.. {
        let whole = bytes::Bytes::from(value(n));
        let batch = Batch::new()
            .put(format!("a/{writer:02}"), whole.clone())
            .put(format!("w/{writer:02}/{n:08}"), n.to_le_bytes().to_vec())
            .put(format!("b/{writer:02}"), whole);
        store.commit(fence, batch).await.unwrap();
        // One write, so that a kill cannot leave a part of a line.
        let line = format!("ack {writer} {n}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_under_load() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = open(config(Path::new(&dir))).await.unwrap();
    let last = check(&store).await;
    let fence = store.lead().await.unwrap().fence;
    let mut writers = Vec::new();
    for (writer, last) in last.into_iter().enumerate() {
        let from = last.map_or(0, |n| n + 1);
        writers.push(tokio::spawn(write_on(
            Arc::clone(&store),
            writer,
            fence,
            from,
        )));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Runs a child, kills it `after` its first acknowledgement, and returns the last acknowledged write of each writer.
fn round(dir: &Path, after: Duration) -> Vec<Option<u64>> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_under_load"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (first, started) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acked = vec![None; WRITERS];
        for line in lines {
            let line = line.unwrap();
            let mut words = line.split(' ');
            let (Some("ack"), Some(writer), Some(n)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            acked[writer.parse::<usize>().unwrap()] = Some(n.parse::<u64>().unwrap());
            let _waiting = first.send(());
        }
        acked
    });
    started
        .recv()
        .expect("the child acknowledges a write before it ends");
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = 0x9e37_79b9_u64;
    for n in 0..ROUNDS {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let after = Duration::from_micros((dice >> 33) % 120_000);
        let acked = round(dir.path(), after);
        let store = open(config(dir.path())).await.unwrap();
        let found = check(&store).await;
        for (writer, (acked, found)) in acked.iter().zip(&found).enumerate() {
            let lost = format!("round {n}: writer {writer} heard of {acked:?}, found {found:?}");
            assert!(found >= acked, "{lost}");
        }
        store.close().await;
    }
}
