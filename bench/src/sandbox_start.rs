//! `sandbox-start`: from the request for a sandbox to the first byte that its first command wrote, over HTTP.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures::stream::{StreamExt, iter};
use prism_api::ExecBody;
use prism_client::{Client, ExecOutput};
use prism_types::SandboxState;
use serde_json::{Map, Value, json};

use crate::Scale;
use crate::fleet;
use crate::node::{Bed, plenty, small};
use crate::stats::{block_on, percentile_ms};

/// How many sandboxes are alive already when one more is started, for the curve.
const ALIVE: [usize; 3] = [100, 1_000, 10_000];
/// Most time for bringing them up.
const UP_WAIT: Duration = Duration::from_secs(120);

/// One at a time, and so many at once. The figures with names are the first and the last.
const ABREAST: [usize; 3] = [1, 10, 50];

pub fn run(scale: Scale) -> Result<Value> {
    block_on(async {
        let bed = Bed::start(Some(plenty())).await?;
        let measured = measure(&bed.client, scale).await;
        bed.stop().await;
        measured
    })
}

async fn measure(client: &Client, scale: Scale) -> Result<Value> {
    // What only the first sandbox of a node pays for is not what is asked here.
    for _ in 0..scale.pick(5, 1) {
        first_byte(client).await?;
    }
    let mut metrics = Map::new();
    let mut curve = Vec::new();
    for abreast in ABREAST {
        let samples = scale.pick(100, 4).max(abreast * scale.pick(6, 1));
        let mut times = sample(client, samples, abreast).await?;
        let (p50, p99) = (
            percentile_ms(&mut times, 0.5),
            percentile_ms(&mut times, 0.99),
        );
        eprintln!("{abreast} at once: p50 {p50} ms, p99 {p99} ms of {samples}");
        if abreast != ABREAST[1] {
            metrics.insert(format!("p50_ms_{abreast}"), json!(p50));
            metrics.insert(format!("p99_ms_{abreast}"), json!(p99));
        }
        curve.push(json!({"alive": 0, "at_once": abreast, "samples": samples, "p50_ms": p50, "p99_ms": p99}));
    }
    let mut alive = Vec::new();
    for size in scale.pick(ALIVE, [2, 4, 8]) {
        let (more, problem) = fleet::up(client, size - alive.len(), UP_WAIT).await;
        alive.extend(more);
        if let Some(problem) = problem {
            eprintln!("not all of {size} came up: {problem:#}");
        }
        let samples = scale.pick(100, 4);
        let mut times = sample(client, samples, 1).await?;
        let (p50, p99) = (
            percentile_ms(&mut times, 0.5),
            percentile_ms(&mut times, 0.99),
        );
        eprintln!(
            "beside {} alive: p50 {p50} ms, p99 {p99} ms of {samples}",
            alive.len()
        );
        curve.push(json!({"alive": alive.len(), "at_once": 1, "samples": samples, "p50_ms": p50, "p99_ms": p99}));
    }
    fleet::down(client, &alive).await?;
    metrics.insert("curve".to_owned(), json!(curve));
    metrics.insert("quick".to_owned(), json!(scale.quick));
    Ok(Value::Object(metrics))
}

/// Rounds of `abreast` at once: a round begins when the one before is over.
async fn sample(client: &Client, samples: usize, abreast: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(samples);
    while times.len() < samples {
        let round: Vec<Result<(Duration, String)>> = iter(0..abreast)
            .map(|_| start_one(client))
            .buffer_unordered(abreast)
            .collect()
            .await;
        for one in round {
            let (time, id) = one?;
            client.sandboxes().delete(&id).await?;
            times.push(time);
        }
    }
    Ok(times)
}

async fn first_byte(client: &Client) -> Result<Duration> {
    let (time, id) = start_one(client).await?;
    client.sandboxes().delete(&id).await?;
    Ok(time)
}

/// Makes a sandbox and runs a command in it; answers the time to the first byte, and the sandbox.
async fn start_one(client: &Client) -> Result<(Duration, String)> {
    let command = ExecBody {
        id: None,
        argv: vec!["/bin/echo".to_owned(), "hello".to_owned()],
        env: None,
        cwd: None,
        stdin: None,
        tty: None,
        timeout: None,
    };
    let start = Instant::now();
    let sandbox = client.sandboxes().create(&small(), true).await?;
    ensure!(
        sandbox.status == SandboxState::Running,
        "a sandbox is {}: {}",
        sandbox.status,
        sandbox.message.unwrap_or_default()
    );
    let id = sandbox.id.to_string();
    let mut output = client.sandboxes().exec_stream(&id, &command).await?;
    while let Some(part) = output.next().await? {
        match part {
            ExecOutput::Data { .. } => return Ok((start.elapsed(), id)),
            ExecOutput::Started(_) => {}
            ExecOutput::Exit(exit) => bail!("the command wrote nothing: {exit:?}"),
        }
    }
    bail!("the output ended before it began")
}
