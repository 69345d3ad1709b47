//! What this machine is and how busy it is: real readings from the kernel, `None` where it does not tell.

use std::fs;
use std::path::{Path, PathBuf};

use prism_link::{NodeFacts, Readings};
use prism_runtime::Capability;
use prism_types::{Bytes, MilliCpu, Resources};

/// What this machine is.
pub fn facts(data_dir: &Path, capabilities: &[Capability], allow_plain: bool) -> NodeFacts {
    let (_, disk) = disk(data_dir).unwrap_or((0, 0));
    let uname = rustix::system::uname();
    let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
    NodeFacts {
        os: os_name(),
        kernel: text(uname.release()),
        arch: text(uname.machine()),
        cpus: cpus(),
        memory: Bytes(memory().map_or(0, |(_, total)| total)),
        disk: Bytes(disk),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: text(uname.nodename()),
        sandbox: capabilities
            .iter()
            .filter(|c| !c.works)
            .map(|c| format!("{}: {}; {}", c.name, c.found, c.lost))
            .collect(),
        isolation: capabilities.iter().all(|c| c.works || !c.required),
        images: Vec::new(),
        allow_plain,
    }
}

/// What this machine can offer: its processors, its memory less a tenth, the free space of its disk.
pub fn capacity(data_dir: &Path) -> Resources {
    let (used, total) = disk(data_dir).unwrap_or((0, 0));
    let memory = memory().map_or(0, |(_, total)| total);
    Resources {
        cpu: MilliCpu(cpus().saturating_mul(1000)),
        memory: Bytes(memory - memory / 10),
        disk: Bytes(total.saturating_sub(used)),
    }
}

fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

fn os_name() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map_or_else(
            || "Linux".to_owned(),
            |name| name.trim_matches('"').to_owned(),
        )
}

/// Memory in use and in all, bytes.
fn memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    };
    let total = field("MemTotal:")?;
    Some((total.saturating_sub(field("MemAvailable:")?), total))
}

/// Disk in use (what others cannot have) and in all, bytes.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let total = stat.f_blocks * stat.f_frsize;
    Some((total.saturating_sub(stat.f_bavail * stat.f_frsize), total))
}

/// Busy and total jiffies of all processors.
fn jiffies() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let numbers: Vec<u64> = text
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|n| n.parse().ok())
        .collect();
    let total: u64 = numbers.iter().sum();
    let idle = numbers.get(3)? + numbers.get(4)?;
    Some((total.saturating_sub(idle), total))
}

fn load() -> Option<[f64; 3]> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let mut n = text.split_whitespace().map(str::parse::<f64>);
    Some([n.next()?.ok()?, n.next()?.ok()?, n.next()?.ok()?])
}

/// Takes readings; keeps what differences are taken from.
#[derive(Debug)]
pub struct Meter {
    data_dir: PathBuf,
    last: Option<(u64, u64)>,
    readings: Readings,
    pressure_memory: f64,
    pressure_disk: f64,
}

impl Meter {
    /// A meter for the machine, and for the disk that holds `data_dir`.
    pub fn new(data_dir: &Path, pressure_memory: f64, pressure_disk: f64) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            last: jiffies(),
            readings: Readings::default(),
            pressure_memory,
            pressure_disk,
        }
    }

    /// Readings now; what runs is filled in by the caller.
    pub fn read(&mut self) -> Readings {
        let now = jiffies();
        let cpu = match (self.last, now) {
            (Some((busy0, total0)), Some((busy1, total1))) if total1 > total0 => {
                Some((busy1.saturating_sub(busy0)) as f64 / (total1 - total0) as f64)
            }
            _ => None,
        };
        self.last = now;
        let memory = memory();
        let disk = disk(&self.data_dir);
        let above = |reading: Option<(u64, u64)>, limit: f64| {
            reading.is_some_and(|(used, total)| total > 0 && used as f64 > limit * total as f64)
        };
        self.readings = Readings {
            cpu,
            load: load(),
            memory_used: memory.map(|m| m.0),
            memory_total: memory.map(|m| m.1),
            disk_used: disk.map(|d| d.0),
            disk_total: disk.map(|d| d.1),
            pressure: above(memory, self.pressure_memory) || above(disk, self.pressure_disk),
            ..Readings::default()
        };
        self.readings
    }

    /// The readings taken last.
    pub fn last(&self) -> Readings {
        self.readings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_of_this_machine() {
        let mut meter = Meter::new(Path::new("/"), 0.8, 0.95);
        let r = meter.read();
        assert!(r.memory_total.is_some_and(|t| t > 1 << 26), "{r:?}");
        assert!(r.memory_used < r.memory_total);
        assert!(r.load.is_some());
        assert!(capacity(Path::new("/")).cpu.0 >= 1000);
        assert!(!facts(Path::new("/"), &[], false).kernel.is_empty());
    }

    #[test]
    fn the_guard_closes_above_its_threshold() {
        assert!(Meter::new(Path::new("/"), 0.0, 1.0).read().pressure);
        assert!(!Meter::new(Path::new("/"), 1.0, 1.0).read().pressure);
    }
}
