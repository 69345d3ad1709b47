//! Runs a command to its end with its output kept aside, and with a deadline after which it and its descendants are killed.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How a command ended.
pub struct Ended {
    /// It ended with exit code 0 in time.
    pub ok: bool,
    /// What it printed, both streams in order.
    pub output: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs a command without input; `scratch` is an existing directory for its output.
pub fn run(command: &mut Command, scratch: &Path, limit: Duration) -> Result<Ended> {
    let path = scratch.join("output");
    let file = File::create(&path).with_context(|| format!("creating {path:?}"))?;
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting {:?}", command.get_program()))?;
    let pid = child.id();
    let (sender, ended) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        // The receiver lives until this thread is joined below.
        let _ = sender.send(child.wait());
    });
    let mut late = false;
    let status = match ended.recv_timeout(limit) {
        Ok(status) => status,
        Err(_) => {
            late = true;
            kill(&with_descendants(pid));
            ended.recv().context("the waiting thread is gone")?
        }
    }
    .context("waiting for it")?;
    waiter.join().ok().context("the waiting thread panicked")?;
    let mut output = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
    if late {
        output.push_str(&format!("\nkilled: not over after {} s\n", limit.as_secs()));
    } else if !status.success() && !output.contains("test result:") {
        output.push_str(&format!("\n{status}\n"));
    }
    Ok(Ended {
        ok: status.success() && !late,
        output,
        took: started.elapsed(),
    })
}

/// A process and all that it started, as far as they still know their parents.
fn with_descendants(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // "pid (name) state parent ...", where the name may hold anything.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| {
            let number = rest.split(' ').nth(1)?;
            number.parse::<u32>().ok()
        });
        if let Some(parent) = parent {
            parents.push((id, parent));
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == parent)
                .map(|(id, _)| *id),
        );
        next += 1;
    }
    family
}

fn kill(pids: &[u32]) {
    let mut command = Command::new("kill");
    command.arg("-KILL").args(pids.iter().map(u32::to_string));
    // Some may be gone already, which is what is wanted.
    let _ = command.stderr(Stdio::null()).status();
}
