//! What a figure was measured on.

use std::fs;

use serde_json::{Value, json};

/// The machine, as far as it explains a figure.
pub fn describe() -> Value {
    let uname = rustix::system::uname();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    json!({
        "cpus": cpus(),
        "memory_bytes": memory("MemTotal:"),
        "kernel": uname.release().to_string_lossy(),
        "os": name.map_or("Linux", |n| n.trim_matches('"')),
        "root": rustix::process::geteuid().is_root(),
    })
}

/// Processors that this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A field of `/proc/meminfo` in bytes.
pub fn memory(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with(field))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
