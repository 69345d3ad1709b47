//! `burst`: sandboxes from none to all alive at once on one node, then none again, and what is left of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use prism_client::ListQuery;
use serde_json::{Value, json};

use crate::node::{Bed, entries, plenty};
use crate::stats::{block_on, round};
use crate::{Scale, fleet, host, procs};

/// Most time until the node has removed what belonged to deleted sandboxes.
const QUIET_WAIT: Duration = Duration::from_secs(60);
/// Most time for bringing sandboxes up; what is up by then counts.
const UP_WAIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

pub fn run(scale: Scale) -> Result<Value> {
    let mut curve = Vec::new();
    for size in scale.pick([100, 1_000, 10_000], [2, 5, 20]) {
        let point = block_on(measure(size))?;
        eprintln!("{point}");
        curve.push(point);
    }
    let mut metrics = curve.last().cloned().unwrap_or_default();
    metrics["curve"] = json!(curve);
    metrics["quick"] = json!(scale.quick);
    Ok(metrics)
}

/// What a node has at a moment.
#[derive(Debug)]
struct Held {
    processes: u64,
    namespaces: u64,
    mounts: u64,
    files: u64,
}

impl Held {
    fn by(data: &Path) -> Self {
        let pids = procs::of_node(data);
        let files = ["scratch", "sandboxes", "logs"].map(|d| entries(&data.join("worker").join(d)));
        Self {
            processes: pids.len() as u64,
            namespaces: procs::namespaces(&pids).len() as u64,
            mounts: procs::mounts(data, &pids),
            files: files.iter().sum(),
        }
    }

    fn beyond(&self, other: &Self) -> u64 {
        self.processes.saturating_sub(other.processes)
            + self.namespaces.saturating_sub(other.namespaces)
            + self.mounts.saturating_sub(other.mounts)
            + self.files.saturating_sub(other.files)
    }
}

async fn measure(size: usize) -> Result<Value> {
    let others = procs::instances();
    let bed = Bed::start(Some(plenty())).await?;
    let data = bed.data_dir();
    let groups: BTreeSet<PathBuf> = procs::instances().difference(&others).cloned().collect();
    // What a node keeps for the next sandbox is made by the first.
    let (warm, _) = fleet::up(&bed.client, 1, UP_WAIT).await;
    fleet::down(&bed.client, &warm).await?;
    let before = settled(&data).await;
    let free = host::memory("MemAvailable:").unwrap_or_default();

    let start = Instant::now();
    let (ids, problem) = fleet::up(&bed.client, size, UP_WAIT).await;
    let up = start.elapsed();
    if let Some(problem) = problem {
        eprintln!("not all of {size} came up: {problem:#}");
    }
    let count = bed
        .client
        .sandboxes()
        .all(ListQuery::default(), false)
        .await?
        .len();
    let used = free.saturating_sub(host::memory("MemAvailable:").unwrap_or_default());

    let start = Instant::now();
    if let Err(e) = fleet::down(&bed.client, &ids).await {
        eprintln!("not all of them could be deleted: {e:#}");
    }
    let after = quiet(&data, &before).await;
    let down = start.elapsed();
    let in_life = after.beyond(&before);
    let kept = bed.stop().await;
    let in_death = left_of(&data, &groups);
    drop(kept);
    Ok(json!({
        "asked": size,
        "count": count.min(ids.len()),
        "up_s": round(up.as_secs_f64()),
        "down_s": round(down.as_secs_f64()),
        "left_over": in_life + in_death,
        "kib_per_sandbox": round(used as f64 / 1024.0 / ids.len().max(1) as f64),
    }))
}

/// What the node holds once that has not changed for a second.
async fn settled(data: &Path) -> Held {
    let mut held = Held::by(data);
    let start = Instant::now();
    let mut same = 0;
    while same < 5 && start.elapsed() < QUIET_WAIT {
        tokio::time::sleep(10 * LOOK).await;
        let now = Held::by(data);
        let changed = now.beyond(&held) + held.beyond(&now) > 0;
        same = if changed { 0 } else { same + 1 };
        held = now;
    }
    held
}

/// Waits until no more is held than before.
async fn quiet(data: &Path, before: &Held) -> Held {
    let start = Instant::now();
    // A full look at ten thousand processes takes the node's time away; few are left when it is worth one.
    while procs::of_node(data).len() as u64 > before.processes && start.elapsed() < QUIET_WAIT {
        tokio::time::sleep(5 * LOOK).await;
    }
    loop {
        let held = Held::by(data);
        if held.beyond(before) == 0 || start.elapsed() > QUIET_WAIT {
            return held;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is left when the node has ended: processes, mounts, and the groups that were its own.
fn left_of(data: &Path, groups: &BTreeSet<PathBuf>) -> u64 {
    let pids = procs::of_node(data);
    let groups = groups.iter().filter(|g| g.exists()).count() as u64;
    pids.len() as u64 + procs::mounts(data, &pids) + groups
}
