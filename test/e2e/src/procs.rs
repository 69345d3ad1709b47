//! Processes, as `/proc` shows them: which belong to a directory of ours, and how they end. Touches no others.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

/// A process of which another with the same number can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it was started, in ticks after boot.
    pub started: u64,
}

impl Process {
    /// The process of this id, if there is one that has not ended.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        let ended = stat.starts_with('Z') || stat.starts_with('X');
        let started = stat.split(' ').nth(19)?.parse().ok()?;
        (!ended).then_some(Self { pid, started })
    }

    /// Whether it is still there.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// Every process that a process started, and what those started, as far as they still know their parents.
pub fn beneath(pid: u32) -> Vec<Process> {
    let all: Vec<(u32, u32)> = pids()
        .into_iter()
        .filter_map(|p| Some((p, parent(p)?)))
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while next < family.len() {
        let of = family[next];
        family.extend(all.iter().filter(|(_, p)| *p == of).map(|(p, _)| *p));
        next += 1;
    }
    family[1..].iter().filter_map(|p| Process::of(*p)).collect()
}

/// The supervisor of a data directory: the first of the processes that were started as such.
pub fn supervisor(data: &Path) -> Option<Process> {
    let directory = data.join("supervisor");
    let is = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0).skip(1);
        words.next() == Some(b"supervise") && words.next() == Some(directory.as_os_str().as_bytes())
    };
    // What it forks has its command line until it becomes another program.
    let found: Vec<u32> = pids().into_iter().filter(|pid| is(*pid)).collect();
    let first = found
        .iter()
        .filter(|pid| parent(**pid).is_some_and(|p| !found.contains(&p)));
    first.filter_map(|pid| Process::of(*pid)).next()
}

/// Whether a process is there (one that has ended but was not waited for counts as gone).
pub fn alive(pid: u32) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    test_kill_process(id).is_ok() && !is_zombie(pid)
}

/// Ends a process at once.
pub fn kill(pid: u32) {
    if let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may be gone already, which is what is wanted.
        let _ = kill_process(id, Signal::KILL);
    }
}

/// Ends a process group at once.
pub fn kill_group(leader: u32) {
    if let Some(id) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // As above.
        let _ = kill_process_group(id, Signal::KILL);
    }
}

/// Every process that was started with `directory` in its arguments or environment or lives in a file system beneath it,
/// with all their descendants, oldest first.
pub fn of(directory: &Path) -> Vec<u32> {
    let all = pids();
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let me = std::process::id();
    let needle = directory.as_os_str().as_bytes();
    let mut found: BTreeSet<u32> = all
        .iter()
        .copied()
        .filter(|pid| *pid != me && !is_zombie(*pid))
        .filter(|pid| {
            let holds = |file: &str| {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                bytes.windows(needle.len()).any(|w| w == needle)
            };
            let elsewhere = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() != own;
            holds("cmdline") || holds("environ") || (elsewhere && holds("mountinfo"))
        })
        .collect();
    loop {
        let more: Vec<u32> = all
            .iter()
            .copied()
            .filter(|pid| !found.contains(pid) && !is_zombie(*pid))
            .filter(|pid| parent(*pid).is_some_and(|p| found.contains(&p)))
            .collect();
        if more.is_empty() {
            return found.into_iter().collect();
        }
        found.extend(more);
    }
}

/// Name and arguments of a process, for messages.
pub fn describe(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    format!("{pid} {}", text.trim())
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// The fields of `stat` after the name, which may hold anything.
fn stat(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.to_owned())
}

fn is_zombie(pid: u32) -> bool {
    stat(pid).is_none_or(|s| s.starts_with('Z') || s.starts_with('X'))
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.split(' ').nth(1)?.parse().ok()
}
