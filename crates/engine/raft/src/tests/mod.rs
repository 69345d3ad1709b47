//! Tests that need the inside of the crate. Here: a disk that fails, with the store in a child process, because that is
//! what ends.

mod storage;

use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use prism_store::{Batch, Store};

use crate::store::open_with;
use crate::{Config, open};

const DIR: &str = "PRISM_RAFT_FAILING_DIR";

/// Syncs that succeed before the disk fails.
const GOOD: u32 = 40;

fn failing(file: &File) -> io::Result<()> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    match CALLS.fetch_add(1, Ordering::SeqCst) {
        0..GOOD => file.sync_data(),
        GOOD => Err(io::Error::from_raw_os_error(5)),
        _ => {
            eprintln!("synced again after a failure");
            file.sync_data()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_on_a_failing_disk() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = open_with(Config::new(dir), failing).await.unwrap();
    let fence = store.lead().await.unwrap().fence;
    for n in 0..GOOD * 2 {
        let batch = Batch::new().put(format!("k/{n}"), "x");
        let answer = store.commit(fence, batch).await;
        let said = if answer.is_ok() { "ack" } else { "refused" };
        writeln!(io::stderr(), "{said} {n}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_process_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "tests::child_on_a_failing_disk"])
        .env(DIR, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(70), "{said}");
    let segment = "00000000000000000001.seg: Input/output error";
    assert!(
        said.contains("error: cannot sync") && said.contains(segment),
        "{said}"
    );
    assert!(
        !said.contains("again after a failure") && !said.contains("refused"),
        "{said}"
    );
    let acks: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("ack "))
        .collect();
    assert!(acks.len() > 10, "{said}");

    let store = open(Config::new(dir.path())).await.unwrap();
    for n in acks {
        let key = format!("k/{n}");
        assert!(
            store.get(key.as_bytes(), None).await.unwrap().is_some(),
            "{key} is gone"
        );
    }
    store.close().await;
}
