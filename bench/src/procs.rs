//! Processes, mounts and cgroups of one node, as the kernel shows them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The supervisor of a node's directory, and everything beneath it.
pub fn of_node(data_dir: &Path) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = pids()
        .into_iter()
        .filter_map(|p| Some((p, parent(p)?)))
        .collect();
    let mut found: BTreeSet<u32> = parents
        .iter()
        .map(|(pid, _)| *pid)
        .filter(|pid| supervises(*pid, data_dir))
        .collect();
    loop {
        let before = found.len();
        for (pid, parent) in &parents {
            if found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return found.into_iter().collect();
        }
    }
}

fn supervises(pid: u32, data_dir: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|b| *b == 0).skip(1);
    words.next() == Some(b"supervise")
        && words
            .next()
            .is_some_and(|dir| dir.starts_with(data_dir.as_os_str().as_bytes()))
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// The fields of `stat` after the name, which may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = text.rsplit_once(") ")?.1;
    Some(rest.split(' ').map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Processor time so far, in ticks of the clock.
pub fn ticks(pid: u32) -> u64 {
    let fields = stat(pid).unwrap_or_default();
    let field = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    field(11) + field(12)
}

/// Resident memory in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Different namespaces of these processes.
pub fn namespaces(pids: &[u32]) -> BTreeSet<PathBuf> {
    let of = |pid: &u32| {
        let dir = fs::read_dir(format!("/proc/{pid}/ns"))
            .into_iter()
            .flatten()
            .flatten();
        dir.filter_map(|e| fs::read_link(e.path()).ok())
            .collect::<Vec<_>>()
    };
    pids.iter().flat_map(of).collect()
}

/// Mounts of a file system, or on a place, beneath a directory, in this process's view and in those of `pids`.
pub fn mounts(dir: &Path, pids: &[u32]) -> u64 {
    let needle = dir.display().to_string();
    let count = |pid: String| {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        table.lines().filter(|l| l.contains(&needle)).count() as u64
    };
    count("self".to_owned()) + pids.iter().map(|pid| count(pid.to_string())).sum::<u64>()
}

/// The groups of nodes (`…/prism/<instance>`) that exist, in every hierarchy.
pub fn instances() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut look = vec![PathBuf::from(CGROUPS)];
    while let Some(dir) = look.pop() {
        let holds_instances = dir.file_name().is_some_and(|n| n == "prism");
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if holds_instances {
                found.insert(entry.path());
            } else {
                look.push(entry.path());
            }
        }
    }
    found
}
