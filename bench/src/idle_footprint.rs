//! `idle-footprint`: memory and processor time of a real `prismd` that has nothing to do, its supervisor included.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::Scale;
use crate::procs;
use crate::servers::programs;
use crate::stats::round;

/// Most time until the server is up, and until it has ended.
const WAIT: Duration = Duration::from_secs(30);
/// Quiet time after the start, so that only idling is measured.
const SETTLE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

pub fn run(scale: Scale) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let mut server = start(dir.path(), &data)?;
    let time = scale.pick(Duration::from_secs(30), Duration::from_secs(1));
    let measured = up(&mut server, &data).map(|()| {
        std::thread::sleep(SETTLE);
        measure(server.id(), &data, time)
    });
    let ended = end(&mut server);
    let mut metrics = measured.with_context(|| log(dir.path()))?;
    ended?;
    metrics["quick"] = json!(scale.quick);
    Ok(metrics)
}

fn start(dir: &Path, data: &Path) -> Result<Child> {
    let prismd = programs()?.join("prismd");
    ensure!(
        prismd.exists(),
        "there is no {}; build it with `cargo build --release`, or set PRISM_BIN_DIR",
        prismd.display()
    );
    let mut command = Command::new(&prismd);
    command
        .args(["--bootstrap", "--api=127.0.0.1:0", "--data-dir"])
        .arg(data)
        .env("HOME", dir)
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .stdin(Stdio::null())
        .stdout(File::create(dir.join("out"))?)
        .stderr(File::create(dir.join("err"))?);
    command
        .spawn()
        .with_context(|| format!("{} does not start", prismd.display()))
}

/// Waits until the supervisor is there: it is the last part that starts.
fn up(server: &mut Child, data: &Path) -> Result<()> {
    let start = Instant::now();
    while procs::of_node(data).is_empty() {
        if let Some(status) = server.try_wait()? {
            bail!("prismd ended with {status}");
        }
        ensure!(
            start.elapsed() < WAIT,
            "prismd has no supervisor after {WAIT:?}"
        );
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn measure(server: u32, data: &Path, time: Duration) -> Value {
    let all = || {
        let mut pids = procs::of_node(data);
        pids.push(server);
        pids
    };
    let ticks = |pids: &[u32]| pids.iter().map(|pid| procs::ticks(*pid)).sum::<u64>();
    let pids = all();
    let (begin, before) = (Instant::now(), ticks(&pids));
    std::thread::sleep(time);
    let used =
        ticks(&pids).saturating_sub(before) as f64 / rustix::param::clock_ticks_per_second() as f64;
    let passed = begin.elapsed().as_secs_f64();
    let pids = all();
    let rss: u64 = pids.iter().map(|pid| procs::rss_kib(*pid)).sum();
    json!({
        // The sum over processes: pages that two of them share count twice.
        "rss_mib": round(rss as f64 / 1024.0),
        "cpu_percent": round(100.0 * used / passed),
        "processes": pids.len(),
        "seconds": round(passed),
    })
}

fn end(server: &mut Child) -> Result<()> {
    let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
    if let (Some(pid), None) = (pid, server.try_wait()?) {
        kill_process(pid, Signal::TERM)?;
    }
    let start = Instant::now();
    while server.try_wait()?.is_none() {
        if start.elapsed() > WAIT {
            server.kill()?;
            server.wait()?;
            bail!("prismd did not end within {WAIT:?} and was killed");
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn log(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("err")).unwrap_or_default();
    format!("prismd said: {text}")
}
