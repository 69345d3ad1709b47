//! `worker-scale`: how the rate of no-op tasks changes with the number of workers that share it.

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::Scale;
use crate::plane::Plane;
use crate::stats::{block_on, per_s};

/// Lanes of all workers together, so that only their number changes.
const LANES: u32 = 2048;

pub fn run(scale: Scale) -> Result<Value> {
    let tasks = scale.pick(100_000, 1_000);
    let mut metrics = Map::new();
    let mut curve = Vec::new();
    for workers in [1, 8, 64] {
        let rate = block_on(measure(workers, tasks))?;
        eprintln!("{workers} workers: {rate:.0} tasks/s");
        metrics.insert(format!("tasks_per_s_{workers}"), json!(rate));
        curve.push(json!({"workers": workers, "tasks_per_s": rate}));
    }
    metrics.insert("curve".to_owned(), json!(curve));
    metrics.insert("quick".to_owned(), json!(scale.quick));
    Ok(Value::Object(metrics))
}

async fn measure(workers: u32, tasks: u32) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let plane = Plane::start(dir.path(), workers, LANES / workers).await?;
    let took = plane.run_job(tasks).await?;
    plane.say_numbers();
    plane.stop().await;
    Ok(per_s(u64::from(tasks), took))
}
