//! `exhaustion`: how long a small command takes in one sandbox, alone and beside one that takes all it can get. Over HTTP.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use prism_api::{ExecBody, SandboxCreate};
use prism_client::{Client, ExecOutput};
use prism_types::{Bytes, MilliCpu, Resources};
use serde_json::{Value, json};

use crate::Scale;
use crate::node::{Bed, plenty};
use crate::stats::{block_on, percentile_ms, round};

/// Who takes what, for as long as the neighbour is watched; in the shell and Python of the host.
const GUILTY: &[(&str, &[&str])] = &[
    (
        "processors",
        &[
            "sh",
            "-c",
            "for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait",
        ],
    ),
    (
        "processes",
        &[
            "python3",
            "-c",
            "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        ],
    ),
    (
        "memory",
        &[
            "sh",
            "-c",
            "while :; do python3 -c 'x = []\nwhile True: x.append(bytearray(b\"x\") * (1 << 20))'; done",
        ],
    ),
    (
        "files",
        &[
            "python3",
            "-c",
            "import os\nn = 0\nwhile True:\n    open('/tmp/%d' % n, 'w').close(); n += 1\n    if n % 1000 == 0: [os.unlink('/tmp/%d' % i) for i in range(n - 1000, n)]",
        ],
    ),
    (
        "disk",
        &[
            "sh",
            "-c",
            "while :; do dd if=/dev/zero of=/work/f bs=1M count=32 2> /dev/null; rm /work/f; done",
        ],
    ),
    ("output", &["cat", "/dev/zero"]),
    (
        "zombies",
        &[
            "python3",
            "-c",
            "import os, time\nwhile True:\n    try:\n        if os.fork() == 0: os._exit(0)\n    except OSError: pass",
        ],
    ),
    (
        "sockets",
        &[
            "python3",
            "-c",
            "import socket\nwhile True:\n    k = []\n    try:\n        while True:\n            a, b = socket.socketpair(); k.append((a, b)); a.setblocking(False)\n            try:\n                while True: a.send(b'x' * 65536)\n            except BlockingIOError: pass\n    except OSError: pass",
        ],
    ),
];

pub fn run(scale: Scale) -> Result<Value> {
    block_on(async {
        let bed = Bed::start(Some(plenty())).await?;
        let measured = measure(&bed.client, scale).await;
        bed.stop().await;
        measured
    })
}

fn sandbox() -> SandboxCreate {
    SandboxCreate {
        resources: Some(Resources {
            cpu: MilliCpu(1000),
            memory: Bytes::mib(64),
            disk: Bytes::mib(64),
        }),
        pids: Some(64),
        timeout: Some("0".to_owned()),
        ..SandboxCreate::empty()
    }
}

async fn measure(client: &Client, scale: Scale) -> Result<Value> {
    // Long beside the tenths of a second until a run that takes all it can get is held.
    let window = scale.pick(Duration::from_secs(10), Duration::from_millis(500));
    let neighbour = create(client).await?;
    // What only the first commands of a sandbox pay for is not what is asked here.
    watch(client, &neighbour, window / 4).await?;
    let mut rows = Vec::new();
    let mut worst = 0.0_f64;
    for (name, argv) in GUILTY {
        // Before and during are seconds apart, so that what else the machine does is in both.
        let mut alone = watch(client, &neighbour, window).await?;
        let guilty = create(client).await?;
        let mut stream = client.sandboxes().exec_stream(&guilty, &exec(argv)).await?;
        match stream.next().await? {
            Some(ExecOutput::Started(_) | ExecOutput::Data { .. }) => {}
            other => bail!("{name} did not start: {other:?}"),
        }
        drop(stream);
        let mut beside = watch(client, &neighbour, window).await?;
        // It may have been ended by its limit already.
        let _ = client.sandboxes().delete(&guilty).await;
        let (before, during) = (
            percentile_ms(&mut alone, 0.99),
            percentile_ms(&mut beside, 0.99),
        );
        let ratio = round(during / before.max(1e-3));
        worst = worst.max(ratio);
        eprintln!("{name}: p99 {before} ms alone, {during} ms beside it, ratio {ratio}");
        rows.push(json!({
            "guilty": name, "samples_alone": alone.len(), "samples_beside": beside.len(),
            "p50_ms_alone": percentile_ms(&mut alone, 0.5), "p50_ms_beside": percentile_ms(&mut beside, 0.5),
            "p99_ms_alone": before, "p99_ms_beside": during, "p99_ratio": ratio,
        }));
    }
    client.sandboxes().delete(&neighbour).await?;
    Ok(json!({"worst_p99_ratio": worst, "guilty": rows, "quick": scale.quick}))
}

async fn create(client: &Client) -> Result<String> {
    Ok(client
        .sandboxes()
        .create(&sandbox(), true)
        .await?
        .id
        .to_string())
}

fn exec(argv: &[&str]) -> ExecBody {
    ExecBody {
        id: None,
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env: None,
        cwd: None,
        stdin: None,
        tty: None,
        timeout: None,
    }
}

/// Runs a small command over and over for a while; how long each took.
async fn watch(client: &Client, sandbox: &str, window: Duration) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let since = Instant::now();
    while since.elapsed() < window {
        let start = Instant::now();
        let mut output = client
            .sandboxes()
            .exec_stream(sandbox, &exec(&["/bin/true"]))
            .await?;
        loop {
            match output.next().await? {
                Some(ExecOutput::Exit(exit)) => {
                    ensure!(exit.code == Some(0), "the neighbour failed: {exit:?}");
                    break;
                }
                Some(_) => {}
                None => bail!("the neighbour's command has no end"),
            }
        }
        times.push(start.elapsed());
    }
    Ok(times)
}
