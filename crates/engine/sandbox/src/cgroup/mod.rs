//! Limits and counts of everything in a run together, by whichever generation of cgroups the host has.
//!
//! Groups are pooled: making and removing them is much of what a sandbox costs. A pooled group keeps its files open.

mod claim;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use prism_runtime::{Capability, Limits, Usage};

pub use v1::V1;
pub use v2::V2;

/// One group. Dropping it closes its files and leaves the directories.
#[derive(Debug)]
pub struct Group {
    /// Its name beneath the instance's parent group.
    pub name: String,
    /// Open files, in the driver's own order; empty when parked.
    files: Vec<OwnedFd>,
    /// Open files to join what only some limits need, as `applied` says.
    joins: Vec<OwnedFd>,
    /// The limits that are written.
    applied: Option<Applied>,
    /// Bytes that were charged to it when the run began: what an earlier one has left.
    held: u64,
    /// Kernel's count of out-of-memory kills when the run began.
    kills_before: u64,
    /// Kernel's count of refused processes when the run began.
    refused_before: u64,
}

impl Group {
    /// Takes over what another handle of the same group knows to be written.
    pub fn take_limits(&mut self, other: &Self) {
        self.applied = other.applied;
        self.kills_before = other.kills_before;
        self.refused_before = other.refused_before;
    }

    /// Bytes that were charged to it when its limits were last applied.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether its files are open.
    pub fn is_open(&self) -> bool {
        !self.files.is_empty()
    }

    /// Closes its files; what is asked of it later goes by its name.
    pub fn close(&mut self) {
        self.files = Vec::new();
        self.joins = Vec::new();
    }
}

/// The limits that a group holds: cpu, memory, pids, io.
type Applied = (u64, u64, u32, u64);

fn wanted(limits: &Limits) -> Applied {
    (
        u64::from(limits.cpu.0),
        limits.memory.0,
        limits.pids,
        limits.io_bytes_per_s,
    )
}

/// What a group knows at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Highest memory use in bytes, if it is counted.
    pub peak: Option<u64>,
    /// Whether the kernel killed something in it for memory since the run began.
    pub out_of_memory: bool,
    /// How often a process or thread was refused at the limit since the run began.
    pub pids_refused: u64,
}

/// A generation of cgroups.
pub trait Driver {
    /// Makes a group, or opens it if it is there.
    ///
    /// # Errors
    /// The kernel's.
    fn make(&self, name: &str) -> io::Result<Group>;

    /// Writes the limits that differ from what the group holds, and begins to count anew.
    ///
    /// # Errors
    /// Which limit could not be set, and why.
    fn apply(&self, group: &mut Group, limits: &Limits) -> Result<(), String>;

    /// The group as a place to clone a process into, where that exists.
    fn clone_into<'a>(&self, group: &'a Group) -> Option<BorrowedFd<'a>>;

    /// The files into which a process writes "0" to move itself into the group, where it was not cloned into it.
    fn joins<'a>(&self, group: &'a Group) -> Vec<BorrowedFd<'a>>;

    /// Opens what [`Driver::joins`] needs beyond what `make` opened, for limits that another handle of the group has written.
    ///
    /// # Errors
    /// The kernel's.
    fn open_joins(&self, group: &mut Group) -> io::Result<()>;

    /// The kernel's count of out-of-memory kills in the group, ever.
    fn kills(&self, group: &Group) -> u64;

    /// The kernel's count of processes and threads that were refused at the group's limit, ever.
    fn refused(&self, group: &Group) -> u64;

    /// What became of a run.
    fn outcome(&self, group: &Group) -> Outcome;

    /// Counts of a live group.
    fn usage(&self, name: &str) -> Usage;

    /// Whether processes can be held on some processors.
    fn can_hold(&self) -> bool;

    /// The processor time that its processes took, ever; without that of some that are over, where the kernel does not count it.
    /// `None` where that is not known.
    fn used(&self, name: &str) -> Option<Duration>;

    /// Holds the group's processes, and their children to come, on these processors.
    ///
    /// # Errors
    /// The kernel's; some may be held.
    fn hold(&self, name: &str, cpus: &[usize]) -> io::Result<()>;

    /// Whether nothing is left for [`Driver::hold`] to do.
    fn is_held(&self, name: &str, cpus: &[usize]) -> bool;

    /// Undoes [`Driver::hold`].
    fn let_go(&self, name: &str);

    /// The processes in a group, as this process numbers them.
    fn processes(&self, name: &str) -> Vec<i32>;

    /// Whether it is known that no process is in it: a quick look, for which "no" may be wrong.
    fn is_empty(&self, group: &Group) -> bool;

    /// Kills everything in it; true when nothing is left.
    fn kill(&self, name: &str) -> bool;

    /// Removes the group's directories; fails quietly while something is in them.
    fn remove(&self, name: &str);

    /// Groups that exist now, whoever made them.
    fn names(&self) -> Vec<String>;

    /// The instance's parent group; where there are several trees, in the one that limits memory.
    fn parent(&self) -> &Path;

    /// The instances that have a parent group beside this one, claimed or not.
    fn others(&self) -> Vec<Box<dyn Driver>>;

    /// Removes the instance's parent group once it is empty.
    fn remove_parent(&self);

    /// What works of it.
    fn capabilities(&self) -> Vec<Capability>;
}

