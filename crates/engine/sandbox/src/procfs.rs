//! Reading `/proc` of processes that are ours: who descends from whom, and what they use.

use std::fs;

/// Clock ticks per second in `/proc`; fixed in the kernel's interface.
const TICKS: u64 = 100;

/// Children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|p| p.parse().ok())
        .collect()
}

/// Everything that descends from a process, parents first. Bounded.
pub fn descendants(pid: u32) -> Vec<u32> {
    const LIMIT: usize = 100_000;
    let mut found = children(pid);
    let mut at = 0;
    while at < found.len() && found.len() < LIMIT {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

/// The child of `init` that calls itself `inner` in its own pid namespace.
pub fn child_named(init: u32, inner: u32) -> Option<u32> {
    let inner = inner.to_string();
    children(init).into_iter().find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .unwrap_or_default()
            .lines()
            .find_map(|l| l.strip_prefix("NSpid:"))
            .and_then(|l| l.split_whitespace().last().map(|n| n == inner))
            .unwrap_or(false)
    })
}

/// Processor time of a process and its reaped children in microseconds, and its resident memory in bytes.
pub fn usage(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold anything, so count from its closing parenthesis.
    let Some((_, rest)) = text.rsplit_once(") ") else {
        return (0, 0);
    };
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |i: usize| fields.get(i).and_then(|f| f.parse().ok()).unwrap_or(0u64);
    let ticks: u64 = (11..15).map(number).sum();
    (ticks * 1_000_000 / TICKS, number(21) * 4096)
}
