//! `task-overhead`: what Prism itself costs per task, and whether that grows with the size of the job.

use anyhow::Result;
use serde_json::{Value, json};

use crate::Scale;
use crate::host::cpus;
use crate::plane::Plane;
use crate::stats::{block_on, median, per_s, round};

/// Tasks that the one worker runs at once: a large machine's worth, so that the rate is Prism's and not a round trip's. One per
/// processor is measured beside it.
const LANES: u32 = 2048;
/// A size is measured so often, in planes of their own, unless it is the largest; the median counts.
const REPEATS: usize = 3;

pub fn run(scale: Scale) -> Result<Value> {
    let sizes = scale.pick([10_000, 100_000, 1_000_000], [500, 1_000, 2_000]);
    let mut rates = Vec::new();
    let mut curve = Vec::new();
    for size in sizes {
        let repeats = if size == sizes[2] { 1 } else { REPEATS };
        let rate = block_on(measure(size, LANES, repeats))?;
        eprintln!("{size} tasks: {rate:.0} tasks/s");
        rates.push(rate);
        curve.push(json!({"tasks": size, "tasks_per_s": rate, "us_per_task": round(1e6 / rate)}));
    }
    let few = u32::try_from(cpus()).unwrap_or(u32::MAX);
    let rate_few = block_on(measure(sizes[0], few, REPEATS))?;
    eprintln!("{} tasks, {few} at once: {rate_few:.0} tasks/s", sizes[0]);
    Ok(json!({
        "lanes": LANES,
        "lanes_few": few,
        "tasks_per_s_10k_few_lanes": rate_few,
        "tasks_per_s_10k": rates[0],
        "tasks_per_s_1m": rates[2],
        "cost_ratio": round(rates[0] / rates[2]),
        "curve": curve,
        "quick": scale.quick,
    }))
}

async fn measure(size: u32, lanes: u32, repeats: usize) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..repeats {
        let dir = tempfile::tempdir()?;
        let plane = Plane::start(dir.path(), 1, lanes).await?;
        times.push(plane.run_job(size).await?);
        plane.say_numbers();
        plane.stop().await;
    }
    Ok(per_s(u64::from(size), median(times)))
}
