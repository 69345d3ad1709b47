//! `task-throughput`: tasks of `/bin/true`, plain and sandboxed, beside a bare loop of the same program on as many processors.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Scale;
use crate::host::cpus;
use crate::node::Bed;
use crate::stats::{block_on, per_s, round};

/// What every side runs.
const PROGRAM: &str = "/bin/true";
/// Tasks before the measured ones, so that both sides are warm.
const WARM: u64 = 50;

pub fn run(scale: Scale) -> Result<Value> {
    let count = scale.pick(10_000, 60);
    bare(WARM)?;
    let bare_per_s = per_s(count, bare(count)?);
    eprintln!("bare: {bare_per_s:.0}/s");
    let docker_per_s = docker(scale.pick(20, 2));
    block_on(async {
        let bed = Bed::start(None).await?;
        let measured = tasks(&bed, count).await;
        bed.stop().await;
        let [plain, sandboxed, plain_half, sandboxed_half] = measured?;
        Ok(json!({
            "tasks": count,
            "bare_per_s": bare_per_s,
            "plain_per_s": plain,
            "plain_ratio": round(plain / bare_per_s),
            "sandboxed_per_s": sandboxed,
            "sandboxed_ratio": round(sandboxed / bare_per_s),
            "plain_per_s_500m": plain_half,
            "sandboxed_per_s_500m": sandboxed_half,
            "docker_per_s": docker_per_s,
            "docker_ratio": docker_per_s.map(|d| round(sandboxed / d)),
            "quick": scale.quick,
        }))
    })
}

/// Plain and sandboxed, with as many tasks at once as processors, and the same with twice as many.
async fn tasks(bed: &Bed, count: u64) -> Result<[f64; 4]> {
    let mut rates = [0.0; 4];
    let sides = [
        ("none", "1"),
        ("sandbox", "1"),
        ("none", "500m"),
        ("sandbox", "500m"),
    ];
    for (rate, (isolation, cpu)) in rates.iter_mut().zip(sides) {
        let body = |count: u64| {
            json!({
                "job": "true", "command": [PROGRAM], "array": count, "isolation": isolation,
                "resources": {"cpu": cpu, "memory": "32Mi"},
            })
        };
        bed.run_job(&body(WARM)).await?;
        *rate = per_s(count, bed.run_job(&body(count)).await?);
        eprintln!("isolation {isolation}, cpu {cpu}: {:.0}/s", *rate);
    }
    Ok(rates)
}

/// Starts the program and waits for it, `count` times in all, on a thread per processor. The standard library's spawn shares
/// the parent's memory until the exec (as vfork does), which is the cheapest there is.
fn bare(count: u64) -> Result<Duration> {
    let left = AtomicU64::new(count);
    let take = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus())
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while take() {
                        let status = Command::new(PROGRAM).env_clear().status();
                        let status = status.with_context(|| format!("{PROGRAM} does not start"))?;
                        ensure!(status.success(), "{PROGRAM} ended with {status}");
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .expect("a thread of the loop does not panic")?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(start.elapsed())
}

/// `docker run` of the same program, one after the other; `None` where no engine answers or it has no image.
fn docker(count: u64) -> Option<f64> {
    let docker = |args: &[&str]| {
        let out = Command::new("docker")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .ok()?;
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    };
    docker(&["info"])?;
    let images = docker(&["images", "--quiet"])?;
    let image = images.lines().next()?.to_owned();
    let run = || {
        docker(&[
            "run",
            "--rm",
            "--network=none",
            "--entrypoint",
            PROGRAM,
            &image,
        ])
    };
    run()?;
    let start = Instant::now();
    for _ in 0..count {
        run()?;
    }
    let rate = per_s(count, start.elapsed());
    eprintln!("docker run: {rate}/s");
    Some(rate)
}
