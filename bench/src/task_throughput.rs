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

/// The sides are measured in turn, so many times: what else the machine does meets all of them.
const ROUNDS: u32 = 5;

/// A side that goes through the product: isolation, processors that a task asks for, and its metric.
const SIDES: [(&str, &str, &str); 4] = [
    ("none", "1", "plain_per_s"),
    ("sandbox", "1", "sandboxed_per_s"),
    ("none", "500m", "plain_per_s_500m"),
    ("sandbox", "500m", "sandboxed_per_s_500m"),
];

pub fn run(scale: Scale) -> Result<Value> {
    let rounds = scale.pick(ROUNDS, 1);
    let count = scale.pick(10_000, 60) / u64::from(rounds);
    bare(WARM)?;
    let docker_per_s = docker(scale.pick(20, 2));
    block_on(async {
        let bed = Bed::start(None).await?;
        let measured = measure(&bed, count, rounds).await;
        bed.stop().await;
        let (bare, sides) = measured?;
        let tasks = count * u64::from(rounds);
        let bare_per_s = per_s(tasks, bare);
        let mut metrics = json!({"tasks": tasks, "bare_per_s": bare_per_s});
        for ((isolation, cpu, name), took) in SIDES.iter().zip(sides) {
            let rate = per_s(tasks, took);
            eprintln!("isolation {isolation}, cpu {cpu}: {rate:.0}/s of {bare_per_s:.0}/s");
            metrics[*name] = json!(rate);
            metrics[name.replace("_per_s", "_ratio")] = json!(round(rate / bare_per_s));
        }
        let sandboxed = metrics["sandboxed_per_s"].as_f64().unwrap_or_default();
        metrics["docker_per_s"] = json!(docker_per_s);
        metrics["docker_ratio"] = json!(docker_per_s.map(|d| round(sandboxed / d)));
        metrics["quick"] = json!(scale.quick);
        Ok(metrics)
    })
}

/// All sides in turn: the bare loop, then plain and sandboxed with as many tasks at once as processors, and with twice as many.
async fn measure(bed: &Bed, count: u64, rounds: u32) -> Result<(Duration, [Duration; 4])> {
    let body = |isolation: &str, cpu: &str, count: u64| {
        json!({
            "job": "true", "command": [PROGRAM], "array": count, "isolation": isolation,
            "resources": {"cpu": cpu, "memory": "32Mi"},
        })
    };
    for (isolation, cpu, _) in SIDES {
        bed.run_job(&body(isolation, cpu, WARM)).await?;
    }
    let mut bare_took = Duration::ZERO;
    let mut took = [Duration::ZERO; 4];
    for _ in 0..rounds {
        bare_took += bare(count)?;
        for (sum, (isolation, cpu, _)) in took.iter_mut().zip(SIDES) {
            *sum += bed.run_job(&body(isolation, cpu, count)).await?;
        }
    }
    Ok((bare_took, took))
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

/// The image of a bench: this host's program and what it links to, nothing else. Nothing is pulled.
const IMAGE: &str = "prism-bench:true";

/// `docker run` of the same program, one after the other; `None` where no engine answers.
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
    let import = format!(
        "tar -chf - {PROGRAM} $(ldd {PROGRAM} | grep -o '/[^ ]*') 2>/dev/null | docker import - {IMAGE}"
    );
    let made = Command::new("sh").args(["-c", &import]).output().ok()?;
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stderr);
        eprintln!("docker takes no image: {}", why.trim());
        return None;
    }
    let run = || {
        docker(&[
            "run",
            "--rm",
            "--network=none",
            "--entrypoint",
            PROGRAM,
            IMAGE,
        ])
    };
    // The first one fills caches.
    if run().is_none() {
        eprintln!("docker does not run {IMAGE}, which was made of this host's {PROGRAM}");
        return None;
    }
    let start = Instant::now();
    for _ in 0..count {
        run()?;
    }
    let rate = per_s(count, start.elapsed());
    eprintln!("docker run: {rate}/s");
    // Only what was made here.
    let _left_if_in_use = docker(&["rmi", IMAGE]);
    Some(rate)
}