/// Moves this process into the groups behind these files; see [`Driver::joins`].
///
/// # Errors
/// The kernel's.
pub fn join(files: &[BorrowedFd<'_>]) -> io::Result<()> {
    files
        .iter()
        .try_for_each(|file| rustix::io::write(file, b"0").map(drop))?;
    Ok(())
}

/// Finds the generation that limits memory here and prepares the instance's parent group `prism/<instance>`, which is claimed
/// until the driver is dropped.
///
/// # Errors
/// Why there is none that may be written.
pub fn detect(instance: &str) -> Result<Box<dyn Driver>, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
    let mut v1 = Vec::new();
    let mut v2 = None;
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(at) = left.split(' ').nth(4) else {
            continue;
        };
        let mut right = right.split(' ');
        match right.next() {
            Some("cgroup2") => v2 = Some(PathBuf::from(at)),
            Some("cgroup") => {
                let options = right.nth(1).unwrap_or_default();
                v1.push((PathBuf::from(at), options.to_owned()));
            }
            _ => {}
        }
    }
    if let Some(root) = v2 {
        match V2::prepare(&root, instance) {
            Ok(driver) => return Ok(Box::new(driver)),
            Err(e) if v1.is_empty() => return Err(e),
            Err(_) => {}
        }
    }
    V1::prepare(&v1, instance).map(|driver| Box::new(driver) as Box<dyn Driver>)
}

/// Clears away what an earlier supervisor of this instance left behind, and the groups of instances that have none any more.
pub fn clear_away(driver: &dyn Driver) {
    sweep(driver);
    claim::clear(driver);
}

/// Kills and removes every group of an instance that an earlier supervisor left behind. Bounded in time.
fn sweep(driver: &dyn Driver) {
    for _ in 0..500 {
        let names = driver.names();
        if names.is_empty() {
            return;
        }
        let mut busy = false;
        for name in &names {
            if driver.kill(name) {
                driver.remove(name);
            } else {
                busy = true;
            }
        }
        if busy {
            // Killed processes need a moment to be gone; nothing tells when.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What is lost without sets of processors.
const NO_SETS: &str = "a run that is always at its cpu limit is not kept off its neighbours' processors; mount or hand down the cpuset controller";

/// Processors, in order, as the kernel lists them: `0,2-4`.
fn list(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b);
    let text = |run: &[usize]| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    runs.map(text).collect::<Vec<_>>().join(",")
}

/// Quota and period, in microseconds, of thousandths of a processor. The period is short, so that a run that takes its whole
/// share at once on all processors holds its neighbours up for a moment only; the kernel's least quota is a millisecond.
fn quota(milli: u64) -> (u64, u64) {
    let period = if milli < 100 { 100_000 } else { 10_000 };
    ((milli * period / 1_000).max(1_000), period)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn read_number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// The value of `key` in text of lines `key value`.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn read_processes(path: &Path) -> Vec<i32> {
    read(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|l| l.parse().ok())
        .collect()
}

fn kill_all(processes: &[i32]) {
    for pid in processes {
        let _ = prism_sys::process::kill(*pid, libc::SIGKILL);
    }
}

fn subdirectories(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

/// The block devices that a bandwidth limit is for, as `major:minor`: every whole disk.
fn disks() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| {
            let name = e.file_name();
            let name = name.to_string_lossy();
            !name.starts_with("loop") && !name.starts_with("ram")
        })
        .filter_map(|e| read(&e.path().join("dev")))
        .map(|text| text.trim().to_owned())
        .collect()
}

/// The instances in the directory of `parent` but for it.
fn instances_beside(parent: &Path) -> Vec<String> {
    let mut names = parent.parent().map(subdirectories).unwrap_or_default();
    names.retain(|name| parent.file_name().is_none_or(|own| own != name.as_str()));
    names
}

fn capability(controller: &str, found: &Path, works: bool, lost: &str) -> Capability {
    Capability {
        name: format!("cgroup-{controller}"),
        works,
        found: if works {
            found.display().to_string()
        } else {
            "not available".to_owned()
        },
        lost: if works {
            String::new()
        } else {
            lost.to_owned()
        },
        required: false,
    }
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn processors_are_listed_as_the_kernel_does() {
        for (cpus, text) in [
            (&[3][..], "3"),
            (&[0, 1], "0-1"),
            (&[0, 2, 3, 4, 7], "0,2-4,7"),
            (&[], ""),
        ] {
            assert_eq!(list(cpus), text);
        }
    }
}
